"""Cron read the slow way: is this minute one of those that the expression names?

Nothing here is shared with `rules.cron`, and every definition is put another way: ranges are walked number by number,
days are judged by what comes after them in the calendar.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import cache
from itertools import count

MONTHS = ("", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("", "SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def names(fields: str, minute: datetime) -> bool:
    """Whether the six fields name the minute."""
    _minute, hour, day, month, weekday, year = fields.split(" ")
    return (
        names_date(day, month, weekday, year, minute.date())
        and any(minute.hour in walk(item, 0, 23) for item in hour.split(","))
        and any(minute.minute in walk(item, 0, 59) for item in _minute.split(","))
    )


def names_date(day: str, month: str, weekday: str, year: str, today: date) -> bool:
    """Whether the four fields of the date name the day."""
    return (
        any(names_year(item, today.year) for item in year.split(","))
        and any(today.month in walk(item, 1, 12, MONTHS) for item in month.split(","))
        and (day == "?" or any(names_day(item, today) for item in day.split(",")))
        and (weekday == "?" or any(names_weekday(item, today) for item in weekday.split(",")))
    )


def minutes_after(fields: str, since: datetime, until: datetime) -> Iterator[datetime]:
    """The minutes named after one and before another; days that are not named are skipped as a whole."""
    _, _, *of_date = fields.split(" ")
    minute = since.replace(second=0, microsecond=0) + MINUTE
    while minute < until:
        if not names_date(*of_date, minute.date()):
            minute = datetime.combine(minute.date() + DAY, datetime.min.time())
            continue
        if names(fields, minute):
            yield minute
        minute += MINUTE


@cache
def walk(item: str, low: int, high: int, called: tuple[str, ...] = ()) -> set[int]:
    """The numbers of an item: from the first one upwards, round the end, counting as one goes."""
    body, _, step_text = item.partition("/")
    step = int(step_text) if step_text else None
    if body == "*":
        first, last, step = low, high, step or 1
    else:
        values = [_value(text, called) for text in body.split("-")]
        first, last = values[0], values[-1]
        if len(values) == 1 and step:
            last = high
        if step == 0:
            last = first
    found, at = set(), first
    for counted in count():
        if counted % (step or 1) == 0:
            found.add(at)
        if at == last:
            return found
        at = at + 1 if at < high else low
    raise AssertionError("unreachable")


def _value(text: str, called: tuple[str, ...]) -> int:
    digits = re.match("[0-9]+", text)
    return int(digits[0]) if digits else called.index(text[:3].upper())


def names_year(item: str, year: int) -> bool:
    body, _, step = item.partition("/")
    if body == "*":
        return (year - 1970) % (int(step or 1) or 1) == 0
    first, _, last = body.partition("-")
    if not last:
        return year == int(first) or (year > int(first) and int(step or 0) > 0 and (year - int(first)) % int(step) == 0)
    return int(first) <= year <= int(last) and (year - int(first)) % int(step or 1) == 0


def names_day(item: str, today: date) -> bool:
    if item == "L":
        return (today + DAY).month != today.month
    if item == "LW":
        rest = [each for each in _month(today) if each > today and each.isoweekday() <= 5]
        return today.isoweekday() <= 5 and not rest
    if item.startswith("L-"):
        before = today + DAY * int(item[2:])
        return before.month == today.month and before.year == today.year and (before + DAY).month != today.month
    if re.fullmatch(r"[0-9]+(-[0-9]+)?W.*", item.upper()):
        return any(today == _nearest(today, day) for day in walk(item.upper().replace("W", ""), 1, 31))
    return today.day in walk(item, 1, 31)


def _nearest(today: date, day: int) -> date | None:
    wanted = [each for each in _month(today) if each.day == day]
    workdays = [each for each in _month(today) if each.isoweekday() <= 5]
    return min(workdays, key=lambda each: abs(each - wanted[0])) if wanted else None


def _month(today: date) -> list[date]:
    return [each for each in (today.replace(day=1) + DAY * n for n in range(31)) if each.month == today.month]


def names_weekday(item: str, today: date) -> bool:
    number = today.isoweekday() % 7 + 1
    if item == "L":
        return number == 7
    if "#" in item:
        weekday, _, nth = item.partition("#")
        return number == _value(weekday, WEEKDAYS) and (today.day + 6) // 7 == int(nth)
    if re.search(r"([0-9]|[A-Z]{3})L", item.upper()):
        return number in walk(item, 1, 7, WEEKDAYS) and (today + DAY * 7).month != today.month
    return number in walk(item, 1, 7, WEEKDAYS)
