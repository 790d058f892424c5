"""The alternatives a leaf array may hold: one small class each.

An alternative is a value with one question, `accepts(scalar)`; a scalar is what `json.loads` makes of a JSON string,
number, boolean or null. Strings, numbers, booleans and null are four disjoint kinds (mind that Python's `True` is an
`int`). `Exists(False)` accepts nothing: absence is no scalar, and is judged where fields are picked.

How they are read from a pattern text is in `rules.expressions`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from rules import addresses, folding, wildcards
from rules.numbers import comparable_value, number_text

Scalar = str | int | float | bool | None


class Alternative(Protocol):
    """One entry of a leaf array."""

    def accepts(self, value: Scalar) -> bool:
        """Whether a scalar of an event satisfies this alternative."""


# Literals


@dataclass(frozen=True, slots=True)
class Text:
    """A string, byte for byte; also `{"exactly": …}`."""

    text: str

    def accepts(self, value: Scalar) -> bool:
        return value == self.text


@dataclass(frozen=True, slots=True)
class Address:
    """A string literal that is an IP address: compared as an address, by the beginning of its hexadecimal text."""

    text: str
    digits: str

    def accepts(self, value: Scalar) -> bool:
        return address_digits(value).startswith(self.digits)


@dataclass(frozen=True, slots=True)
class Number:
    """A comparable number, by value."""

    value: float
    lexeme: str = field(compare=False)

    def accepts(self, value: Scalar) -> bool:
        return number_value(value) == self.value


@dataclass(frozen=True, slots=True)
class Digits:
    """A number that is not comparable: an integer accepts itself, a fraction (`value` None) accepts nothing."""

    value: int | None
    lexeme: str = field(compare=False)

    def accepts(self, value: Scalar) -> bool:
        return type(value) is int and value == self.value


@dataclass(frozen=True, slots=True)
class Constant:
    """true, false or null."""

    value: bool | None

    def accepts(self, value: Scalar) -> bool:
        return value is self.value


# Match expressions


@dataclass(frozen=True, slots=True)
class Prefix:
    text: str

    def accepts(self, value: Scalar) -> bool:
        return isinstance(value, str) and value.startswith(self.text)


@dataclass(frozen=True, slots=True)
class Suffix:
    text: str

    def accepts(self, value: Scalar) -> bool:
        return isinstance(value, str) and value.endswith(self.text)


@dataclass(frozen=True, slots=True)
class PrefixIgnoreCase:
    text: str

    def accepts(self, value: Scalar) -> bool:
        return isinstance(value, str) and folding.accepts_start(self.text, value)


@dataclass(frozen=True, slots=True)
class SuffixIgnoreCase:
    text: str

    def accepts(self, value: Scalar) -> bool:
        return isinstance(value, str) and folding.accepts_end(self.text, value)


@dataclass(frozen=True, slots=True)
class EqualsIgnoreCase:
    text: str

    def accepts(self, value: Scalar) -> bool:
        return isinstance(value, str) and folding.accepts(self.text, value)


@dataclass(frozen=True, slots=True)
class Wildcard:
    text: str
    pieces: tuple[str, ...]

    def accepts(self, value: Scalar) -> bool:
        return isinstance(value, str) and wildcards.spans(self.pieces, value)


@dataclass(frozen=True, slots=True)
class Exists:
    """Presence accepts every scalar; absence is judged where fields are picked and accepts none."""

    present: bool

    def accepts(self, value: Scalar) -> bool:
        return self.present


@dataclass(frozen=True, slots=True)
class Cidr:
    """A block of addresses, compared as text between its lowest and its highest address."""

    text: str
    low: str
    high: str

    def accepts(self, value: Scalar) -> bool:
        digits = address_digits(value)
        return digits != "" and addresses.in_block(digits, self.low, self.high)


@dataclass(frozen=True, slots=True)
class Numeric:
    """A range of numbers; an open end is an infinity, which no comparable number reaches."""

    low: float
    low_included: bool
    high: float
    high_included: bool

    def accepts(self, value: Scalar) -> bool:
        number = number_value(value)
        if number is None:
            return False
        above = number > self.low or (self.low_included and number == self.low)
        return above and (number < self.high or (self.high_included and number == self.high))


@dataclass(frozen=True, slots=True)
class AnythingBut:
    """Accepts every scalar that none of the excluded alternatives accepts: all of them look at one kind only.

    `form` is "" for a plain list, else the name of the operator inside.
    """

    form: str
    excluded: tuple[Alternative, ...]

    def accepts(self, value: Scalar) -> bool:
        return not any(alternative.accepts(value) for alternative in self.excluded)


def number_value(value: Scalar) -> float | None:
    """The binary64 value of a scalar that is a comparable number."""
    return comparable_value(value) if type(value) is int or type(value) is float else None


def address_digits(value: Scalar) -> str:
    """What addresses are compared with: the hexadecimal text of an address, the own text of a number, else ""."""
    if isinstance(value, str):
        return addresses.address_hex(value) or ""
    return number_text(value) if type(value) is int or type(value) is float else ""
