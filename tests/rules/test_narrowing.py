"""Narrowing: what a pair of source and detail-type settles changes no answer."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rules.index import MatchIndex
from rules.narrowing import NARROWED_RULES, REMEMBERED_PAIRS, RULES_A_SIGHTING, SIGHTINGS, TOO_WIDE, narrow
from rules.pattern import Pattern

LEAVES = st.sampled_from(
    [
        ["a"],
        ["b", "ab"],
        [{"prefix": "a"}],
        [{"suffix": "b"}],
        [{"anything-but": "a"}],
        [{"exists": True}],
        [{"exists": False}],
        ["b", {"exists": False}],
        [{"wildcard": "*b"}],
        [1, None],
    ]
)
NAMES = st.sampled_from(["a", "b", "ab", ""])
DETAILS = st.dictionaries(st.sampled_from("xy"), st.sampled_from(["a", "b", ["a", "b"], {"z": "a"}, [{"z": "b"}], 1]))


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    def part(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: draw(LEAVES) for name in names if draw(st.booleans())}

    made = part(("source", "detail-type", "account"))
    detail: dict[str, Any] = part(("x", "y"))
    if draw(st.booleans()):
        detail["x"] = {"z": draw(LEAVES)}
    if detail:
        made["detail"] = detail
    if draw(st.booleans()):
        branches = [part(("source", "detail-type", "region")) or {"source": ["b"]} for _ in range(2)]
        made["$or"] = branches
    return Pattern.parse(json.dumps(made or {"source": ["a"]}))


def put(index: MatchIndex[Any], fields: dict[str, Any], detail: dict[str, Any]) -> set[Any]:
    text = json.dumps(detail).encode()
    found = index.match_parts(fields["source"], fields["detail-type"], lambda: fields, lambda: text)
    assert len(found) == len(set(found))
    return set(found)


@settings(deadline=None, max_examples=150)
@given(st.lists(patterns(), min_size=1, max_size=8), st.lists(st.tuples(NAMES, NAMES, DETAILS), min_size=1, max_size=4))
def test_matching_by_parts_equals_matching(made: list[Pattern], events: list[tuple[str, str, dict[str, Any]]]) -> None:
    index: MatchIndex[int] = MatchIndex(dict(enumerate(made)))
    for _ in range(SIGHTINGS + 2):
        for source, detail_type, detail in events:
            fields = {"source": source, "detail-type": detail_type, "account": "a", "region": "b"}
            event = {**fields, "detail": detail}
            assert put(index, fields, detail) == {n for n, pattern in enumerate(made) if pattern.matches(event)}
    index = index.without_rule(0).with_rule("new", Pattern.parse('{"source":[{"prefix":""}]}'))  # type: ignore[arg-type]
    for source, detail_type, detail in events:
        fields = {"source": source, "detail-type": detail_type, "account": "a", "region": "b"}
        expected = {n for n, pattern in enumerate(made) if n and pattern.matches({**fields, "detail": detail})}
        assert put(index, fields, detail) == {*expected, "new"}


def test_what_a_settled_pair_needs_no_more_is_not_asked_for() -> None:
    index = MatchIndex({1: Pattern.parse('{"source":["a"]}'), 2: Pattern.parse('{"source":["b"],"detail":{"x":[1]}}')})
    for _ in range(SIGHTINGS):
        assert put(index, {"source": "a", "detail-type": "t"}, {}) == {1}

    def never() -> Any:
        raise AssertionError("asked for")

    assert index.match_parts("a", "t", never, never) == [1]


def test_pairs_that_never_repeat_build_nothing() -> None:
    index = MatchIndex({1: Pattern.parse('{"source":["a"]}')})
    for number in range(2 * REMEMBERED_PAIRS):
        assert put(index, {"source": f"s{number}", "detail-type": "t"}, {}) == set()
    assert len(index._narrowings) == REMEMBERED_PAIRS
    assert all(kept == 1 for kept in index._narrowings.values())


def test_narrowing_drops_what_is_settled() -> None:
    rules = {
        "settled": Pattern.parse('{"source":["a"],"detail-type":[{"prefix":"t"}]}'),
        "open": Pattern.parse('{"source":["a"],"detail":{"x":[1]}}'),
        "broken": Pattern.parse('{"source":["b"]}'),
        "absent": Pattern.parse('{"source":[{"exists":false}]}'),
    }
    certain, rest = narrow(rules, ("a", "t1"))
    assert certain == ["settled"]
    assert {rule: [list(fork) for fork in pattern.forks] for rule, pattern in rest.items()} == {"open": [["detail.x"]]}


def test_pairs_that_leave_too_many_rules_stay_as_they_are() -> None:
    some = NARROWED_RULES // 4
    index = MatchIndex({n: Pattern.parse(f'{{"source":["a"],"detail":{{"x":["{n}"]}}}}') for n in range(some)})
    index._room = some
    for _ in range(some // RULES_A_SIGHTING + 1):
        assert put(index, {"source": "a", "detail-type": "t"}, {"x": "7"}) == {7}
        assert put(index, {"source": "a", "detail-type": "u"}, {"x": "8"}) == {8}
    assert index.narrowed("a", "t") is not None
    assert index.narrowed("a", "u") is None
    assert index._narrowings["a", "u"] == TOO_WIDE
    assert put(index, {"source": "a", "detail-type": "u"}, {"x": "9"}) == {9}
