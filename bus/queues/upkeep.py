"""Upkeep: removes what has expired and what deleted queues left behind, a little at a time.

A receive deletes expired messages it comes across, so nobody ever gets one; this is for those nobody asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import apsw
import structlog

from bus.clock import Clock
from bus.errors import StoreUnavailable
from bus.queues.agenda import Agenda
from bus.queues.queue import DEDUP_WINDOW_MS, Queue
from bus.queues.reception import Reception
from bus.queues.registry import Registry
from bus.store import Store, message_upkeep

log = structlog.get_logger(__name__)

INTERVAL_MS = 10_000
CHUNK = 200
"""Rows deleted in one transaction, which bounds how long it holds up the event loop."""


class Upkeep:
    """Sweeps all queues every ten seconds; ``orphans`` are numbers whose messages belong to no queue any more."""

    def __init__(self, store: Store, clock: Clock, agenda: Agenda, registry: Registry, reception: Reception) -> None:
        self._store = store
        self._clock = clock
        self._agenda = agenda
        self._registry = registry
        self._reception = reception
        self._orphans: set[int] = set()
        self._sweeping = False

    async def start(self) -> None:
        """Find what an earlier process left behind, and sweep from now on."""
        present = await self._store.transact(message_upkeep.queues)
        self._orphans |= present - self._registry.numbers()
        self._plan()

    def abandon(self, number: int) -> None:
        """The messages under this number belong to no queue any more."""
        self._orphans.add(number)
        self._begin()

    def _plan(self) -> None:
        self._agenda.at(self._clock.now_ms() + INTERVAL_MS, self._due)

    def _due(self) -> None:
        self._reception.trim()
        self._begin()
        self._plan()

    def _begin(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._reception.spawn(self._sweep())

    async def _sweep(self) -> None:
        try:
            await self._drop_orphans()
            for queue in self._registry:
                if await self._repeat(partial(self._expire, queue=queue)):
                    self._reception.kick(queue)
            before = self._clock.now_ms() - DEDUP_WINDOW_MS
            await self._repeat(partial(message_upkeep.forget, before=before, limit=CHUNK))
            await self._drop_orphans()
        except StoreUnavailable as error:
            log.warning("expired messages stay for now", reason=str(error))
        finally:
            self._sweeping = False

    async def _drop_orphans(self) -> None:
        while self._orphans:
            number = min(self._orphans)
            await self._repeat(partial(message_upkeep.drop, queue=number, limit=CHUNK))
            self._orphans.discard(number)

    def _expire(self, connection: apsw.Connection, queue: Queue) -> int:
        return message_upkeep.expire(connection, queue.source(self._clock.now_ms()), CHUNK)

    async def _repeat(self, step: Callable[[apsw.Connection], int]) -> int:
        """Run ``step`` until it finds less than a chunk; how much it found in all."""
        total = 0
        while True:
            gone = await self._store.transact(step)
            total += gone
            if gone < CHUNK:
                return total
