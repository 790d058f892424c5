"""Archived events: the statements, run inside the tick's transaction or as reads of their own.

Theory of operation. A window of an archive is read by key, (time, number), from the index that has them in this order,
so that a page costs the same wherever it lies; the place of a page is the key of its last event. What an archive holds
is summed up in a row of its own, changed in the transaction that adds or removes, once for each archive.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import Any

import apsw

from bus.store import Append, ArchivedEvent, ArchiveSize, Place
from bus.store.database import rows, scan

_INSERT = "INSERT INTO archived(archive, time, ts, size, body) VALUES(?,?,?,?,?)"
_GROW = (
    "INSERT INTO archive_size(archive, events, bytes) VALUES(?1,?2,?3)"
    " ON CONFLICT(archive) DO UPDATE SET events=events+?2, bytes=bytes+?3"
)
_SIZES = "SELECT archive, events, bytes FROM archive_size ORDER BY archive"


def _window(columns: str) -> str:
    """What lies behind the place (?2, ?3) and before the time ?4.

    Two ranges of the index, merged: compared as one pair, SQLite would walk through the whole second of the place.
    """
    select = f"SELECT {columns} FROM archived INDEXED BY archived_time WHERE archive=?1 AND time<?4 AND"
    return f"{select} time=?2 AND number>?3 UNION ALL {select} time>?2"


_READ = f"{_window('time, number, ts, body')} ORDER BY time, number LIMIT ?5"
_NTH = f"{_window('time, number')} ORDER BY time, number LIMIT 1 OFFSET ?5"
_COUNT = f"SELECT count(*) FROM ({_window('1')})"
_LAST = "SELECT max(time) FROM archived INDEXED BY archived_time WHERE archive=? AND time>=? AND time<?"

_OLD = "SELECT number, size FROM archived INDEXED BY archived_ts WHERE archive=? AND ts<? ORDER BY ts LIMIT ?"
_REMOVE = "DELETE FROM archived WHERE number=?"
_SHRINK = "UPDATE archive_size SET events=events-?, bytes=bytes-? WHERE archive=?"
_EMPTY = "DELETE FROM archive_size WHERE archive=? AND events=0"


def insert(connection: apsw.Connection, events: Iterable[Append]) -> None:
    """Add events to the archives that each of them names."""
    added: list[tuple[int, int, int, int, bytes]] = []
    grown: dict[int, tuple[int, int]] = {}
    for event in events:
        for archive, time, size in event.archives:
            added.append((archive, time, event.ts, size, event.body))
            count, total = grown.get(archive, (0, 0))
            grown[archive] = (count + 1, total + size)
    connection.executemany(_INSERT, added)
    connection.executemany(_GROW, [(archive, *sums) for archive, sums in grown.items()])


def read(
    connection: apsw.Connection, archive: int, after: Place, before: int, limit: int, max_bytes: int
) -> list[ArchivedEvent]:
    """The events behind a place and before a time, until there are ``limit`` of them or ``max_bytes`` in all."""
    found: list[ArchivedEvent] = []
    with closing(scan(connection, _READ, (archive, *after, before, limit))) as window:
        for time, number, ts, body in window:
            max_bytes -= len(body)
            if max_bytes < 0 and found:
                break
            found.append(ArchivedEvent(Place(time, number), ts, body))
    return found


def count(connection: apsw.Connection, archive: int, after: Place, before: int, limit: int) -> tuple[int, Place | None]:
    """How many events lie behind a place and before a time: at most ``limit``, then with the place to go on from."""
    nth = rows(connection, _NTH, (archive, *after, before, limit - 1))
    if nth:
        return limit, Place(*nth[0])
    ((counted,),) = rows(connection, _COUNT, (archive, *after, before))
    return int(counted), None


def last_time(connection: apsw.Connection, archive: int, from_time: int, before: int) -> int | None:
    """The latest time of an event within a span."""
    ((latest,),) = rows(connection, _LAST, (archive, from_time, before))
    return None if latest is None else int(latest)


def trim(connection: apsw.Connection, archive: int, before_ts: int, limit: int) -> int:
    """Remove up to ``limit`` events that were ingested before an instant; how many they were."""
    old: list[tuple[Any, ...]] = connection.execute(_OLD, (archive, before_ts, limit)).fetchall()
    if old:
        connection.executemany(_REMOVE, [(number,) for number, _ in old])
        connection.execute(_SHRINK, (len(old), sum(int(size) for _, size in old), archive))
    connection.execute(_EMPTY, (archive,))
    return len(old)


def sizes(connection: apsw.Connection) -> list[ArchiveSize]:
    """What every archive with events holds."""
    return [ArchiveSize(*row) for row in rows(connection, _SIZES)]
