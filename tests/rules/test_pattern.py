"""Golden cases of the pattern language, and the places faults are reported at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rules import EventError, MatchIndex, Pattern, PatternError, explain, parse_event
from rules.pattern import FORK_LIMIT, TOO_MANY_FORKS
from rules.reader import DEPTH_LIMIT, NUMBER_LENGTH_LIMIT

FOLDER = Path(__file__).parents[1] / "cases" / "patterns"
CASES = [
    pytest.param(case, id=f"{file.stem}: {case['case']}")
    for file in sorted(FOLDER.glob("*.jsonl"))
    for case in map(json.loads, file.read_text(encoding="utf-8").splitlines())
]


@pytest.mark.parametrize("case", CASES)
def test_case(case: dict[str, Any]) -> None:
    if "refused" in case:
        with pytest.raises(PatternError) as refusal:
            Pattern.parse(case["pattern"])
        assert refusal.value.headline == case["refused"]
        return
    pattern = Pattern.parse(case["pattern"])
    assert pattern.text == case["pattern"]
    if "valid" in case:
        return
    event, index = parse_event(case["event"]), MatchIndex({"rule": pattern})
    assert pattern.matches(event) is case["matches"]
    assert index.match(event) == index.match_json(case["event"].encode()) == ["rule"] * case["matches"]
    findings = explain(pattern, event)
    branches = {finding.branch for finding in findings}
    assert case["matches"] is any(all(f.matched for f in findings if f.branch == branch) for branch in branches)


def test_every_outcome_has_cases() -> None:
    assert len(CASES) > 500
    for outcome in ("refused", "valid", "matches"):
        assert sum(outcome in case.values[0] for case in CASES) > 20


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ('{"n": 12}', 9),
        ('{"n": "text"}', 8),
        ('{"n": []}', 9),
        ('["n"]', 2),
        ('{"d": [{"NUMERIC": ["=", 5]}]}', 21),
        ('{"d": [{"EXISTS": true}]}', 23),
        ('{"d": [{"Prefix": "a"}]}', 20),
        ('{"d": [{"numeric": [">", 0, ">", 0]}]}', 32),
        ('{"d": [{"numeric": [">", 0, "<"]}]}', 33),
        ('{"d": [{"numeric": 10}]}', 22),
        ('{"d": [{"prefix": ["x"]}]}', 20),
        ('{"d": [{"wildcard": "a**"}]}', 26),
        ('{"d": [{"anything-but": {"prefix": ""}}]}', 38),
        ('{"d": [{"anything-but": null}]}', 29),
        ("oops here", 5),
        ("{'d': 1}", 2),
        ('{"d": oops"', 11),
        ('{"😀": 12}', 10),
    ],
)
def test_column_of_a_fault(text: str, column: int) -> None:
    with pytest.raises(PatternError) as refusal:
        Pattern.parse(text)
    assert refusal.value.reason.endswith(f'\n at [Source: (String)"{text}"; line: 1, column: {column}]')


def test_line_of_a_fault() -> None:
    text = '{\r\n"a": [1],\n "b": []}'
    with pytest.raises(PatternError) as refusal:
        Pattern.parse(text)
    assert str(refusal.value) == (
        "Event pattern is not valid. Reason: Empty arrays are not allowed"
        f'\n at [Source: (String)"{text}"; line: 3, column: 9]'
    )


@pytest.mark.parametrize(
    ("alternative", "tails"),
    [
        ('{"cidr": "10.0.0.0"}', 0),
        ('{"cidr": 1}', 1),
        ('{"anything-but": 1e309}', 0),
        ('{"anything-but": [1e309]}', 1),
        ('{"numeric": ["=", 1e309]}', 1),
        ('{"anything-but": ["a", 1]}', 1),
        ('{"anything-but": ["a", null]}', 2),
        ('{"anything-but": {"prefix": ["a", ""]}}', 2),
        ('{"anything-but": ["a", oops]}', 2),
        ('{"anything-but": {"wildcard": ["a**"]}}', 1),
        ('{"wildcard": "*a*a*a*a*a*a"}', 0),
    ],
)
def test_how_often_the_location_is_told(alternative: str, tails: int) -> None:
    with pytest.raises(PatternError) as refusal:
        Pattern.parse(f'{{"v": [{alternative}]}}')
    assert refusal.value.reason.count("\n at [Source: ") == tails


def forks(*widths: int) -> str:
    """A pattern whose `$or` lists have these numbers of branches."""
    lists = (
        ", ".join(f'{{"f{number}-{branch}": [1]}}' for branch in range(width)) for number, width in enumerate(widths)
    )
    return "{" + ", ".join(f'"$or": [{branches}]' for branches in lists) + "}"


def test_the_fork_limit_is_a_thousand() -> None:
    assert len(Pattern.parse(forks(10, 10, 10)).forks) == FORK_LIMIT
    with pytest.raises(PatternError) as refusal:
        Pattern.parse(forks(7, 11, 13))
    assert refusal.value.reason == TOO_MANY_FORKS


def test_a_later_fault_beats_the_fork_limit() -> None:
    with pytest.raises(PatternError, match="Empty arrays"):
        Pattern.parse(forks(*[2] * 60)[:-1] + ', "a": []}')


def test_a_thousand_forks_match_in_any_of_them() -> None:
    pattern = Pattern.parse(forks(10, 10, 10))
    index = MatchIndex({1: pattern})
    event = {"f0-9": 1, "f1-0": 1, "f2-5": 1}
    assert pattern.matches(event)
    assert index.match(event) == [1]
    assert index.match({"f0-9": 1, "f1-0": 1}) == []


@pytest.mark.parametrize("opening", ['{"a":', '{"a":[{"anything-but":', '{"$or":[', '{"$or":[{"b":[1]},{"a":'])
def test_deep_nesting_is_refused_and_not_fatal(opening: str) -> None:
    with pytest.raises(PatternError):
        Pattern.parse(opening * 20_000)


def test_nesting_to_the_limit_is_read() -> None:
    depth = DEPTH_LIMIT - 1
    text = '{"a":' * depth + "[1]" + "}" * depth
    event: dict[str, Any] = {"a": 1}
    for _ in range(depth - 1):
        event = {"a": event}
    assert Pattern.parse(text).matches(event)
    with pytest.raises(PatternError, match="nesting depth"):
        Pattern.parse('{"a":' + text + "}")


def test_numbers_have_a_length_limit() -> None:
    Pattern.parse(f'{{"a": [{"1" * NUMBER_LENGTH_LIMIT}]}}')
    with pytest.raises(PatternError, match="Number value length"):
        Pattern.parse(f'{{"a": [{"1" * (NUMBER_LENGTH_LIMIT + 1)}]}}')


def test_no_input_multiplies() -> None:
    """Each of these would run for hours if stars backtracked or unrelated arrays multiplied."""
    stars = Pattern.parse('{"v": [{"wildcard": "*a*a*a*a*b"}]}')
    assert not stars.matches({"v": "a" * 20_000})
    literal = {f"t{number}": [f"p{each}" for each in range(5)] for number in range(200)}
    objects = {f"t{number}": [{"x": f"p{each}"} for each in range(5)] for number in range(200)}
    for inside, event in (('[{"prefix": "p"}]', literal), ('{"x": [{"prefix": "p"}]}', objects)):
        members = ", ".join(f'"t{number}": {inside}' for number in range(200))
        pattern = Pattern.parse(f'{{{members}, "zz": ["no"]}}')
        assert not pattern.matches({**event, "zz": "yes"})
        assert MatchIndex({1: pattern}).match({**event, "zz": "no"}) == [1]


def test_keys_repeated_without_end_are_given_up_on() -> None:
    paths = [f"x{number}" for number in range(12)]
    array = "[" + ", ".join("{" + ", ".join(f'"{path}": 1' for path in paths) + "}" for _ in range(6)) + "]"
    event = "{" + ", ".join(f'"a": {array}' for _ in range(12)) + "}"
    pattern = Pattern.parse('{"a": {' + ", ".join(f'"{path}": [1]' for path in paths) + ', "y": [1]}}')
    assert not pattern.matches(parse_event(event))


FRAGMENTS = st.sampled_from(
    [
        *(
            '{"a":',
            '"$or":',
            "[",
            "]",
            "{",
            "}",
            ",",
            ":",
            '"a"',
            '"prefix"',
            '"anything-but"',
            '"numeric"',
            '"exists"',
        ),
        *(
            '"wildcard"',
            '"cidr"',
            '"="',
            '">"',
            '"<"',
            "1",
            "-0",
            "1e400",
            "9" * 5000,
            "true",
            "null",
            '"*"',
            "+1",
            "/",
        ),
        *('"equals-ignore-case"', "\\", "\\u", '"\\ud800"', " ", "\n", "\x00", "é", "😀", "\ud800", "NaN"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.text() | st.lists(FRAGMENTS, max_size=30).map("".join))
@example('{"a":["\ud800"]}')
@example('{"\ud800": 1}')
@example('{"a":[{"wildcard":"\ud800**"}]}')
@example('{"a":[1e99999999999999999999]}')
@example('{"a":[{"cidr":"' + "0" * 5000 + '.0.0.0/8"}]}')
@example('{"a":[{"cidr":"10.0.0.0/' + "9" * 5000 + '"}]}')
def test_parsing_raises_nothing_but_pattern_errors(text: str) -> None:
    try:
        matched = Pattern.parse(text).matches({"a": "x"})
    except PatternError:
        return
    assert isinstance(matched, bool)


def test_patterns_of_one_text_are_one_value() -> None:
    text = '{"a": [1]}'
    assert Pattern.parse(text) == Pattern.parse(text)
    assert len({Pattern.parse(text), Pattern.parse(text)}) == 1


@pytest.mark.parametrize("text", ["", "[]", "1", '{"a": NaN}', '{"a": Infinity}', '{"a": 1', '{"a":' * 100_000])
def test_an_event_is_one_object(text: str) -> None:
    with pytest.raises(EventError):
        parse_event(text)


def test_explain_tells_what_failed_and_why() -> None:
    pattern = Pattern.parse('{"source": ["shop"], "detail": {"n": [{"numeric": [">", 3]}], "s": [{"exists": true}]}}')
    findings = explain(pattern, {"source": "shop", "detail": {"n": 2}})
    assert [(finding.path, finding.matched) for finding in findings] == [
        ("detail.n", False),
        ("detail.s", False),
        ("source", True),
    ]
    assert findings[0].why == "2 does not satisfy a number > 3"
    assert findings[1].why == "the field is absent; wanted any value"
    assert findings[2].why == '"shop" satisfies "shop"'


def test_explain_tells_of_array_elements() -> None:
    pattern = Pattern.parse('{"a": {"x": [1], "y": [2]}}')
    findings = explain(pattern, {"a": [{"x": 1}, {"y": 2}]})
    assert [(finding.path, finding.matched) for finding in findings] == [("a.x", True), ("a.y", True), ("", False)]
