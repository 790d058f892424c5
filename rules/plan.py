"""Plans: how to get the values of the paths that rules name out of JSON text without building the rest.

A plan holds a few *readers*. Each is made for events of one kind: for keys in a certain order, so that `rules.ordered`
can decode them and be sure that none repeats, and for arrays in certain places. It decodes only what the paths name
(0.9 to 1.2 µs for an event of 900 bytes, of which 0.7 are for stepping over it; all of it takes 2.9) and picks the
values with a function compiled for just these paths.

Text that no reader takes is decoded whole and encoded again, which drops what stood twice; if that loses no quote,
nothing did (7 µs). From such an event the plan learns a reader for its kind. Text that fails this as well, or that
spells characters as `\\u…`, goes to the exact reader, `parse_event` (20 µs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec
from msgspec import UNSET

from rules import ordered
from rules.flatten import parse_event
from rules.values import Many, Step, Values, collect, step_tree

PATH_LIMIT = 128
"""With more paths events are decoded whole: msgspec compares every other key with the fields one by one."""

DEPTH_LIMIT = 16
"""Paths with more steps than this are looked up in the decoded event; each level is a type to be made."""

READER_LIMIT = 4
"""How many kinds of events a plan is ready for at a time."""

LESSON_LIMIT = 16
"""From how many odd events a plan learns one after another; a lesson takes some 0.3 ms."""

LESSON_EVERY = 512
"""After these it learns from every so many, so that a burst of odd events does not spoil it for good."""

_UNREADABLE = (msgspec.MsgspecError, RecursionError, OverflowError, UnicodeError)
"""What msgspec may say to text: the exact reader then decides."""

_NUMBERS = frozenset((int, float))

Read = Callable[[bytes], Values]


class Plan:
    """Reads the values of some paths, in the order given, out of decoded events or JSON text.

    What a plan has learned never changes an answer, and a thread that does not see it yet only takes the longer way.
    """

    __slots__ = ("_arrays", "_learns", "_odd", "_read", "_readers", "_root", "_size")

    def __init__(self, paths: Sequence[str], *, arrays: int = 0) -> None:
        """`arrays` is where array numbers begin, for plans whose values are used together."""
        self._size = len(paths)
        self._arrays = arrays
        self._root = step_tree(paths)
        few, flat = len(paths) <= PATH_LIMIT, all(path.count(".") < DEPTH_LIMIT for path in paths)
        self._learns = ordered.WORKS and few and flat
        self._readers: tuple[tuple[Step, Read], ...] = ()
        self._read: Read = self._of_odd  # until there is a reader: making one takes its time
        self._odd = 0

    def of_event(self, event: Mapping[str, Any]) -> Values:
        """The values in an event that has been decoded."""
        return collect(event, self._root, self._size, self._arrays)

    def of_text(self, data: bytes) -> Values:
        """The values in JSON text; raises EventError for text that is no JSON object."""
        try:
            return self._read(data)
        except _UNREADABLE:
            return self._of_odd(data)

    def _of_odd(self, data: bytes) -> Values:
        """The values in text that the first reader did not take."""
        for root, read in self._readers[1:]:
            try:
                values = read(data)
            except _UNREADABLE:
                continue
            self._prefer(root, read)
            return values
        whole = _decode_whole(data)
        event = parse_event(data) if whole is None else whole
        if self._learns and (whole is not None or b"\\u" in data):  # else a key repeats
            self._odd += 1
            if self._odd <= LESSON_LIMIT or self._odd % LESSON_EVERY == 0:
                self._learn(event, data)
        return self.of_event(event)

    def _learn(self, event: Mapping[str, Any], data: bytes) -> None:
        """Make a reader for events like this one, unless that does not work for it."""
        root = _adapted(self._readers[0][0] if self._readers else self._root, event)
        try:
            read = _reader(root, self._size, self._arrays)
            read(data)
        except _UNREADABLE:
            return
        self._prefer(root, read)

    def _prefer(self, root: Step, read: Read) -> None:
        others = [reader for reader in self._readers if reader[0] is not root]
        self._readers = ((root, read), *others[: READER_LIMIT - 1])
        self._read = read


def _decode_whole(data: bytes) -> Any:
    """The decoded event, None if it may have lost something."""
    if b"\\u" in data:  # a quote may be spelled like this, and would be encoded in another way
        return None
    try:
        event = msgspec.json.decode(data)
        lossless = type(event) is dict and msgspec.json.encode(event).count(b'"') == data.count(b'"')
    except _UNREADABLE:
        return None
    return event if lossless else None


# Learning


def _adapted(step: Step, value: Any) -> Step:
    """A step that expects keys in the order in which they come in a value, and arrays where it has them."""
    adapted = Step(step.index, array=type(value) is list or (step.array and type(value) is not dict))
    adapted.children = step.children
    objects = [member for member in (value if type(value) is list else (value,)) if type(member) is dict]
    for member in objects:
        keys = _reordered(adapted.children, member)
        adapted.children = {key: _adapted(adapted.children[key], member.get(key)) for key in keys}
    for key, child in adapted.children.items():
        child.numbers = adapted.array and all(type(member.get(key)) in _NUMBERS for member in objects)
    return adapted


def _reordered(expected: Mapping[str, Step], came: Mapping[str, Any]) -> Iterator[str]:
    """The expected keys, those that came in their new order in the places that they had among the others."""
    order = (key for key in came if key in expected)
    return (next(order) if key in came else key for key in expected)


# Reading


def _reader(root: Step, size: int, arrays: int) -> Read:
    """Reads events of the kind that `root` expects; raises one of `_UNREADABLE` for others."""
    names: dict[str, Any] = {"NONE": {}, "UNSET": UNSET, "Many": Many, "decode": ordered.decoder(root)}
    names["collect"] = lambda event: collect(event, root, size, arrays)
    source = "\n".join(_Source(root, arrays, names).lines(size))
    exec(compile(source, "<reader>", "exec"), names)
    read: Read = names["read"]
    return read


class _Source:
    """The Python source of a reader: the calls and loops of a general form cost more than the work itself.

    It is made of numbers only. Keys, which come from patterns, are put into `names`.
    """

    def __init__(self, root: Step, arrays: int, names: dict[str, Any]) -> None:
        self._root = root
        self._arrays = arrays
        self._names = names
        self._keys = 0
        self._several = False

    def lines(self, size: int) -> Iterator[str]:
        yield "def read(data):"
        yield " object0 = decode(data)"
        picks = list(self._picks())
        if None in picks:
            yield " return collect(object0)"
            return
        yield " try:"
        yield from (f"  {pick}" for pick in picks)
        found = "".join(f"value{index}, " for index in range(size))
        yield f"  return [{found}]" if self._several else f"  return ({found})"
        yield " except (AttributeError, KeyError, TypeError): return collect(object0)"

    def _key(self, key: str) -> str:
        self._keys += 1
        self._names[f"key{self._keys}"] = key
        return f"key{self._keys}"

    def _picks(self) -> Iterator[str | None]:
        """Statements that pick the values out of objects; None where only the general form will do."""
        todo = [("object0", self._root)]
        arrays = self._arrays
        while todo:
            held, step = todo.pop()
            for key, child in step.children.items():
                if not child.children:
                    yield f"value{child.index} = {held}.get({self._key(key)}, UNSET)"
                    if child.array:
                        self._several = True
                        yield f"if value{child.index}.__class__ is list: "
                        yield f" value{child.index} = Many(value{child.index}) if value{child.index} else UNSET"
                elif child.index >= 0:
                    yield None
                elif child.array:
                    arrays += 1
                    yield from self._elements(f"{held}.get({self._key(key)}, ())", child, arrays)
                else:
                    name = f"object{self._keys + 1}"
                    yield f"{name} = {held}.get({self._key(key)}, NONE)"
                    todo.append((name, child))

    def _elements(self, array: str, step: Step, number: int) -> Iterator[str | None]:
        self._several = True
        yield f"array{number} = {array}"
        for key, child in step.children.items():
            if child.children or child.array:
                yield None
            value = f"value{child.index}"
            self._names[f"pick{child.index}"] = itemgetter(key)
            yield f"{value} = [*map(pick{child.index}, array{number})]"
            yield f"{value} = Many({value}, {number}, {child.numbers}) if {value} else UNSET"
