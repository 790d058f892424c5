"""Fires schedule rules: puts an event on the default bus at every instant that a rule's schedule names.

Theory of operation. Each rule with a schedule in force has a `Timing`, and the instant at which it is due next stands
in the timetable. A firing puts the event first and writes down afterwards how far the rule has come. A process that
dies in between has fired without knowing, and does it again: at least once. The event's id is made from the rule and
the instant, so that a repetition bears the same id.

What was missed. When several instants of a rule have passed, because the process was down, the machine slept or the
disk refused, the latest is fired and the others are counted. One event says that the time has come; a hundred of them
would say nothing more.

The clock. An instant that was fired is not fired again when the clock is turned back and comes to it once more. But a
clock that was far ahead and is put right must not silence a rule until it gets there again. A rate is given a new start
when it would have to wait for more than two of its intervals; cron begins again from the present when what it fired
last is more than a day ahead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any, Protocol
from uuid import UUID

import orjson
import structlog

from bus.arrival import Arrival
from bus.clock import Clock
from bus.errors import StoreError, StoreUnusable
from bus.metrics import Metrics
from bus.resources import Rule
from bus.scope import Scope
from bus.store import ConfChange, Store
from bus.timetable import Timetable
from rules.arn import DEFAULT_BUS
from rules.errors import ScheduleError
from rules.event import format_time
from rules.schedule import Rate, Schedule, last_due, parse_schedule

log = structlog.get_logger("scheduler")

PROGRESS = "schedule"
"""The kind of configuration value that says how far a rule has come, by the rule's key."""

BATCH = 100
"""Rules fired together: their events share a transaction."""

TRY_AGAIN_MS = 1000
FAR_AHEAD_MS = 86_400_000
MOST_COUNTED = 1000
"""Missed instants that are counted for one rule at a time."""


class Put(Protocol):
    """The way in for events; see `bus.ingest.Ingest.put`."""

    async def __call__(
        self, scope: Scope, bus_name: str, arrivals: Iterable[Arrival], *, choose: Callable[[list[Any]], list[Any]]
    ) -> bool: ...


@dataclass(slots=True)
class Timing:
    """A rule as it is now, and how far it has come.

    ``start`` is where the schedule counts from, which is not what the rule says once the clock was put right.
    Everything up to ``done`` was fired or is passed over; ``due`` is next.
    """

    rule: Rule
    schedule: Schedule
    start: int
    done: int
    due: int | None = None

    @classmethod
    def of(cls, rule: Rule) -> Timing:
        return cls(rule, parse_schedule(rule.timed_by or ""), rule.since, rule.since)

    def goes_on_with(self, rule: Rule) -> bool:
        """Whether a rule in place of this one has the same schedule since the same instant."""
        return (rule.timed_by, rule.since) == (self.rule.timed_by, self.rule.since)

    def plan(self, now: int) -> int | None:
        """Work out what is due next."""
        ahead = self.done - now
        if isinstance(self.schedule, Rate):
            if ahead > self.schedule.interval_ms:
                self.start = self.done = now
        elif ahead > FAR_AHEAD_MS:
            self.done = now
        self.due = self.schedule.next_after(self.done, start_ms=self.start)
        return self.due

    def latest(self, now: int) -> int | None:
        """The last instant that has come and was not fired."""
        return last_due(self.schedule, self.done, now, start_ms=self.start)

    def count(self, until: int) -> int:
        """How many instants there are from the one that is due to before another; at most `MOST_COUNTED`."""
        return sum(1 for _ in islice(self._walk(until), MOST_COUNTED))

    def _walk(self, until: int) -> Iterable[int]:
        instant = self.due
        while instant is not None and instant < until:
            yield instant
            instant = self.schedule.next_after(instant, start_ms=self.start)

    def dump(self) -> bytes:
        """The stored form: what is not in the rule."""
        return orjson.dumps({"since": self.rule.since, "start": self.start, "done": self.done})

    def take_up(self, value: bytes) -> None:
        """Go on from a stored form, if it is about the same schedule."""
        stored = orjson.loads(value)
        if stored["since"] == self.rule.since:
            self.start, self.done = stored["start"], stored["done"]


class Scheduler:
    """Owns the timings."""

    def __init__(self, store: Store, clock: Clock, *, metrics: Metrics, put: Put) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._put = put
        self._timings: dict[str, Timing] = {}
        self._table = Timetable(clock, due=self._come, turned_back=self._plan_all)
        self._waiting: deque[str] = deque()
        self._in_hand: set[str] = set()
        """Rules that wait to be fired or are being fired; they are not on the table."""
        self._gone: set[str] = set()
        """Rules that went and whose progress is still written down."""
        self._firing: asyncio.Task[None] | None = None

    # -- life

    async def start(self, rules: Iterable[Rule]) -> None:
        """Take up the schedules of all rules where they were left, and fire what has come due meanwhile."""
        _, entries = await self._store.conf_list(PROGRESS)
        stored = {entry.key: entry.value for entry in entries if entry.value is not None}
        for rule in rules:
            if rule.timed_by is not None:
                timing = self._timings[rule.key] = _timing(rule)
                if rule.key in stored:
                    timing.take_up(stored[rule.key])
        self._gone = stored.keys() - self._timings.keys()
        self._plan_all()
        self.look()

    async def stop(self) -> None:
        """Fire no more, and let what is under way be written down."""
        self._table.stop()
        self._waiting.clear()
        if self._firing is not None:
            await self._firing

    def look(self) -> None:
        """See what is due; timers do this, and tests that move the clock."""
        self._table.look()

    async def settle(self) -> None:
        """`look`, and wait until everything that was due has been put on the bus and written down."""
        self.look()
        while self._firing is not None:
            await asyncio.shield(self._firing)
            self.look()

    # -- rules

    def changed(self, key: str, rule: Rule | None) -> None:
        """A rule was made, changed or deleted, and that is on disk."""
        timing = self._timings.get(key)
        if rule is not None and timing is not None and timing.goes_on_with(rule):
            timing.rule = rule
        elif rule is not None and rule.timed_by is not None:
            self._timings[key] = timing = _timing(rule)
            self._plan(key, timing)
        elif timing is not None:
            del self._timings[key]
            self._table.set(key, None)
            self._gone.add(key)

    def next_due(self, key: str) -> int | None:
        """When the rule with that key fires next; None when it does not."""
        timing = self._timings.get(key)
        return timing.due if timing is not None else None

    def _plan(self, key: str, timing: Timing) -> None:
        due = timing.plan(self._clock.now_ms())
        if key not in self._in_hand:
            self._table.set(key, due)

    def _plan_all(self) -> None:
        for key, timing in self._timings.items():
            self._plan(key, timing)

    # -- firing

    def _come(self, keys: list[str]) -> None:
        self._waiting.extend(keys)
        self._in_hand.update(keys)
        if self._firing is None:
            self._firing = asyncio.get_running_loop().create_task(self._fire_waiting())

    async def _fire_waiting(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                await self._fire_batch(batch)
        finally:
            self._firing = None

    async def _fire_batch(self, keys: list[str]) -> None:
        """Put the events of these rules, plan their next ones, and write down how far they have come."""
        failures = await asyncio.gather(*(self._fire(self._timings.get(key)) for key in keys))
        self._in_hand.difference_update(keys)
        for key, failure in zip(keys, failures, strict=True):
            timing = self._timings.get(key)
            if failure is not None:
                self._table.set(key, self._clock.now_ms() + TRY_AGAIN_MS)
            elif timing is not None:
                self._plan(key, timing)
        refused = [failure for failure in failures if failure is not None]
        if refused:
            log.error("schedules could not fire; trying again", rules=len(refused), reason=str(refused[0]))
        await self._write_down(keys)

    async def _fire(self, timing: Timing | None) -> Exception | None:
        """Put the event of the latest instant that has come; what went wrong, if anything did."""
        instant = timing.latest(self._clock.now_ms()) if timing is not None else None
        if timing is None or instant is None:
            return None  # the rule changed, or the clock was turned back, since it came due
        rule, missed = timing.rule, timing.count(instant)
        try:
            await self._put(
                rule.scope, DEFAULT_BUS, [scheduled_event(rule, instant)], choose=lambda matched: _with(rule, matched)
            )
        except StoreError as error:
            return error
        except Exception as error:
            log.exception("firing a schedule broke off", rule=rule.arn)
            return error
        timing.done = instant
        self._metrics.schedules.ScheduledEvents += 1
        self._metrics.schedules.MissedSchedules += missed
        if missed:
            log.warning("a schedule missed instants; only the latest was fired", rule=rule.arn, missed=missed)
        return None

    async def _write_down(self, keys: list[str]) -> None:
        """How far these rules have come, and nothing of those that are gone."""
        timings = {key: self._timings[key] for key in keys if key in self._timings}
        gone = self._gone - self._timings.keys()
        changes = [ConfChange(PROGRESS, key, timing.dump()) for key, timing in timings.items()]
        changes += [ConfChange(PROGRESS, key, None) for key in gone]
        if not changes:
            return
        try:
            await self._store.conf_put(changes)
        except StoreError as error:
            log.warning("schedules fired that a restart may fire again", reason=str(error), rules=len(timings))
        else:
            self._gone -= gone


def _timing(rule: Rule) -> Timing:
    try:
        return Timing.of(rule)
    except ScheduleError as error:
        raise StoreUnusable(
            f"rule {rule.key} has a schedule expression that this version refuses ({error.reason});"
            " start the version that wrote it and change that rule"
        ) from None


def _with(rule: Rule, matched: list[Rule]) -> list[Rule]:
    """The rules that receive a scheduled event: its own once, whether its pattern matches or not, and all others."""
    return [rule, *(other for other in matched if other.name != rule.name)]


def scheduled_event(rule: Rule, instant: int) -> Arrival:
    """The event that a rule's schedule makes at an instant (ms): the same, with the same id, whenever it is made."""
    time = format_time(instant / 1000)
    return Arrival(event_id(rule.arn, instant), time, "aws.events", "Scheduled Event", "{}", [rule.arn], rule.scope)


def event_id(rule_arn: str, instant: int) -> str:
    """A UUID of version 7 that begins with the instant, like those of other events, and ends with the rule."""
    rest = int.from_bytes(sha256(f"{rule_arn} {instant}".encode()).digest()[:10])
    number = (instant & 0xFFFF_FFFF_FFFF) << 80 | rest
    return str(UUID(int=number & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62))
