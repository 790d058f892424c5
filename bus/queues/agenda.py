"""Instants at which something is to be done, behind one timer of the event loop.

The agenda compares with the injected clock, not with the loop's: a test moves its clock and calls ``run_due``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from bus.clock import Clock

_LONGEST = 60.0
"""Seconds after which the wall clock is looked at again, so that a jump of it is noticed."""


class Entry:
    """One thing to do; ``cancel`` takes it off the agenda."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Agenda:
    """What is to be done, in order of time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[int, int, Entry]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0

    def at(self, instant: int, call: Callable[[], None]) -> Entry:
        """Call ``call`` once the clock shows ``instant`` (ms)."""
        entry = Entry(call)
        heappush(self._heap, (instant, next(self._order), entry))
        if self._timer is None or instant < self._armed_for:
            self._arm()
        return entry

    def run_due(self) -> None:
        """Do everything whose instant has come; what is behind one that raises is done in the next turn."""
        now = self._clock.now_ms()
        try:
            while self._heap and self._heap[0][0] <= now:
                call = heappop(self._heap)[2].call
                if call is not None:
                    call()
        finally:
            self._arm()

    def clear(self) -> None:
        """Do nothing any more."""
        self._heap.clear()
        self._arm()

    def _arm(self) -> None:
        while self._heap and self._heap[0][2].call is None:
            heappop(self._heap)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._armed_for = self._heap[0][0]
            wait = (self._armed_for - self._clock.now_ms()) / 1000
            self._timer = asyncio.get_running_loop().call_later(min(max(wait, 0.001), _LONGEST), self.run_due)
