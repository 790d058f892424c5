"""Schedule expressions and when they are due: ``rate(5 minutes)``, ``cron(0 12 * * ? *)``, ``at(2030-01-01T12:00:00)``.

    schedule = parse_schedule("cron(0 9 ? * MON-FRI *)")
    schedule.next_after(now_ms, start_ms=now_ms)                                     # by UTC
    schedule.next_after(now_ms, start_ms=now_ms, zone=ZoneInfo("Europe/Berlin"))     # by a wall clock

Instants are milliseconds since the epoch. The calendar ends with the year 9999; what would be due later never is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Protocol

from rules.cron import LAST_MS, Cron, instant_of
from rules.cron_fields import MAX_NUMBER
from rules.errors import ScheduleError

_RATE = re.compile(r"rate\(([0-9]+) (minute|hour|day)(s?)\)")
_CRON = re.compile(r"cron\((.+)\)", re.DOTALL)
_AT = re.compile(r"at\(([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})\)")
_UNIT_MS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}


class Schedule(Protocol):
    """When something is due."""

    def next_after(self, instant_ms: int, *, start_ms: int, zone: tzinfo = UTC) -> int | None:
        """The first due instant strictly after ``instant_ms``, or None when nothing is due any more.

        ``start_ms`` is where a rate counts from; ``zone`` is whose wall clock cron and at are read on. Of local times
        around a change to or from daylight saving time, cron leaves out those that are skipped; at is then as late as
        the clock was moved; those that come twice are due the first time.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rate:
    """Due at its start and after every interval from then on; an interval is a length of time in every zone."""

    interval_ms: int

    def next_after(self, instant_ms: int, *, start_ms: int, zone: tzinfo = UTC) -> int | None:
        passed = max(0, (instant_ms - start_ms) // self.interval_ms + 1)
        due = start_ms + passed * self.interval_ms
        return due if due <= LAST_MS else None


@dataclass(frozen=True, slots=True)
class At:
    """Due once, at a local time."""

    local: datetime

    def next_after(self, instant_ms: int, *, start_ms: int = 0, zone: tzinfo = UTC) -> int | None:
        due = instant_of(self.local, zone)
        return due if instant_ms < due <= LAST_MS else None


_parse_cron = lru_cache(256)(Cron.parse)
"""Making a Cron costs as much as asking it ten times, and many rules have the same few expressions."""


def last_due(schedule: Schedule, after_ms: int, until_ms: int, *, start_ms: int, zone: tzinfo = UTC) -> int | None:
    """The last due instant that is after one and not after another; None when there is none.

    Halves the span instead of walking it: a few dozen questions, however long the span and dense the schedule.
    """
    last, barren = None, until_ms
    low = after_ms
    while low < barren:
        middle = (low + barren) // 2 if last is not None else low
        due = schedule.next_after(middle, start_ms=start_ms, zone=zone)
        if due is not None and due <= until_ms:
            last = low = due
        elif last is None:
            return None
        else:
            barren = middle  # nothing is due between here and the end
    return last


def parse_schedule(text: str) -> Schedule:
    """The schedule of a rule: a rate or cron expression, or ScheduleError."""
    if match := _CRON.fullmatch(text):
        return _parse_cron(match[1])
    return _parse_rate(text)


def _parse_rate(text: str) -> Rate:
    match = _RATE.fullmatch(text)
    if match is None:
        raise ScheduleError(
            "a schedule is rate(VALUE UNIT), cron(FIELDS) or, in EventBridge Scheduler, at(TIME), "
            "in lower case and without further spaces"
        )
    value = int(match[1]) if len(match[1].lstrip("0")) <= 10 else MAX_NUMBER + 1
    if not 1 <= value <= MAX_NUMBER:
        raise ScheduleError(f"the value of a rate is 1 to {MAX_NUMBER}")
    if (value == 1) != (match[3] == ""):
        raise ScheduleError("the unit is minute, hour or day for 1, and minutes, hours or days otherwise")
    return Rate(value * _UNIT_MS[match[2]])


def parse_at(text: str) -> At:
    """The schedule of ``at(yyyy-mm-ddThh:mm:ss)``, or ScheduleError."""
    match = _AT.fullmatch(text)
    if match is None:
        raise ScheduleError("a point in time is at(yyyy-mm-ddThh:mm:ss)")
    try:
        return At(datetime.fromisoformat(match[1]))
    except ValueError as error:
        raise ScheduleError(f"{match[1]} is not a point in time: {error}") from None
