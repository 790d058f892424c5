"""The embedded engine: one SQLite database in WAL mode, written by one process, forced to disk at every commit."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence, Set
from contextlib import closing
from typing import Any, TypeVar

import apsw
import orjson

from bus.clock import Clock
from bus.store import (
    DEDUP_WINDOW_MS,
    NOWHERE,
    Append,
    Appended,
    ArchivedEvent,
    ArchiveSize,
    Backlog,
    Caps,
    ConfChange,
    ConfEntry,
    Done,
    Lease,
    LoggedEvent,
    NewMessage,
    Outcome,
    Place,
    Retry,
)
from bus.store import archives as archive_tables
from bus.store import messages as message_table
from bus.store.checkpoints import WAL_LIMIT, Checkpoints
from bus.store.configuration import Configuration
from bus.store.database import FILE_NAME, DirectoryLock, connect, make_directory, make_file, open_again, rows, scan
from bus.store.journal import MAX_WEIGHT, PROBE_EVERY_S, Journal
from bus.store.leases import Held, Leases

Result = TypeVar("Result")

BESIDE_CACHE_KIB = 8192
"""Holds what a lot of rows changes; what was stored before is not looked at."""

_EVENT = "INSERT INTO event(seq, id, bus, ts, keep, attrs, body) VALUES(?,?,?,?,?,?,?)"
_DELIVERY = "INSERT INTO delivery(seq, route, due, expires) VALUES(?,?,?,?)"
_PASS = "DELETE FROM event WHERE seq=?"
_KNOWN = "SELECT seq FROM dedup WHERE bus=? AND key=?"
_REMEMBER = "INSERT OR REPLACE INTO dedup(bus, key, seq, ts) VALUES(?,?,?,?)"
_FORGET = "DELETE FROM dedup WHERE ts<=?"

_READ = (
    "SELECT seq, id, bus, ts, body, attrs FROM event INDEXED BY event_kept"
    " WHERE keep AND bus=? AND seq>? AND ts>=? AND ts<? ORDER BY seq LIMIT ?"
)
_OLD = "SELECT seq FROM event INDEXED BY event_kept_ts WHERE keep AND bus=? AND ts<? ORDER BY ts LIMIT ?"
_UNKEEP = "UPDATE event SET keep=0 WHERE seq=?"
_FORGET_EVENT = "DELETE FROM event WHERE seq=? AND NOT EXISTS (SELECT 1 FROM delivery WHERE seq=?)"
_END_OF_TIME = 1 << 62

_DUE = "SELECT seq FROM delivery WHERE route=? AND due<=? ORDER BY due, seq LIMIT ?"
_EXPIRED = "SELECT seq, route FROM delivery WHERE expires<=? ORDER BY expires"
# One statement for a page of leases is eight times as fast as one for each; the cross joins keep the page's order.
_LEASED = (
    "SELECT d.seq, d.route, d.attempts, d.expires, d.error, e.id, e.ts, e.body, e.attrs FROM json_each(?) k"
    " CROSS JOIN delivery d ON d.seq = k.value->>0 AND d.route = k.value->>1 CROSS JOIN event e ON e.seq = d.seq"
)
_DONE = "DELETE FROM delivery WHERE seq=? AND route=?"
_RETRY = "UPDATE delivery SET due=?, attempts=attempts+1, error=? WHERE seq=? AND route=?"
_BY_DUE = "SELECT due, seq, route FROM delivery WHERE route=? ORDER BY due, seq"
_BY_EXPIRY = "SELECT expires, seq, route FROM delivery ORDER BY expires"
_BACKLOG = "SELECT route, count(*), min(due) FROM delivery GROUP BY route"


class _Writes:
    """The rows that one append comes to, and what holds once they are on disk."""

    __slots__ = ("appended", "archived", "deliveries", "events", "granted", "messages", "passing")

    def __init__(self, messages: Sequence[NewMessage]) -> None:
        self.appended: list[Appended] = []
        self.archived: list[Append] = []
        self.events: list[tuple[Any, ...]] = []
        self.deliveries: list[tuple[int, int, int, int]] = []
        self.messages = list(messages)
        self.granted: list[tuple[int, int, Held]] = []
        self.passing: list[tuple[int]] = []
        """Events with a dedup key and nothing that needs their row: they only leave their number behind."""


async def open_store(
    data_dir: str, clock: Clock, *, wal_limit: int = WAL_LIMIT, probe_every_s: float = PROBE_EVERY_S
) -> SqliteStore:
    """The store of a data directory, or one that keeps nothing for ``:memory:``.

    Raises StoreUnusable, saying what to do, when the directory is in use, damaged or too new.
    ``wal_limit`` bounds the write-ahead log (bytes); ``probe_every_s`` is how often a disk that
    refused is tried again while nobody has anything to store.
    """
    if data_dir == ":memory:":
        return SqliteStore(connect(data_dir), clock, probe_every_s=probe_every_s)
    directory = make_directory(data_dir)
    lock = DirectoryLock(directory)
    try:
        path = str(directory / FILE_NAME)
        make_file(path)
        return SqliteStore(connect(path), clock, lock=lock, path=path, wal_limit=wal_limit, probe_every_s=probe_every_s)
    except BaseException:
        lock.release()
        raise


class SqliteStore:
    """See `bus.store.Store` for what every method promises."""

    caps = Caps(multi_node=False, max_batch=MAX_WEIGHT)

    def __init__(
        self,
        connection: apsw.Connection,
        clock: Clock,
        *,
        lock: DirectoryLock | None = None,
        path: str | None = None,
        wal_limit: int = WAL_LIMIT,
        probe_every_s: float = PROBE_EVERY_S,
    ) -> None:
        self._connection = connection
        self._lock = lock
        ((highest,),) = rows(connection, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name='event'")
        self._seq = int(highest)
        self._leases = Leases(first_fence=clock.now_ms() << 20)
        self._checkpoints = Checkpoints(connection, path, wal_limit=wal_limit)
        self.journal = Journal(
            connection,
            beside=None if path is None else open_again(path, cache_kib=BESIDE_CACHE_KIB),
            committed=self._checkpoints.committed,
            probe_every_s=probe_every_s,
        )
        self._configuration = Configuration(connection, self.journal)
        self.on_messages: Callable[[set[int]], None] = lambda queues: None

    @property
    def healthy(self) -> bool:
        """Whether the last commit reached the disk."""
        return self.journal.healthy

    @property
    def wal_bytes(self) -> int:
        """Size of the write-ahead log."""
        return self._checkpoints.wal_bytes()

    # -- log

    async def append(
        self, batch: Sequence[Append], *, messages: Sequence[NewMessage] = (), lease_until: int = 0
    ) -> list[Appended]:
        def work(connection: apsw.Connection) -> _Writes:
            writes = _Writes(messages)
            for event in batch:
                writes.appended.append(self._place(connection, event, lease_until, writes))
            _write(connection, writes)
            return writes

        weight = len(batch) + len(messages)
        return (await self.journal.submit(work, weight=weight, then=self._after_append)).appended

    def send(
        self,
        rows: Sequence[bytes],
        queues: Set[int],
        *,
        then: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        def stored() -> None:
            try:
                self.on_messages(set(queues))
            finally:
                then()

        self.journal.submit_rows(rows, then=stored, failed=failed)

    def _place(self, connection: apsw.Connection, event: Append, until: int, writes: _Writes) -> Appended:
        """Give one event its number and its rows."""
        if event.dedup_key is not None:
            known = _known(connection, event)
            if known:
                return Appended(known, duplicate=True)
        if event.messages:
            writes.messages.extend(event.messages)
        if event.archives:
            writes.archived.append(event)
        if not event.deliveries and not event.keep and event.dedup_key is None:
            return NOWHERE
        self._seq = seq = self._seq + 1
        writes.events.append((seq, event.event_id, event.bus, event.ts, event.keep, event.attrs, event.body))
        fences: list[int] = []
        for route, due, expires, lease in event.deliveries:
            writes.deliveries.append((seq, route, due, expires))
            if lease:
                fence = self._leases.next_fence()
                fences.append(fence)
                writes.granted.append((seq, route, (fence, until)))
        if event.dedup_key is not None:
            connection.execute(_REMEMBER, (event.bus, event.dedup_key, seq, event.ts))
            if not event.deliveries and not event.keep:
                writes.passing.append((seq,))
        return Appended(seq, fences)

    def _after_append(self, writes: _Writes) -> None:
        for seq, route, held in writes.granted:
            self._leases.take(seq, route, held)
        self._announce(writes.messages)

    def _announce(self, messages: Sequence[NewMessage]) -> None:
        if messages:
            self.on_messages({message.queue for message in messages})

    async def read(
        self, bus: int, *, after_seq: int = 0, from_ts: int | None = None, to_ts: int | None = None, limit: int = 1000
    ) -> list[LoggedEvent]:
        span = (from_ts or 0, _END_OF_TIME if to_ts is None else to_ts)
        return [LoggedEvent(*row) for row in rows(self._connection, _READ, (bus, after_seq, *span, limit))]

    async def trim(self, bus: int, before_ts: int, *, limit: int = 1000) -> int:
        def work(connection: apsw.Connection) -> int:
            seqs = connection.execute(_OLD, (bus, before_ts, limit)).fetchall()
            connection.executemany(_UNKEEP, seqs)
            connection.executemany(_FORGET_EVENT, [seq * 2 for seq in seqs])
            return len(seqs)

        return await self.journal.submit(work)

    # -- archives

    async def read_archive(
        self, archive: int, *, after: Place, before: int, limit: int, max_bytes: int = 1 << 20
    ) -> list[ArchivedEvent]:
        return archive_tables.read(self._connection, archive, after, before, limit, max_bytes)

    async def count_archive(self, archive: int, *, after: Place, before: int, limit: int) -> tuple[int, Place | None]:
        return archive_tables.count(self._connection, archive, after, before, limit)

    async def last_archived(self, archive: int, *, from_time: int, before: int) -> int | None:
        return archive_tables.last_time(self._connection, archive, from_time, before)

    async def trim_archive(self, archive: int, before_ts: int, *, limit: int = 200) -> int:
        return await self.journal.submit(
            lambda connection: archive_tables.trim(connection, archive, before_ts, limit), weight=limit
        )

    def archived(self) -> ArchiveSize:
        """What all archives hold together, under no number."""
        sizes = archive_tables.sizes(self._connection)
        return ArchiveSize(0, sum(size.events for size in sizes), sum(size.bytes for size in sizes))

    async def archive_sizes(self) -> list[ArchiveSize]:
        return archive_tables.sizes(self._connection)

    # -- deliveries

    async def claim(self, route: int, *, now: int, until: int, limit: int, max_bytes: int = 1 << 22) -> list[Lease]:
        held = self._leases.of(route)
        due = rows(self._connection, _DUE, (route, now, limit + len(held)))
        free = [(seq, route) for (seq,) in due if seq not in held or held[seq][1] <= now]
        return self._lease(free[:limit], until, max_bytes)

    async def claim_expired(self, *, now: int, until: int, limit: int) -> list[Lease]:
        free: list[tuple[int, int]] = []
        with closing(scan(self._connection, _EXPIRED, (now,))) as expired:
            for seq, route in expired:
                held = self._leases.of(route).get(seq)
                if held is None or held[1] <= now:
                    free.append((seq, route))
                    if len(free) == limit:
                        break
        return self._lease(free, until, 1 << 22)

    def _lease(self, keys: Sequence[tuple[int, int]], until: int, max_bytes: int) -> list[Lease]:
        leases: list[Lease] = []
        with closing(scan(self._connection, _LEASED, (orjson.dumps(keys).decode(),))) as found:
            for seq, route, attempts, expires, error, event_id, ts, body, attrs in found:
                max_bytes -= len(body)
                if max_bytes < 0 and leases:
                    break
                fence = self._leases.next_fence()
                leases.append(Lease(seq, route, fence, attempts, expires, until, event_id, ts, body, attrs, error))
        for lease in leases:  # only now: a damaged page among them must not leave some held by nobody
            self._leases.take(lease.seq, lease.route, (lease.fence, until))
        return leases

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        given_up: list[tuple[int, int, Held]] = []
        messages: list[NewMessage] = []

        def work(connection: apsw.Connection) -> list[bool]:
            results = []
            done: list[tuple[int, int]] = []
            retries: list[tuple[int, str, int, int]] = []
            for outcome in outcomes:
                held = self._leases.give_up(outcome.seq, outcome.route, outcome.fence)
                results.append(held is not None)
                if held is None:
                    continue
                given_up.append((outcome.seq, outcome.route, held))
                if type(outcome) is Done:
                    done.append((outcome.seq, outcome.route))
                    messages.extend(outcome.messages)
                elif type(outcome) is Retry:
                    retries.append((outcome.due, outcome.error, outcome.seq, outcome.route))
            if done:
                connection.executemany(_DONE, done)
            if retries:
                connection.executemany(_RETRY, retries)
            if messages:
                message_table.add(connection, messages)
            return results

        def undo() -> None:
            for given in given_up:
                self._leases.take(*given)
            given_up.clear()
            messages.clear()

        return await self.journal.submit(
            work, weight=len(outcomes), then=lambda results: self._announce(messages), undo=undo
        )

    async def next_due(self, route: int) -> int | None:
        with closing(scan(self._connection, _BY_DUE, (route,))) as waiting:
            return self._leases.earliest_free(waiting)

    async def next_expiry(self) -> int | None:
        with closing(scan(self._connection, _BY_EXPIRY)) as waiting:
            return self._leases.earliest_free(waiting)

    async def backlog(self) -> list[Backlog]:
        return [Backlog(*row) for row in rows(self._connection, _BACKLOG)]

    # -- queues

    async def transact(self, work: Callable[[Any], Result]) -> Result:
        return await self.journal.submit(work)

    # -- configuration

    async def conf_put(self, changes: Sequence[ConfChange]) -> int:
        return await self._configuration.put(changes)

    async def conf_list(self, kind: str) -> tuple[int, list[ConfEntry]]:
        return await self._configuration.list(kind)

    def conf_watch(self, since: int) -> AsyncIterator[ConfEntry]:
        return self._configuration.watch(since)

    def allocate(self) -> int:
        return self._configuration.allocate()

    # -- life

    async def close(self) -> None:
        self.journal.close()
        self._checkpoints.close()
        with contextlib.suppress(apsw.Error):  # all is on disk already
            self._connection.close()
        if self._lock is not None:
            self._lock.release()


def _known(connection: apsw.Connection, event: Append) -> int:
    """The number of the event that bore the same key within the window, 0 when there is none."""
    since = event.ts - DEDUP_WINDOW_MS
    connection.execute(_FORGET, (since,))
    row = connection.execute(_KNOWN, (event.bus, event.dedup_key)).fetchone()
    return int(row[0]) if row else 0


def _write(connection: apsw.Connection, writes: _Writes) -> None:
    if writes.events:
        connection.executemany(_EVENT, writes.events)
    if writes.deliveries:
        connection.executemany(_DELIVERY, writes.deliveries)
    if writes.passing:
        connection.executemany(_PASS, writes.passing)
    if writes.archived:
        archive_tables.insert(connection, writes.archived)
    if writes.messages:
        message_table.add(connection, writes.messages)
