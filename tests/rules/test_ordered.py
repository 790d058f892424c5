"""What a decoder in order takes has lost nothing, and plans find the same whatever they have learned."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import ordered
from rules.flatten import parse_event
from rules.plan import LESSON_EVERY, LESSON_LIMIT, READER_LIMIT, Plan
from rules.values import Many, step_tree

PATHS = ("a.b", "a.c", "b", "c.a.b")


def test_the_msgspec_in_use_searches_fields_in_the_order_declared() -> None:
    assert ordered.WORKS


@pytest.mark.parametrize(
    "text",
    [
        *('{"a": {"b": 1, "b": 2}}', '{"a": {"b": 1}, "a": 1}', '{"b": 1, "\\u0062": 2}', '{"a": {}, "a": {}}'),
        *('{"a.b": 1}', '{"c.a": {"b": 1}}', '{"c": {"a.b": 1}}', '{"c.a.b": null}', '{"b": 1, "x": {}, "b": 1}'),
        *('{"a": [1]}', '{"b": [1]}', '{"b": {"x": 1}}', '{"a": {"b": []}}', "[]", "1", '{"a": {"b": 1}'),
    ],
)
def test_what_would_lose_something_is_refused(text: str) -> None:
    with pytest.raises(msgspec.MsgspecError):
        ordered.decoder(step_tree(PATHS))(text.encode())


def test_keys_may_be_missing_and_other_keys_repeat() -> None:
    decode = ordered.decoder(step_tree(PATHS))
    assert decode(b'{"x": 1, "a": null, "x": {"a.b": 1}, "c": {"b": 1, "a": {"b": "\\u0062"}}}') == {
        "a": None,
        "c": {"a": {"b": "b"}},
    }


KEYS = st.sampled_from(["a", "b", "c", "a.b", "x"])
SCALARS = st.sampled_from([1, 1.0, True, None, "b", 2**70])


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.lists(st.tuples(KEYS, values), max_size=4)
    return members.map(lambda pairs: "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in pairs) + "}")


TEXTS = objects(
    st.recursive(
        SCALARS.map(json.dumps),
        lambda inner: objects(inner) | st.lists(inner, max_size=3).map(lambda values: f"[{','.join(values)}]"),
        max_leaves=8,
    )
)


def plain(values: Any) -> list[Any]:
    """Values in a form that can be compared: without the numbers of arrays, which may differ."""
    shown = []
    for value in values:
        many = value if isinstance(value, Many) else Many([] if value is msgspec.UNSET else [value])
        places = [tuple(index for _, index in membership) for membership in many.memberships()]
        shown.append(sorted(zip(map(repr, many.values), places, strict=True)))
    return shown


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=12))
def test_a_plan_that_learns_reads_what_one_that_knows_nothing_does(texts: list[str]) -> None:
    for paths in (*([path] for path in PATHS), PATHS):
        plan = Plan(paths)
        for text in texts:
            assert plain(plan.of_text(text.encode())) == plain(Plan(paths).of_event(parse_event(text)))


def test_orders_of_keys_without_end_are_read_and_only_some_are_learned() -> None:
    plan = Plan(list("abcde"))
    orders = list(permutations("abcde"))
    for number, order in enumerate(orders):
        text = json.dumps({key: key.upper() for key in order}).encode()
        assert list(plan.of_text(text)) == list("ABCDE")
        assert set(plan.of_text(text[:-1] + b', "a": "Z"}')[0].values) == {"A", "Z"}
        assert len(plan._readers) == min(number + 1, READER_LIMIT)
        if number < LESSON_LIMIT:
            learned = plan._readers
    assert plan._readers == learned
    for _ in range(LESSON_EVERY):
        plan.of_text(b'{"e": 1, "d": 2, "c": 3, "a": 4, "b": 5}')
    assert plan._readers[1:] == learned[:-1]


def test_arrays_are_learned_and_forgotten() -> None:
    plan = Plan(["a.b", "t"])
    flat, array = b'{"a": {"b": 1}, "t": "x"}', b'{"a": [{"b": 1}, {"b": 2}], "t": ["x", "y"]}'
    for text in (flat, array, flat, array, b'{"a": [], "t": []}', array):
        expected = plan.of_event(json.loads(text))
        assert plain(plan.of_text(text)) == plain(expected)
    assert plan._odd == 2


def test_text_with_escapes_is_learned_from_as_well() -> None:
    plan = Plan(["b", "a"])
    assert list(plan.of_text(b'{"\\u0062": "\\u00fc", "a": 1, "c": "\\u0022"}')) == ["ü", 1]
    assert len(plan._readers) == 1
    assert list(plan._read(b'{"b": "\\ud83d\\ude00", "\\u0061": 2}')) == ["\U0001f600", 2]


def test_without_ordered_decoders_texts_are_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "WORKS", False)
    plan = Plan(PATHS)
    for text in ('{"a": {"b": 1}}', '{"a": {"b": 1, "b": 2}}', '{"b": "\\u0062"}'):
        assert plain(plan.of_text(text.encode())) == plain(plan.of_event(parse_event(text)))
    assert plan._readers == ()
