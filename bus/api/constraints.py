"""Checks of one request against its shape: a small object per shape, each with two ways of looking.

``accepts(value)`` is the fast one: a closure that says yes to plain values that are in order, and
no to all that is unusual as well as to all that is wrong. Only after a no does ``walk`` run: it
raises SerializationException at a wrong JSON type, and otherwise collects every `Violation`.

The checks are in `bus.api.scalars` and `bus.api.containers`. The invariant that ties their two
sides, tested on random requests of every operation: what ``accepts`` says yes to, ``walk`` finds
nothing in.

AWS reports a broken limit of a scalar inside a list or map at the list or map, naming *all* limits
of the scalar; hence a scalar's ``limits`` (all) beside its ``broken`` (those a value breaks).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from bus.errors import ApiError

Path = tuple[str | int, ...]
"""Member names, element numbers from 1, and map keys (as `MapKey`) from the request down to a value."""

NOT_NULL = "Member must not be null"
REDACTED = "*** Sensitive Data Redacted ***"


class MapKey(str):
    """A key of a map as a step of a path."""

    __slots__ = ()


class Violation(NamedTuple):
    """A constraint that a value breaks; the value is printed only when all of the request is known to be readable."""

    path: Path
    value: Any
    check: Check
    constraint: str


class Check(Protocol):
    """What a value of one shape must be."""

    accepts: Callable[[Any], bool]
    sensitive: bool

    def walk(self, value: Any, path: Path, found: list[Violation]) -> None:
        """Add every violation in ``value``, which is not None, to ``found``; raise at a wrong JSON type."""
        ...

    def show(self, value: Any) -> str:
        """The value as AWS prints it."""
        ...


class Bounds(NamedTuple):
    """The least and the greatest length or number; None where there is no bound."""

    least: int | None = None
    most: int | None = None

    def hold(self, number: float) -> bool:
        return (self.least is None or number >= self.least) and (self.most is None or number <= self.most)

    def broken(self, number: float, noun: str) -> list[str]:
        """The texts of the bounds that ``number`` (a length, or a value) breaks."""
        if self.most is not None and number > self.most:
            return [_at_most(noun, self.most)]
        if self.least is not None and number < self.least:
            return [_at_least(noun, self.least)]
        return []

    def texts(self, noun: str) -> tuple[str, ...]:
        """Both bounds, the greatest first; AWS prints a least of 0 wherever there is a greatest."""
        if self.most is None:
            return () if self.least is None else (_at_least(noun, self.least),)
        return (_at_most(noun, self.most), _at_least(noun, self.least or 0))


def _at_most(noun: str, bound: int) -> str:
    return f"Member must have {noun} less than or equal to {bound}"


def _at_least(noun: str, bound: int) -> str:
    return f"Member must have {noun} greater than or equal to {bound}"


def unreadable(value: Any, wanted: str) -> ApiError:
    """SerializationException for a JSON value of the wrong type; ``wanted`` as AWS names it."""
    misplaced = _MISPLACED.get(type(value))
    if misplaced is None and wanted in ("structure", "map", "list"):
        misplaced = f"Expected {wanted} or null"
    return ApiError("SerializationException", misplaced or f"{_token(value)} can not be converted to {wanted}")


_MISPLACED: dict[type, str] = {
    dict: "Start of structure or map found where not expected.",
    list: "Start of list found where not expected.",
}


def _token(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    return "STRING_VALUE" if isinstance(value, str) else "NUMBER_VALUE"


def lower_camel(name: str) -> str:
    """A member's name in AWS's messages."""
    return name[:1].lower() + name[1:]
