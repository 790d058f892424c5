"""The configuration table: (kind, key) to bytes under one global revision, and those who watch it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import apsw

from bus.errors import RevisionConflict
from bus.store import ConfChange, ConfEntry
from bus.store.database import rows
from bus.store.journal import Journal

_WRITE = "INSERT OR REPLACE INTO conf(kind, key, value, rev) VALUES(?,?,?,?)"
_REVISION = "SELECT rev FROM conf WHERE kind=? AND key=? AND value IS NOT NULL"
_LIST = "SELECT kind, key, value, rev FROM conf WHERE kind=? AND value IS NOT NULL ORDER BY key"
_SINCE = "SELECT kind, key, value, rev FROM conf WHERE rev>? ORDER BY rev"


class Configuration:
    """See `bus.store.Store` for what every method promises."""

    def __init__(self, connection: apsw.Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal
        ((highest,),) = rows(connection, "SELECT coalesce(max(rev), 0) FROM conf")
        self._rev = int(highest)
        self._changed = asyncio.Event()

    def allocate(self) -> int:
        """The next revision, which doubles as a number for whatever is about to be written under it.

        Nothing needs to be stored for it: a number is only ever used in a value that is put later,
        at a higher revision.
        """
        self._rev += 1
        return self._rev

    async def put(self, changes: Sequence[ConfChange]) -> int:
        def work(connection: apsw.Connection) -> int:
            for change in changes:
                _check_revision(connection, change)
                connection.execute(_WRITE, (change.kind, change.key, change.value, self.allocate()))
            return self._rev

        return await self._journal.submit(work, then=self._announce)

    def _announce(self, rev: int) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def list(self, kind: str) -> tuple[int, list[ConfEntry]]:
        return self._rev, [ConfEntry(*row) for row in rows(self._connection, _LIST, (kind,))]

    async def watch(self, since: int) -> AsyncIterator[ConfEntry]:
        while True:
            changed = self._changed  # before looking, so that a change in between is not waited for
            for row in rows(self._connection, _SINCE, (since,)):
                entry = ConfEntry(*row)
                since = entry.rev
                yield entry
            await changed.wait()


def _check_revision(connection: apsw.Connection, change: ConfChange) -> None:
    if change.expect_rev is None:
        return
    row = connection.execute(_REVISION, (change.kind, change.key)).fetchone()
    found = int(row[0]) if row else 0
    if found != change.expect_rev:
        raise RevisionConflict(f"{change.kind} {change.key} is at revision {found}, not {change.expect_rev}")
