"""Live events for whoever is looking: `busbar tail` and, later, the console.

A watcher that does not keep up loses events, never the bus its pace: its queue is bounded in lines and in bytes, and
what it missed is told to it as a count, in the place where the events would have been.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import orjson

from bus.scope import Scope
from rules.event import load_json
from rules.pattern import Pattern

QUEUE_LENGTH = 1000
QUEUE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a watcher wants; None means any."""

    bus: str | None = None
    account: str | None = None
    pattern: Pattern | None = None

    def admits(self, scope: Scope, bus: str, event: bytes) -> bool:
        if self.bus not in (None, bus) or self.account not in (None, scope.account):
            return False
        return self.pattern is None or self.pattern.matches(load_json(event))


@dataclass(slots=True)
class _Missed:
    """Events that were lost between two lines."""

    count: int


class Watcher:
    """One who looks."""

    def __init__(self, wanted: Filter) -> None:
        self._wanted = wanted
        self._queue: deque[bytes | _Missed] = deque()
        self._lines = 0
        self._bytes = 0
        self._something = asyncio.Event()
        self._ended = False

    def offer(self, scope: Scope, bus: str, event: bytes) -> None:
        """Show an event, unless too much waits already; a single one always has room."""
        if not self._wanted.admits(scope, bus, event):
            return
        if self._lines >= QUEUE_LENGTH or (self._lines and self._bytes + len(event) > QUEUE_BYTES):
            self._miss()
            return
        place = orjson.dumps({"account": scope.account, "region": scope.region, "bus": bus})
        line = place[:-1] + b',"event":' + event + b"}"
        self._queue.append(line)
        self._lines += 1
        self._bytes += len(line)
        self._something.set()

    def hang_up(self) -> None:
        """End the lines once those that wait are told."""
        self._ended = True
        self._something.set()

    async def lines(self, *, heartbeat_s: float) -> AsyncIterator[bytes]:
        """One JSON object per event; ``{"missed": n}`` where some were lost, ``{}`` when nothing came for a while."""
        while True:
            try:
                await asyncio.wait_for(self._something.wait(), heartbeat_s)
            except TimeoutError:
                yield b"{}\n"
                continue
            while self._queue:
                yield self._next() + b"\n"
            if self._ended:
                return
            self._something.clear()

    def _miss(self) -> None:
        last = self._queue[-1]
        if isinstance(last, _Missed):
            last.count += 1
        else:
            self._queue.append(_Missed(1))

    def _next(self) -> bytes:
        line = self._queue.popleft()
        if isinstance(line, _Missed):
            return orjson.dumps({"missed": line.count})
        self._lines -= 1
        self._bytes -= len(line)
        return line


class Watchers:
    """Everyone who looks."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    def any(self) -> bool:
        """Whether anyone looks; asked for every event."""
        return bool(self._watchers)

    def show(self, scope: Scope, bus: str, event: bytes) -> None:
        """Offer an event to all."""
        for watcher in self._watchers:
            watcher.offer(scope, bus, event)

    def hang_up(self) -> None:
        """End every watcher's lines."""
        for watcher in self._watchers:
            watcher.hang_up()

    @contextmanager
    def watching(self, wanted: Filter) -> Iterator[Watcher]:
        """A watcher for as long as the block runs."""
        watcher = Watcher(wanted)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
