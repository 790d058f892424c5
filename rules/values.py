"""Values: what an event holds at the paths that rules name, and the general way to find it.

The paths are kept as a tree of steps. `collect` walks tree and event together, whatever the event looks like, in time
proportional to the part of it below keys that some path names, and never recurses. `rules.plan` has a faster way for
events of a shape it knows, and must give the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from rules.flatten import Membership, Repeated

Values = Sequence[Any]
"""For each path a scalar, UNSET if the field is absent, or Many; if they are a tuple, there is no Many among them."""


class Many(msgspec.Struct, eq=False):
    """The values of one path in one event, when they are several or lie below an array.

    `values` are the scalars of an array or, with `array`, members of the elements of the array so numbered. `numbers`
    says that it is known that they are numbers.
    """

    values: list[Any]
    array: int = 0
    numbers: bool = False

    def memberships(self) -> list[Membership]:
        """The membership of every value."""
        if self.array:
            return [((self.array, index),) for index in range(len(self.values))]
        return [()] * len(self.values)

    @property
    def constrained(self) -> bool:
        """Whether some value lies in an element of an array."""
        return self.array != 0


class Scattered(Many, eq=False):
    """Values that are not one column of one array, each with its own membership."""

    places: list[Membership] = msgspec.field(default_factory=list)

    def add(self, value: Any, membership: Membership) -> None:
        self.values.append(value)
        self.places.append(membership)

    def memberships(self) -> list[Membership]:
        return self.places

    @property
    def constrained(self) -> bool:
        return any(self.places)


class Step:
    """One step of the paths: where keys lead, in the order in which they are expected, and what ends here.

    `index` is that of the path that ends here, or -1. `array` says that an array of objects is expected here, or of
    scalars where nothing leads on; `numbers` that nothing but numbers is, where it leads on to a path's end.
    """

    __slots__ = ("array", "children", "index", "numbers")

    def __init__(self, index: int = -1, *, array: bool = False, numbers: bool = False) -> None:
        self.children: dict[str, Step] = {}
        self.index = index
        self.array = array
        self.numbers = numbers

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
    """The values in a decoded event; its arrays are numbered from behind `arrays` on."""
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
    if type(held) is not Scattered:
        found[index] = Scattered([])
        if held is not UNSET:
            found[index].add(held, ())
    found[index].add(value, membership)
