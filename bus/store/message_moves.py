"""Messages that a move task sends anew: the statements, run inside the tick's transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import apsw

from bus.store.messages import Candidate, Source, dedup_name, delete, in_order, remember, remembered, row_of


class Destination(NamedTuple):
    """Where a move task puts a message: visible from when, and the deduplication memory as of now."""

    queue: int
    fifo: bool
    visible: int
    by_group: bool
    dedup_since: int


class Moved(NamedTuple):
    """What one step of a move task did; ``homeless`` when a message had nowhere to go, ``left`` when some remain."""

    moved: int
    seen: int
    queues: set[int]
    homeless: bool
    left: bool


_MOVE = (
    "INSERT INTO message(queue, id, visible, sent, body, attrs, grp)"
    " SELECT ?1, ?2, ?3, ?4, body, attrs, grp FROM message WHERE number=?5"
)
_MOVE_FIFO = (
    "INSERT INTO message(queue, id, visible, sent, body, attrs, grp, dedup, head)"
    " SELECT ?1, ?2, ?3, ?4, body, attrs, grp, id,"
    " NOT EXISTS(SELECT 1 FROM message WHERE queue=?1 AND grp=m.grp AND head IS NOT NULL)"
    " FROM message m WHERE number=?5"
)


def move(
    connection: apsw.Connection,
    source: Source,
    *,
    now: int,
    ceiling: int,
    limit: int,
    destination: Callable[[Candidate], Destination | None],
    new_id: Callable[[], str],
) -> Moved:
    """Send up to ``limit`` visible messages numbered at most ``ceiling`` anew to where ``destination`` says."""
    order = in_order(connection, source, now, ceiling)
    moved = seen = 0
    queues: set[int] = set()
    while seen < limit:
        page = order.page(limit - seen)
        if not page:
            break
        for candidate in page:
            seen += 1
            if candidate.sent > source.oldest:
                to = destination(candidate)
                if to is None:
                    return Moved(moved, seen, queues, homeless=True, left=True)
                if _resend(connection, candidate, to, new_id(), now):
                    moved += 1
                    queues.add(to.queue)
            delete(connection, candidate.number)
    return Moved(moved, seen, queues, homeless=False, left=seen == limit or _any_left(connection, source, ceiling))


def _resend(connection: apsw.Connection, candidate: Candidate, to: Destination, message_id: str, now: int) -> bool:
    """Whether the message was sent; one whose id the destination remembers is not."""
    if not to.fifo:
        connection.execute(_MOVE, (to.queue, message_id, to.visible, now, candidate.number))
        return True
    name = dedup_name(candidate.message_id, candidate.group if to.by_group else None)
    if remembered(connection, to.queue, name, to.dedup_since) is not None:
        return False
    connection.execute(_MOVE_FIFO, (to.queue, message_id, to.visible, now, candidate.number))
    remember(connection, to.queue, name, connection.last_insert_rowid(), message_id, now)
    return True


def _any_left(connection: apsw.Connection, source: Source, ceiling: int) -> bool:
    query = "SELECT 1 FROM message WHERE queue=? AND number<=? AND sent>? LIMIT 1"
    return row_of(connection, query, (source.number, ceiling, source.oldest)) is not None
