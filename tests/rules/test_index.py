"""The index, the pattern and the plainest procedure there is must agree, whatever the rules and the event."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import EventError, MatchIndex, Pattern, PatternError, parse_event
from rules.complexity import TOO_COMPLEX
from rules.operators import Exists
from rules.pattern import TOO_MANY_FORKS

# The matching procedure in its plainest form: pick one field for every path, in order, and try everything.
# Exponential, and meant to be: of the package it uses nothing but the `accepts` of the alternatives.

Member = tuple[str, Any]


class Pairs(list[Member]):
    """The members of an object in text order, duplicates included."""


def load(text: str | bytes) -> Pairs:
    return json.loads(text, object_pairs_hook=Pairs)


def flatten(event: Pairs) -> dict[str, list[tuple[Any, dict[int, int]]]]:
    fields: dict[str, list[tuple[Any, dict[int, int]]]] = {}
    arrays = 0

    def item(value: Any, path: list[str], membership: dict[int, int]) -> None:
        nonlocal arrays
        if isinstance(value, Pairs):
            for key, member in value:
                item(member, [*path, key], membership)
        elif isinstance(value, list):
            number, arrays = arrays, arrays + 1
            for index, element in enumerate(value):
                inside = isinstance(element, list)
                item(element, path, {**membership, number: index} if inside else membership)
        else:
            fields.setdefault(".".join(path), []).append((value, membership))

    item(event, [], {})
    return fields


def matches(pattern: Pattern, event: Pairs) -> bool:
    fields = flatten(event)
    return any(_step(list(fork.items()), fields, 0, {}) for fork in pattern.forks)


def _step(fork: list[Any], fields: dict[str, Any], position: int, picked: dict[int, int]) -> bool:
    if position == len(fork):
        return True
    path, alternatives = fork[position]
    present = fields.get(path, [])
    for value, membership in present:
        if _conflict(picked, membership) or not any(each.accepts(value) for each in alternatives):
            continue
        if _step(fork, fields, position + 1, {**picked, **membership}):
            return True
    absence = any(isinstance(each, Exists) and not each.present for each in alternatives)
    if absence and all(_conflict(picked, membership) for _, membership in present):
        return _step(fork, fields, position + 1, picked)
    return False


def _conflict(picked: dict[int, int], membership: dict[int, int]) -> bool:
    return any(picked.get(number, index) != index for number, index in membership.items())


# Random rules and events

KEYS = st.sampled_from(["a", "b", "a.b", "c", "detail", "source", "ab"])
TEXTS = st.sampled_from(["", "a", "ab", "abc", "Abc", "bc", "10.0.0.7", "::ffff:a00:7", "ß", "SS", 'q"', "b", "a*c"])
NUMBERS = st.sampled_from([0, 1, 2, 1.0, 1.5, -3, 2**60, 2**60 + 1, 9007199254740993, 1e300, 10000019])
SCALARS = TEXTS | NUMBERS | st.sampled_from([True, False, None])


def objects(values: st.SearchStrategy[Any], low: int = 0, high: int = 3) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(KEYS, values), min_size=low, max_size=high).map(lambda pairs: {"pairs": pairs})


def render(value: Any) -> str:
    """JSON text of a value in which {"pairs": […]} is an object that may hold a key twice."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {render(member)}" for key, member in value["pairs"]) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(render, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | objects(inner), max_leaves=14)
EVENTS = objects(VALUES, 1, 5).map(render)

FORMS = ("prefix", "suffix", "equals-ignore-case", "wildcard")
WILDCARDS = st.sampled_from(["", "*", "a*", "*c", "a*c", "*b*", "abc"])
OPERATORS = st.one_of(
    TEXTS.map(lambda text: {"prefix": text}),
    TEXTS.map(lambda text: {"suffix": text}),
    TEXTS.map(lambda text: {"equals-ignore-case": text}),
    TEXTS.map(lambda text: {"prefix": {"equals-ignore-case": text}}),
    TEXTS.map(lambda text: {"suffix": {"equals-ignore-case": text}}),
    TEXTS.map(lambda text: {"exactly": text}),
    WILDCARDS.map(lambda text: {"wildcard": text}),
    st.booleans().map(lambda present: {"exists": present}),
    st.sampled_from(["10.0.0.0/8", "::/0", "10.0.0.7/31"]).map(lambda block: {"cidr": block}),
    st.sampled_from([["=", 1], ["<", 2], [">=", 1.5], [">", 0, "<=", 2]]).map(lambda terms: {"numeric": terms}),
    st.lists(TEXTS, min_size=1, max_size=3).map(lambda texts: {"anything-but": texts}),
    st.sampled_from([[1], [0, 1.5], [-3, 2]]).map(lambda numbers: {"anything-but": numbers}),
    st.tuples(st.sampled_from(FORMS), st.lists(st.sampled_from(["a", "ab", "bc", "b"]), min_size=1, max_size=2)).map(
        lambda pair: {"anything-but": {pair[0]: pair[1]}}
    ),
)
LEAVES = st.lists(SCALARS | OPERATORS | st.just({"exists": False}), min_size=1, max_size=3)


@st.composite
def pattern_objects(draw: st.DrawFn, depth: int = 3) -> str:
    members = []
    for _ in range(draw(st.integers(1, 3))):
        choice = draw(st.integers(0, 5))
        if depth and choice == 0:
            branches = draw(st.lists(pattern_objects(depth=depth - 1), min_size=2, max_size=3))
            members.append(f'"$or": [{", ".join(branches)}]')
        elif depth and choice < 3:
            members.append(f"{json.dumps(draw(KEYS))}: {draw(pattern_objects(depth=depth - 1))}")
        else:
            members.append(f"{json.dumps(draw(KEYS))}: {json.dumps(draw(LEAVES))}")
    return "{" + ", ".join(members) + "}"


@st.composite
def rule_sets(draw: st.DrawFn) -> dict[int, Pattern]:
    found = {}
    for number, text in enumerate(draw(st.lists(pattern_objects(), min_size=1, max_size=8))):
        try:
            found[number] = Pattern.parse(text)
        except PatternError as error:
            if error.reason not in (TOO_COMPLEX, TOO_MANY_FORKS):
                raise
    return found


def split(text: str) -> tuple[dict[str, Any], bytes] | None:
    """The envelope and the text of the detail, for events that have just one, an object."""
    pairs = load(text)
    keys = [key for key, _ in pairs]
    if keys.count("detail") != 1 or len(set(keys)) < len(keys) or any(key.startswith("detail.") for key in keys):
        return None
    event = parse_event(text)
    detail = text[text.index('"detail": ') + 10 :]
    try:
        end = json.JSONDecoder().raw_decode(detail)[1]
    except ValueError:
        return None
    if not detail.startswith("{") or load(detail[:end]) != dict(pairs)["detail"]:  # "detail" of something else
        return None
    return {key: value for key, value in event.items() if key != "detail"}, detail[:end].encode()


@settings(max_examples=150, deadline=None)
@given(rule_sets(), st.lists(EVENTS, min_size=1, max_size=3))
def test_every_way_of_matching_agrees(rules: dict[int, Pattern], texts: list[str]) -> None:
    index = MatchIndex(rules)
    for text in texts:
        expected = {rule for rule, pattern in rules.items() if matches(pattern, load(text))}
        event = parse_event(text)
        assert {rule for rule, pattern in rules.items() if pattern.matches(event)} == expected
        for found in (index.match(event), index.match_json(text.encode()), index.match_json(text.encode())):
            assert len(found) == len(set(found))
            assert set(found) == expected
        parts = split(text)
        if parts is not None:
            assert set(index.match_event(*parts)) == expected


@settings(max_examples=60, deadline=None)
@given(rule_sets(), rule_sets(), st.data())
def test_changing_an_index_equals_building_it(
    before: dict[int, Pattern], after: dict[int, Pattern], data: st.DataObject
) -> None:
    text = data.draw(EVENTS)
    index = MatchIndex(before)
    untouched = set(index.match_json(text.encode()))
    changed = index
    for rule in before.keys() - after.keys():
        changed = changed.without_rule(rule)
    for rule, pattern in after.items():
        changed = changed.with_rule(rule, pattern)
    assert set(changed) == set(after)
    assert set(changed.match_json(text.encode())) == set(MatchIndex(after).match_json(text.encode()))
    assert set(index.match_json(text.encode())) == untouched


def index_of(*patterns: str) -> MatchIndex[int]:
    return MatchIndex({number: Pattern.parse(pattern) for number, pattern in enumerate(patterns)})


def test_a_rule_that_is_not_there_cannot_be_removed() -> None:
    with pytest.raises(KeyError):
        index_of('{"a": [1]}').without_rule(7)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"[]", b"1", b'{"a": 1', b'{"a": NaN}', b'{"b": {"a": 1}]', b"\xff", b'{"a": "\xff"}', b'{"a": 1} x'),
        *(b'{"a":' * 100_000, b'{"x":' * 5_000 + b"1" + b"}" * 5_000, b'{"a": ' + b"1" * 5_000 + b"}"),
    ],
    ids=range(12),
)
def test_text_that_is_no_object_is_an_error(text: bytes) -> None:
    with pytest.raises(EventError):
        index_of('{"a": [{"exists": true}]}', '{"b": [{"exists": false}]}').match_json(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"k": 1, "k": 2}', {0, 1}),
        ('{"k": 2, "\\u006b": 1}', {0, 1}),
        ('{"o": {"k": 1}, "o": {"k": 2}, "k": 2}', {1, 2}),
        ('{"o.k": 1, "o": {"k": 3}}', {2}),
        ('{"o": [{"k": 3}, {"k": 1}]}', {2}),
        ('{"o": {"p": {"k": 1}}, "k": "k"}', set()),
        ('{"x": "k\\"", "k": 1}', {0}),
        ('{"o": {"k": 1}, "p": {"k": 1e999}, "q": 1e999}', {2}),
    ],
)
def test_keys_that_stand_twice_or_elsewhere(text: str, expected: set[int]) -> None:
    index = index_of('{"k": [1]}', '{"k": [2]}', '{"o": {"k": [1]}}')
    assert set(index.match_json(text.encode())) == expected
    assert set(index.match(parse_event(text))) == expected


class Untouched(bytes):
    """Text that must not be decoded: it is not JSON at all."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"k": "a"}', [0]),
        (b'{"k":"b"}', []),
        (b'{"k"  :  "a"}', [0]),
        (b'{"k": ["b", "a"]}', [0]),
        (b'{"k": "b", "o": "k"}', []),
        (b'{"o": "k", "k": "a"}', [0]),
        (b'{"k": "b", "k": "a"}', [0]),
        (b'{"k": "b", "\\u006b": "a"}', [0]),
        (b'{"k": "\\u0061"}', [0]),
        (b'{"o": {"k": "a"}}', []),
        (b'{"k": "\xc3\xa9"}', [1]),
        (b"{}", []),
    ],
)
def test_bytes_rule_out_no_rule_that_matches(text: bytes, expected: list[int]) -> None:
    index = index_of('{"k": ["a"]}', '{"k": [{"prefix": "é"}]}')
    for _ in range(3):
        assert index.match_json(text) == expected


def test_one_path_may_file_rules_with_and_without_detail() -> None:
    index = index_of('{"source": ["a"]}', '{"source": ["b"], "detail": {"x": [{"exists": true}]}}')
    assert index.match_json(b'{"source": "a", "detail": {"x": 1}}') == [0]
    assert index.match_json(b'{"source": "b", "detail": {"x": 1}}') == [1]
    assert index.match_json(b'{"source": "c", "detail": {"x": 1}}') == []


def test_detail_is_not_decoded_unless_the_envelope_holds() -> None:
    index = index_of('{"source": ["a"], "detail": {"x": [1]}}', '{"source": [{"prefix": "b"}]}')
    assert index.match_event({"source": "bb"}, Untouched(b"no JSON")) == [1]
    with pytest.raises(EventError):
        index.match_event({"source": "a"}, Untouched(b"no JSON"))


def test_big_integers_keep_their_digits() -> None:
    index = index_of('{"n": [9007199254740993]}', '{"n": [12345678901234567890123]}', '{"n": [1]}')
    assert index.match_json(b'{"n": 9007199254740993}') == [0]
    assert index.match_json(b'{"n": 9007199254740992}') == []
    assert index.match_json(b'{"n": 12345678901234567890123}') == [1]
    assert index.match_json(b'{"n": 1.0, "m": 12345678901234567890123}') == [2]


def test_many_paths_and_deep_paths_are_matched_without_a_plan() -> None:
    deep = '{"a":' * 300 + "[1]" + "}" * 300
    index = index_of(*(f'{{"p{number}": [1]}}' for number in range(250)), deep)
    assert index.match_json(b'{"p7": 1}') == [7]
    assert index.match_json(deep.encode()) == [250]


def test_threads_share_an_index_without_a_lock() -> None:
    index = MatchIndex({number: Pattern.parse(f'{{"k": [{{"wildcard": "*-{number}"}}]}}') for number in range(300)})
    wrong: list[int] = []

    def match() -> None:
        wrong.extend(n for n in range(300) if index.match_json(f'{{"k": "x-{n}"}}'.encode()) != [n])

    threads = [threading.Thread(target=match) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
