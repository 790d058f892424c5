"""Firing: at its due instant a schedule's invocation is written down, and only then handed to the dispatcher.

Theory of operation. Every enabled schedule that is still due some day stands in the timetable with its next
invocation. What comes due together is fired together: the invocations are written down, and then the
notes that they were made. After a crash in between they are made again, with the same ids; by these the store knows an
invocation that it took within the last minutes, and takes it no second time. The next invocation is planned when the
note is on disk; when the disk refuses, the same ones are tried again a little later.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import structlog

from bus.accepted import LEASE_MS, Accepted
from bus.clock import Clock
from bus.errors import StoreError
from bus.schedules.invocation import invocation
from bus.schedules.registry import Registry
from bus.schedules.schedule import Schedule, instant_text
from bus.store import Append, Appended, Store
from bus.targets import Route
from bus.timetable import Timetable

log = structlog.get_logger("schedules")

BATCH = 100
AGAIN_MS = 1000
BROKEN_OFF_MS = 60_000
LATE_MS = 60_000
"""Behind its window by more than this, an invocation is later than the precision of schedules explains."""


class Dispatcher(Protocol):
    """How deliveries come to be; see `bus.dispatch.Dispatch`."""

    def plan(self, event: Accepted, routes: Iterable[Route]) -> Any: ...

    def accepted(self, events: Sequence[tuple[Accepted, Any, Appended]]) -> None: ...


class Due(NamedTuple):
    """An invocation whose time has come."""

    schedule: Schedule
    nominal: int


class Firing:
    """Fires the schedules of a registry; ``fraction`` draws from [0, 1) where in a flexible window."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        *,
        dispatch: Dispatcher,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._dispatch = dispatch
        self._fraction = fraction
        self._table = Timetable(clock, due=self._come_due, turned_back=self._plan_all)
        self._planned: dict[str, Due] = {}
        self._due: list[Due] = []
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    # -- life

    def start(self) -> None:
        """Plan every schedule; what was missed meanwhile is due at once."""
        self._registry.changed = self.plan
        self._registry.gone = self.forget
        self._plan_all()

    async def stop(self) -> None:
        """Fire nothing more, and wait for what is being written."""
        self._stopped = True
        self._table.stop()
        if self._task is not None:
            await asyncio.wait([self._task])

    def look(self) -> None:
        """See what is due; timers do this, and tests that move the clock."""
        self._table.look()

    # -- planning

    def plan(self, schedule: Schedule) -> None:
        """Put the schedule's next invocation in the place of the one that may be planned."""
        self.forget(schedule)
        if not schedule.enabled:
            return
        now = self._clock.now_ms()
        after = max(schedule.since, self._registry.last_run(schedule) or schedule.since)
        planned = schedule.timing.plan(after, now, fraction=self._fraction)
        if planned is not None:
            if planned.nominal + schedule.timing.window < now - LATE_MS:
                log.warning("a schedule is late", schedule=schedule.arn, due=instant_text(planned.nominal))
            self._put(planned.at, Due(schedule, planned.nominal))

    def _plan_all(self) -> None:
        for schedule in self._registry.all():
            self.plan(schedule)

    def forget(self, schedule: Schedule) -> None:
        """Plan nothing for the schedule any more."""
        key = str(schedule.number)
        self._planned.pop(key, None)
        self._table.set(key, None)

    def _put(self, instant: int, due: Due) -> None:
        key = str(due.schedule.number)
        self._planned[key] = due
        self._table.set(key, instant)

    def _come_due(self, keys: list[str]) -> None:
        self._due.extend(self._planned.pop(key) for key in keys)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._fire_all())

    # -- firing

    async def _fire_all(self) -> None:
        try:
            while self._due:
                batch = self._due[:BATCH]
                del self._due[:BATCH]
                await self._fire_or_put_off(batch)
        finally:
            self._task = None

    async def _fire_or_put_off(self, batch: Sequence[Due]) -> None:
        """Fire these, or plan them anew; one that breaks off for a fault of its own does so alone."""
        try:
            await self._fire([due for due in batch if self._current(due) is due.schedule])
        except StoreError as error:
            log.error("schedules could not fire; trying again", reason=str(error), schedules=len(batch))
            self._put_off(batch, AGAIN_MS)
        except Exception:
            if len(batch) > 1:
                for due in batch:
                    await self._fire_or_put_off([due])
                return
            log.exception("a schedule could not fire; trying again", schedule=batch[0].schedule.arn)
            self._put_off(batch, BROKEN_OFF_MS)

    def _put_off(self, batch: Sequence[Due], wait: int) -> None:
        for due in batch:
            if self._current(due) is due.schedule and not self._stopped:
                self._put(self._clock.now_ms() + wait, due)

    async def _fire(self, batch: Sequence[Due]) -> None:
        await self._invoke(batch)
        noted = await asyncio.gather(*map(self._note, batch), return_exceptions=True)
        failed = [(due, error) for due, error in zip(batch, noted, strict=True) if error is not None]
        for due, error in failed:
            log.error("a schedule's run could not be noted; trying again", schedule=due.schedule.arn, reason=str(error))
        self._put_off([due for due, _ in failed], AGAIN_MS)

    async def _invoke(self, batch: Sequence[Due]) -> None:
        """Write the invocations down, and hand over those that had not been written before."""
        now = self._clock.now_ms()
        events = [invocation(due.schedule, due.nominal, now) for due in batch]
        plans = [self._dispatch.plan(event, [due.schedule.route]) for event, due in zip(events, batch, strict=True)]
        appends = [
            Append(
                event.bus, event.event_id, now, event.body, event.attrs, plan.deliveries, plan.messages,
                dedup_key=event.event_id,
            )
            for event, plan in zip(events, plans, strict=True)
        ]  # fmt: skip
        appended = await self._store.append(appends, lease_until=now + LEASE_MS)
        stored = zip(events, plans, appended, strict=True)
        self._dispatch.accepted([each for each in stored if not each[2].duplicate])

    async def _note(self, due: Due) -> None:
        """Write that the invocation was made, or that the schedule has come to its end; then plan the next one.

        The schedule may have been changed while it was fired: what it is now decides.
        """
        was = due.schedule
        async with self._registry.lock(was.scope, was.group, was.name):
            schedule = self._current(due)
            if schedule is None:
                return
            if schedule.ends_itself and schedule.timing.next_after(due.nominal) is None:
                await self._registry.remove([schedule])
            else:
                await self._registry.note_run(schedule, due.nominal)
                self.plan(schedule)

    def _current(self, due: Due) -> Schedule | None:
        """The schedule as it is now; None when it is gone, even if another bears its name."""
        was = due.schedule
        found = self._registry.schedule(was.scope, was.group, was.name)
        return found if found is not None and found.number == was.number else None
