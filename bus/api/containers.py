"""Checks of values with members: lists, maps and structures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bus.api.constraints import NOT_NULL, REDACTED, Bounds, Check, MapKey, Path, Violation, lower_camel, unreadable
from bus.api.scalars import Scalar


class ListOf:
    """A list; a scalar element's broken limit is reported at the list, once."""

    accepts: Callable[[Any], bool]

    def __init__(self, element: Check, *, length: Bounds, sensitive: bool = False) -> None:
        self.sensitive = sensitive
        self._element = element
        self._length = length
        self.accepts = self._accept

    def _accept(self, value: Any) -> bool:
        return type(value) is list and self._length.hold(len(value)) and all(map(self._element.accepts, value))

    def walk(self, value: Any, path: Path, found: list[Violation]) -> None:
        if type(value) is not list:
            raise unreadable(value, "list")
        found.extend(Violation(path, value, self, text) for text in self._length.broken(len(value), "length"))
        if isinstance(self._element, Scalar):
            limits = _broken_limits(self._element, value)
            if limits:
                found.append(Violation(path, value, self, f"Member must satisfy constraint: [{', '.join(limits)}]"))
            return
        for number, element in enumerate(value, 1):
            _walk_value(self._element, element, (*path, number), found)

    def show(self, value: Any) -> str:
        return REDACTED if self.sensitive else f"[{', '.join(_show(self._element, element) for element in value)}]"


class MapOf:
    """A map; broken limits of keys and of scalar values are reported at the map, once each."""

    accepts: Callable[[Any], bool]

    def __init__(self, key: Scalar, value: Check, *, length: Bounds, sensitive: bool = False) -> None:
        self.sensitive = sensitive
        self._key = key
        self._value = value
        self._length = length
        self.accepts = self._accept

    def _accept(self, value: Any) -> bool:
        return (
            type(value) is dict
            and self._length.hold(len(value))
            and all(map(self._key.accepts, value))
            and all(map(self._value.accepts, value.values()))
        )

    def walk(self, value: Any, path: Path, found: list[Violation]) -> None:
        if type(value) is not dict:
            raise unreadable(value, "map")
        found.extend(Violation(path, value, self, text) for text in self._length.broken(len(value), "length"))
        self._walk_scalars(self._key, list(value), "Map keys", Violation(path, value, self, ""), found)
        if isinstance(self._value, Scalar):
            values = list(value.values())
            self._walk_scalars(self._value, values, "Map value", Violation(path, value, self, ""), found)
            return
        for key, member in value.items():
            _walk_value(self._value, member, (*path, MapKey(key)), found)

    @staticmethod
    def _walk_scalars(check: Scalar, values: list[Any], whose: str, at: Violation, found: list[Violation]) -> None:
        limits = _broken_limits(check, values)
        if limits:
            found.append(at._replace(constraint=f"{whose} must satisfy constraint: [{', '.join(limits)}]"))

    def show(self, value: Any) -> str:
        if self.sensitive:
            return REDACTED
        return f"{{{', '.join(f'{key}={_show(self._value, member)}' for key, member in value.items())}}}"


class Structure:
    """An object with named members; names that the model does not know are ignored, null counts as absent.

    ``printed`` names members that AWS prints although clients cannot send them.
    """

    def __init__(
        self, name: str, *, required: Sequence[str] = (), printed: Sequence[str] = (), sensitive: bool = False
    ) -> None:
        self.sensitive = sensitive
        self._name = name
        self._required = frozenset(required)
        self._printed = tuple(printed)
        self._members: Mapping[str, Check] = {}
        self.accepts: Callable[[Any], bool] = lambda value: False

    def fill(self, members: Mapping[str, Check]) -> None:
        """Set the members; apart from construction because a shape may contain itself."""
        self._members = members
        self.accepts = _structure_test({name: check.accepts for name, check in members.items()}, self._required)

    def walk(self, value: Any, path: Path, found: list[Violation]) -> None:
        if type(value) is not dict:
            raise unreadable(value, "structure")
        for name, check in self._members.items():
            member = value.get(name)
            if member is not None:
                check.walk(member, (*path, name), found)
            elif name in self._required:
                found.append(Violation((*path, name), None, check, NOT_NULL))

    def show(self, value: Any) -> str:
        if self.sensitive:
            return REDACTED
        parts = [f"{lower_camel(name)}={_show(check, value.get(name))}" for name, check in self._members.items()]
        parts += [f"{name}=null" for name in self._printed]
        return f"{self._name}({', '.join(parts)})"


def _structure_test(tests: dict[str, Callable[[Any], bool]], required: frozenset[str]) -> Callable[[Any], bool]:
    find = tests.get

    def accept(value: Any) -> bool:
        if type(value) is not dict or (required and not required <= value.keys()):
            return False
        for name, member in value.items():
            test = find(name)
            if test is None or not test(member):
                return False
        return True

    return accept


def _walk_value(check: Check, value: Any, path: Path, found: list[Violation]) -> None:
    if value is None:
        found.append(Violation(path, None, check, NOT_NULL))
    else:
        check.walk(value, path, found)


def _broken_limits(check: Scalar, values: list[Any]) -> tuple[str, ...]:
    """The limits to report when any of the values is null or breaks one; none when all are in order."""
    for value in values:
        if value is not None:
            check.demand_type(value)
    if None in values:
        return (NOT_NULL,)
    return check.limits if any(check.broken(value) for value in values) else ()


def _show(check: Check, value: Any) -> str:
    return "null" if value is None else check.show(value)
