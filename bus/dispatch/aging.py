"""Aging: ending every delivery that grew too old, however far behind its lane is.

A lane that is paused or overwhelmed does not look at what waits behind; the age of an event ends all
the same when it should.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from bus.clock import Clock
from bus.store import Lease, Store

log = structlog.get_logger("aging")

PAGE = 100
SOONEST_S = 0.05
LONGEST_S = 30.0
"""It looks at least this often, so that a clock that jumped or a machine that slept is noticed."""


class Aging:
    """Looks for deliveries that are too old and hands them to ``end``; ``look`` is called before each round."""

    def __init__(
        self, store: Store, clock: Clock, *, lease_ms: int, look: Callable[[], None], end: Callable[[Lease], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._lease_ms = lease_ms
        self._look = look
        self._end = end
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False
        self.round: asyncio.Task[None] | None = None

    def start_round(self) -> None:
        """Look now, unless a round is under way."""
        if self._stopping or self.round is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.round = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Begin no more rounds."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()

    async def _run(self) -> None:
        delay = LONGEST_S
        try:
            self._look()
            while not self._stopping and await self._end_page():  # noqa: ASYNC110 - gives way, does not wait
                await asyncio.sleep(0)
            expiry = await self._store.next_expiry()
            if expiry is not None:
                delay = (expiry - self._clock.now_ms()) / 1000
        except Exception:
            log.exception("looking for deliveries that are too old failed; it is done again later")
        finally:
            self.round = None
            if not self._stopping:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(min(max(delay, SOONEST_S), LONGEST_S), self.start_round)

    async def _end_page(self) -> bool:
        """End up to a page of deliveries; whether there may be more."""
        now = self._clock.now_ms()
        leases = await self._store.claim_expired(now=now, until=now + self._lease_ms, limit=PAGE)
        for lease in leases:
            self._end(lease)
        return len(leases) == PAGE
