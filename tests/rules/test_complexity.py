"""The complexity of wildcard terms, one number for each set that shares a field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rules import Pattern, PatternError
from rules.complexity import COMPLEXITY_LIMIT, Automaton
from rules.operators import Wildcard
from rules.wildcards import pieces, spans


def complexity(*terms: str | list[str]) -> int:
    """A text is a wildcard, a list an anything-but list of them."""
    automaton = Automaton()
    for term in terms:
        values = [term] if isinstance(term, str) else term
        identity: Any = term if isinstance(term, str) else frozenset(term)
        automaton.add(identity, [Wildcard(value, pieces(value)) for value in values])
    return automaton.complexity()


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ([""], 1),
        (["abc"], 1),
        (["a\\*b"], 1),
        (["*"], 2),
        (["a*"], 2),
        (["*a"], 2),
        (["a*b"], 2),
        (["*a*"], 3),
        (["*a*b"], 3),
        (["*abab"], 3),
        (["*ab*ab*"], 5),
        (["*aaaa"], 5),
        (["*aaaaaaaa"], 9),
        (["*aaaaaaaaaa"], 11),
        (["/Users/*/doc.txt"], 2),
        (["/Users/*/dir/dir/dir/dir/dir/doc.txt"], 7),
        (["*a*b*c*d*e*f*g"], 8),
        (["a*b*c*d*e*f*g*h*i*j*k"], 11),
        (["*.*"], 3),
        (["*.*.*.*.*"], 9),
        (["*:*:*:*:*:event-bus/*"], 11),
        (["arn:aws:events:us-east-1:*:event-bus/*"], 3),
        (["*a" * 5], 10),
        (["*a" * 6], 12),
        (["a*b", ["a*b"]], 4),
        (["a*b", "a*b"], 3),
        ([["a*b", "c*d", "*e"]], 3),
        ([["*/init/*", "*/dir/*"]], 5),
        ([["*/a", "*/b", "*/c", "*/d"]], 2),
        ([["*-prod-*", "*-stage-*", "*-dev-*"]], 6),
        (["*:stack/A/*", "*:stack/B/*", "*:stack/C/*"], 9),
        (["*:stack/A/*", "*:stack/B/*", "*:stack/C/*", "*:stack/D/*"], 12),
        (["*/x/*.ext", "*/y/*.ext"], 7),
        ([f"{digit}*x" for digit in range(10)], 10),
        ([str(digit) for digit in range(11)], 11),
    ],
)
def test_complexity(terms: list[str | list[str]], expected: int) -> None:
    assert complexity(*terms) == expected


def test_long_texts_are_judged_as_well() -> None:
    assert Pattern.parse(json.dumps({"v": [{"wildcard": "*" + "ab" * 3 + "x" + "/" + "cdefg" * 700}]}))
    with pytest.raises(PatternError, match="too complex"):
        Pattern.parse(json.dumps({"v": [{"wildcard": "*" + "a" * 3000}]}))


def test_conditions_that_multiply_are_judged_by_path() -> None:
    """Each branch divides all that came before, so that telling conditions apart would take 5**7 automata."""
    digits = [str(digit) for digit in range(5)]
    branches = [
        {**{f"p{path}": digits for path in range(level)}, f"p{level}": [digit], "z": [{"wildcard": "a*x"}]}
        for level in range(7)
        for digit in digits
    ]
    with pytest.raises(PatternError, match="too complex"):
        Pattern.parse(json.dumps({"$or": branches}))


@pytest.mark.parametrize("stars", [COMPLEXITY_LIMIT, 30, 2_000])
def test_matching_does_not_backtrack(stars: int) -> None:
    assert not spans(pieces("*a" * stars + "b"), "a" * 100_000)
    assert spans(pieces("*a" * stars), "a" * 100_000)
