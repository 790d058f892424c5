"""Queues as a whole: counts, what operators see, and the removal of what has expired or lost its queue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import apsw

from bus.store.messages import Source, row_of, rows_of


class Counts(NamedTuple):
    """A queue's messages by state; those of a FIFO queue that only wait for their group are visible."""

    visible: int
    in_flight: int
    delayed: int


class Browsed(NamedTuple):
    """A message as an operator sees it, without receiving it."""

    number: int
    message_id: str
    sent: int
    receives: int
    body: str
    attrs: bytes | None
    origin: str | None


def last_number(connection: apsw.Connection) -> int:
    """The number of the youngest message there ever was, in any queue."""
    row = row_of(connection, "SELECT seq FROM sqlite_sequence WHERE name='message'")
    return 0 if row is None else int(row[0])


def count(connection: apsw.Connection, source: Source, now: int) -> Counts:
    """Exact counts, read from the index alone."""
    bounds = (source.number, now, source.oldest)
    visible = _one(connection, "SELECT count(*) FROM message WHERE queue=? AND visible<=? AND sent>?", bounds)
    hidden = _one(connection, "SELECT count(*) FROM message WHERE queue=? AND visible>? AND sent>?", bounds)
    in_flight = count_in_flight(connection, source, now) if hidden else 0
    return Counts(visible, in_flight, hidden - in_flight)


def count_in_flight(connection: apsw.Connection, source: Source, now: int) -> int:
    """How many messages are with a receiver."""
    query = "SELECT count(*) FROM message WHERE queue=? AND visible>? AND sent>? AND received>0"
    return _one(connection, query, (source.number, now, source.oldest))


def _one(connection: apsw.Connection, query: str, bindings: tuple[Any, ...]) -> int:
    row = row_of(connection, query, bindings)
    return 0 if row is None else int(row[0])


def delay_waiting(connection: apsw.Connection, queue: int, numbers: Iterable[int], delay: int) -> None:
    """Give those of some messages that were never received another delay (ms), counted from when they were sent."""
    connection.executemany(
        "UPDATE message SET visible=sent+? WHERE number=? AND queue=? AND received=0 AND receives=0",
        [(delay, number, queue) for number in numbers],
    )


def numbers(connection: apsw.Connection, source: Source, *, after: int, limit: int) -> list[int]:
    """The first ``limit`` numbers above ``after``, in order; costs a pass over the queue's index."""
    query = "SELECT number FROM message WHERE queue=? AND sent>? AND number>? ORDER BY number LIMIT ?"
    return [int(number) for (number,) in rows_of(connection, query, (source.number, source.oldest, after, limit))]


def browse(connection: apsw.Connection, source: Source, numbers: Iterable[int], *, max_bytes: int) -> list[Browsed]:
    """Those of some messages that are there still, in the order given, until their bodies exceed ``max_bytes``.

    The first is answered however large it is.
    """
    found: list[Browsed] = []
    size = 0
    for number in numbers:
        row = row_of(connection, _BROWSE, (number, source.number, source.oldest))
        if row is None:
            continue
        size += len(row[4].encode())
        if found and size > max_bytes:
            break
        found.append(Browsed(*row))
    return found


_BROWSE = (
    "SELECT number, id, coalesce(first_sent, sent), receives, body, attrs, origin FROM message"
    " WHERE number=? AND queue=? AND sent>?"
)


def remove(connection: apsw.Connection, queue: int, numbers: Iterable[int]) -> int:
    """Delete messages of a queue by number; how many were there."""
    removed = 0
    for number in numbers:
        connection.execute("DELETE FROM message WHERE number=? AND queue=?", (number, queue))
        removed += connection.changes()
    return removed


# --- trimming ---------------------------------------------------------------------------------------------------------

# Never received: `visible` is at or after `sent`, so what became visible before the limit was sent before it.
_EXPIRED = (
    "SELECT number FROM message WHERE queue=? AND visible<=? LIMIT ?",
    "SELECT number FROM message WHERE queue=? AND receives > 0 AND sent<=? LIMIT ?",
)


def expire(connection: apsw.Connection, source: Source, limit: int) -> int:
    """Delete up to ``limit`` expired messages, in flight or not; how many they were."""
    gone = 0
    for query in _EXPIRED:
        numbers = rows_of(connection, query, (source.number, source.oldest, limit - gone))
        connection.executemany("DELETE FROM message WHERE number=?", numbers)
        gone += len(numbers)
    return gone


def drop(connection: apsw.Connection, queue: int, limit: int) -> int:
    """Delete up to ``limit`` messages and deduplication names of a queue that is no more; how many they were."""
    numbers = rows_of(connection, "SELECT number FROM message WHERE queue=? LIMIT ?", (queue, limit))
    connection.executemany("DELETE FROM message WHERE number=?", numbers)
    names = rows_of(connection, "SELECT key FROM message_dedup WHERE queue=? LIMIT ?", (queue, limit))
    connection.executemany("DELETE FROM message_dedup WHERE queue=? AND key=?", [(queue, name) for (name,) in names])
    return len(numbers) + len(names)


def forget(connection: apsw.Connection, before: int, limit: int) -> int:
    """Trim the deduplication memory of what it took in at or before an instant; how much that was."""
    rows = rows_of(connection, "SELECT queue, key FROM message_dedup WHERE ts<=? LIMIT ?", (before, limit))
    connection.executemany("DELETE FROM message_dedup WHERE queue=? AND key=?", rows)
    return len(rows)


def queues(connection: apsw.Connection) -> set[int]:
    """The numbers of all queues that have messages, at the cost of one look-up each."""
    rows = rows_of(
        connection,
        "WITH RECURSIVE q(n) AS (SELECT min(queue) FROM message UNION ALL"
        " SELECT (SELECT min(queue) FROM message WHERE queue > q.n) FROM q WHERE q.n IS NOT NULL)"
        " SELECT n FROM q WHERE n IS NOT NULL",
    )
    return {int(number) for (number,) in rows}
