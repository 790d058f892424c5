"""Anchors: forks filed under one of their conditions, so that an event meets only those it might satisfy.

Each fork is filed once, in the table of one path, under each alternative of its leaf there. A value looked up in that
table brings up the forks of all alternatives that accept it: those without other conditions match at once, the others
are candidates whose remaining conditions are asked one by one. So an event costs a look-up for each path that has
anchors, plus its candidates; rules that no value touches cost nothing.

`Table.look_up` gives a value its `Hits`. What a string hits is remembered, up to a limit beyond the literals of the
rules, because most fields of most events take few different values: a value seen before costs one dictionary access
(0.1 µs) instead of all look-ups its operators need (0.5 to 3 µs). What is remembered never changes an answer, so
threads need no lock.

anything-but is kept upside down: a table lists all its anything-but anchors, and a look-up (see `rules.lookup`) tells
which of them a value excludes, mostly none.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import UNSET

from rules.arrays import Choice, consistent
from rules.lookup import Lookup
from rules.operators import Alternative, AnythingBut, Exists, Scalar
from rules.values import Many

REMEMBERED_VALUES = 1024
REMEMBERED_LENGTH = 256

_EXACT = 2**53
_NUMBERS = frozenset((int, float))


class Condition:
    """What a fork asks of one path; conditions are shared by all forks that ask the same."""

    __slots__ = ("absence", "accepts", "leaf", "path")

    def __init__(self, path: str, leaf: tuple[Alternative, ...]) -> None:
        self.path = path
        self.leaf = leaf
        self.absence = any(type(each) is Exists and not each.present for each in leaf)
        self.accepts: Callable[[Scalar], bool] = leaf[0].accepts if len(leaf) == 1 else self._any_accepts

    def _any_accepts(self, value: Scalar) -> bool:
        return any(each.accepts(value) for each in self.leaf)

    def holds(self, value: Any) -> bool:
        """Whether the condition alone holds for the scalar, UNSET or Many of its path."""
        if value is UNSET:
            return self.absence
        if type(value) is Many:
            return any(map(self.accepts, value.values))
        return self.accepts(value)

    def choice(self, value: Any) -> Choice:
        """What the path offers, with the array elements its values lie in."""
        if value is UNSET:
            return Choice((), (), self.absence)
        if type(value) is not Many:
            return Choice([()] if self.accepts(value) else (), [()], self.absence)
        memberships = value.memberships()
        accepted = [
            membership for scalar, membership in zip(value.values, memberships, strict=True) if self.accepts(scalar)
        ]
        return Choice(accepted, memberships, self.absence)


class Entry:
    """A fork as filed: the result it stands for, all its conditions in sorted order, and those not its anchor."""

    __slots__ = ("conditions", "rest", "result")

    def __init__(self, result: Hashable, conditions: Sequence[Condition], anchor: Condition) -> None:
        self.result = result
        self.conditions = tuple(conditions)
        self.rest = tuple(condition for condition in conditions if condition is not anchor)


class Hits:
    """What one value brings up: results that are certain, and entries that ask for more."""

    __slots__ = ("candidates", "certain")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.certain: dict[Hashable, None] = {}
        candidates: dict[Entry, None] = {}
        for entry in entries:
            if entry.rest:
                candidates[entry] = None
            else:
                self.certain[entry.result] = None
        self.candidates = tuple(candidates)


NOTHING = Hits(())


class _Exclusion:
    """An anything-but alternative of an entry."""

    __slots__ = ("entry",)

    def __init__(self, entry: Entry) -> None:
        self.entry = entry


class Table:
    """The anchors of one path."""

    __slots__ = (
        "_accepted",
        "_at_points",
        "_excluded",
        "_exclusions",
        "_found",
        "_gaps",
        "_points",
        "_positive",
        "_present",
        "absent",
        "remembered",
    )

    def __init__(self) -> None:
        self._accepted: Lookup[Entry] = Lookup()
        self._excluded: Lookup[_Exclusion] = Lookup()
        self._exclusions: dict[tuple[Entry, AnythingBut], _Exclusion] = {}
        self._present: dict[Entry, None] = {}
        self.absent: dict[Entry, None] = {}
        self._forget()

    def _forget(self) -> None:
        """Drop what is remembered; it is found again when asked for."""
        self.remembered: dict[Any, Hits] = {}
        self._found: dict[tuple[tuple[Entry, ...], tuple[_Exclusion, ...]], Hits] = {}
        self._points: list[float] | None = None
        self._gaps: list[Hits | None] = []
        self._at_points: dict[float, Hits] = {}
        self._positive = not self._exclusions and not self._present
        """Whether a value that no alternative accepts brings up nothing."""

    @property
    def _textual(self) -> bool:
        """Whether numbers are looked up by their text as well, for they may look like an address."""
        return self._accepted.reads_addresses

    def copy(self) -> Table:
        """An equal table that can be changed."""
        copied = Table()
        copied._accepted = self._accepted.copy()
        copied._excluded = self._excluded.copy()
        copied._exclusions = self._exclusions.copy()
        copied._present = self._present.copy()
        copied.absent = self.absent.copy()
        copied._forget()
        return copied

    def __bool__(self) -> bool:
        return bool(self._accepted or self._exclusions or self._present or self.absent)

    @property
    def needs_value(self) -> bool:
        """Whether only a value that some alternative accepts brings anything up."""
        return self._positive and not self.absent

    def add(self, leaf: Iterable[Alternative], entry: Entry) -> None:
        for alternative in dict.fromkeys(leaf):
            if isinstance(alternative, AnythingBut):
                exclusion = self._exclusions[entry, alternative] = _Exclusion(entry)
                for excluded in alternative.excluded:
                    self._excluded.add(excluded, exclusion)
            elif isinstance(alternative, Exists):
                (self._present if alternative.present else self.absent)[entry] = None
            else:
                self._accepted.add(alternative, entry)
        self._forget()

    def discard(self, leaf: Iterable[Alternative], entry: Entry) -> None:
        for alternative in dict.fromkeys(leaf):
            if isinstance(alternative, AnythingBut):
                exclusion = self._exclusions.pop((entry, alternative))
                for excluded in alternative.excluded:
                    self._excluded.discard(excluded, exclusion)
            elif isinstance(alternative, Exists):
                del (self._present if alternative.present else self.absent)[entry]
            else:
                self._accepted.discard(alternative, entry)
        self._forget()

    def look_up(self, value: Any) -> Hits:
        """What a scalar, or UNSET for none, brings up."""
        kind = type(value)
        if kind is float or kind is int:
            return self._number(value)
        if kind is str:
            found = self._accepted.find_text(value)
            if not found and self._positive:
                hits = NOTHING
            else:
                hits = self._hits(tuple(found), tuple(self._excluded.find_text(value)) if self._exclusions else ())
            if len(value) > REMEMBERED_LENGTH:
                return hits
        elif value is UNSET:
            hits = Hits(self.absent) if self.absent else NOTHING
        else:
            # True and 1 are one key to a dictionary, so booleans are not remembered.
            return self._hits(self._accepted.find_constant(value), self._excluded.find_constant(value))
        if len(self.remembered) < REMEMBERED_VALUES or (kind is str and self._accepted.names(value)):
            self.remembered[value] = hits
        return hits

    def look_up_many(self, values: list[Any]) -> Iterable[Hits]:
        """What several scalars bring up; numbers without a named one among or between them are looked up once."""
        if len(values) > 2 and set(map(type, values)) <= _NUMBERS:
            least, most = min(values), max(values)
            points = self._points if self._points is not None else self._sort_points()
            if least >= -_EXACT and most <= _EXACT and bisect_left(points, least) == bisect_right(points, most):
                return (self._number(least),)
        remembered = self.remembered
        return {remembered.get(value) or self.look_up(value) for value in values}

    def _sort_points(self) -> list[float]:
        points = self._points = sorted(self._accepted.points() | self._excluded.points())
        self._gaps = [None] * (len(points) + 1)
        return points

    def _number(self, number: int | float) -> Hits:
        """Numbers between the same two points bring up the same."""
        points = self._points if self._points is not None else self._sort_points()
        if type(number) is int and not -_EXACT <= number <= _EXACT:
            return self._hits(tuple(self._accepted.find_number(number)), tuple(self._excluded.find_number(number)))
        if number != number:  # NaN, which only decoded events can hold, has no place among the points
            return self._find(number)
        gap = bisect_left(points, number)
        if gap < len(points) and points[gap] == number:
            hits = self._at_points.get(number)
            if hits is None:
                hits = self._at_points[number] = self._find(number)
            return hits
        if self._textual:
            return self._find(number)
        hits = self._gaps[gap]
        if hits is None:
            hits = self._gaps[gap] = self._find(number)
        return hits

    def _find(self, number: int | float) -> Hits:
        return self._hits(tuple(self._accepted.find_number(number)), tuple(self._excluded.find_number(number)))

    def _hits(self, accepted: tuple[Entry, ...], excluded: tuple[_Exclusion, ...]) -> Hits:
        """Equal finds give the same hits; most values find nothing and are excluded by nothing."""
        hits = self._found.get((accepted, excluded))
        if hits is None:
            entries = [*accepted, *self._present]
            if self._exclusions:
                out = set(excluded)
                entries += [exclusion.entry for exclusion in self._exclusions.values() if exclusion not in out]
            hits = Hits(entries) if entries else NOTHING
            if len(self._found) < REMEMBERED_VALUES:
                self._found[accepted, excluded] = hits
        return hits


class Anchors:
    """Tables by path. Changed while being built, then only read; `copy` shares the tables until they change."""

    __slots__ = ("_shared", "tables")

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self._shared: set[str] = set()

    def copy(self) -> Anchors:
        copied = Anchors()
        copied.tables = self.tables.copy()
        copied._shared = set(self.tables)
        return copied

    def _own(self, path: str) -> Table:
        if path in self._shared:
            self._shared.discard(path)
            self.tables[path] = self.tables[path].copy()
        return self.tables.setdefault(path, Table())

    def add(self, anchor: Condition, entry: Entry) -> None:
        self._own(anchor.path).add(anchor.leaf, entry)

    def discard(self, anchor: Condition, entry: Entry) -> None:
        table = self._own(anchor.path)
        table.discard(anchor.leaf, entry)
        if not table:
            del self.tables[anchor.path]


class Matcher:
    """Anchors joined to the order in which the values of an event come."""

    __slots__ = ("_order", "_tables")

    def __init__(self, anchors: Anchors, order: Mapping[str, int]) -> None:
        self._order = order
        self._tables = [(order[path], table.remembered.get, table) for path, table in anchors.tables.items()]

    def match(self, values: Sequence[Any], results: dict[Hashable, None]) -> None:
        """Add the results that an event with these values brings up."""
        for index, remembered, table in self._tables:
            value = values[index]
            if type(value) is Many:
                self._match_many(table, value, values, results)
                continue
            hits = remembered(value) or table.look_up(value)
            if hits is not NOTHING:
                results.update(hits.certain)
                for entry in hits.candidates:
                    if entry.result not in results and self._holds(entry, values):
                        results[entry.result] = None

    def matches(self, values: Sequence[Any]) -> bool:
        """Whether an event with these values brings up anything."""
        results: dict[Hashable, None] = {}
        self.match(values, results)
        return bool(results)

    def _match_many(self, table: Table, many: Many, values: Sequence[Any], results: dict[Hashable, None]) -> None:
        """Every value may bring up entries; where arrays matter, so may the absence that is judged while picking."""
        candidates: dict[Entry, None] = {}
        for hits in table.look_up_many(many.values):
            results.update(hits.certain)
            candidates.update(dict.fromkeys(hits.candidates))
        if many.constrained:
            candidates.update((entry, None) for entry in table.absent if entry.rest)
        for entry in candidates:
            if entry.result not in results and self._holds_in_arrays(entry, values):
                results[entry.result] = None

    def _holds(self, entry: Entry, values: Sequence[Any]) -> bool:
        """Whether the other conditions of an entry hold, given that a scalar outside all arrays brought it up."""
        order = self._order
        for condition in entry.rest:
            value = values[order[condition.path]]
            if value is UNSET:
                if not condition.absence:
                    return False
            elif type(value) is Many:
                return self._holds_in_arrays(entry, values)
            elif not condition.accepts(value):
                return False
        return True

    def _holds_in_arrays(self, entry: Entry, values: Sequence[Any]) -> bool:
        """Whether all conditions of an entry hold together, some of them for elements of arrays."""
        asked = [(condition, values[self._order[condition.path]]) for condition in entry.conditions]
        constrained = [condition for condition, value in asked if type(value) is Many and value.constrained]
        if not constrained or (len(constrained) == 1 and not constrained[0].absence):
            return all(condition.holds(value) for condition, value in asked)
        choices = [condition.choice(value) for condition, value in asked]
        return all(choice.possible for choice in choices) and consistent(choices)
