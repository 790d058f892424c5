"""Live events for whoever is looking: `busbar tail` and, later, the console.

A watcher that does not keep up loses events, never the bus its pace: its queue is bounded, and what
it missed is told to it as a count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import orjson

from bus.scope import Scope
from rules.event import load_json
from rules.pattern import Pattern

QUEUE_LENGTH = 1000


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


class Watcher:
    """One who looks."""

    def __init__(self, wanted: Filter) -> None:
        self._wanted = wanted
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE_LENGTH)
        self._missed = 0

    def offer(self, scope: Scope, bus: str, event: bytes) -> None:
        if not self._wanted.admits(scope, bus, event):
            return
        if self._queue.full():
            self._missed += 1
            return
        place = orjson.dumps({"account": scope.account, "region": scope.region, "bus": bus})
        self._queue.put_nowait(place[:-1] + b',"event":' + event + b"}")

    def hang_up(self) -> None:
        """End the lines, at once when the watcher is behind."""
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def lines(self, *, heartbeat_s: float) -> AsyncIterator[bytes]:
        """One JSON object per event; ``{"missed": n}`` where some were lost, ``{}`` when nothing came for a while."""
        while True:
            try:
                line = await asyncio.wait_for(self._queue.get(), heartbeat_s)
            except TimeoutError:
                line = b"{}"
            if line is None:
                return
            yield line + b"\n"
            if self._missed and self._queue.empty():
                missed, self._missed = self._missed, 0
                yield orjson.dumps({"missed": missed}) + b"\n"


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
