"""Narrowing: what is left of a rule set once an event's source and detail-type are known.

Nearly every rule names one or both, and the events of a bus repeat few pairs of them. For a pair that has been seen a
few times the rules that it rules out are dropped for good, and from the others the conditions it has settled: most
pairs leave a handful of conditions on the detail, or none. Matching then costs one dictionary access more and much
else less. The first sightings of a pair go the general way, so that a stream of pairs that never repeat builds nothing;
among many rules, which all have to be looked through (2 µs each), more of them, so that the work stays in proportion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from rules.pattern import Leaf, Pattern

SOURCE, DETAIL_TYPE = "source", "detail-type"

SIGHTINGS = 8
"""How often a pair is matched the general way before its narrowing is worth building."""

LONGEST_PAIR = 512
"""Characters of a source and a detail-type together; longer ones are nobody's habit, and would fill the memory."""

RULES_A_SIGHTING = 8
"""Among more rules than eight times the sightings, one sighting more for so many rules."""

REMEMBERED_PAIRS = 512

NARROWED_RULES = 20_000
"""How many rules the narrowings of one rule set may hold together; behind that pairs stay as they are."""

TOO_WIDE = -1
"""In place of the sightings of a pair whose narrowing has no room."""

Pair = tuple[str, str]
"""(source, detail-type)"""

RuleId = TypeVar("RuleId")


def narrow(rules: Mapping[RuleId, Pattern], pair: Pair) -> tuple[list[RuleId], dict[RuleId, Pattern]]:
    """The rules that the pair alone satisfies, and what the others that it does not rule out still ask."""
    certain: list[RuleId] = []
    open_rules: dict[RuleId, Pattern] = {}
    for rule, pattern in rules.items():
        forks = [rest for fork in pattern.forks if (rest := _rest(fork, pair)) is not None]
        if not all(forks):
            certain.append(rule)
        elif forks:
            open_rules[rule] = Pattern(pattern.text, tuple(forks))
    return certain, open_rules


def _rest(fork: Mapping[str, Leaf], pair: Pair) -> dict[str, Leaf] | None:
    """The conditions that the pair does not settle; None when it breaks one."""
    rest = dict(fork)
    for path, value in zip((SOURCE, DETAIL_TYPE), pair, strict=True):
        leaf = rest.pop(path, None)
        # An absence accepts no value, so it needs no case of its own here.
        if leaf is not None and not any(each.accepts(value) for each in leaf):
            return None
    return rest
