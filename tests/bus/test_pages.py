from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import ApiError
from bus.pages import page

LIST = ("rules", "arn:aws:events:us-east-1:111111111111:event-bus/" + "b" * 256)


@given(st.lists(st.text(), unique=True), st.integers(1, 7))
def test_pages_give_every_item_once_and_in_order(names: list[str], limit: int) -> None:
    items, found, request = sorted(names), [], {"Limit": limit}
    while True:
        some, token = page(items, request, key=str, of=LIST)
        found += some
        if not token:
            break
        assert len(some) == limit
        assert 1 <= len(token["NextToken"]) <= 2048
        request = {"Limit": limit} | token
    assert found == items


def test_a_hundred_items_when_no_limit_is_given() -> None:
    items = [f"{number:03}" for number in range(101)]
    some, token = page(items, {}, key=str, of=LIST)
    assert (some, set(token)) == (items[:100], {"NextToken"})
    assert page(items[:100], {}, key=str, of=LIST) == (items[:100], {})


@given(st.one_of(st.text(min_size=1), st.sampled_from(["W10=", "WzEsMl0=", "bnVsbA==", "WyJhIiwiYiIsImMiXQ=="])))
def test_any_other_token_is_refused(token: str) -> None:
    with pytest.raises(ApiError, match="Parameter NextToken is not valid"):
        page(["a", "b"], {"NextToken": token}, key=str, of=LIST)


def test_a_token_of_another_list_is_refused() -> None:
    request: dict[str, Any] = {"Limit": 1}
    _, token = page(["a", "b"], request, key=str, of=LIST)
    assert page(["a", "b"], token, key=str, of=LIST) == (["b"], {})
    with pytest.raises(ApiError, match="Parameter NextToken is not valid"):
        page(["a", "b"], token, key=str, of=("other", LIST[1]))


def test_tokens_are_plain_base64() -> None:
    items = ["a", "\u00ff\u00fe?>~"]
    _, token = page([*items, "z"], {"Limit": 2}, key=str, of=LIST)
    assert re.fullmatch(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", token["NextToken"])


def test_the_member_that_limits_a_page_has_another_name() -> None:
    assert page(["a", "b"], {"MaxResults": 1, "Limit": 2}, key=str, of=LIST, limit="MaxResults")[0] == ["a"]
