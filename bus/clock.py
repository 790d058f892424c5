"""Time, ids and waiting, behind one value that tests replace."""

from __future__ import annotations

import random
import time
from typing import Protocol


class Clock(Protocol):
    """Wall-clock time; everything that compares instants takes it from here."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when told; for tests."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, seconds: float) -> None:
        self._now_ms += int(seconds * 1000)


ID_LENGTH, ENDING = 36, 12
"""Characters of an id, and digits in the last group of it."""

_COUNTS = [f"{number:03x}" for number in range(0x1000)]


class IdSource:
    """UUID version 7 ids that strictly increase within the process, whatever the clock does.

    48 bits of milliseconds, a 12-bit counter within the millisecond, 62 bits that are random for each millisecond.
    A clock that steps back keeps the last millisecond; a counter that overflows borrows the next one.
    """

    __slots__ = ("_bits", "_clock", "_count", "_last_ms", "_prefix", "_tail")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bits = random.Random().getrandbits  # seeded by the system; ids are names, not secrets
        self._last_ms = 0
        self._count = 0
        self._prefix = ""
        self._tail = ""

    def new(self) -> str:
        """The next id, as 36 characters."""
        now = self._clock.now_ms()
        if now > self._last_ms:
            self._begin(now)
        elif self._count == 0xFFF:
            self._begin(self._last_ms + 1)
        else:
            self._count += 1
        return f"{self._prefix}{_COUNTS[self._count]}{self._tail}"

    def several(self, count: int) -> list[str]:
        """The next ids of up to 4096, for a fraction of what they cost one by one."""
        first = self.new()
        start = self._count
        if start + count > 0x1000:
            return [first, *(self.new() for _ in range(count - 1))]
        self._count = start + count - 1
        prefix, tail = self._prefix, self._tail
        return [f"{prefix}{number}{tail}" for number in _COUNTS[start : start + count]]

    def ending(self) -> str:
        """Random last digits, `ENDING` of them: with these instead of its own an id of this source is another one."""
        return f"{self._bits(4 * ENDING):0{ENDING}x}"

    def _begin(self, ms: int) -> None:
        tail = (self._bits(62) | 0x8000_0000_0000_0000).to_bytes(8).hex()
        self._last_ms, self._count = ms, 0
        self._prefix = f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7"
        self._tail = f"-{tail[:4]}-{tail[4:]}"
