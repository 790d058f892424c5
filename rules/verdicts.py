"""Verdicts: which rules match, remembered by what the values of an event hit.

Whether a condition holds for a value depends on little: the value hits a certain set of conditions (`rules.hits`), and
a rule set of usual size tells only a few such sets apart on each path. So the hits of all paths together decide which
rules match, and the same combination hardly ever comes for the first time. What it decided then is kept: an event costs
one dictionary access for each path and one for the combination, however many rules there are (0.5 µs for 7 paths).

In arrays of objects more is to be known: which element each value lies in. The hits of all values of an array together
still decide as long as no fork asks two paths that lie in arrays, nor for the absence of such a path. Values that
elements tell apart have hits of their own, so what is kept for one event never stands for another where this differs.

Large rule sets have too many combinations, and are not worth filing a second time: `rules.anchors` matches them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Any

from rules.anchors import Anchors
from rules.conditions import Condition
from rules.hits import Entry, HitMap, Hits
from rules.values import Many, Values

CONDITION_LIMIT = 512
"""With more conditions than this, verdicts are not kept."""

REMEMBERED_VERDICTS = 1024
PATIENCE = 8
"""As for values: the memory starts over when it has turned away so many times what it holds."""

Results = tuple[Hashable, ...]
Decide = Callable[[Values], Collection[Any]]


class Verdicts:
    """The verdicts on events with values of some paths, given what decides on those that are new."""

    __slots__ = ("_absences", "_asked", "_decide", "_hit_maps", "_known", "_turned_away", "of")

    def __init__(self, forks: Iterable[tuple[Condition, ...]], order: Mapping[str, int], decide: Decide) -> None:
        """`order` is that of the values of an event."""
        self._decide = decide
        conditions: dict[Condition, None] = {}
        self._asked: set[frozenset[int]] = set()
        """The paths of each fork."""
        self._absences: set[int] = set()
        for fork in forks:
            conditions.update(dict.fromkeys(fork))
            self._asked.add(frozenset(order[condition.path] for condition in fork))
            self._absences.update(order[condition.path] for condition in fork if condition.absence)
        anchors = Anchors()
        for condition in conditions:
            anchors.add(condition, Entry(condition, (condition,), condition))
        self._hit_maps: list[HitMap] = [anchors.tables[path].hits for path in order]
        self._known: dict[tuple[Hits, ...], Results] = {}
        self._turned_away = 0
        self.of = self._compile()
        """The results for an event with these values."""

    def _compile(self) -> Decide:
        """`of` as Python source made for so many paths: a loop over them would cost as much as reading the event."""
        paths = range(len(self._hit_maps))
        names: dict[str, Any] = {f"hits{path}": hit_map for path, hit_map in enumerate(self._hit_maps)}
        names |= {"known": self._known.get, "judge": self._judge}
        source = f"""
def of(values):
    {"".join(f"value{path}, " for path in paths)} = values
    key = ({"".join(f"hits{path}[value{path}], " for path in paths)})
    results = known(key)
    return judge(key, values) if results is None else results
"""
        exec(compile(source, "<verdicts>", "exec"), names)
        of: Decide = names["of"]
        return of

    def _judge(self, key: tuple[Hits, ...], values: Values) -> Results:
        """The results for values that hit a new combination."""
        results = tuple(self._decide(values))
        if self._tangled(values):
            return results
        if len(self._known) < REMEMBERED_VERDICTS:
            self._known[key] = results
        else:
            self._turned_away += 1
            if self._turned_away > PATIENCE * REMEMBERED_VERDICTS:
                self._turned_away = 0
                self._known.clear()
        return results

    def _tangled(self, values: Values) -> bool:
        """Whether it matters in which elements of arrays values lie."""
        bound = {index for index, value in enumerate(values) if isinstance(value, Many) and value.constrained}
        return bool(bound & self._absences) or (len(bound) > 1 and any(len(bound & asked) > 1 for asked in self._asked))
