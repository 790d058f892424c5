"""Anchors: forks filed under one of their conditions, so that an event meets only those it might satisfy.

Each fork is filed once, in the table of one path, under each alternative of its leaf there. A value looked up in that
table brings up the forks of all alternatives that accept it (see `rules.hits`): those without other conditions match
at once, the others are candidates whose remaining conditions are asked one by one. So an event costs a look-up for each
path that has anchors, plus its candidates; rules that no value touches cost nothing.

anything-but is kept upside down: a table lists all its anything-but anchors, and a look-up (see `rules.lookup`) tells
which of them a value excludes, mostly none.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import UNSET

from rules.arrays import consistent
from rules.conditions import Condition
from rules.hits import NOTHING, Entry, Exclusion, HitMap
from rules.lookup import Lookup
from rules.operators import Alternative, AnythingBut, Exists
from rules.values import Many, Values


class Table:
    """The anchors of one path."""

    __slots__ = ("_absent", "_accepted", "_excluded", "_exclusions", "_hits", "_present")

    def __init__(self) -> None:
        self._accepted: Lookup[Entry] = Lookup()
        self._excluded: Lookup[Exclusion] = Lookup()
        self._exclusions: dict[tuple[Entry, AnythingBut], Exclusion] = {}
        self._present: dict[Entry, None] = {}
        self._absent: dict[Entry, None] = {}
        self._hits: HitMap | None = None

    def copy(self) -> Table:
        """An equal table that can be changed."""
        copied = Table()
        copied._accepted = self._accepted.copy()
        copied._excluded = self._excluded.copy()
        copied._exclusions = self._exclusions.copy()
        copied._present = self._present.copy()
        copied._absent = self._absent.copy()
        return copied

    def __bool__(self) -> bool:
        return bool(self._accepted or self._exclusions or self._present or self._absent)

    @property
    def hits(self) -> HitMap:
        """What values bring up; made when it is first needed after a change."""
        hits = self._hits
        if hits is None:
            hits = HitMap(self._accepted, self._excluded, self._exclusions, self._present, self._absent)
            self._hits = hits
        return hits

    def add(self, leaf: Iterable[Alternative], entry: Entry) -> None:
        for alternative in dict.fromkeys(leaf):
            if isinstance(alternative, AnythingBut):
                exclusion = self._exclusions[entry, alternative] = Exclusion(entry)
                for excluded in alternative.excluded:
                    self._excluded.add(excluded, exclusion)
            elif isinstance(alternative, Exists):
                (self._present if alternative.present else self._absent)[entry] = None
            else:
                self._accepted.add(alternative, entry)
        self._hits = None

    def discard(self, leaf: Iterable[Alternative], entry: Entry) -> None:
        for alternative in dict.fromkeys(leaf):
            if isinstance(alternative, AnythingBut):
                exclusion = self._exclusions.pop((entry, alternative))
                for excluded in alternative.excluded:
                    self._excluded.discard(excluded, exclusion)
            elif isinstance(alternative, Exists):
                del (self._present if alternative.present else self._absent)[entry]
            else:
                self._accepted.discard(alternative, entry)
        self._hits = None


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

    def __init__(self, anchors: Iterable[Anchors], order: Mapping[str, int]) -> None:
        self._order = order
        self._tables = [(order[path], table.hits) for each in anchors for path, table in each.tables.items()]

    def match(self, values: Values) -> Collection[Any]:
        """The results that an event with these values brings up."""
        first, others = NOTHING, []
        for index, hit_map in self._tables:
            hits = hit_map[values[index]]
            if hits is not NOTHING:
                if first is NOTHING:
                    first = hits
                else:
                    others.append(hits)
        if not (others or first.candidates):
            return first.certain
        found = [first, *others]
        results = {result: None for hits in found for result in hits.certain}
        add_matching = self._add_matching if type(values) is tuple else self._add_matching_in_arrays
        for hits in found:
            if hits.candidates:
                add_matching(hits.candidates, values, results)
        return results

    def _add_matching(self, candidates: Sequence[Entry], values: Values, results: dict[Hashable, None]) -> None:
        """Add the results of candidates whose other conditions hold, where all values are scalars or absent."""
        order = self._order
        for entry in candidates:
            if entry.result in results:
                continue
            for condition in entry.rest:
                value = values[order[condition.path]]
                if not (condition.absence if value is UNSET else condition.accepts(value)):
                    break
            else:
                results[entry.result] = None

    def _add_matching_in_arrays(
        self, candidates: Sequence[Entry], values: Values, results: dict[Hashable, None]
    ) -> None:
        for entry in candidates:
            if entry.result not in results and self._holds(entry, values):
                results[entry.result] = None

    def _holds(self, entry: Entry, values: Values) -> bool:
        """Whether all conditions of an entry hold together, some of them perhaps for elements of arrays."""
        asked: Sequence[tuple[Condition, Any]]
        asked = [(condition, values[self._order[condition.path]]) for condition in entry.conditions]
        constrained = [pair for pair in asked if isinstance(pair[1], Many) and pair[1].constrained]
        absence = any(condition.absence for condition, _ in constrained)
        if not constrained or (len(constrained) == 1 and not absence):
            return all(condition.holds(value) for condition, value in asked)
        arrays = {value.array for _, value in constrained}
        if len(arrays) == 1 and 0 not in arrays and not absence:
            return _hold_in_one(constrained) and all(condition.holds(value) for condition, value in asked)
        choices = [condition.choice(value) for condition, value in asked]
        return all(choice.possible for choice in choices) and consistent(choices)


def _hold_in_one(columns: Sequence[tuple[Condition, Many]]) -> bool:
    """Whether one element of an array satisfies all conditions; all columns are of that array."""
    elements: Iterable[int] = range(len(columns[0][1].values))
    for condition, column in columns:
        elements = [element for element in elements if condition.accepts(column.values[element])]
    return bool(elements)
