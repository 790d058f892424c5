"""Values: what an event holds at the paths that rules name, and the general way to find it.

The paths are kept as a tree of steps. `collect` walks tree and event together, whatever the event looks like, in time
proportional to the part of it below keys that some path names, and never recurses. `rules.plan` has a faster way for
events of a shape it knows, and must give the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET

from rules.flatten import Membership, Repeated
from rules.operators import Scalar

Values = Sequence[Any]
"""For each path a scalar, UNSET if the field is absent, or Many."""


class Many:
    """The values of one path in one event, when they are several or lie below an array."""

    __slots__ = ("_runs", "constrained", "values")
    __hash__ = None  # type: ignore[assignment]  # never to be taken for a scalar

    def __init__(self, values: list[Any] | None = None, array: int | None = None) -> None:
        """`values` are the scalars of an array or, with `array`, members of the elements of the array so numbered."""
        self.values: list[Scalar] = [] if values is None else values
        self.constrained = array is not None
        self._runs: list[tuple[int, Membership, int | None]] = [] if values is None else [(len(values), (), array)]

    def add(self, value: Any, membership: Membership) -> None:
        self.values.append(value)
        self._runs.append((1, membership, None))
        self.constrained = self.constrained or bool(membership)

    def memberships(self) -> list[Membership]:
        """The membership of every value."""
        found: list[Membership] = []
        for count, membership, array in self._runs:
            if array is None:
                found += [membership] * count
            else:
                found += [(*membership, (array, index)) for index in range(count)]
        return found


class Step:
    """One step of the paths: where keys lead, in the order in which they are expected, and what ends here.

    `index` is that of the path that ends here, or -1. `array` says that an array of objects is expected here, or of
    scalars where nothing leads on.
    """

    __slots__ = ("array", "children", "index")

    def __init__(self, index: int = -1, *, array: bool = False) -> None:
        self.children: dict[str, Step] = {}
        self.index = index
        self.array = array

    def child(self, key: str) -> Step | None:
        """Where a key of an event leads; a key with dots may spell several steps."""
        found = self.children.get(key)
        if found is None and "." in key:
            step: Step | None = self
            for part in key.split("."):
                step = step.children.get(part) if step else None
            return step
        return found


def step_tree(paths: Sequence[str]) -> Step:
    root = Step()
    for index, path in enumerate(paths):
        step = root
        for part in path.split("."):
            step = step.children.setdefault(part, Step())
        step.index = index
    return root


def collect(event: Mapping[str, Any], root: Step, size: int, arrays: int) -> Values:
    """The values in a decoded event; its arrays are numbered from `arrays` on."""
    found: list[Any] = [UNSET] * size
    todo: list[tuple[Any, Step, Membership]] = [(event, root, ())]
    while todo:
        value, step, membership = todo.pop()
        kind = type(value)
        if kind is dict:
            if step.children:
                for key, member in value.items():
                    led = step.child(key)
                    if led is not None:
                        todo.append((member, led, membership))
        elif kind is list:
            arrays += 1
            for index, element in enumerate(value):
                if type(element) is dict or type(element) is list:
                    todo.append((element, step, (*membership, (arrays, index))))
                else:  # a scalar is not bound to its place
                    _put(found, step.index, element, membership)
        elif kind is Repeated:
            todo += [(member, step, membership) for member in value]
        else:
            _put(found, step.index, value, membership)
    return found


def _put(found: list[Any], index: int, value: Any, membership: Membership) -> None:
    if index < 0:
        return
    held = found[index]
    if held is UNSET and not membership:
        found[index] = value
        return
    if type(held) is not Many:
        found[index] = Many() if held is UNSET else Many([held])
    found[index].add(value, membership)
