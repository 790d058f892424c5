"""Wires: which URL stands for which ARN."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from fnmatch import translate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.clock import ManualClock
from bus.config import Settings
from bus.errors import ApiError
from bus.store import Store
from bus.store.sqlite import open_store
from bus.targets.addresses import Addresses
from bus.wires import Wire, Wires, read_pattern

ORDERS = "arn:aws:lambda:us-east-1:123456789012:function:orders"


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    opened = await open_store(":memory:", ManualClock())
    yield opened
    await opened.close()


@pytest.fixture
def wires(store: Store) -> Wires:
    return Wires(store, Addresses(Settings()).check_url)


async def test_the_most_specific_wire_wins(wires: Wires) -> None:
    ranking = [
        ORDERS,
        "arn:aws:lambda:us-east-1:*:function:orders",
        "arn:aws:lambda:*:function:*",
        "arn:aws:lambda:*",
        "arn:*",
    ]
    for number, pattern in enumerate(reversed(ranking)):
        await wires.put(pattern, f"http://127.0.0.1:{9000 + number}/")
        assert wires.match(ORDERS) == f"http://127.0.0.1:{9000 + number}/"
    for pattern in ranking:
        assert wires.match(ORDERS) is not None
        assert await wires.remove(pattern)
    assert wires.match(ORDERS) is None


async def test_equally_specific_wires_go_by_name(wires: Wires) -> None:
    await wires.put("arn:aws:lambda:*:orders", "http://127.0.0.1/b")
    await wires.put("arn:aws:*:lambda:orders", "http://127.0.0.1/a")
    assert wires.match("arn:aws:lambda:lambda:orders") == "http://127.0.0.1/a"


async def test_a_wire_can_lead_elsewhere(wires: Wires) -> None:
    await wires.put(ORDERS, "http://127.0.0.1:1/")
    assert wires.match(ORDERS) == "http://127.0.0.1:1/"
    assert await wires.put(ORDERS, "http://127.0.0.1:2/") == Wire(ORDERS, "http://127.0.0.1:2/")
    assert wires.match(ORDERS) == "http://127.0.0.1:2/"
    assert wires.match(ORDERS + "2") is None


async def test_wires_are_still_there_after_a_restart(store: Store, wires: Wires) -> None:
    await wires.put("arn:aws:sns:*", "http://127.0.0.1:2/")
    await wires.put(ORDERS, "http://127.0.0.1:1/")
    await wires.put("arn:aws:sqs:*", "http://127.0.0.1:3/")
    await wires.remove("arn:aws:sqs:*")
    again = Wires(store, lambda url: None)
    assert again.list() == []
    await again.load()
    assert (
        again.list()
        == wires.list()
        == [Wire(ORDERS, "http://127.0.0.1:1/"), Wire("arn:aws:sns:*", "http://127.0.0.1:2/")]
    )
    assert again.match(ORDERS) == "http://127.0.0.1:1/"
    assert again.match("arn:aws:sqs:us-east-1:123456789012:q") is None


async def test_removing_what_is_not_there(wires: Wires) -> None:
    await wires.put("arn:aws:lambda:*", "http://127.0.0.1:1/")
    assert not await wires.remove(ORDERS)
    assert wires.match(ORDERS) is not None


@pytest.mark.parametrize(
    "pattern", ["", "*", "orders", "arn:aws:lambda", "aws:arn:*", "http://x/", "arn:aws:lambda: *", "arn:" + "*" * 1600]
)
async def test_what_is_no_pattern(wires: Wires, pattern: str) -> None:
    with pytest.raises(ApiError, match="pattern of ARNs") as caught:
        await wires.put(pattern, "http://127.0.0.1/")
    assert caught.value.code == "ValidationException"
    assert wires.list() == []


@pytest.mark.parametrize("url", ["", "127.0.0.1:9000", "ftp://127.0.0.1/", "http://"])
async def test_what_is_no_url(wires: Wires, url: str) -> None:
    with pytest.raises(ApiError, match=r"http://127\.0\.0\.1:9001/"):
        await wires.put(ORDERS, url)


async def test_a_wire_to_a_metadata_address_is_refused_beyond_loopback(store: Store) -> None:
    guarded = Wires(store, Addresses(Settings(host="0.0.0.0", insecure=True)).check_url)
    with pytest.raises(ApiError, match="metadata"):
        await guarded.put(ORDERS, "http://169.254.169.254/")


async def test_many_asterisks_take_no_longer(wires: Wires) -> None:
    pattern = read_pattern("arn:" + "a*" * 700 + "b")
    assert not pattern.matches("arn:" + "a" * 100_000)
    assert pattern.matches("arn:" + "a" * 100_000 + "b")


TEXT = st.text("ab:*", max_size=12)


@given(pattern=TEXT, arn=st.text("ab:", max_size=14))
def test_matching_is_that_of_a_regular_expression(pattern: str, arn: str) -> None:
    expected = re.fullmatch(translate("arn:" + pattern), "arn:" + arn) is not None
    cut = tuple(("arn:" + pattern).split("*"))
    assert type(read_pattern("arn:*"))("arn:" + pattern, cut).matches("arn:" + arn) == expected
