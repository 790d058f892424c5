"""What is due when, behind one timer of the event loop that is set for the first of it.

Theory of operation. A heap holds (instant, key); `set` puts a key in again rather than looking for where it stands, and
an item that is not the key's latest is passed over when it comes up. So that keys that are set again and again do not
fill the memory, the heap is made anew when most of it has been passed over.

Instants are those of the injected clock. The timer looks again every half minute at the latest: a clock that was moved,
either way, or a machine that slept, is noticed then. Nothing is called before the clock has reached its instant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from bus.clock import Clock

LONGEST_TIMER_S = 30.0
SHORTEST_TIMER_S = 0.001
_SPARE = 64
"""Items passed over that are not worth making the heap anew."""


class Timetable:
    """Keys and the instants (ms) at which they are due.

    ``due`` is called with the keys that are, earliest first; they are off the table until they are set again.
    ``turned_back`` is called when the clock shows an earlier time than when it was last looked at, before ``due`` is.
    """

    def __init__(self, clock: Clock, *, due: Callable[[list[str]], None], turned_back: Callable[[], None]) -> None:
        self._clock = clock
        self._due = due
        self._turned_back = turned_back
        self._instants: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._seen = clock.now_ms()
        self._stopped = False

    def __len__(self) -> int:
        return len(self._instants)

    def set(self, key: str, instant: int | None) -> None:
        """Make the key due at an instant, or never."""
        if instant is None:
            self._instants.pop(key, None)
            return
        self._instants[key] = instant
        heappush(self._heap, (instant, key))
        if len(self._heap) > 2 * len(self._instants) + _SPARE:
            self._heap = [(instant, key) for key, instant in self._instants.items()]
            heapify(self._heap)
        if self._first() == instant:
            self._arm()

    def look(self) -> None:
        """See what the clock shows now; the timer calls this, and tests that move the clock."""
        now = self._clock.now_ms()
        turned_back, self._seen = now < self._seen, now
        if turned_back:
            self._turned_back()
        keys = self._take(now)
        self._arm()
        if keys:
            self._due(keys)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        self._arm()

    def _take(self, now: int) -> list[str]:
        keys: list[str] = []
        while not self._stopped and (first := self._first()) is not None and first <= now:
            key = heappop(self._heap)[1]
            del self._instants[key]
            keys.append(key)
        return keys

    def _first(self) -> int | None:
        while self._heap and self._instants.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        first = self._first()
        if first is not None and not self._stopped:
            wait = (first - self._clock.now_ms()) / 1000
            delay = min(max(wait, SHORTEST_TIMER_S), LONGEST_TIMER_S)
            self._timer = asyncio.get_running_loop().call_later(delay, self.look)
