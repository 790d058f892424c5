import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import exact
from rules.exact import Number

NUMBERS = ["0", "-0", "1.0", "1.10", "1e2", "1E+2", "-1.5e-7", "12345678901234567890", "9" * 40, "1e400", "0.1", "7"]
STRINGS = ['""', '"a"', '"a b"', '"\\""', '"\\\\"', '"é"', '"\\ud800"', '"[{,:}]"', '"\\n"', '"1e2"', '"😀"']
scalars = st.sampled_from([*NUMBERS, *STRINGS, "true", "false", "null"])


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]")


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.dictionaries(st.sampled_from(STRINGS), inner, max_size=4)
    return members.map(lambda found: "{" + ",".join(f"{key}:{value}" for key, value in found.items()) + "}")


texts = st.recursive(scalars, lambda inner: arrays(inner) | objects(inner), max_leaves=12)


@settings(deadline=None)
@given(texts)
def test_what_is_loaded_is_written_again(text: str) -> None:
    assert exact.dump(exact.load(text.encode())) == text.encode()


@settings(deadline=None)
@given(texts, st.integers(260, 900))
def test_deep_values_are_written_again(text: str, levels: int) -> None:
    deep = '{"a":[' * (levels // 2) + text + "]}" * (levels // 2)
    for body in (deep.encode(), f"[{deep},{text}]".encode()):
        assert exact.dump(exact.load(body)) == body


@pytest.mark.parametrize("leaf", ["1.10", '"\\ud800"', "null", "{}", "[]", '"x"'])
def test_the_deepest_values(leaf: str) -> None:
    body = ('{"a":1.50,"b":[' * 500 + leaf + ',{"c":[]}]}' * 500).encode()
    assert exact.dump(exact.load(body)) == body


def test_plain_values_are_plain() -> None:
    assert exact.load(b'{"a":1,"b":[1.5,"x",null,true]}') == {"a": 1, "b": [1.5, "x", None, True]}
    odd = exact.load(b'{"a":1.50,"b":"1.50"}')
    assert type(odd["a"]) is Number
    assert type(odd["b"]) is str
    assert exact.dump(odd["a"]) == b"1.50"
    assert exact.dump(odd["b"]) == b'"1.50"'


def test_what_has_no_json_form() -> None:
    with pytest.raises(TypeError):
        exact.dump(object())


VALID: list[tuple[str, bool]] = [
    ("1", False), ('"a"', False), ("[]", False), ("null", False), ("{}", True), (" {} ", True), ('{"a":1e400}', True),
    (r'{"a":"\ud800"}', True), (r'{"\udc00":[]}', True), ('{"a":"\ud800"}', True), (r'"\ud800"', False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "is_object"), VALID)
def test_valid(text: str, is_object: bool) -> None:
    assert exact.is_value(text)
    assert exact.is_object(text) is is_object


@pytest.mark.parametrize(
    "text", ["", " ", "{", "nope", '{"a"}', "1 2", '"\ud800', "\ud800", r"\ud800", r'{"\ud800"}', "NaN"]
)
def test_invalid(text: str) -> None:
    assert not exact.is_value(text)
    assert not exact.is_object(text)


@pytest.mark.parametrize("levels", [1, 500, 1000, 1024, 1025, 5000])
def test_depth(levels: int) -> None:
    text = "[" * levels + "]" * levels
    assert exact.is_value(text) is (levels <= 1024)
    assert not exact.is_object(text)
    assert exact.is_deeper(text, levels - 1)
    assert not exact.is_deeper(text, levels)


@settings(deadline=None)
@given(st.lists(st.sampled_from(['"[[{"', '"\\"["', '"\\\\"', "[]", "[[]]", '{"]":[{}]}']), min_size=1))
def test_depth_is_that_of_the_structure(items: list[str]) -> None:
    text = f"[{','.join(items)}]"
    levels = nesting(json.loads(text))
    assert exact.is_deeper(text, levels - 1)
    assert not exact.is_deeper(text, levels)


def nesting(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(nesting, inner), default=0)


def test_numbers_do_not_need_the_slow_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(exact, "_pieces")
    assert exact.dump(exact.load(b'{"a":[1.50,{"b":1e2}]}')) == b'{"a":[1.50,{"b":1e2}]}'


@settings(deadline=None)
@given(texts.filter(lambda text: "ud800" not in text))
def test_reading_with_a_stack_of_its_own_equals_reading(text: str) -> None:
    event = f'{{"a":{text},"a":1,"":[{text}]}}'
    read = exact.load_deep(event, members=tuple, scalar=json.loads)
    assert read == json.loads(event, object_pairs_hook=tuple)
