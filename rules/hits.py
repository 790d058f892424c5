"""Hits: what the value of one path brings up, remembered for values that come again.

Most fields of most events take few different values, so what a string or an integer hits is kept, up to a limit: a
value seen before costs one dictionary access (0.04 µs) instead of all look-ups its operators need (0.3 to 3 µs). Values
that hit the same share one `Hits`. Between two neighbours of the numbers that alternatives name all numbers hit the
same, so a number costs one bisection.

A full memory turns values away, and starts over when it has turned away many: what was frequent once may be so no more.
What is remembered never changes an answer, so threads need no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import UNSET

from rules.lookup import Lookup
from rules.operators import AnythingBut
from rules.values import Many

REMEMBERED_VALUES = 512
"""How many values a path remembers, besides two for each alternative that rules name there."""

REMEMBERED_LENGTH = 128
PATIENCE = 8
"""A memory starts over when it has turned away so many times what it holds."""

_EXACT = 2**53
_INFINITY = float("inf")


class Entry:
    """A fork as filed under one of its conditions: the result it stands for, and its other conditions."""

    __slots__ = ("conditions", "rest", "result")

    def __init__(self, result: Hashable, conditions: Sequence[Any], anchor: Any) -> None:
        """`conditions` are all of them in sorted order, `anchor` the one that the entry is filed under."""
        self.result = result
        self.conditions = tuple(conditions)
        self.rest = tuple(condition for condition in conditions if condition is not anchor)


class Exclusion:
    """An anything-but alternative of an entry."""

    __slots__ = ("entry",)

    def __init__(self, entry: Entry) -> None:
        self.entry = entry


class Hits:
    """What one value brings up: results that are certain, and entries that ask for more."""

    __slots__ = ("candidates", "certain")

    def __init__(self, entries: Iterable[Entry]) -> None:
        entries = tuple(entries)
        self.certain: Sequence[Hashable] = tuple(dict.fromkeys(entry.result for entry in entries if not entry.rest))
        self.candidates: Sequence[Entry] = tuple(dict.fromkeys(entry for entry in entries if entry.rest))


NOTHING = Hits(())


class HitMap(dict[Any, Hits]):
    """What a scalar of a path, Many of them, or UNSET for none, brings up: `hits[value]`.

    It holds what is remembered, and finds the rest when it is missing.
    """

    __slots__ = (
        "_absent",
        "_accepted",
        "_at_points",
        "_columns",
        "_excluded",
        "_excludes",
        "_exclusions",
        "_find_excluded",
        "_find_text",
        "_gaps",
        "_judged",
        "_limit",
        "_merged",
        "_others",
        "_points",
        "_present",
        "_shared",
        "_turned_away",
    )

    def __init__(
        self,
        accepted: Lookup[Entry],
        excluded: Lookup[Exclusion],
        exclusions: Mapping[tuple[Entry, AnythingBut], Exclusion],
        present: Iterable[Entry],
        absent: Iterable[Entry],
    ) -> None:
        self._accepted = accepted
        self._excluded = excluded
        self._exclusions = tuple(exclusions.values())
        self._present = tuple(present)
        absent = tuple(absent)
        self._judged = [entry for entry in absent if entry.rest]
        self._absent = Hits(absent) if absent else NOTHING
        self._limit = REMEMBERED_VALUES + 2 * (len(accepted) + len(excluded))
        self._turned_away = 0
        self._merged: dict[tuple[frozenset[Hits], bool], Hits] = {}
        self._shared: dict[tuple[Sequence[Entry], Sequence[Exclusion]], Hits] = {}
        self._find_text, self._find_excluded = accepted.text_finder(), excluded.text_finder()
        self._excludes = bool(self._exclusions)
        self._others = self._share((), ())
        """What strings hit that no alternative names."""
        # Beyond the limits integers are not comparable, and are looked up one by one. The infinity holds the place
        # behind the last number; no number of a text equals it.
        self._points = sorted({*accepted.points(), *excluded.points(), -_EXACT, _EXACT, _INFINITY})
        self._at_points: list[Hits | None] = [None] * len(self._points)
        self._gaps: list[Hits | None] = [None] * len(self._points)
        self._columns: list[Hits | None] = [None] * len(self._points)

    def __missing__(self, value: Any) -> Hits:
        kind = type(value)
        if kind is str:
            found = self._find_text(value)
            excluded = self._find_excluded(value) if self._excludes else ()
            hits = self._share(found, excluded) if found or excluded else self._others
            if len(self) < self._limit:
                if len(value) <= REMEMBERED_LENGTH:
                    self[value] = hits
            else:
                self._turned_away += 1
                if self._turned_away > PATIENCE * self._limit:
                    self._turned_away = 0
                    self.clear()
            return hits
        if kind is float or kind is int:
            gap = bisect_left(self._points, value)
            known = self._at_points if self._points[gap] == value else self._gaps
            hits = known[gap] or self._learn(known, gap, value)
            # 1 and True are one key to a dictionary, and so are 0 and False. Fractions hardly ever come twice.
            if kind is int and 1 < value <= _EXACT and len(self) < self._limit:
                self[value] = hits
            return hits
        if kind is Many and value.numbers:
            least = min(value.values)
            gap = bisect_left(self._points, least)
            if max(value.values) < self._points[gap]:  # no named number among or between them
                known = self._columns if value.array else self._gaps
                return known[gap] or self._learn_column(value, gap, least)
        if isinstance(value, Many):
            return self._merge(value)
        if value is UNSET:
            self[UNSET] = self._absent
            return self._absent
        return self._share(self._accepted.find_constant(value), self._excluded.find_constant(value))

    def _learn(self, known: list[Hits | None], gap: int, number: int | float) -> Hits:
        """What a number hits, and others between the same points if they can be told to."""
        hits = self._share(self._accepted.find_number(number), self._excluded.find_number(number))
        if -_EXACT <= number <= _EXACT and not self._accepted.reads_addresses:
            known[gap] = hits
        return hits

    def _learn_column(self, many: Many, gap: int, number: int | float) -> Hits:
        """What several numbers between the same points hit, as members of the elements of an array or not."""
        hits = self._learn(self._gaps, gap, number)
        if self._gaps[gap] is None:  # each has to be looked up
            return self._merge(many)
        if many.array:
            hits = self._columns[gap] = self._together((hits,), constrained=True)
        return hits

    def _merge(self, many: Many) -> Hits:
        """What several scalars bring up together; not the same `Hits` for values that array elements tell apart."""
        several = frozenset([self[value] for value in many.values])
        merged = self._merged.get((several, many.constrained))
        if merged is None:
            merged = self._together(several, constrained=many.constrained)
            if len(self._merged) < self._limit:
                self._merged[several, many.constrained] = merged
        return merged

    def _together(self, several: Iterable[Hits], *, constrained: bool) -> Hits:
        merged = Hits(())
        merged.certain = tuple({result: None for hits in several for result in hits.certain})
        # Where arrays matter, absence is judged while picking.
        judged = [entry for entry in self._judged if constrained]
        merged.candidates = tuple(dict.fromkeys([*judged, *(entry for hits in several for entry in hits.candidates)]))
        return merged

    def _share(self, accepted: Sequence[Entry], excluded: Sequence[Exclusion]) -> Hits:
        """Equal finds give the same hits."""
        key = (tuple(accepted), tuple(excluded))
        hits = self._shared.get(key)
        if hits is None:
            out = set(excluded)
            entries = [*accepted, *self._present, *(each.entry for each in self._exclusions if each not in out)]
            hits = Hits(entries) if entries else NOTHING
            if len(self._shared) < self._limit:
                self._shared[key] = hits
        return hits
