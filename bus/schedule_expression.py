"""The grammar of schedule expressions, as AWS was seen to accept and refuse them: whether, not when.

Peculiar to AWS, and kept: numbers and names may be followed by letters (``0x``, ``MONDAY``), a step may be
zero or larger than its field, ranges run over the end of the field (except years), impossible dates pass,
and there is no tolerance for spaces or letters in the wrong case in the frame around the fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_NUMBER = 2_147_483_647

_RATE = re.compile(r"rate\(([0-9]+) (minute|hour|day)(s?)\)")
_CRON = re.compile(r"cron\(([^\s]+(?: [^\s]+){5})\)")
_VALUE = r"([0-9]+|[A-Za-z]{3})[A-Za-z]*"
_PLAIN = re.compile(rf"{_VALUE}(?:-{_VALUE})?(?:/([0-9]+))?")
_STAR = re.compile(r"\*(?:/([0-9]+))?")
_LAST_DAY = re.compile(r"L(?:W|-[0-9]{1,2})?")
_LAST_WEEKDAY = re.compile(r"L")
_NTH = re.compile(r"([0-9]+|[A-Za-z]{3})#[1-5]")
_MONTHS = {
    name: number
    for number, name in enumerate("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), start=1)  # noqa: SIM905
}
_WEEKDAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), start=1)}


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of cron: its numbers, their names, items of its own, and whether ranges may run over the end."""

    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)
    own: tuple[re.Pattern[str], ...] = ()
    wraps: bool = True

    def takes(self, text: str) -> bool:
        if "#" in text and "," in text:
            return False
        return all(self._takes_item(item) for item in text.split(","))

    def _takes_item(self, item: str) -> bool:
        if match := _STAR.fullmatch(item):
            return _is_step(match[1])
        for pattern in self.own:
            if match := pattern.fullmatch(item):
                return all(self._number(value) is not None for value in match.groups())
        match = _PLAIN.fullmatch(item)
        return match is not None and self._takes_range(match[1], match[2] or match[1]) and _is_step(match[3])

    def _takes_range(self, first: str, last: str) -> bool:
        low, high = self._number(first), self._number(last)
        return low is not None and high is not None and (self.wraps or low <= high)

    def _number(self, text: str) -> int | None:
        number = int(text) if text.isdigit() else self.names.get(text.upper())
        return number if number is not None and self.low <= number <= self.high else None


_FIELDS = (
    _Field(0, 59),
    _Field(0, 23),
    _Field(1, 31, own=(_LAST_DAY,)),
    _Field(1, 12, _MONTHS),
    _Field(1, 7, _WEEKDAYS, own=(_LAST_WEEKDAY, _NTH)),
    _Field(0, MAX_NUMBER, wraps=False),
)


_DAY, _WEEKDAY = 2, 4


def _is_step(digits: str | None) -> bool:
    return int(digits or 0) <= MAX_NUMBER


def is_schedule(text: str) -> bool:
    """Whether the text is a rate or cron expression that AWS accepts."""
    return _is_rate(text) or _is_cron(text)


def _is_rate(text: str) -> bool:
    match = _RATE.fullmatch(text)
    if match is None or len(match[1].lstrip("0")) > 10:
        return False
    value = int(match[1])
    return 1 <= value <= MAX_NUMBER and (value == 1) == (match[3] == "")


def _is_cron(text: str) -> bool:
    match = _CRON.fullmatch(text)
    if match is None:
        return False
    texts = match[1].split(" ")
    if (texts[_DAY] == "?") == (texts[_WEEKDAY] == "?"):
        return False
    texts[_DAY if texts[_DAY] == "?" else _WEEKDAY] = "*"
    return all(known.takes(text) for known, text in zip(_FIELDS, texts, strict=True))
