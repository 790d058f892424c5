"""Cron expressions as EventBridge reads them: the six fields, and the next instant they name.

Peculiar to AWS, and kept: numbers and names may be followed by letters (``0x``, ``MONDAY``), a step may be zero or
larger than its field (``33/0`` and ``33/61`` are 33), ranges run over the end of the field (except years), impossible
dates pass, and there is no tolerance for spaces. Where AWS was not observed, the natural reading holds: a mark counts
for every value of its item (``1-5W``, ``MON-WEDL``), ``*/0`` is ``*``, steps over all years count from 1970.

Theory of operation. A search goes from year to month to day to minute and never looks at a minute that the
expression does not name. The days of a month depend on nothing but its shape, of which there are 28, and so they are
made once for each; whether a year has any day depends on its kind (leap or not, weekday of the first of January), of
which there are 14, and years of a barren kind are passed over. Years end with the calendar of the standard library, in
9999. So the work for an expression that never fires is bounded by a few thousand lookups.

Local time. An instant is a minute on the wall clock of a zone. One that the clock skips is skipped, and one that it
shows twice counts the first time, as EventBridge Scheduler documents for daylight saving time. Local minutes in
ascending order, each taken at its first showing, are instants in ascending order, so the search can go by local time.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from calendar import isleap, monthrange, weekday
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import MAXYEAR, UTC, datetime, timedelta, tzinfo
from typing import NamedTuple, Self

from rules.errors import ScheduleError
from rules.month_days import (
    SATURDAY,
    SHAPES,
    Days,
    FromLast,
    LastOfWeekdays,
    LastWorkday,
    Month,
    NearestWorkday,
    NthOfWeekday,
    Numbered,
    OnWeekdays,
)

MAX_NUMBER = 2_147_483_647
_EVERY_KIND_OF_YEAR = range(2000, 2028)
_FIRST_STEP_OF_YEARS = 1970

_EPOCH = datetime(1970, 1, 1)
_MS = timedelta(milliseconds=1)
_MARGIN = timedelta(days=2)
_EARLIEST_MS = (datetime.min + _MARGIN - _EPOCH) // _MS
_LATEST_MS = (datetime.max - _MARGIN - _EPOCH) // _MS
"""Between these an instant has a local time in every zone."""

_VALUE = r"([0-9]+|[A-Za-z]{3})([A-Za-z]*)"
_ITEM = re.compile(rf"(?:\*|{_VALUE}(?:-{_VALUE})?)(?:/([0-9]+))?")
_FROM_LAST = re.compile(r"L(?:-([0-9]{1,2}))?")
_NTH = re.compile(r"([0-9]+|[A-Za-z]{3})#([1-5])")


# -- reading


class _Item(NamedTuple):
    """One item of a list: numbers from first to last (before the first: over the end of the field) by steps."""

    first: int
    last: int
    step: int
    mark: str
    """The letter behind the value, which is W or L where it means something."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of cron: its numbers and their names."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)
    wraps: bool = True

    def items(self, text: str) -> Iterator[_Item]:
        return map(self.item, text.split(","))

    def item(self, text: str) -> _Item:
        match = _ITEM.fullmatch(text)
        if match is None:
            raise self.refuse(text)
        first, mark, last, last_mark, step_text = match.groups()
        step = None if step_text is None else self._step(step_text)
        if first is None:
            return _Item(self.low, self.high, step or 1, "")
        low = self.number(first)
        high = self.number(last) if last is not None else self.high if step else low
        if high < low and not self.wraps:
            raise ScheduleError(f"{text} runs backwards, which a {self.name} cannot")
        return _Item(low, high if step != 0 else low, step or 1, (last_mark or mark or "")[:1].upper())

    def numbers(self, item: _Item) -> tuple[int, ...]:
        """The numbers of an item, in the order in which they are counted."""
        size = self.high - self.low + 1
        last = item.last if item.last >= item.first else item.last + size
        return tuple((number - self.low) % size + self.low for number in range(item.first, last + 1, item.step))

    def number(self, text: str) -> int:
        number = _int(text) if text.isdigit() else self.names.get(text.upper())
        if number is None or not self.low <= number <= self.high:
            raise self.refuse(text)
        return number

    def _step(self, text: str) -> int:
        step = _int(text)
        if step > MAX_NUMBER:
            raise ScheduleError(f"{text[:20]} is too large for a step")
        return step

    def refuse(self, text: str) -> ScheduleError:
        names = f" or {next(iter(self.names))} to {list(self.names)[-1]}" if self.names else ""
        return ScheduleError(f"{text[:20]!r} is not a {self.name}: {self.low} to {self.high}{names}")


def _int(digits: str) -> int:
    """The number; one too large for any field as long as it has more digits than any field takes."""
    return int(digits) if len(digits.lstrip("0")) <= 10 else MAX_NUMBER + 1


_MONTH_NAMES = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAY_NAMES = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

_MINUTE = _Field("minute", 0, 59)
_HOUR = _Field("full hour", 0, 23)
_DAY = _Field("day of the month", 1, 31)
_MONTH = _Field("month", 1, 12, {name: number for number, name in enumerate(_MONTH_NAMES, start=1)})
_WEEKDAY = _Field("day of the week", 1, 7, {name: number for number, name in enumerate(_WEEKDAY_NAMES, start=1)})
_YEAR = _Field("year", 0, MAX_NUMBER, wraps=False)


def _numbers(known: _Field, text: str) -> tuple[int, ...]:
    return tuple(sorted({number for item in known.items(text) for number in known.numbers(item)}))


def _years(text: str) -> tuple[range, ...]:
    """The years as ranges, since there are too many of them to write out."""
    spans = []
    for each in text.split(","):
        item = _YEAR.item(each)
        first = _FIRST_STEP_OF_YEARS if each.startswith("*") else item.first
        spans.append(range(first, item.last + 1, item.step))
    return tuple(spans)


def _days_of_month(text: str) -> Days:
    if text == "LW":
        return LastWorkday()
    if match := _FROM_LAST.fullmatch(text):
        return FromLast(int(match[1] or 0))
    item = _DAY.item(text)
    return (NearestWorkday if item.mark == "W" else Numbered)(_DAY.numbers(item))


def _days_of_week(text: str) -> Days:
    if text == "L":
        return OnWeekdays((SATURDAY,))
    if match := _NTH.fullmatch(text):
        return NthOfWeekday(_WEEKDAY.number(match[1]), int(match[2]))
    item = _WEEKDAY.item(text)
    return (LastOfWeekdays if item.mark == "L" else OnWeekdays)(_WEEKDAY.numbers(item))


def _days(text: str, read: Callable[[str], Days]) -> list[Days]:
    if "#" in text and "," in text:
        raise ScheduleError(f"{text} has # in a list, where it stands alone")
    return [read(item) for item in text.split(",")]


# -- searching


@dataclass(frozen=True, slots=True)
class Cron:
    """The minutes that a cron expression names."""

    minutes: Sequence[int]
    hours: Sequence[int]
    days: Mapping[Month, Sequence[int]]
    months: Sequence[int]
    years: Sequence[range]
    fertile: frozenset[tuple[bool, int]]
    """The kinds of year that have a day at all."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read six fields with one space between each; raises ScheduleError."""
        texts = text.split(" ")
        if len(texts) != 6 or any(not each or re.search(r"\s", each) for each in texts):
            raise ScheduleError("cron has six fields, with one space between each: minute hour day month weekday year")
        minute, hour, day, month, weekday_text, year = texts
        if (day == "?") == (weekday_text == "?"):
            raise ScheduleError("one of day of the month and day of the week has to be ?, and only one")
        named = _days(weekday_text, _days_of_week) if day == "?" else _days(day, _days_of_month)
        days = {shape: tuple(sorted({each for some in named for each in some.of(shape)})) for shape in SHAPES}
        months = _numbers(_MONTH, month)
        fertile = frozenset(
            _kind(each) for each in _EVERY_KIND_OF_YEAR if any(days[_shape(each, number)] for number in months)
        )
        return cls(_numbers(_MINUTE, minute), _numbers(_HOUR, hour), days, months, _years(year), fertile)

    def next_after(self, instant_ms: int, *, start_ms: int = 0, zone: tzinfo = UTC) -> int | None:
        """The first instant (ms) after ``instant_ms``, by the wall clock of the zone; None when there is none left.

        ``start_ms`` has no meaning here: the calendar does not depend on when a schedule began.
        """
        if instant_ms > _LATEST_MS:
            return None
        since = _local(max(instant_ms, _EARLIEST_MS), zone).replace(second=0, microsecond=0)
        for minute in self._minutes_since(since):
            found = instant_of(minute, zone)
            if instant_ms < found and _is_shown(minute, zone):
                return found
        return None

    def _minutes_since(self, since: datetime) -> Iterator[datetime]:
        """The minutes named, from that one on, in order."""
        for date in self._dates_since(since):
            floor = since if date.date() == since.date() else date
            for hour in self.hours[bisect_left(self.hours, floor.hour) :]:
                lowest = floor.minute if hour == floor.hour else 0
                for minute in self.minutes[bisect_left(self.minutes, lowest) :]:
                    yield date.replace(hour=hour, minute=minute)

    def _dates_since(self, since: datetime) -> Iterator[datetime]:
        for year in self._years_since(since.year):
            for month in self.months:
                if (year, month) < (since.year, since.month):
                    continue
                days = self.days[_shape(year, month)]
                first = since.day if (year, month) == (since.year, since.month) else 1
                for day in days[bisect_left(days, first) :]:
                    yield datetime(year, month, day)

    def _years_since(self, year: int) -> Iterator[int]:
        """The years that have a day."""
        while self.fertile:
            coming = [span[max(0, -((span.start - year) // span.step))] for span in self.years if _reaches(span, year)]
            if not coming or min(coming) > MAXYEAR:
                return
            year = min(coming)
            if _kind(year) in self.fertile:
                yield year
            year += 1


def _reaches(span: range, year: int) -> bool:
    return bool(span) and span[-1] >= year


def _kind(year: int) -> tuple[bool, int]:
    return isleap(year), weekday(year, 1, 1)


def _shape(year: int, month: int) -> Month:
    first, length = monthrange(year, month)
    return Month(length, (first + 1) % 7 + 1)


# -- local time


def _local(instant_ms: int, zone: tzinfo) -> datetime:
    """What the zone's wall clock shows."""
    return (_EPOCH + timedelta(milliseconds=instant_ms)).replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None)


def instant_of(local: datetime, zone: tzinfo) -> int:
    """The instant (ms) at which the zone's wall clock first shows a local time.

    One that it skips is counted on from before the gap: in a gap from 2:00 to 3:00, 2:30 is what is shown as 3:30.
    """
    return (local - _EPOCH - (zone.utcoffset(local.replace(fold=0)) or timedelta())) // _MS


def _is_shown(local: datetime, zone: tzinfo) -> bool:
    """Whether the zone's wall clock ever shows a local time."""
    before, after = zone.utcoffset(local.replace(fold=0)), zone.utcoffset(local.replace(fold=1))
    return before == after or (before or timedelta()) > (after or timedelta())
