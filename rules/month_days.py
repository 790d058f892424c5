"""The days of a month that a cron expression names: each way of naming them is a small object.

A month is given by its shape, which is all that counts: how many days it has, and the weekday of its first one.
Weekdays are numbered as in cron expressions: 1 is Sunday, 7 is Saturday.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

SUNDAY, SATURDAY = 1, 7


class Month(NamedTuple):
    """The shape of a month: its number of days, and the weekday of the first."""

    length: int
    first: int

    def weekday(self, day: int) -> int:
        return (self.first + day - 2) % 7 + 1

    def days_on(self, weekday: int) -> range:
        """The days that fall on that weekday."""
        return range((weekday - self.first) % 7 + 1, self.length + 1, 7)

    def workday_near(self, day: int) -> int:
        """The day itself, or the nearest from Monday to Friday within the month."""
        weekday = self.weekday(day)
        if weekday == SATURDAY:
            return day - 1 if day > 1 else day + 2
        if weekday == SUNDAY:
            return day + 1 if day < self.length else day - 2
        return day


SHAPES = tuple(Month(length, first) for length in (28, 29, 30, 31) for first in range(1, 8))


class Days(Protocol):
    """Some of the days of a month."""

    def of(self, month: Month) -> Iterable[int]:
        """Those days, in any order, all of them within the month."""
        ...


@dataclass(frozen=True, slots=True)
class Numbered:
    """``28-3``: days by number, as far as the month has them."""

    numbers: tuple[int, ...]

    def of(self, month: Month) -> Iterable[int]:
        return (day for day in self.numbers if day <= month.length)


@dataclass(frozen=True, slots=True)
class NearestWorkday:
    """``3W``: the workday nearest to a day that the month has."""

    numbers: tuple[int, ...]

    def of(self, month: Month) -> Iterable[int]:
        return (month.workday_near(day) for day in self.numbers if day <= month.length)


@dataclass(frozen=True, slots=True)
class FromLast:
    """``L``, ``L-3``: so many days before the last."""

    before: int = 0

    def of(self, month: Month) -> Iterable[int]:
        day = month.length - self.before
        return (day,) if day >= 1 else ()


@dataclass(frozen=True, slots=True)
class LastWorkday:
    """``LW``: the last day from Monday to Friday."""

    def of(self, month: Month) -> Iterable[int]:
        return (month.workday_near(month.length),)


@dataclass(frozen=True, slots=True)
class OnWeekdays:
    """``MON-FRI``: every day that falls on one of the weekdays."""

    weekdays: tuple[int, ...]

    def of(self, month: Month) -> Iterable[int]:
        return (day for weekday in self.weekdays for day in month.days_on(weekday))


@dataclass(frozen=True, slots=True)
class LastOfWeekdays:
    """``6L``: the last day that falls on the weekday."""

    weekdays: tuple[int, ...]

    def of(self, month: Month) -> Iterable[int]:
        return (month.days_on(weekday)[-1] for weekday in self.weekdays)


@dataclass(frozen=True, slots=True)
class NthOfWeekday:
    """``3#2``: the second day that falls on a Tuesday; none in months with too few of them."""

    weekday: int
    nth: int

    def of(self, month: Month) -> Iterable[int]:
        return month.days_on(self.weekday)[self.nth - 1 : self.nth]
