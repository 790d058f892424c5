"""Events as fields: (dotted path, scalar, where in which arrays), looked up only where a pattern asks.

A path is its keys joined with dots, without escaping, so `{"a.b": 1}` and `{"a": {"b": 1}}` are the same field. Arrays
add no step. Every array occurrence has a number, and a scalar inside an object or array that is an element of it
carries (number, index); a scalar that is itself an element does not. Objects and arrays without scalars leave nothing.

`Steps` is the tree of the steps of all paths asked for. Walking event and tree together costs time in proportion to
the part of the event below keys that some path names, and never recurses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rules import exact
from rules.errors import RulesError
from rules.operators import Scalar

Membership = tuple[tuple[int, int], ...]
"""(array number, index) pairs, outermost array first."""

Fields = dict[str, list[tuple[Scalar, Membership]]]


class EventError(RulesError):
    """Text that is no JSON object."""


class Repeated(list[Any]):
    """The values of a key that stands several times in one object; unlike an array it does not tell them apart."""


@dataclass(slots=True)
class Steps:
    """One step of the paths asked for: what may follow, and the path if one ends here."""

    children: dict[str, Steps] = field(default_factory=dict)
    path: str | None = None

    @staticmethod
    def of(paths: Iterable[str]) -> Steps:
        root = Steps()
        for path in paths:
            node = root
            for step in path.split("."):
                node = node.children.setdefault(step, Steps())
            node.path = path
        return root

    def child(self, key: str) -> Steps | None:
        """Where a key of an event leads; a key may hold several steps."""
        found = self.children.get(key)
        if found is None and "." in key:
            node: Steps | None = self
            for step in key.split("."):
                node = node.children.get(step) if node else None
            return node
        return found


def flatten(event: Mapping[str, Any], steps: Steps) -> Fields:
    """The fields of an event at the paths of `steps`."""
    fields: Fields = {}
    arrays = 0
    todo: list[tuple[Any, Steps, Membership]] = [(event, steps, ())]
    while todo:
        value, node, membership = todo.pop()
        kind = type(value)
        if kind is dict:
            if node.children:
                for key, member in value.items():
                    child = node.child(key)
                    if child is not None:
                        todo.append((member, child, membership))
        elif kind is list:
            number, arrays = arrays, arrays + 1
            for index, element in enumerate(value):
                if isinstance(element, (dict, list)):
                    todo.append((element, node, (*membership, (number, index))))
                elif node.path is not None:
                    fields.setdefault(node.path, []).append((element, membership))
        elif kind is Repeated:
            todo.extend((member, node, membership) for member in value)
        elif node.path is not None:
            fields.setdefault(node.path, []).append((value, membership))
    return fields


def parse_event(text: str | bytes) -> dict[str, Any]:
    """Read an event's JSON text and keep all values of a key that stands twice (`json.loads` keeps the last).

    Raises EventError for anything but one JSON object.
    """
    try:
        event = json.loads(text, object_pairs_hook=_members, parse_constant=_refuse)
    except RecursionError:
        event = _parse_deep(text)
    except ValueError as error:
        raise EventError(f"not a JSON object: {error}") from None
    if type(event) is not dict:
        raise EventError("not a JSON object")
    return event


def _parse_deep(text: str | bytes) -> Any:
    """Read what nests deeper than there is room on the stack, up to the 1024 levels that count as JSON."""
    try:
        decoded = text if isinstance(text, str) else text.decode()
    except UnicodeDecodeError as error:
        raise EventError(f"not a JSON object: {error}") from None
    if not exact.is_object(decoded):
        raise EventError("not a JSON object, or nested too deep")
    return exact.load_deep(decoded, members=_members, scalar=json.loads)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        members = {}
        for key, value in pairs:
            members.setdefault(key, Repeated()).append(value)
        members = {key: values[0] if len(values) == 1 else values for key, values in members.items()}
    return members


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is not JSON")
