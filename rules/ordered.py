"""Decoders that read a few keys of JSON text and notice when a key repeats.

For a rule every occurrence of a key counts, while JSON decoders keep the last one. To count the keys of a text
afterwards costs a quarter of a microsecond each, to decode all of it three times the work. This is for nothing:

msgspec finds the field of a key by comparing it with the fields in the order in which they were declared. It begins
behind the field it found last, and at the end starts over. Declare every key twice, the whole row and then the whole
row again:

    a  b  c  a' b' c'        the fields with a stroke have a type that no JSON value has

Keys that come in the order a, b, c, each once or not at all, are found in the first row. Any other sequence meets the
second: once `b` has been read the search goes on at `c`, so another `b`, or an `a`, is found in the second row, and
refused for its type. What is decoded without an error has each key once at most, so nothing was lost.

Which order the keys of events have is learned from events (`rules.plan`); text in another order is no error of the
text, it only has to be read in another way. A key with dots, that spells several steps, has a field of that type too.

msgspec allows a key to stand twice in a TypedDict whose names are strings that do not compare equal. Nothing promises
that it always will, so `WORKS` tells whether it does; where it does not, plans decode whole texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Annotated, Any

import msgspec

from rules.values import Step

_Scalar = str | int | float | bool | None
_Impossible = Annotated[int, msgspec.Meta(gt=0, lt=0)]


class _Repeat(str):
    """A key once more: the same text, but equal only to itself."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def decoder(root: Step) -> Callable[[bytes], Any]:
    """Reads the steps below `root` into dictionaries; scalars below it are checked to be scalars, arrays to be arrays.

    Raises what msgspec raises for other values, repeated keys, keys in another order, and text that is no JSON object;
    UnicodeEncodeError for steps that no text can hold.
    """
    return msgspec.json.Decoder(_object(root)).decode


def _object(step: Step) -> Any:
    """The type of the objects at a step."""
    fields: dict[str, Any] = {key: _member(child) for key, child in step.children.items()}
    fields |= {_Repeat(key): _Impossible for key in step.children}
    fields |= dict.fromkeys(_dotted(step), _Impossible)
    for key in fields:
        key.encode()
    names = frozenset(fields)
    body = {"__annotations__": fields, "__total__": False, "__required_keys__": frozenset(), "__optional_keys__": names}
    return type("Step", (dict,), body)


def _member(step: Step) -> Any:
    """The type of what a key that leads to a step may hold."""
    if step.numbers:
        return int | float
    single: Any = _object(step) if step.children else _Scalar
    return (list[single] if step.array else single) | _Scalar


def _dotted(step: Step) -> Iterator[str]:
    """Keys that spell several steps at once."""
    todo = [(key, child) for key, child in step.children.items()]
    while todo:
        way, reached = todo.pop()
        for key, child in reached.children.items():
            yield f"{way}.{key}"
            todo.append((f"{way}.{key}", child))


def _works() -> bool:
    """Whether this msgspec searches fields as described: of all short sequences of keys it takes the ordered ones."""
    root = Step()
    root.children = {key: Step(index) for index, key in enumerate("abc")}
    try:
        decode = decoder(root)
    except (TypeError, ValueError):
        return False
    for length in range(1, 5):
        for keys in product("abc", repeat=length):
            try:
                read = list(decode(b'{"x": 0, %b}' % ", ".join(f'"{key}": 1, "y": 2' for key in keys).encode()))
            except msgspec.ValidationError:
                read = []
            if read != (list(keys) if keys == tuple(sorted(set(keys))) else []):
                return False
    return True


WORKS = _works()
