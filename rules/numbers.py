"""Numbers as EventBridge compares them.

A number is comparable if its binary64 value is finite and the shortest decimal text of that value denotes exactly the
same decimal. Comparable numbers are compared by value, and two of them are equal exactly when their binary64 values
are, so the binary64 value is their key. All other numbers equal only themselves: an integer of an event keeps its
digits, a fraction was rounded to binary64 when the event was read and so is always comparable unless infinite.
"""

from __future__ import annotations

import math
from decimal import Decimal

_ALWAYS_COMPARABLE = 2**53


def comparable_value(number: int | float) -> float | None:
    """The binary64 value of an event's number if it is comparable; `bool` is no number and must not come here."""
    if type(number) is float:
        return number if math.isfinite(number) else None
    if -_ALWAYS_COMPARABLE <= number <= _ALWAYS_COMPARABLE:
        return float(number)
    try:
        value = float(number)
    except OverflowError:
        return None
    return value if Decimal(repr(value)) == number else None


def comparable_lexeme(lexeme: str) -> float | None:
    """The binary64 value of a JSON number as written, or None if it is not comparable."""
    value = float(lexeme)
    if not math.isfinite(value):
        return None
    if value == 0.0:
        mantissa = lexeme.lower().partition("e")[0]
        return 0.0 if not mantissa.strip("-0.") else None
    return value if Decimal(repr(value)) == Decimal(lexeme) else None


def number_text(number: int | float) -> str:
    """A number of an event as text; "" for integers too long to be an address or part of one."""
    if type(number) is int and number.bit_length() > 4096:
        return ""
    return repr(number)
