"""When a schedule's invocations are due: its expression read in its time zone, between its start and its end.

An invocation has a *nominal* instant, which the expression gives, and is made at some instant of the flexible time
window that begins there (at the nominal instant itself without one). It is missed once its window has closed without
it. Of the invocations that were missed, because the bus was down or busy, only the latest is still made: a thousand
minutes of absence are one call, not a thousand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rules.errors import ScheduleError
from rules.schedule import At, Schedule, last_due, parse_at, parse_schedule

MINUTE_MS = 60_000
FAR_AHEAD_MS = 86_400_000

_RATE = re.compile(r"rate\((0*1) (minute|hour|day)s\)|rate\(([0-9]+) (minute|hour|day)\)")
_ZONE = re.compile(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*")
_NO_ZONES = frozenset({"Factory", "localtime", "posixrules"})
"""Files that lie among the zones on some machines and mean nothing, or something else on each."""


class Planned(NamedTuple):
    """The next invocation: its nominal instant, and when to make it (ms)."""

    nominal: int
    at: int


@dataclass(frozen=True, slots=True)
class Timing:
    """The due instants of one schedule (ms).

    ``start`` is where a rate counts from and before which nothing else is due, None for no such limit; ``end`` the last
    instant that may be due. Neither matters to a schedule that is due once. ``anchor`` is where a rate without a start
    counts from, ``window`` the length of the flexible time window.
    """

    expression: Schedule
    zone: tzinfo
    anchor: int
    start: int | None = None
    end: int | None = None
    window: int = 0

    @property
    def _once(self) -> bool:
        return isinstance(self.expression, At)

    @property
    def _counted_from(self) -> int:
        return self.anchor if self.start is None else self.start

    def next_after(self, instant: int) -> int | None:
        """The first nominal instant after ``instant``."""
        begin = instant if self.start is None or self._once else max(instant, self.start - 1)
        due = self.expression.next_after(begin, start_ms=self._counted_from, zone=self.zone)
        return due if due is None or self.end is None or self._once or due <= self.end else None

    def latest(self, after: int, until: int) -> int | None:
        """The last nominal instant after ``after`` and not after ``until``."""
        first = self.next_after(after) if after < until else None
        if first is None or first > until:
            return None  # so it is mostly, and known at once
        last = until if self.end is None or self._once else min(until, self.end)
        return last_due(self.expression, first - 1, last, start_ms=self._counted_from, zone=self.zone)

    def plan(self, after: int, now: int, *, fraction: Callable[[], float]) -> Planned | None:
        """The invocation to make next when all up to ``after`` are done with; ``fraction`` is drawn from [0, 1)."""
        if after > now + FAR_AHEAD_MS and not self._once:
            after = now  # the clock was far ahead, and must not silence the schedule until it gets there again
        open_since = max(after, now - self.window - 1)
        missed = self.latest(after, open_since)
        if missed is not None:
            return Planned(missed, now)
        due = self.next_after(open_since)
        if due is None:
            return None
        return Planned(due, max(now, due + int(fraction() * self.window)))


@lru_cache(4096)
def parse_expression(text: str) -> Schedule:
    """A schedule expression of any kind; ScheduleError.

    Unlike rules, EventBridge Scheduler takes singular and plural units with any number. Remembered, since reading one
    takes as long as storing it, and many schedules have the same.
    """
    if text.startswith("at("):
        return parse_at(text)
    if match := _RATE.fullmatch(text):
        text = f"rate({match[1]} {match[2]})" if match[1] else _plural(match[3], match[4])
    return parse_schedule(text)


def _plural(value: str, unit: str) -> str:
    return f"rate({value} {unit})" if value.lstrip("0") == "1" else f"rate({value} {unit}s)"


@lru_cache(1024)
def find_zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name; ScheduleError when there is none."""
    if name in _NO_ZONES or not _ZONE.fullmatch(name):
        raise ScheduleError(f"{name!r} is not the name of a time zone")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleError(f"there is no time zone {name!r}") from None
