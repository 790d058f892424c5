"""Cron expressions: the next minute they name. The fields are read in `rules.cron_fields`.

Theory of operation. A search goes from year to month to day to minute and never looks at a minute that the
expression does not name. The days of a month depend on nothing but its shape, of which there are 28, and so they are
made once for each; whether a year has any day depends on its kind (leap or not, weekday of the first of January), of
which there are 14, and years of a barren kind are passed over. Years end with the calendar of the standard library, in
9999. So the work for an expression that never fires is bounded by a few thousand lookups.

Local time. An instant is a minute on the wall clock of a zone. One that the clock skips is skipped, and one that it
shows twice counts the first time, as EventBridge Scheduler documents for daylight saving time. Local minutes in
ascending order, each taken at its first showing, are instants in ascending order, so the search can go by local time.
A minute that is skipped is followed by the end of its gap, not by the next minute of it.
"""

from __future__ import annotations

from bisect import bisect_left
from calendar import isleap, monthrange, weekday
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, timedelta, tzinfo
from typing import Self

from rules.cron_fields import read_fields
from rules.month_days import SHAPES, Month

_EVERY_KIND_OF_YEAR = range(2000, 2028)
_MOST_GAPS = 1000
"""Changes to daylight saving time that a search runs into before it gives up: more than a cycle of the calendar has."""

LAST_MS = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 1000
"""The last instant at which anything can be due."""

_EPOCH = datetime(1970, 1, 1)
_MS = timedelta(milliseconds=1)
_MINUTE = timedelta(minutes=1)
_MARGIN = timedelta(days=2)
_EARLIEST_MS = (datetime.min + _MARGIN - _EPOCH) // _MS
_LATEST_MS = (datetime.max - _MARGIN - _EPOCH) // _MS
"""Between these an instant has a local time in every zone."""


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
        fields = read_fields(text)
        days = {shape: tuple(sorted({each for some in fields.days for each in some.of(shape)})) for shape in SHAPES}
        fertile = frozenset(
            _kind(year) for year in _EVERY_KIND_OF_YEAR if any(days[_shape(year, month)] for month in fields.months)
        )
        return cls(fields.minutes, fields.hours, days, fields.months, fields.years, fertile)

    def next_after(self, instant_ms: int, *, start_ms: int = 0, zone: tzinfo = UTC) -> int | None:
        """The first instant (ms) after ``instant_ms``, by the wall clock of the zone; None when there is none left.

        ``start_ms`` has no meaning here: the calendar does not depend on when a schedule began.
        """
        if instant_ms > _LATEST_MS:
            return None
        since = _local(max(instant_ms, _EARLIEST_MS), zone).replace(second=0, microsecond=0)
        minutes, gaps = self._minutes_since(since), 0
        while gaps < _MOST_GAPS and (minute := next(minutes, None)) is not None:
            found = instant_of(minute, zone)
            if found <= instant_ms:
                continue  # its first showing is over; the clock shows it for the second time
            if _is_shown(minute, zone):
                return found if found <= LAST_MS else None
            minutes, gaps = self._minutes_since(_end_of_gap(minute, zone)), gaps + 1
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


def _end_of_gap(local: datetime, zone: tzinfo) -> datetime:
    """The first minute that the zone's wall clock shows after one that it skips."""
    before, after = zone.utcoffset(local.replace(fold=0)), zone.utcoffset(local.replace(fold=1))
    length = -(((before or timedelta()) - (after or timedelta())) // _MINUTE)  # rounded up: it is not over before that
    passed = bisect_left(range(length), True, key=lambda minutes: _is_shown(local + minutes * _MINUTE, zone))
    return local + passed * _MINUTE
