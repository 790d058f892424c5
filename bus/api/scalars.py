"""Checks of values without members: texts, numbers, times, flags and bytes."""

from __future__ import annotations

import base64
import binascii
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from bus.api.constraints import REDACTED, Bounds, Path, Violation, unreadable
from bus.api.patterns import REACH, predicate


class Scalar(ABC):
    """A value without members; subclasses say what type it has and which limits."""

    accepts: Callable[[Any], bool]
    limits: tuple[str, ...] = ()

    def __init__(self, *, sensitive: bool = False) -> None:
        self.sensitive = sensitive

    @abstractmethod
    def demand_type(self, value: Any) -> None:
        """Raise SerializationException when the JSON type is wrong."""

    def broken(self, value: Any) -> list[str]:
        """The limits that a value of the right type breaks."""
        return []

    def walk(self, value: Any, path: Path, found: list[Violation]) -> None:
        self.demand_type(value)
        found.extend(Violation(path, value, self, text) for text in self.broken(value))

    def show(self, value: Any) -> str:
        return REDACTED if self.sensitive else self.text(value)

    def text(self, value: Any) -> str:
        return str(value)


class Text(Scalar):
    """A string with a length, a pattern, a set of values, or none of them."""

    def __init__(
        self,
        *,
        length: Bounds = Bounds(),  # noqa: B008 -- an immutable value
        pattern: str | None = None,
        values: Sequence[str] = (),
        sensitive: bool = False,
    ) -> None:
        super().__init__(sensitive=sensitive)
        self._length = length
        self._values = frozenset(values)
        self._matches = predicate(pattern) if pattern is not None else None
        self._of_values = f"Member must satisfy enum value set: [{', '.join(values)}]"
        self._of_pattern = f"Member must satisfy regular expression pattern: {pattern}"
        self.limits = (
            *length.texts("length"),
            *((self._of_pattern,) if pattern is not None else ()),
            *((self._of_values,) if values else ()),
        )
        self.accepts = _limited_test(length, self._matches, self._values) if self.limits else _accept_text

    def demand_type(self, value: Any) -> None:
        if type(value) is not str:
            raise unreadable(value, "a String")

    def broken(self, value: str) -> list[str]:
        texts = self._length.broken(len(value), "length")
        in_reach = not texts or len(value) <= REACH
        if self._matches is not None and in_reach and not self._matches(value):
            texts.append(self._of_pattern)
        if self._values and value not in self._values:
            texts.append(self._of_values)
        return texts


def _accept_text(value: Any) -> bool:
    return type(value) is str


def _limited_test(
    length: Bounds, matches: Callable[[str], bool] | None, values: frozenset[str]
) -> Callable[[Any], bool]:
    least, most = length.least or 0, sys.maxsize if length.most is None else length.most

    def accept(value: Any) -> bool:
        return (
            type(value) is str
            and least <= len(value) <= most
            and (matches is None or matches(value))
            and (not values or value in values)
        )

    return accept


class Number(Scalar):
    """An integer or, where ``whole`` is false, any number; AWS's name of the type is part of the error."""

    def __init__(
        self,
        *,
        bounds: Bounds = Bounds(),  # noqa: B008 -- an immutable value
        whole: bool = True,
        wanted: str = "an Integer",
        sensitive: bool = False,
    ) -> None:
        super().__init__(sensitive=sensitive)
        self._bounds = bounds
        self._wanted = wanted
        self._types: tuple[type, ...] = (int,) if whole else (int, float)
        self.limits = bounds.texts("value")
        self.accepts = self._accept

    def _accept(self, value: Any) -> bool:
        return type(value) in self._types and self._bounds.hold(value)

    def demand_type(self, value: Any) -> None:
        if type(value) not in self._types:
            raise unreadable(value, self._wanted)

    def broken(self, value: float) -> list[str]:
        return self._bounds.broken(value, "value")


class Time(Scalar):
    """An instant as a number of epoch seconds, within the years 1 to 9999."""

    EARLIEST, LATEST = -62_135_596_800, 253_402_300_799

    def __init__(self, *, sensitive: bool = False) -> None:
        super().__init__(sensitive=sensitive)
        self.accepts = self._accept

    def _accept(self, value: Any) -> bool:
        return type(value) in (int, float) and self.EARLIEST <= value <= self.LATEST

    def demand_type(self, value: Any) -> None:
        if not self._accept(value):
            raise unreadable(value, "milliseconds since epoch")

    def text(self, value: float) -> str:
        return datetime.fromtimestamp(int(value), UTC).strftime("%a %b %d %H:%M:%S UTC %Y")


class Flag(Scalar):
    """true or false."""

    def __init__(self, *, sensitive: bool = False) -> None:
        super().__init__(sensitive=sensitive)
        self.accepts = lambda value: type(value) is bool

    def demand_type(self, value: Any) -> None:
        if type(value) is not bool:
            raise unreadable(value, "a Boolean")

    def text(self, value: bool) -> str:
        return "true" if value else "false"


class Blob(Scalar):
    """Bytes as base64 text."""

    def __init__(self, *, sensitive: bool = False) -> None:
        super().__init__(sensitive=sensitive)
        self.accepts = self._accept

    def _accept(self, value: Any) -> bool:
        if type(value) is not str:
            return False
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return False
        return True

    def demand_type(self, value: Any) -> None:
        if not self._accept(value):
            raise unreadable(value, "a ByteBuffer")
