"""Plans: how to get the values of the paths that rules name out of JSON text without building the rest.

For the tree of steps of all paths a plan makes msgspec struct types, one for every step that has others behind it, with
a field for each key that leads on. Decoding into them checks the whole text but builds only those fields: 0.75 µs for
an event of 850 bytes where one path is named, against 2.6 µs for decoding all of it. Every field takes any JSON value,
so no shape of event is refused. If every value is a scalar, one call of `attrgetter` reads them all; otherwise the
structs are walked and values below arrays carry their membership.

What a struct cannot show is a key that stands twice in one object: `rules.accounting` finds out by counting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET

from rules.accounting import Group, encoded, grouped
from rules.flatten import Membership, Repeated, parse_event
from rules.operators import Scalar

Values = Sequence[Any]
"""For each path a scalar, UNSET if the field is absent, or Many."""

PATH_LIMIT = 200
"""With more paths events are decoded whole: msgspec compares every key with the fields one by one."""

LESSON_LIMIT = 8
"""How often a plan may learn from an event."""

DEPTH_LIMIT = 16
"""Paths with more steps than this are looked up in the decoded event; each level is a type to be made."""

_SCALARS = frozenset({str, int, float, bool, type(None)})
_UNREADABLE = (msgspec.MsgspecError, RecursionError, OverflowError, UnicodeError)
"""What msgspec may say to text: the exact reader then decides."""

_ESCAPED = frozenset('"\\/') | {chr(code) for code in range(0x20)}


class Many:
    """The values of one path in one event, when they are several or lie below an array."""

    __slots__ = ("_runs", "constrained", "values")
    __hash__ = None  # type: ignore[assignment]  # never to be taken for a scalar

    def __init__(self, values: list[Any] | None = None, array: int | None = None) -> None:
        """`values` are the scalars of an array or, with `array`, members of the elements of the array so numbered."""
        self.values: list[Scalar] = [] if values is None else values
        self.constrained = array is not None
        self._runs: list[tuple[int, Membership, int | None]] = [] if values is None else [(len(values), (), array)]

    def add(self, values: list[Any], membership: Membership, array: int | None = None) -> None:
        """Add scalars with one membership, or, when `array` is given, with that of its elements one after another."""
        self.values += values
        self._runs.append((len(values), membership, array))
        self.constrained = self.constrained or bool(membership) or array is not None

    def memberships(self) -> list[Membership]:
        """The membership of every value."""
        found: list[Membership] = []
        for count, membership, array in self._runs:
            if array is None:
                found += [membership] * count
            else:
                found += [(*membership, (array, index)) for index in range(count)]
        return found


class _Step:
    """One step of the paths: where keys lead, the index of the path that ends here, and the struct for an object."""

    __slots__ = ("attributes", "children", "index", "struct")

    def __init__(self) -> None:
        self.children: dict[str, _Step] = {}
        self.index = -1
        self.struct: type | None = None
        self.attributes: list[tuple[Callable[[Any], Any], _Step]] = []

    def child(self, key: str) -> _Step | None:
        """Where a key of an event leads; a key with dots may spell several steps."""
        found = self.children.get(key)
        if found is None and "." in key:
            step: _Step | None = self
            for part in key.split("."):
                step = step.children.get(part) if step else None
            return step
        return found


class Plan:
    """Reads the values of some paths, in the order given, out of decoded events or JSON text.

    A plan learns where else the last steps of its paths occur, so that they can be counted; what it has learned never
    changes an answer, and a thread that does not see it yet only takes the longer way.
    """

    __slots__ = ("_arrays", "_escapable", "_lessons", "_paths", "_reader")

    def __init__(self, paths: Sequence[str], *, arrays: int = 0) -> None:
        """`arrays` is where array numbers begin, for plans whose values are used together."""
        self._paths = tuple(paths)
        self._arrays = arrays
        self._escapable = any(char in _ESCAPED for path in paths for char in path)
        self._reader: _Reader | None = None
        self._lessons = 0

    def _made(self) -> _Reader:
        """The reader, made when it is first needed: types take their time to make."""
        reader = self._reader
        if reader is None:
            reader = self._reader = _Reader(self._paths, self._arrays, len(self._paths))
        return reader

    def of_event(self, event: Mapping[str, Any]) -> Values:
        """The values in an event that has been decoded."""
        reader = self._made()
        return _collect(event, reader.root, reader.size, self._arrays)[0]

    def of_text(self, data: bytes) -> Values:
        """The values in JSON text; raises EventError for text that is no JSON object."""
        reader = self._reader or self._made()
        try:
            values = reader.read(data)
        except (*_UNREADABLE, AttributeError, TypeError):  # no scalars at all paths, or no JSON
            values = None
        return self._of_odd(reader, data) if values is None else values

    def _of_odd(self, reader: _Reader, data: bytes) -> Values:
        """The values in text that holds arrays at our paths or keys that were not accounted for at once."""
        if reader.decode is None:
            return self._of_whole(data)
        if b"\\" in data and (self._escapable or b"\\u" in data):
            return self.of_event(parse_event(data))
        try:
            event = reader.decode(data)
        except _UNREADABLE:
            return self.of_event(parse_event(data))
        values, seen = _collect(event, reader.root, reader.size, self._arrays)
        if not reader.accounts(data, seen):
            return self._of_whole(data)
        if reader.counts_within and self._lessons < LESSON_LIMIT:
            self._study(data)
        reader.learn_shape(event)
        return values

    def _of_whole(self, data: bytes) -> Values:
        """The values in text whose keys could not be accounted for by counting alone."""
        if b"\\" not in data or not (self._escapable or b"\\u" in data):
            try:
                event = msgspec.json.decode(data)
                once = msgspec.json.encode(event)
            except _UNREADABLE:
                return self.of_event(parse_event(data))
            keys = {encoded(path.rpartition(".")[2]) + b'"' for path in self._paths}
            if type(event) is dict and all(once.count(key) == data.count(key) for key in keys):
                values = self.of_event(event)
                self._learn(event)
                return values
        return self.of_event(parse_event(data))

    def _study(self, data: bytes) -> None:
        """Learn from text that could be accounted for, but not in the cheapest way."""
        try:
            self._learn(msgspec.json.decode(data), cheap=True)
        except _UNREADABLE:  # something that no path leads to, such as a number beyond binary64
            self._lessons += 1

    def _learn(self, event: Mapping[str, Any], *, cheap: bool = False) -> None:
        """Read the places where the last steps of our paths occur as well, unless that has been tried often enough.

        `cheap` leaves out places in arrays, where counting behind the parent costs less than reading.
        """
        reader = self._made()
        if reader.decode is None or self._lessons >= LESSON_LIMIT:
            return
        self._lessons += 1
        keys = {path.rpartition(".")[2] for path in self._paths}
        outside, inside = _places(event, keys)
        if cheap:
            common = {path.rpartition(".")[2] for path in inside - set(reader.paths)}
            elsewhere = sorted(path for path in outside if path.rpartition(".")[2] not in common)
        else:
            elsewhere = sorted(outside | inside)
        elsewhere = [path for path in elsewhere if path not in reader.paths]
        if elsewhere and len(reader.paths) + len(elsewhere) <= PATH_LIMIT:
            self._reader = _Reader((*reader.paths, *elsewhere), self._arrays, len(self._paths))


Shape = tuple[frozenset[_Step], frozenset[_Step]]
"""Where an event has arrays: steps with an array of objects, and ends of paths with an array of scalars."""

_FLAT: Shape = (frozenset(), frozenset())


class _Reader:
    """What a plan has compiled for the paths asked for, which come first, and others read only to be counted.

    `read` answers the values of an event of the shape seen last, or None if the event has another shape or not every
    key is accounted for. It is Python source made for these paths: the calls and loops of a general form cost more than
    the work itself. `_collect` is the general form.
    """

    __slots__ = (
        "_arrays",
        "_asked",
        "_chosen",
        "_groups",
        "_lessons",
        "_shape",
        "decode",
        "paths",
        "read",
        "root",
        "size",
    )

    def __init__(self, paths: Sequence[str], arrays: int, asked: int) -> None:
        self.paths = tuple(paths)
        self._arrays = arrays
        self._asked = asked
        self.size = len(paths)
        self.root = _tree(paths)
        self.decode: Callable[[bytes], Any] | None = None
        self.read: Callable[[bytes], Values | None] = _unread
        self._groups: list[Group] = []
        self._shape = _FLAT
        self._lessons = 0
        if 0 < len(paths) <= PATH_LIMIT and max(path.count(".") for path in paths) < DEPTH_LIMIT:
            try:
                _make_structs(self.root)
            except ValueError:  # a key that msgspec does not take as a name
                return
            self.decode = msgspec.json.Decoder(self.root.struct or object).decode
            self._groups = grouped(paths)
            self._compile()

    def accounts(self, data: bytes, seen: Sequence[int]) -> bool:
        """Whether every key of the text was seen; the ways of counting that show it are used from now on."""
        return all(group.accounts(data, seen) for group in self._groups)

    @property
    def counts_within(self) -> bool:
        """Whether some keys stand in other places as well, which makes counting them dearer."""
        return any(group.within for group in self._groups)

    def learn_shape(self, event: Any) -> None:
        """Compile for events of this shape, counted the way the last one was, unless that was done often enough."""
        shape = _shape(event, self.root)
        if shape is not None and self._lessons < LESSON_LIMIT and (shape, self._ways()) != self._chosen:
            self._lessons += 1
            self._shape = shape
            self._compile()

    def _ways(self) -> list[Any]:
        return [(group.within, [key.strict for key in group.keys]) for group in self._groups]

    def _compile(self) -> None:
        self._chosen = (self._shape, self._ways())
        names: dict[str, Any] = {"decode": self.decode, "UNSET": UNSET, "SCALARS": _SCALARS, "Many": Many}
        names["locate"], variables, elements = self._locator()
        source = "\n    ".join(self._source(variables, elements))
        exec(compile(source, "<plan>", "exec"), names)
        self.read = names["read"]

    def _locator(self) -> tuple[Callable[[Any], Any], list[str], list[tuple[str, list[str]]]]:
        """One call that reads all paths outside arrays, and the arrays; its variables; the attributes of elements."""
        arrays = self._shape[0]
        attributes: list[str] = []
        variables: list[str] = []
        elements: list[tuple[str, list[str]]] = []
        todo = [(self.root, "")]
        while todo:
            step, way = todo.pop()
            for number, child in enumerate(step.children.values()):
                attribute = f"{way}f{number}"
                if child in arrays:
                    attributes.append(attribute)
                    variables.append(f"a{len(elements)}")
                    elements.append((variables[-1], [f"v{leaf.index}" for leaf in child.children.values()]))
                    continue
                if child.index >= 0:
                    attributes.append(attribute)
                    variables.append(f"v{child.index}")
                todo.append((child, attribute + "."))
        read = attrgetter(*attributes)
        return (read if len(attributes) > 1 else lambda event: (read(event),)), variables, elements

    def _source(self, variables: list[str], elements: list[tuple[str, list[str]]]) -> Iterator[str]:
        lists = [f"v{step.index}" for step in self._shape[1]]
        yield "def read(data):"
        yield f"{', '.join(variables)}, = locate(decode(data))"
        yield "if b'\\\\' in data: return None"
        for array, members in elements:
            yield f"if type({array}) is not list: return None"
            for number, member in enumerate(members):
                yield f"{member} = [element.f{number} for element in {array}]"
                yield f"if not SCALARS.issuperset(map(type, {member})): return None"
        inside = {member: f"len({member})" for _, members in elements for member in members}
        yield from self._counts(inside)
        for member in lists:
            yield f"if type({member}) is list:"
            yield f"    if not SCALARS.issuperset(map(type, {member})): return None"
            yield f"    {member} = Many({member})"
        for number, (_, members) in enumerate(elements, self._arrays + 1):
            for member in members:
                if int(member[1:]) < self._asked:
                    yield f"{member} = Many({member}, {number})"
        scalars = [variable for variable in variables if variable[0] == "v" and variable not in lists]
        yield f"hash(({', '.join(scalars)},))  # fails for everything but scalars" if scalars else "pass"
        yield f"return {', '.join(f'v{index}' for index in range(self._asked))},"

    def _counts(self, inside: Mapping[str, str]) -> Iterator[str]:
        for group in self._groups:
            start = ""
            if group.within:
                yield f"start = data.find({group.parent!r})"
                yield "if start < 0: start = len(data)"
                yield f"elif data.find({group.parent!r}, start + 1) >= 0: return None"
                start = ", start"
            for key in group.keys:
                needle = key.quoted if key.strict else key.end
                found = [inside.get(f"v{index}", f"(v{index} is not UNSET)") for index in key.indexes]
                yield f"if data.count({needle!r}{start}) != {' + '.join(found)}: return None"
                if key.strict:
                    yield f"if data.find({key.dotted!r}{start}) >= 0: return None"


def _unread(data: bytes) -> None:
    """In place of `read` where paths are too many or too deep for structs."""


def _shape(event: Any, root: _Step) -> Shape | None:
    """The shape of an event, None if it has arrays inside arrays or of different things."""
    objects, scalars = set(), set()
    todo = [(event, root)]
    while todo:
        value, step = todo.pop()
        for attribute, child in step.attributes:
            member = attribute(value)
            if type(member) is child.struct:
                todo.append((member, child))
            elif type(member) is list:
                kinds = set(map(type, member))
                if (
                    kinds == {child.struct}
                    and child.index < 0
                    and not any(leaf.children for _, leaf in child.attributes)
                ):
                    objects.add(child)
                elif kinds <= _SCALARS and child.struct is None:
                    scalars.add(child)
                else:
                    return None
    return frozenset(objects), frozenset(scalars)


def _places(event: Mapping[str, Any], keys: set[str]) -> tuple[set[str], set[str]]:
    """The paths at which some keys stand in an event, outside and inside arrays; keys with dots lead nowhere."""
    outside: set[str] = set()
    inside: set[str] = set()
    todo: list[tuple[Any, str, set[str]]] = [(event, "", outside)]
    while todo and len(outside) + len(inside) <= PATH_LIMIT:
        value, path, found = todo.pop()
        if type(value) is list:
            todo += [(element, path, inside) for element in value]
        elif type(value) is dict:
            for key, member in value.items():
                if "." not in key and path.count(".") < DEPTH_LIMIT:
                    place = f"{path}.{key}" if path else key
                    todo.append((member, place, found))
                    if key in keys:
                        found.add(place)
    return outside, inside


def _collect(event: Any, root: _Step, size: int, arrays: int) -> tuple[list[Any], list[int]]:
    """The values in an event of dictionaries or of our structs, and how often a key led to each path."""
    found: list[Any] = [None] * size
    seen = [0] * (size + 1)  # the last one for steps where no path ends, whose index is -1
    todo: list[tuple[Any, _Step, Membership]] = [(event, root, ())]
    while todo:
        value, step, membership = todo.pop()
        kind = type(value)
        if kind is step.struct:
            for attribute, child in step.attributes:
                member = attribute(value)
                if member is not UNSET:
                    seen[child.index] += 1
                    todo.append((member, child, membership))
        elif kind is dict:
            for key, member in value.items() if step.children else ():
                led = step.child(key)
                if led is not None:
                    seen[led.index] += 1
                    todo.append((member, led, membership))
        elif kind is list:
            arrays += 1
            _collect_array(value, step, membership, arrays, found, seen, todo)
        elif kind is Repeated:
            todo += [(member, step, membership) for member in value]
        elif step.index >= 0:
            _at(found, step.index).add([value], membership)
    return [_simplest(each) for each in found], seen


def _collect_array(
    array: list[Any],
    step: _Step,
    membership: Membership,
    number: int,
    found: list[Any],
    seen: list[int],
    todo: list[tuple[Any, _Step, Membership]],
) -> None:
    kinds = set(map(type, array))
    if kinds <= _SCALARS:
        if step.index >= 0 and array:
            _at(found, step.index).add(array, membership)
    elif kinds == {step.struct} and not any(child.children for _, child in step.attributes):
        for attribute, child in step.attributes:
            members = [attribute(element) for element in array]
            if set(map(type, members)) <= _SCALARS:
                seen[child.index] += len(members)
                _at(found, child.index).add(members, membership, number)
            else:
                for index, member in enumerate(members):
                    if member is not UNSET:
                        seen[child.index] += 1
                        todo.append((member, child, (*membership, (number, index))))
    else:
        for index, element in enumerate(array):
            if type(element) in _SCALARS:
                if step.index >= 0:
                    _at(found, step.index).add([element], membership)
            else:
                todo.append((element, step, (*membership, (number, index))))


def _at(found: list[Any], index: int) -> Many:
    many: Many | None = found[index]
    if many is None:
        many = found[index] = Many()
    return many


def _simplest(many: Many | None) -> Any:
    if many is None:
        return UNSET
    return many.values[0] if len(many.values) == 1 and not many.constrained else many


def _tree(paths: Sequence[str]) -> _Step:
    root = _Step()
    for index, path in enumerate(paths):
        step = root
        for part in path.split("."):
            step = step.children.setdefault(part, _Step())
        step.index = index
    return root


def _make_structs(step: _Step) -> Any:
    """Make the struct types from the leaves up; answer the type of a field that leads to a step."""
    if not step.children:
        return Any
    names = {f"f{number}": key for number, key in enumerate(step.children)}
    fields = []
    for name, key in names.items():
        child = step.children[key]
        kind = _make_structs(child)
        # An object that is missing is an empty one, so that one attrgetter can reach through it.
        missing = {"default": UNSET} if child.struct is None or child.index >= 0 else {"default_factory": child.struct}
        fields.append((name, kind, msgspec.field(**missing)))
    step.struct = struct = msgspec.defstruct("Step", fields, rename=names, gc=False)
    step.attributes = [(attrgetter(name), step.children[key]) for name, key in names.items()]
    scalar = str | int | float | bool | None
    return struct | list[struct | list | scalar] | scalar  # type: ignore[type-arg,valid-type]
