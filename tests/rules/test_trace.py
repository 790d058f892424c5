import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.trace import normalise

NEW = "1-00000000-000000000000000000000000"
CASES = json.loads((Path(__file__).parents[1] / "cases/trace/headers.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_headers(case: dict[str, Any]) -> None:
    assert normalise(case["header"], lambda: NEW) == case["outcome"]


def test_a_root_is_made_only_when_needed() -> None:
    def refuse() -> str:
        raise AssertionError("no root is needed")

    for header in (f"Root={NEW};Sampled=0", "garbage", "Sampled=1"):
        normalise(header, refuse)


ITEMS = ["Root=", "Parent=", "Sampled=", NEW, "a" * 16, "A" * 16, "0", "1", "?", ";", "=", " ", "x", "Foo=", "\n"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(ITEMS), max_size=12).map("".join) | st.text(max_size=40))
def test_what_is_handed_on_stays_as_it_is(header: str) -> None:
    out = normalise(header, lambda: NEW)
    if out is not None:
        assert re.match(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}(;|$)", out)
        assert normalise(out, lambda: "not needed") == out
        assert out.isascii()
        assert out.isprintable()
