"""Why a pattern does or does not match an event, told for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rules import operators
from rules.arrays import Choice, consistent
from rules.flatten import Membership, Steps, flatten
from rules.operators import Alternative, Scalar
from rules.pattern import Leaf, Pattern, offer

SHOWN_VALUES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one condition.

    `path` is the dotted path, "" for a finding about several paths at once; `branch` numbers the combination of `$or`
    branches it belongs to, from 1; `why` is a sentence.
    """

    path: str
    matched: bool
    why: str
    branch: int = 1


def explain(pattern: Pattern, event: Mapping[str, Any]) -> list[Finding]:
    """Judge every condition of a pattern against an event.

    Without `$or` there is one finding a path. With it, the combination of branches that matches is told; if none does,
    all are. The pattern matches if and only if all findings of some branch are matched.
    """
    fields = flatten(event, Steps.of({path for fork in pattern.forks for path in fork}))
    told: list[Finding] = []
    for branch, fork in enumerate(pattern.forks, 1):
        findings = _fork(fork, fields, branch)
        if all(finding.matched for finding in findings):
            return findings
        told += findings
    return told


def _fork(
    fork: Mapping[str, Leaf], fields: Mapping[str, Sequence[tuple[Scalar, Membership]]], branch: int
) -> list[Finding]:
    choices: list[Choice] = []
    findings = []
    for path, leaf in fork.items():
        present = fields.get(path, ())
        choice = offer(leaf, present)
        absent = choice.absence and not present
        matched = bool(choice.accepted) or absent or (choice.absence and len(fork) > 1 and _in_arrays(present))
        choices.append(choice)
        findings.append(Finding(path, matched, _why(leaf, [value for value, _ in present], matched), branch))
    if all(finding.matched for finding in findings) and not consistent(choices):
        findings.append(Finding("", False, "the conditions hold only in different elements of an array", branch))
    return findings


def _in_arrays(present: Sequence[tuple[Scalar, Membership]]) -> bool:
    return all(membership for _, membership in present)


def _why(leaf: Leaf, values: list[Scalar], matched: bool) -> str:
    wanted = " or ".join(describe(alternative) for alternative in leaf)
    if not values:
        return f"the field is absent, as {wanted} asks" if matched else f"the field is absent; wanted {wanted}"
    shown = ", ".join(json.dumps(value, ensure_ascii=False) for value in values[:SHOWN_VALUES])
    more = f" and {len(values) - SHOWN_VALUES} more" if len(values) > SHOWN_VALUES else ""
    return f"{shown}{more} {'satisfies' if matched else 'does not satisfy'} {wanted}"


def describe(alternative: Alternative) -> str:
    """An alternative in words."""
    return str(_WORDS[type(alternative)](alternative))


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _range(numeric: Any) -> str:
    if numeric.low == numeric.high:
        return f"= {numeric.low:g}"
    parts = []
    if numeric.low != float("-inf"):
        parts.append(f"{'>=' if numeric.low_included else '>'} {numeric.low:g}")
    if numeric.high != float("inf"):
        parts.append(f"{'<=' if numeric.high_included else '<'} {numeric.high:g}")
    return " and ".join(parts)


_WORDS: dict[type, Any] = {
    operators.Text: lambda it: _quoted(it.text),
    operators.Address: lambda it: f"the address {it.text}",
    operators.Number: lambda it: it.lexeme,
    operators.Digits: lambda it: it.lexeme,
    operators.Constant: lambda it: _quoted(it.value),
    operators.Prefix: lambda it: f"prefix {_quoted(it.text)}",
    operators.Suffix: lambda it: f"suffix {_quoted(it.text)}",
    operators.PrefixIgnoreCase: lambda it: f"prefix {_quoted(it.text)} in any case",
    operators.SuffixIgnoreCase: lambda it: f"suffix {_quoted(it.text)} in any case",
    operators.EqualsIgnoreCase: lambda it: f"{_quoted(it.text)} in any case",
    operators.Wildcard: lambda it: f"wildcard {_quoted(it.text)}",
    operators.Exists: lambda it: "any value" if it.present else "no value",
    operators.Cidr: lambda it: f"an address in {it.text}",
    operators.Numeric: lambda it: f"a number {_range(it)}",
    operators.AnythingBut: lambda it: "anything but " + " or ".join(describe(each) for each in it.excluded),
}
