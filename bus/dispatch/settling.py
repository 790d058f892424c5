"""Settling: writing down what became of deliveries, in the store's shared transaction, with nobody waiting for it.

A settlement that is lost in a crash means one repeated delivery. When the disk refuses, settlements
are kept and offered again every second, and beyond `LIMIT` no new attempts should be made (``full``):
each would only have to be made again. One that cannot be stored for a fault of its own is tried
alone, and its delivery put off, so that it does not take the others with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from bus.clock import Clock
from bus.errors import StoreError
from bus.store import Outcome, Retry, Store

log = structlog.get_logger("settling")

LIMIT = 1000
AGAIN_S = 1.0
PUT_OFF_MS = 60_000
UNSTORABLE = "INTERNAL_ERROR\tWhat became of the attempt could not be stored."


class Settling:
    """The settlements of one dispatcher.

    ``settled`` is called with those that are on disk, ``resumed`` when it is ``full`` no more.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        settled: Callable[[Sequence[Outcome]], None],
        resumed: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._settled = settled
        self._resumed = resumed
        self._waiting: list[Outcome] = []
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def full(self) -> bool:
        """Whether so much could not be written that nothing should be added."""
        return len(self._waiting) >= LIMIT

    def add(self, outcome: Outcome) -> None:
        """Settle a delivery in this turn's transaction."""
        self._waiting.append(outcome)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def finish(self) -> None:
        """Write what can be written now and wait for it; what the disk refuses is left to the next start."""
        self._stopping = True
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _write(self) -> None:
        try:
            while self._waiting:
                was_full = self.full
                batch = self._waiting[: self._store.caps.max_batch]
                del self._waiting[: len(batch)]
                if not await self._write_batch(batch):
                    if self._stopping:
                        return
                    await asyncio.sleep(AGAIN_S)
                elif was_full and not self.full:
                    self._resumed()
        finally:
            self._task = None

    async def _write_batch(self, batch: list[Outcome]) -> bool:
        """Whether the disk took it; if not, it waits again."""
        try:
            await self._store.settle(batch)
        except StoreError as error:
            log.error("settling failed; trying again", reason=str(error), deliveries=len(batch))
            self._waiting[:0] = batch
            return False
        except Exception:
            log.exception("a settlement cannot be stored", deliveries=len(batch))
            for outcome in batch:
                await self._write_alone(outcome)
            return True
        self._settled(batch)
        return True

    async def _write_alone(self, outcome: Outcome) -> None:
        put_off = Retry(outcome.seq, outcome.route, outcome.fence, self._clock.now_ms() + PUT_OFF_MS, UNSTORABLE)
        for each in (outcome, put_off):
            try:
                await self._store.settle([each])
            except StoreError:
                self._waiting.append(each)
                return
            except Exception:
                log.exception("a delivery's settlement is put off", seq=outcome.seq, route=outcome.route)
            else:
                self._settled([each])
                return
