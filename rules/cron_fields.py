"""The six fields of a cron expression as EventBridge reads them.

Peculiar to AWS, and kept: numbers and names may be followed by letters (``0x``, ``MONDAY``), a step may be zero or
larger than its field (``33/0`` and ``33/61`` are 33), ranges run over the end of the field (except years), impossible
dates pass, and there is no tolerance for spaces. Where AWS was not observed, the natural reading holds: a mark counts
for every value of its item (``1-5W``, ``MON-WEDL``), ``*/0`` is ``*``, steps over all years count from 1970.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rules.errors import ScheduleError
from rules.month_days import (
    SATURDAY,
    Days,
    FromLast,
    LastOfWeekdays,
    LastWorkday,
    NearestWorkday,
    NthOfWeekday,
    Numbered,
    OnWeekdays,
)

MAX_NUMBER = 2_147_483_647
"""The largest year and step."""
_FIRST_STEP_OF_YEARS = 1970

_VALUE = r"([0-9]+|[A-Za-z]{3})([A-Za-z]*)"
_ITEM = re.compile(rf"(?:\*|{_VALUE}(?:-{_VALUE})?)(?:/([0-9]+))?")
_FROM_LAST = re.compile(r"L(?:-([0-9]{1,2}))?")
_NTH = re.compile(r"([0-9]+|[A-Za-z]{3})#([1-5])")


class Fields(NamedTuple):
    """What six fields name; the days are those of one field, the other being ``?``."""

    minutes: Sequence[int]
    hours: Sequence[int]
    days: Sequence[Days]
    months: Sequence[int]
    years: Sequence[range]
    """As ranges, since there are too many of them to write out."""


def read_fields(text: str) -> Fields:
    """Read six fields with one space between each; raises ScheduleError."""
    texts = text.split(" ")
    if len(texts) != 6 or any(not each or re.search(r"\s", each) for each in texts):
        raise ScheduleError("cron has six fields, with one space between each: minute hour day month weekday year")
    minute, hour, day, month, weekday, year = texts
    if (day == "?") == (weekday == "?"):
        raise ScheduleError("one of day of the month and day of the week has to be ?, and only one")
    days = _days(weekday, _days_of_week) if day == "?" else _days(day, _days_of_month)
    return Fields(_numbers(_MINUTE, minute), _numbers(_HOUR, hour), days, _numbers(_MONTH, month), _years(year))


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
    return tuple(sorted({number for item in text.split(",") for number in known.numbers(known.item(item))}))


def _years(text: str) -> tuple[range, ...]:
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
