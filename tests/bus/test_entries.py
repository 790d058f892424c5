"""The short way to the entries of a request: what it takes the service model takes, and it reads the same."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.api.model import load_events
from bus.entries import Entry, read_entries

(CHECK,) = [operation.check for operation in load_events() if operation.name == "PutEvents"]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
TEXT = st.text(max_size=8) | st.sampled_from(["shop", "", "aws.s3"])
MEMBERS = {
    "Source": TEXT | JSON,
    "DetailType": TEXT | JSON,
    "Detail": st.sampled_from(["{}", '{"a":1}', "", "[]"]) | JSON,
    "EventBusName": st.sampled_from(["default", "a" * 256, "a" * 257, "", "a b", "aws.partner/x/y", "ä"]) | JSON,
    "Resources": st.lists(TEXT | JSON, max_size=2) | JSON,
    "Time": st.integers(0, 2**31) | st.floats(0, 2**31) | JSON,
    "TraceHeader": st.sampled_from(["Root=1", "", "x" * 500, "x" * 501]) | JSON,
    "Unknown": JSON,
}
ENTRIES = st.fixed_dictionaries({}, optional=MEMBERS)
REQUESTS = st.fixed_dictionaries(
    {"Entries": st.lists(ENTRIES, max_size=11) | JSON},
    optional={"EndpointId": st.just("abcde.veo") | JSON, "Other": JSON},
)


@settings(deadline=None, max_examples=400)
@given(REQUESTS)
def test_what_is_read_at_once_is_what_the_model_lets_pass(request: dict[str, Any]) -> None:
    read = read_entries(orjson.dumps(request))
    if read is not None:
        CHECK(request)
        assert list(read) == [Entry.of(members) for members in request["Entries"]]
        assert request.get("EndpointId") is None


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"Entries":[]}', b'{"Entries":null}', b'{"Entries":[{"Source":"\xff"}]}',
     b'{"Entries":[{"Source":"\\ud800"}]}', b'{"Entries":[null]}', b'{"Entries":[{"Detail":{}}]}',
     b'{"Entries":[{"Time":253402300800}]}', b'{"Entries":[{"Time":-62135596801.0}]}',
     b'{"Entries":[{}],"EndpointId":"abcde.veo"}', b'{"Entries":[' + b"[" * 100_000],
)  # fmt: skip
def test_what_is_not_plainly_right_is_left_to_the_long_way(body: bytes) -> None:
    assert read_entries(body) is None


def test_the_usual_request_is_read_at_once() -> None:
    members = {
        "Source": "shop", "DetailType": "T", "Detail": "{}", "EventBusName": "orders", "Resources": ["a"],
        "Time": 1.5, "TraceHeader": "Root=1",
    }  # fmt: skip
    assert read_entries(orjson.dumps({"Entries": [members]})) == [Entry.of(members)]
