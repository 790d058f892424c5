"""The rules of one bus, as a snapshot that events are matched against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bus.resources import Rule
from rules.index import MatchIndex
from rules.pattern import Pattern


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules of a bus by name, and the index over those that have a pattern and are not disabled.

    A snapshot never changes: whoever holds one sees rules and index that belong together.
    """

    rules: Mapping[str, Rule]
    index: MatchIndex[str]

    def rule(self, name: str) -> Rule:
        """The rule that the index answered with."""
        return self.rules[name]

    def with_rule(self, rule: Rule) -> RuleSet:
        """The set after a rule was made or replaced; raises PatternError."""
        old = self.rules.get(rule.name)
        index = self.index
        before = old.matched_by if old else None
        if before != rule.matched_by:
            if before is not None:
                index = index.without_rule(rule.name)
            if rule.matched_by is not None:
                index = index.with_rule(rule.name, Pattern.parse(rule.matched_by))
        return RuleSet({**self.rules, rule.name: rule}, index)

    def without_rule(self, name: str) -> RuleSet:
        """The set after a rule was deleted."""
        index = self.index if self.rules[name].matched_by is None else self.index.without_rule(name)
        return RuleSet({key: rule for key, rule in self.rules.items() if key != name}, index)


def rule_set(rules: Iterable[Rule]) -> RuleSet:
    """A set built in one go, as when the process starts; raises PatternError."""
    by_name = {rule.name: rule for rule in rules}
    patterns = {name: Pattern.parse(rule.matched_by) for name, rule in by_name.items() if rule.matched_by is not None}
    return RuleSet(by_name, MatchIndex(patterns))
