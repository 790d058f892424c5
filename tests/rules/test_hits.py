"""What is remembered of values and of events changes no answer, however little room there is."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from rules import MatchIndex, Pattern, hits, parse_event, verdicts
from rules import index as index_module
from rules.anchors import Anchors
from rules.conditions import Condition
from rules.hits import NOTHING, Entry, HitMap
from rules.values import Many
from tests.rules.test_index import EVENTS, LEAVES, index_of, load, matches, rule_sets

BEYOND = 2**53


def hit_map(*leaves: str) -> tuple[list[Condition], HitMap]:
    """Conditions on one path, and what values of it hit."""
    conditions = [Condition("k", Pattern.parse(f'{{"k": {leaf}}}').forks[0]["k"]) for leaf in leaves]
    anchors = Anchors()
    for condition in conditions:
        anchors.add(condition, Entry(condition, (condition,), condition))
    return conditions, anchors.tables["k"].hits


VALUES: list[Any] = [
    *(0, False, 0.0, -0.0, 1, True, 1.0, 2, 2.0, None, UNSET, "", "1", "true", "a", "A", "ß", "x" * 1000),
    *(BEYOND - 1, BEYOND, BEYOND + 1, float(BEYOND), -BEYOND, -BEYOND - 1, 2**60, float(2**60), 10**400, 1e300, -1e300),
    *(float("inf"), float("-inf"), float("nan"), 167772167, 1.5, 5, 1, True, 0, False),
]


@settings(max_examples=150, deadline=None)
@given(st.lists(LEAVES.map(json.dumps), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_a_value_hits_the_conditions_that_hold_for_it(leaves: list[str], shuffled: random.Random) -> None:
    conditions, found = hit_map(*dict.fromkeys(leaves))
    values = VALUES * 2
    shuffled.shuffle(values)
    for value in values:
        assert set(found[value].certain) == {each for each in conditions if each.holds(value)}, value
        many = Many([each for each in values[:3] if each is not UNSET])
        assert set(found[many].certain) == {each for each in conditions if each.holds(many)}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["=", "<", "<=", ">", ">="]), min_size=1, max_size=3),
    st.lists(st.sampled_from([-1e300, -BEYOND - 2, 0, 1, 2.5, BEYOND, BEYOND + 2, 1e300]), min_size=1, max_size=3),
    st.lists(st.sampled_from([value for value in VALUES if type(value) is int or type(value) is float]), min_size=1),
)
def test_columns_of_numbers_hit_what_their_numbers_do(signs: list[str], points: list[float], column: list[Any]) -> None:
    terms = zip(signs, points, strict=False)
    conditions, found = hit_map(*dict.fromkeys(json.dumps([{"numeric": list(term)}]) for term in terms))
    for array in (0, 1):
        many = Many(column, array, all(number == number for number in column))
        for _ in range(2):
            assert set(found[many].certain) == {each for each in conditions if each.holds(many)}


def test_a_column_that_hits_nothing_asks_only_the_forks_of_its_own_path() -> None:
    index = index_of('{"a": {"x": [{"exists": false}]}, "b": [1]}', '{"c": {"y": [{"numeric": [">", 5]}]}}')
    for number in (2, 3, 1):
        text = json.dumps({"a": [{"x": number}], "c": [{"y": number}, {"y": number}], "b": 2}).encode()
        assert index.match_json(text) == []
    assert hits.NOTHING is NOTHING
    assert not NOTHING.candidates


@contextmanager
def little_room(conditions: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hits, "REMEMBERED_VALUES", 1)
        patch.setattr(hits, "PATIENCE", 1)
        patch.setattr(verdicts, "REMEMBERED_VERDICTS", 2)
        patch.setattr(verdicts, "PATIENCE", 1)
        patch.setattr(index_module, "CONDITION_LIMIT", conditions)
        yield


@pytest.mark.parametrize("conditions", [0, 512])
@settings(max_examples=80, deadline=None)
@given(rules=rule_sets(), texts=st.lists(EVENTS, min_size=1, max_size=8))
def test_memories_that_overflow_change_no_answer(conditions: int, rules: dict[int, Pattern], texts: list[str]) -> None:
    with little_room(conditions):
        index = MatchIndex(rules)
        expected = [{rule for rule, pattern in rules.items() if matches(pattern, load(text))} for text in texts]
        for _ in range(4):
            for text, rules_that_match in zip(texts, expected, strict=True):
                assert set(index.match_json(text.encode())) == rules_that_match
                assert set(index.match(parse_event(text))) == rules_that_match


def test_elements_that_hit_the_same_are_told_apart() -> None:
    index = index_of('{"a": {"x": [1], "y": [1]}}', '{"a": {"x": [1]}}', '{"a": {"x": [1], "z": [{"exists": false}]}}')
    one, two = b'{"a": [{"x": 1, "y": 1}, {"x": 2, "y": 2}]}', b'{"a": [{"x": 1, "y": 2}, {"x": 2, "y": 1}]}'
    for _ in range(3):
        assert set(index.match_json(one)) == {0, 1, 2}
        assert set(index.match_json(two)) == {1, 2}
        assert set(index.match_json(b'{"a": {"x": 1, "y": 1}}')) == {0, 1, 2}
        assert set(index.match_json(b'{"a": [{"x": 1, "z": 1}, {"x": 2, "z": 2}]}')) == {1}
        assert set(index.match_json(b'{"a": {"x": [1, 2], "y": [2, 1]}}')) == {0, 1, 2}


def test_a_memory_full_of_what_never_comes_again_starts_over() -> None:
    _, found = hit_map('[{"prefix": "a"}]')
    for number in range(20 * hits.REMEMBERED_VALUES):
        assert found[f"a{number}"] is not NOTHING
        assert len(found) <= hits.REMEMBERED_VALUES + 2
    assert found["b"] is NOTHING
    assert "a0" not in found
    assert "x" * (hits.REMEMBERED_LENGTH + 1) not in found


def test_threads_may_share_what_is_remembered() -> None:
    rules = {
        "low": Pattern.parse('{"n": [{"numeric": ["<", 50]}], "s": [{"anything-but": {"suffix": "7"}}]}'),
        "odd": Pattern.parse('{"s": [{"suffix": "1"}, {"suffix": "3"}], "a": {"x": [{"numeric": [">", 10]}]}}'),
        "gone": Pattern.parse('{"t": [{"exists": false}], "s": [{"prefix": "s1"}]}'),
    }
    texts = []
    for n in range(300):
        event = {"n": n % 90, "s": f"s{n}", "a": [{"x": n % 20}, {"x": n % 7}]}
        members = list(event.items())
        texts.append(json.dumps(dict(members if n % 2 else members[::-1]) | ({"t": 1} if n % 3 else {})).encode())
    expected = [{rule for rule, pattern in rules.items() if pattern.matches(json.loads(text))} for text in texts]
    wrong: list[bytes] = []
    with little_room(512):
        index = MatchIndex(rules)

        def match(seed: int) -> None:
            order = list(range(len(texts)))
            random.Random(seed).shuffle(order)
            wrong.extend(texts[at] for at in order if set(index.match_json(texts[at])) != expected[at])

        threads = [threading.Thread(target=match, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("count", [1, 5, 40])
def test_many_beginnings_and_ends_are_found_like_few(count: int) -> None:
    forms = ('{{"prefix": "p{0}"}}', '{{"suffix": "{0}s"}}', '{{"wildcard": "w{0}*x"}}', '{{"wildcard": "*y{0}*{0}z"}}')
    conditions, found = hit_map(*(f"[{form.format(n * 7)}]" for form in forms for n in range(count)))
    for n in range(0, 300, 7):
        for text in (
            f"p{n}",
            f"p{n}{n}s",
            f"w{n}x",
            f"w{n}-x",
            f"-y{n}-{n}z",
            f"w{n}y{n}{n}x",
            f"p{n}y{n}-{n}z",
            "",
            "p",
        ):
            assert set(found[text].certain) == {each for each in conditions if each.holds(text)}
