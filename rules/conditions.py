"""Conditions: what forks ask of single paths, each kept once however many forks ask it, and how rare it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import UNSET

from rules.arrays import Choice
from rules.operators import Alternative, AnythingBut, Constant, Exists, Number, Numeric, Scalar, Text
from rules.pattern import Leaf, Pattern
from rules.values import Many

_LIKELIHOOD: dict[type, float] = {Exists: 0.9, AnythingBut: 0.95, Constant: 0.4, Numeric: 0.5}
"""How likely a field is to satisfy an alternative, for those that do not name a value."""


class Condition:
    """What a fork asks of one path; conditions are shared by all forks that ask the same."""

    __slots__ = ("absence", "accepts", "leaf", "path")

    def __init__(self, path: str, leaf: Leaf) -> None:
        self.path = path
        self.leaf = leaf
        self.absence = any(type(each) is Exists and not each.present for each in leaf)
        self.accepts: Callable[[Scalar], bool] = _accepts(leaf)

    def holds(self, value: Any) -> bool:
        """Whether the condition alone holds for the scalar, UNSET or Many of its path."""
        if value is UNSET:
            return self.absence
        if isinstance(value, Many):
            return any(map(self.accepts, value.values))
        return self.accepts(value)

    def choice(self, value: Any) -> Choice:
        """What the path offers, with the array elements its values lie in."""
        if value is UNSET:
            return Choice((), (), self.absence)
        if not isinstance(value, Many):
            return Choice([()] if self.accepts(value) else (), [()], self.absence)
        memberships = value.memberships()
        accepted = [
            membership for scalar, membership in zip(value.values, memberships, strict=True) if self.accepts(scalar)
        ]
        return Choice(accepted, memberships, self.absence)


def _accepts(leaf: Leaf) -> Callable[[Scalar], bool]:
    """One question in place of one for each alternative; for strings, which most leaves list, it is a set's own."""
    if all(type(each) is Text for each in leaf):
        return frozenset(each.text for each in leaf if type(each) is Text).__contains__
    if len(leaf) == 1:
        return leaf[0].accepts
    return lambda value: any(each.accepts(value) for each in leaf)


class Conditions:
    """The conditions in use, each once, and how many different ones every path has."""

    __slots__ = ("_held", "_users", "variety")

    def __init__(self) -> None:
        self._held: dict[tuple[str, Leaf], Condition] = {}
        self._users: dict[Condition, int] = {}
        self.variety: dict[str, int] = {}

    def copy(self) -> Conditions:
        copied = Conditions()
        copied._held = self._held.copy()
        copied._users = self._users.copy()
        copied.variety = self.variety.copy()
        return copied

    def __len__(self) -> int:
        return len(self._users)

    def take(self, pattern: Pattern) -> list[tuple[Condition, ...]]:
        """The forks of a pattern as conditions, forks that ask the same only once."""
        forks = {tuple(fork.items()): None for fork in pattern.forks}
        return [tuple(self._use(path, leaf) for path, leaf in fork) for fork in forks]

    def _use(self, path: str, leaf: Leaf) -> Condition:
        condition = self._held.get((path, leaf))
        if condition is None:
            condition = self._held[path, leaf] = Condition(path, leaf)
            self.variety[path] = self.variety.get(path, 0) + 1
        self._users[condition] = self._users.get(condition, 0) + 1
        return condition

    def release(self, conditions: Sequence[Condition]) -> None:
        for condition in conditions:
            self._users[condition] -= 1
            if not self._users[condition]:
                del self._users[condition]
                del self._held[condition.path, condition.leaf]
                self.variety[condition.path] -= 1
                if not self.variety[condition.path]:
                    del self.variety[condition.path]

    def cost(self, condition: Condition) -> float:
        """An estimate of how many events satisfy a condition: the more values rules name, the rarer is each."""
        return sum(self._likelihood(condition.path, alternative) for alternative in condition.leaf)

    def _likelihood(self, path: str, alternative: Alternative) -> float:
        number = _named_number(alternative)
        if number is not None:
            # A measured fraction hardly ever comes twice.
            return (0.2 if number.is_integer() else 0.02) / self.variety[path]
        return _LIKELIHOOD.get(type(alternative)) or 0.3 / self.variety[path]


def _named_number(alternative: Alternative) -> float | None:
    if isinstance(alternative, Number):
        return alternative.value
    if isinstance(alternative, Numeric) and alternative.low == alternative.high:
        return alternative.low
    return None
