import json
from pathlib import Path as File
from typing import Any

import jmespath  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.errors import RulesError
from rules.paths import MISSING, Path, PathError, read_path

CASES = json.loads((File(__file__).parents[1] / "cases/paths/paths.json").read_text())


@pytest.mark.parametrize("case", CASES["paths"], ids=lambda case: case["path"])
def test_found(case: dict[str, Any]) -> None:
    found = Path.parse(case["path"]).find(CASES["event"])
    if case.get("missing"):
        assert found is MISSING
    else:
        assert found == case["found"]
        assert type(found) is type(case["found"])


@pytest.mark.parametrize("text", CASES["refused"])
def test_refused(text: str) -> None:
    with pytest.raises(PathError):
        Path.parse(text)
    assert issubclass(PathError, RulesError)


def test_missing_is_not_null() -> None:
    assert Path.parse("$.a").find({"a": None}) is None
    assert Path.parse("$.a").find({}) is MISSING
    assert repr(MISSING) == "MISSING"


def test_longest_path() -> None:
    event: dict[str, Any] = {"a": 1}
    for _ in range(126):
        event = {"a": event}
    assert Path.parse("$" + ".a" * 127).find(event) == 1
    assert Path.parse("$" + "[*]" * 85).find([[1]]) == []


names = st.sampled_from(["a", "b", "c-d", "e/f", "_", "0"])
steps = st.one_of(names.map(lambda name: "." + name), st.integers(0, 3).map(lambda at: f"[{at}]"), st.just("[*]"))
values = st.recursive(
    st.none() | st.integers() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


def walk(found: list[Any], parts: list[str]) -> list[Any]:
    """What a path means, step by step."""
    for part in parts:
        if part == "[*]":
            found = [element for value in found if isinstance(value, list) for element in value]
        elif part[0] == "[":
            at = int(part[1:-1])
            found = [value[at] for value in found if isinstance(value, list) and at < len(value)]
        else:
            found = [value[part[1:]] for value in found if isinstance(value, dict) and part[1:] in value]
    return found


@settings(deadline=None)
@given(values, st.lists(steps, max_size=5))
def test_find_equals_a_walk(event: Any, parts: list[str]) -> None:
    found = Path.parse("$" + "".join(parts)).find(event)
    matches = walk([event], parts)
    if "[*]" not in parts:
        assert found == matches[0] if matches else found is MISSING
    elif found is MISSING:
        assert matches == []
    else:
        assert found == matches


@settings(deadline=None)
@given(values, st.lists(steps.filter(lambda step: step != "[*]"), max_size=5))
def test_find_equals_jmespath_where_that_has_an_answer(event: Any, parts: list[str]) -> None:
    expression = "@" + "".join(f'."{part[1:]}"' if part[0] == "." else part for part in parts)
    expected = jmespath.search(expression, event)
    found = Path.parse("$" + "".join(parts)).find(event)
    assert found == expected if expected is not None else found in (None, MISSING)


@settings(deadline=None)
@given(st.text(max_size=20) | st.text(alphabet="$.[]*a0-/'\"", max_size=12))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        path = Path.parse(text)
    except PathError:
        return
    path.find(CASES["event"])


def test_read_path() -> None:
    event = b'{"detail":{"a":"","n":null,"list":[{"b":1},{"b":2}]}}'
    assert read_path("$.detail.a", event) == ""
    assert read_path("$.detail.n", event) is None
    assert read_path("$.detail.x", event) is None
    assert read_path("$.detail.list[*].b", event) == [1, 2]
    with pytest.raises(PathError):
        read_path("detail", event)
