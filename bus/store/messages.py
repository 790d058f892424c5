"""Sending, receiving and what receipts do: the statements, run inside the tick's transaction.

Theory of operation. SQL decides what may be received, so that no backlog is ever in memory, and each question is
answered by one index, so that its cost does not grow with what cannot be received:

* A standard queue is read in order of ``visible``: messages that are delayed or in flight lie behind the others.
* A FIFO queue yields, group by group, a prefix: its messages in order up to the first that is invisible. That single
  rule is the locking of groups. The first message of each group is marked ``head``; only heads are searched, so a
  locked group costs nothing, however many messages wait in it. Sends and the trigger ``message_next_head`` keep the
  invariant that exactly the lowest number of each group is its head.
* What a receive comes across and nobody may have (expired, or received too often) it deletes or moves, at most
  `BUDGET` at a time; ``Taken.more`` says that there was no end of it.

Nothing here looks at a clock or knows what a queue's attributes mean: instants (ms) and limits are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple, Protocol

import apsw

from bus.store import NewMessage

BUDGET = 100
"""Messages that one pass may discard or move, which bounds how long it holds up the event loop."""

_NO_CEILING = 1 << 62


class Stored(NamedTuple):
    """What a send came to: the message's number and id; of the first message when it was a duplicate."""

    number: int
    message_id: str
    duplicate: bool


class Source(NamedTuple):
    """A queue to take from: its number, kind, and the ``sent`` at or before which its messages have expired."""

    number: int
    fifo: bool
    oldest: int


class DeadLetters(NamedTuple):
    """Where messages go that were received ``after`` times, and the ARN they remember as their origin."""

    queue: int
    after: int
    origin: str
    by_group: bool


class Candidate(NamedTuple):
    """A message that may be received, before it is; ``received`` is its latest receive from this queue."""

    number: int
    sent: int
    received: int
    receives: int
    group: str | None
    message_id: str
    origin: str | None


class Received(NamedTuple):
    """A message as a receiver gets it; ``before`` is the receive before this one, unless it was ``repeated``."""

    number: int
    message_id: str
    sent: int
    receives: int
    first_received: int
    group: str | None
    dedup: str | None
    origin: str | None
    body: str
    attrs: bytes | None
    before: int = 0
    repeated: bool = False


class Taken(NamedTuple):
    """What a receive found; ``moved`` went to the dead-letter queue, ``more`` when the pass ended before its end."""

    messages: list[Received]
    moved: int
    more: bool


class Held(NamedTuple):
    """What a receipt handle is compared with."""

    sent: int
    visible: int
    received: int
    receives: int


def rows_of(connection: apsw.Connection, query: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    return connection.execute(query, bindings).fetchall()


def row_of(connection: apsw.Connection, query: str, bindings: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
    return connection.execute(query, bindings).fetchone()


def dedup_name(dedup_id: str, group: str | None) -> str:
    """A message's name in the deduplication memory; with ``group`` when each group has its own."""
    return dedup_id if group is None else f"{dedup_id}\n{group}"


# --- send -------------------------------------------------------------------------------------------------------------

# ?8 and ?9 are NULL and unused in a message without deduplication; naming them lets messages be bound as they are.
_INSERT = (
    "INSERT INTO message(queue, id, visible, sent, body, attrs, grp) VALUES(?1,?2,?3,?4,?5,?6,iif(?8 IS NULL,?7,?9))"
)
_INSERT_FIFO = (
    "INSERT INTO message(queue, id, visible, sent, body, attrs, grp, dedup, head) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,"
    " NOT EXISTS(SELECT 1 FROM message WHERE queue=?1 AND grp=?7 AND head IS NOT NULL))"
)


def add(connection: apsw.Connection, messages: Sequence[NewMessage]) -> None:
    """Store messages in order, for those who do not ask where they landed."""
    if {message.dedup for message in messages} != {None}:
        for message in messages:
            _insert_one(connection, message)
    else:
        connection.executemany(_INSERT, messages)


def insert(connection: apsw.Connection, messages: Iterable[NewMessage]) -> list[Stored]:
    """Store messages in order; one whose deduplication name is remembered is answered with the first bearer."""
    batch = list(messages)
    if any(message.dedup is not None for message in batch):
        return [_insert_one(connection, message) for message in batch]
    if not batch:
        return []
    connection.executemany(_INSERT, batch)
    # Numbers of one transaction follow each other: AUTOINCREMENT always takes the next one.
    first = connection.last_insert_rowid() - len(batch) + 1
    return [Stored(number, message.message_id, False) for number, message in enumerate(batch, first)]


def _insert_one(connection: apsw.Connection, message: NewMessage) -> Stored:
    if message.dedup is None:
        connection.execute(_INSERT, message)
        return Stored(connection.last_insert_rowid(), message.message_id, duplicate=False)
    known = remembered(connection, message.queue, message.dedup, message.dedup_since)
    if known is not None:
        return known
    dedup_id = message.dedup.partition("\n")[0]
    connection.execute(_INSERT_FIFO, (*message[:7], dedup_id))
    number = connection.last_insert_rowid()
    remember(connection, message.queue, message.dedup, number, message.message_id, message.sent)
    return Stored(number, message.message_id, duplicate=False)


def remembered(connection: apsw.Connection, queue: int, name: str, since: int) -> Stored | None:
    row = row_of(
        connection, "SELECT number, id FROM message_dedup WHERE queue=? AND key=? AND ts>?", (queue, name, since)
    )
    return None if row is None else Stored(int(row[0]), str(row[1]), duplicate=True)


def remember(connection: apsw.Connection, queue: int, name: str, number: int, message_id: str, now: int) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO message_dedup(queue, key, number, id, ts) VALUES(?,?,?,?,?)",
        (queue, name, number, message_id, now),
    )


# --- what may be received, in order -----------------------------------------------------------------------------------

_CANDIDATE = "SELECT number, sent, received, receives, grp, id, origin FROM message"


class _Order(Protocol):
    """Pages of candidates. A row of a page is deleted, or named to ``keep`` so that later pages pass over it."""

    def page(self, limit: int) -> list[Candidate]: ...

    def keep(self, candidate: Candidate) -> None: ...


class _ByArrival:
    """A standard queue."""

    def __init__(self, connection: apsw.Connection, source: Source, now: int, ceiling: int) -> None:
        self._connection = connection
        self._bounds = (source.number, now, ceiling)
        self._kept = 0

    def page(self, limit: int) -> list[Candidate]:
        # The order is that of the index, so that no sorting is needed among thousands of one millisecond.
        rows = rows_of(
            self._connection,
            f"{_CANDIDATE} WHERE queue=? AND visible<=? AND number<=?"
            " ORDER BY visible, sent, received, number LIMIT ? OFFSET ?",
            (*self._bounds, limit, self._kept),
        )
        return [Candidate(*row) for row in rows]

    def keep(self, candidate: Candidate) -> None:
        self._kept += 1


class _ByGroup:
    """A FIFO queue: each page is the visible beginning of one group that has not been taken from."""

    def __init__(self, connection: apsw.Connection, source: Source, now: int, ceiling: int) -> None:
        self._connection = connection
        self._queue = source.number
        self._now = now
        self._ceiling = ceiling
        self._taken: set[str | None] = set()

    def page(self, limit: int) -> list[Candidate]:
        group = self._next_group()
        if group is None:
            return []
        rows = rows_of(
            self._connection,
            "SELECT visible, number, sent, received, receives, grp, id, origin FROM message"
            " WHERE queue=? AND grp=? AND head IS NOT NULL AND number<=? ORDER BY number LIMIT ?",
            (self._queue, group, self._ceiling, limit),
        )
        return [Candidate(*row[1:]) for row in takewhile(lambda row: row[0] <= self._now, rows)]

    def _next_group(self) -> str | None:
        heads = rows_of(
            self._connection,
            "SELECT grp FROM message WHERE queue=? AND head = 1 AND visible<=? AND number<=?"
            " ORDER BY visible, number LIMIT ?",
            (self._queue, self._now, self._ceiling, len(self._taken) + 1),
        )
        return next((str(group) for (group,) in heads if group not in self._taken), None)

    def keep(self, candidate: Candidate) -> None:
        self._taken.add(candidate.group)


def in_order(connection: apsw.Connection, source: Source, now: int, ceiling: int = _NO_CEILING) -> _Order:
    return (_ByGroup if source.fifo else _ByArrival)(connection, source, now, ceiling)


# --- receive ----------------------------------------------------------------------------------------------------------

_RECEIVED = (
    " RETURNING number, id, coalesce(first_sent, sent), receives, first_received, grp, dedup, origin, body, attrs"
)
_TAKE = (
    "UPDATE message SET visible=?1, received=?2, receives=receives+1, first_received=coalesce(first_received, ?2)"
    " WHERE number=?3" + _RECEIVED
)


def receive(
    connection: apsw.Connection, source: Source, *, now: int, until: int, limit: int, dead: DeadLetters | None
) -> Taken:
    """Take up to ``limit`` messages and make them invisible until ``until``; expired and exhausted ones leave."""
    order = in_order(connection, source, now)
    chosen: list[Candidate] = []
    discarded = moved = 0
    while len(chosen) < limit and discarded < BUDGET:
        page = order.page(limit - len(chosen))
        if not page:
            break
        for candidate in page:
            if candidate.sent <= source.oldest:
                delete(connection, candidate.number)
                discarded += 1
            elif dead is not None and candidate.received and candidate.receives >= dead.after:
                _dead_letter(connection, candidate, dead, fifo=source.fifo, now=now)
                discarded, moved = discarded + 1, moved + 1
            else:
                order.keep(candidate)
                chosen.append(candidate)
    taken = [_take(connection, candidate, now, until) for candidate in chosen]
    return Taken(taken, moved, more=discarded >= BUDGET)


def _take(connection: apsw.Connection, candidate: Candidate, now: int, until: int) -> Received:
    row = row_of(connection, _TAKE, (until, now, candidate.number))
    assert row is not None, "a candidate of this transaction is there"
    return Received(*row)._replace(before=candidate.received)


_DEAD = (
    "INSERT INTO message(queue, visible, sent, receives, first_received, id, grp, origin, body, attrs)"
    " SELECT ?1, ?2, sent, receives, first_received, id, grp, ?3, body, attrs FROM message WHERE number=?4"
)
# The retention of a FIFO message begins anew, while it keeps showing when it was sent; its id names it from now on.
_DEAD_FIFO = (
    "INSERT INTO message(queue, visible, sent, first_sent, receives, first_received, id, grp, dedup, origin, body,"
    " attrs, head) SELECT ?1, ?2, ?2, coalesce(first_sent, sent), receives, first_received, id, grp, id, ?3, body,"
    " attrs, NOT EXISTS(SELECT 1 FROM message WHERE queue=?1 AND grp=m.grp AND head IS NOT NULL)"
    " FROM message m WHERE number=?4"
)


def _dead_letter(connection: apsw.Connection, candidate: Candidate, dead: DeadLetters, *, fifo: bool, now: int) -> None:
    connection.execute(_DEAD_FIFO if fifo else _DEAD, (dead.queue, now, dead.origin, candidate.number))
    if fifo:
        name = dedup_name(candidate.message_id, candidate.group if dead.by_group else None)
        remember(connection, dead.queue, name, connection.last_insert_rowid(), candidate.message_id, now)
    delete(connection, candidate.number)


def hold(
    connection: apsw.Connection, queue: int, receipts: Sequence[tuple[int, int]], *, now: int, until: int
) -> list[Received]:
    """Those of ``receipts`` (number, receives) that are in flight still, invisible until ``until`` from now on."""
    rows = []
    for number, receives in receipts:
        row = row_of(
            connection,
            "UPDATE message SET visible=? WHERE number=? AND queue=? AND receives=? AND visible>?" + _RECEIVED,
            (until, number, queue, receives, now),
        )
        if row is not None:
            rows.append(Received(*row)._replace(repeated=True))
    return rows


def give_back(connection: apsw.Connection, messages: Sequence[Received], *, now: int) -> None:
    """Undo a receive whose receiver had gone: as visible, and as often received, as before."""
    connection.executemany(
        "UPDATE message SET visible=?, received=?, receives=receives-1,"
        " first_received=iif(receives=1, NULL, first_received) WHERE number=? AND receives=?",
        [(now, message.before, message.number, message.receives) for message in messages],
    )


def next_visible(connection: apsw.Connection, source: Source, now: int) -> int | None:
    """The next instant at which something more can be received, as things stand."""
    heads = " AND head = 1" if source.fifo else ""
    row = row_of(
        connection, f"SELECT min(visible) FROM message WHERE queue=?{heads} AND visible>?", (source.number, now)
    )
    return None if row is None or row[0] is None else int(row[0])


# --- one message, by its receipt --------------------------------------------------------------------------------------


def held(connection: apsw.Connection, queue: int, number: int, message_id: str) -> Held | None:
    """The state of the message a receipt names, None when it is no longer there."""
    row = row_of(
        connection,
        "SELECT sent, visible, received, receives FROM message WHERE number=? AND queue=? AND id=?",
        (number, queue, message_id),
    )
    return None if row is None else Held(*row)


def set_visible(connection: apsw.Connection, number: int, visible: int) -> None:
    """Make a message visible at another instant."""
    connection.execute("UPDATE message SET visible=? WHERE number=?", (visible, number))


def delete(connection: apsw.Connection, number: int) -> None:
    """Delete one message."""
    connection.execute("DELETE FROM message WHERE number=?", (number,))
