"""Browsing: pages of a queue's messages in order of arrival, for operators.

No index has a queue's messages in order of arrival, so that finding the next ones costs a pass over the queue's part of
an index, however few are wanted. A pass therefore finds many numbers at once, and the pages that follow take theirs
from what it left. Numbers only grow: among those found none can turn up later, and those that went are passed over when
their bodies are read.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from typing import NamedTuple

import apsw

from bus.clock import Clock
from bus.queues.message import Letter, letter
from bus.queues.queue import Queue
from bus.store import Store, message_upkeep
from bus.store.message_upkeep import Browsed

AHEAD = 20_000
"""Numbers that one pass finds."""


class _Found(NamedTuple):
    """All numbers of a queue above ``start``, as far as they go."""

    queue: int
    start: int
    numbers: list[int]

    def behind(self, queue: int, after: int, limit: int) -> list[int]:
        """The next numbers behind ``after``, none when they are not known."""
        if self.queue != queue or after < self.start:
            return []
        first = bisect_right(self.numbers, after)
        return self.numbers[first : first + limit]


class Browsing:
    """Reads pages; remembers the numbers that the latest pass found, of one queue at a time."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._found = _Found(0, 0, [])

    async def page(self, queue: Queue, *, after: int, limit: int, max_bytes: int) -> list[Letter]:
        """Up to ``limit`` messages numbered above ``after``, fewer when their bodies exceed ``max_bytes``; at least one
        unless there is none."""
        while True:
            # Remembered only when the transaction held: numbers of one that was undone are given out again.
            self._found, wanted, rows = await self._store.transact(
                partial(self._page, queue=queue, after=after, limit=limit, max_bytes=max_bytes)
            )
            if rows or not wanted:
                return [letter(row) for row in rows]
            after = wanted[-1]  # all of them have gone since they were found

    def _page(
        self, connection: apsw.Connection, queue: Queue, after: int, limit: int, max_bytes: int
    ) -> tuple[_Found, list[int], list[Browsed]]:
        source = queue.source(self._clock.now_ms())
        found = self._found
        wanted = found.behind(queue.number, after, limit)
        if not wanted:
            numbers = message_upkeep.numbers(connection, source, after=after, limit=AHEAD)
            found, wanted = _Found(queue.number, after, numbers), numbers[:limit]
        return found, wanted, message_upkeep.browse(connection, source, wanted, max_bytes=max_bytes)
