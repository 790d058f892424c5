"""MatchIndex: which of many patterns match one event.

From the bottom up:

* A pattern is a few *forks* (combinations of `$or` branches), a fork a set of *conditions*, each the leaf of one path.
  Forks that ask the same share the condition (`rules.conditions`).
* Each fork is filed under the one condition that fewest events should satisfy (`rules.anchors`), in the table of that
  condition's path (`rules.lookup`). An event looks up one value in every table and asks the forks that come up for
  the rest of their conditions. Counting satisfied conditions for every fork, the usual way, would touch all two hundred
  rules that name the source of an event to find the one that names its tenant as well.
* What a value brings up is remembered for each path (`rules.hits`), and in rule sets of usual size, up to 512
  conditions, what all values of an event hit together decides at once which rules match (`rules.verdicts`).
* Forks that mention `detail` are kept apart. For each different set of conditions that such forks put on the rest of
  the envelope (source, detail-type, …) there is one *gate*, filed like a fork. When an event comes as envelope and text
  of its detail and no gate opens, no rule can need the detail, and its text is not even decoded.
* `match_parts`, which PutEvents uses, keeps what is left of the rules for each pair of source and detail-type that has
  come up a few times (`rules.narrowing`).
* Values come from a plan (`rules.plan`): decoded text gives only what the paths name.

What it costs, and what was weighed against it (CPython 3.11, one shared core, events of 0.9 KB that `orjson.loads`
decodes in 2.7 µs; `benchmarks/rules.py` measures again):

    decoding the named paths           0.8 to 1.2 µs: stepping over the text is 0.7 of it, a path 0.05
      of an array of 10 objects        1 µs more for one member of each, 1.7 for two; all of the array 1.7
    that no key repeated               nothing (`rules.ordered`); counting the keys in the text took 0.25 µs for each,
                                       a look at the bytes behind a key, in place of decoding, 1.2 for one path
    keys in an order not yet learned   7 µs, and 0.3 ms for the first few such events
    a value seen before                0.04 µs, whatever the number of rules and their operators
    a string not seen before           0.4 to 1.5 µs:
      exact, prefix, suffix, any case  0.1 µs a length in use: dictionaries; a trie costs 0.1 µs for each character
      wildcards                        a dictionary access for each gram of the value, then the few that share one;
                                       asking a thousand of them one by one takes a millisecond
    a number                           0.2 µs: one bisection, then a list
      a column of 10                   0.6 µs where no number that a rule names divides them: its ends are looked up
    the verdict of all hits            0.2 µs for seven paths; asking the forks instead takes 0.2 to 5 µs
    a candidate                        0.2 µs for each condition left, 2 to 5 µs if several lie in arrays of objects
    10,000 rules                       0.4 to 1 s to build

Bit sets of the rules that may still match, one for each path and joined with `&`, took 0.24 µs for 40 rules on seven
paths and 0.28 for 500, where the verdict took 0.20 whatever their number.

The memory is proportional to the alternatives of the rules; what is remembered is bounded for each path. Nothing
backtracks and nothing multiplies: a value costs its length for each length and operator in use, an event its values,
and a candidate what `rules.arrays` says.

An index never changes. `with_rule` and `without_rule` copy the dictionaries at the top and the one table that changes
and share everything else: 1 to 10 ms among 10,000 rules. What is derived from a table, such as the tree of its ranges,
is made again when next needed; for 10,000 ranges on one path that takes some 60 ms. What was remembered of values that
a change does not concern stays, unless paths come or go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from msgspec import UNSET

from rules import exact
from rules.anchors import Anchors, Matcher
from rules.conditions import Condition, Conditions
from rules.flatten import parse_event
from rules.hits import Entry
from rules.narrowing import (
    LONGEST_PAIR,
    NARROWED_RULES,
    REMEMBERED_PAIRS,
    RULES_A_SIGHTING,
    SIGHTINGS,
    TOO_WIDE,
    Pair,
    narrow,
)
from rules.pattern import Pattern
from rules.plan import Plan
from rules.values import Values
from rules.verdicts import CONDITION_LIMIT, Verdicts

RuleId = TypeVar("RuleId", bound=Hashable)

ENVELOPE = frozenset(("version", "id", "detail-type", "source", "account", "time", "region", "resources"))
"""The members of an event beside `detail`."""

_DETAIL = "detail."
_GATE = object()
_SINGLE = frozenset((str, int, float, bool, type(None), type(UNSET)))
_DETAIL_ARRAYS = 1_000_000_000


class _Paths:
    """The paths of an index in the order its values come, and the plans to read them; shared while they stay."""

    __slots__ = ("_outside", "_simple", "detail", "envelope", "of_detail", "order", "whole")

    def __init__(self, paths: Sequence[str]) -> None:
        self.envelope = sorted(path for path in paths if not path.startswith(_DETAIL))
        self.detail = sorted(path for path in paths if path.startswith(_DETAIL))
        self.order = {path: index for index, path in enumerate([*self.envelope, *self.detail])}
        self._simple = not any("." in path for path in self.envelope)
        self.whole = Plan([*self.envelope, *self.detail])
        self.of_detail = Plan([path[len(_DETAIL) :] for path in self.detail], arrays=_DETAIL_ARRAYS).of_text
        self._outside = Plan(self.envelope)

    def of_envelope(self, fields: Mapping[str, Any]) -> Values:
        if self._simple:
            values = tuple([fields.get(path, UNSET) for path in self.envelope])
            if _SINGLE.issuperset(map(type, values)):
                return values
        return self._outside.of_event(fields)


class MatchIndex(Generic[RuleId]):
    """An immutable set of patterns, each under an id of the caller's.

    Matching answers the ids of the rules that match, each once, in no particular order. Any number of threads may
    match at the same time.
    """

    __slots__ = (
        "_always",
        "_conditions",
        "_decide",
        "_deep",
        "_filed",
        "_front",
        "_front_matcher",
        "_gate_matcher",
        "_gates",
        "_gating",
        "_narrowings",
        "_paths",
        "_room",
        "_rules",
        "_ungated",
        "_whole",
    )

    _decide: Callable[[Values], Collection[Any]]
    _paths: _Paths

    def __init__(self, rules: Mapping[RuleId, Pattern]) -> None:
        self._rules: dict[RuleId, Pattern] = {}
        self._conditions = Conditions()
        self._front = Anchors()
        self._gating = Anchors()
        self._deep = Anchors()
        self._gates: dict[tuple[Condition, ...], _Gate] = {}
        self._ungated = 0
        self._filed: dict[RuleId, tuple[_Filed, ...]] = {}
        # All conditions first, so that the first fork is filed knowing what the others ask.
        forks = {rule: self._conditions.take(pattern) for rule, pattern in rules.items()}
        for rule, pattern in rules.items():
            self._rules[rule] = pattern
            self._file(rule, forks[rule])
        self._finish(None)

    # Matching

    def match(self, event: Mapping[str, Any]) -> list[RuleId]:
        """The rules that match an event as `json.loads` or `parse_event` gives it."""
        return [*self._decide(self._whole.of_event(event))]

    def match_json(self, data: bytes) -> list[RuleId]:
        """The rules that match an event's JSON text; raises EventError for text that is no JSON object."""
        return [*self._decide(self._whole.of_text(data))]

    def match_event(self, fields: Mapping[str, Any], detail: bytes) -> list[RuleId]:
        """The rules that match an event in two parts: the members other than `detail`, and the text of `detail`.

        The text is decoded only if some rule has conditions on the detail and its conditions on the rest hold.
        """
        if not ENVELOPE.issuperset(fields) and any(key == "detail" or key.startswith(_DETAIL) for key in fields):
            return self.match({**fields, "detail": parse_event(detail)})
        envelope = self._paths.of_envelope(fields)
        if self._ungated or self._gate_matcher.match(envelope):
            values = self._paths.of_detail(detail)
            both = (*envelope, *values)
            return [*self._decide(both if type(envelope) is type(values) is tuple else list(both))]
        return [*self._always, *self._front_matcher.match(envelope)]

    def match_parts(
        self, source: str, detail_type: str, fields: Callable[[], Mapping[str, Any]], detail: Callable[[], bytes]
    ) -> Sequence[RuleId]:
        """The same as `match_event` of what `fields` and `detail` give, which are asked for only when they matter.

        `source` and `detail_type` are the event's, as among the fields.
        """
        pair = (source, detail_type)
        narrowing = self._narrowings.get(pair, 0)
        if isinstance(narrowing, int):
            self._sight(pair, narrowing)
            return self.match_event(fields(), detail())
        if narrowing.open is None:
            return narrowing.certain
        if narrowing.match_detail is not None:
            return narrowing.match_detail(detail())
        return narrowing.open.match_event(fields(), detail())

    def narrowed(self, source: str, detail_type: str) -> Narrowing[RuleId] | None:
        """What is left to ask of events with this pair; None until `match_parts` has seen it often enough."""
        narrowing = self._narrowings.get((source, detail_type))
        return narrowing if isinstance(narrowing, Narrowing) else None

    def _sight(self, pair: Pair, sightings: int) -> None:
        """Count a pair, and build its narrowing when it has come often enough to be worth the time and the room."""
        if sightings == TOO_WIDE:
            return
        if sightings + 1 >= max(SIGHTINGS, len(self._rules) // RULES_A_SIGHTING):
            certain, rest = narrow(self._rules, pair)
            taken = len(certain) + len(rest)
            self._narrowings[pair] = Narrowing(certain, rest) if taken <= self._room else TOO_WIDE
            self._room -= taken if taken <= self._room else 0
        elif sightings or (len(self._narrowings) < REMEMBERED_PAIRS and sum(map(len, pair)) <= LONGEST_PAIR):
            self._narrowings[pair] = sightings + 1

    def _match_detail(self, detail: bytes) -> Sequence[RuleId]:
        """The rules that match, of an index whose rules ask of the detail only."""
        found = self._decide(self._paths.of_detail(detail))
        return found if type(found) is tuple else tuple(found)

    def _first_decide(self, values: Values) -> Collection[Any]:
        """Stands in for `_decide` until it is first needed."""
        # Without gates: once the values are there, the forks behind them cost less than they do.
        matcher, always = Matcher((self._front, self._deep), self._paths.order), self._always
        ask = (lambda values: (*always, *matcher.match(values))) if always else matcher.match
        self._decide = ask
        if 0 < len(self._conditions) <= CONDITION_LIMIT:
            forks = (filed.entry.conditions for forks in self._filed.values() for filed in forks)
            self._decide = Verdicts(forks, self._paths.order, ask).of
        return self._decide(values)

    # Changing

    def with_rule(self, rule: RuleId, pattern: Pattern) -> MatchIndex[RuleId]:
        """An index that also holds this rule, in place of the one that had its id."""
        changed = self._copy()
        if rule in self._rules:
            changed._remove(rule)
        changed._rules[rule] = pattern
        changed._file(rule, changed._conditions.take(pattern))
        changed._finish(self._paths)
        return changed

    def without_rule(self, rule: RuleId) -> MatchIndex[RuleId]:
        """An index without this rule; KeyError if there is none."""
        changed = self._copy()
        changed._remove(rule)
        changed._finish(self._paths)
        return changed

    def __len__(self) -> int:
        return len(self._rules)

    def __contains__(self, rule: object) -> bool:
        return rule in self._rules

    def __iter__(self) -> Iterator[RuleId]:
        return iter(self._rules)

    def _copy(self) -> MatchIndex[RuleId]:
        copied: MatchIndex[RuleId] = object.__new__(MatchIndex)
        copied._rules = self._rules.copy()
        copied._conditions = self._conditions.copy()
        copied._front = self._front.copy()
        copied._gating = self._gating.copy()
        copied._deep = self._deep.copy()
        copied._gates = self._gates.copy()
        copied._ungated = self._ungated
        copied._filed = self._filed.copy()
        return copied

    def _finish(self, paths: _Paths | None) -> None:
        self._decide = self._first_decide
        self._always: tuple[RuleId, ...] = ()
        self._narrowings: dict[Pair, int | Narrowing[RuleId]] = {}
        self._room = NARROWED_RULES
        asked = self._conditions.variety.keys()
        self._paths = paths if paths is not None and paths.order.keys() == asked else _Paths(list(asked))
        self._whole = self._paths.whole
        self._front_matcher = Matcher((self._front,), self._paths.order)
        self._gate_matcher = Matcher((self._gating,), self._paths.order)

    def _file(self, rule: RuleId, forks: Sequence[tuple[Condition, ...]]) -> None:
        filed = []
        for conditions in forks:
            anchor = min(conditions, key=self._conditions.cost)
            entry = Entry(rule, conditions, anchor)
            deep = any(condition.path.startswith(_DETAIL) for condition in conditions)
            (self._deep if deep else self._front).add(anchor, entry)
            if deep:
                self._open_gate(conditions)
            filed.append(_Filed(entry, anchor, deep))
        self._filed[rule] = tuple(filed)

    def _remove(self, rule: RuleId) -> None:
        del self._rules[rule]
        for filed in self._filed.pop(rule):
            (self._deep if filed.deep else self._front).discard(filed.anchor, filed.entry)
            if filed.deep:
                self._close_gate(filed.entry.conditions)
            self._conditions.release(filed.entry.conditions)

    def _open_gate(self, conditions: Sequence[Condition]) -> None:
        outside = tuple(condition for condition in conditions if not condition.path.startswith(_DETAIL))
        if not outside:
            self._ungated += 1
        elif outside in self._gates:
            self._gates[outside] = self._gates[outside].used(1)
        else:
            anchor = min(outside, key=self._conditions.cost)
            gate = _Gate(Entry(_GATE, outside, anchor), anchor, 1)
            self._gates[outside] = gate
            self._gating.add(gate.anchor, gate.entry)

    def _close_gate(self, conditions: Sequence[Condition]) -> None:
        outside = tuple(condition for condition in conditions if not condition.path.startswith(_DETAIL))
        if not outside:
            self._ungated -= 1
            return
        gate = self._gates[outside].used(-1)
        if gate.users:
            self._gates[outside] = gate
        else:
            del self._gates[outside]
            self._gating.discard(gate.anchor, gate.entry)


class Narrowing(Generic[RuleId]):
    """What is left for one pair of source and detail-type: rules that match anyway, and an index of the open ones."""

    __slots__ = ("certain", "match_detail", "open")

    def __init__(self, certain: list[RuleId], rest: Mapping[RuleId, Pattern]) -> None:
        self.certain = certain
        self.open = MatchIndex(rest) if rest else None
        self.match_detail: Callable[[bytes], Sequence[RuleId]] | None = None
        """The rules that match an event of the pair by its detail; None if the open ones ask of more than that.

        For text that is no JSON object it raises EventError, or what `exact.skip_object` raises.
        """
        if self.open is None:
            self.match_detail = self._match_certain
        else:
            self.open._always = tuple(certain)
            if not self.open._paths.envelope:
                self.match_detail = self.open._match_detail

    def _match_certain(self, detail: bytes) -> Sequence[RuleId]:
        exact.skip_object(detail)
        return self.certain


class _Filed:
    """Where a fork of a rule is filed."""

    __slots__ = ("anchor", "deep", "entry")

    def __init__(self, entry: Entry, anchor: Condition, deep: bool) -> None:
        self.entry = entry
        self.anchor = anchor
        self.deep = deep


class _Gate:
    """The conditions outside `detail` of some forks that mention it, and how many forks those are."""

    __slots__ = ("anchor", "entry", "users")

    def __init__(self, entry: Entry, anchor: Condition, users: int) -> None:
        self.entry = entry
        self.anchor = anchor
        self.users = users

    def used(self, more: int) -> _Gate:
        return _Gate(self.entry, self.anchor, self.users + more)
