"""Requests to API destinations: what comes of an event, a target and a connection, case by case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.targets.http_client import Origin
from bus.targets.invocation import STRIPPED, Invocation, InvocationError, invocation

CASES = json.loads((Path(__file__).parent.parent / "cases" / "invocations" / "requests.json").read_text())


def made(case: dict[str, Any]) -> Invocation:
    connection = dict(case.get("auth", {}))
    if "connection" in case:
        connection["InvocationHttpParameters"] = case["connection"]
    return invocation(
        case["endpoint"],
        case.get("method", "POST"),
        target=case.get("target", {}),
        connection=connection,
        token=case.get("token"),
        event=event(case),
        body=case.get("body", "{}").encode(),
        trace=case.get("trace"),
    )


def event(case: dict[str, Any]) -> bytes:
    """The event of a case; a price keeps its zeros, which parsing the cases has taken away."""
    return json.dumps(case.get("event", {}), separators=(",", ":")).replace('"price":1.5,', '"price":1.50,').encode()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_requests(case: dict[str, Any]) -> None:
    if "refused" in case:
        with pytest.raises(InvocationError) as refused:
            made(case)
        assert str(refused.value) == case["refused"]
        return
    found = made(case)
    head, _, body = found.request.decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines == case.get("lines", lines)
    assert lines[0] == case.get("first", lines[0])
    for name, value in case.get("has", {}).items():
        assert [line for line in lines if line.startswith(f"{name}: ")] == [f"{name}: {value}"]
    for text in case.get("lacks", ()):
        assert text not in found.request.decode()
    assert body == case.get("sent", body)
    assert found.origin == Origin(*case.get("origin", found.origin))
    assert found.place == case.get("place", found.place)
    assert len({line.partition(":")[0].lower() for line in lines[1:]}) == len(lines) - 1, "no header is there twice"


@pytest.mark.parametrize("name", sorted(STRIPPED))
def test_what_is_stripped_never_arrives(name: str) -> None:
    for source in (
        {"target": {"HeaderParameters": {name: "evil"}}},
        {"connection": {"HeaderParameters": [entry(name)]}},
    ):
        assert b"evil" not in made({"endpoint": "https://x.example", **source}).request


def entry(name: str) -> dict[str, str]:
    return {"Key": name, "Value": "evil"}


def test_an_event_with_lone_surrogates_can_be_sent() -> None:
    found = invocation(
        "https://x.example/*",
        "POST",
        target={"PathParameterValues": ["$.detail.a"], "HeaderParameters": {"X": "$.detail.a", "Y": "$.detail"}},
        connection={},
        token=None,
        event=b'{"detail":{"a":"\\ud800"}}',
        body=b"{}",
    )
    assert found.request.startswith(b"POST /%3F HTTP/1.1\r\n")


TEXT = st.text(max_size=30)


@given(path=TEXT, header=TEXT, query=TEXT, connection=TEXT, body=TEXT)
def test_no_value_leaves_its_place(path: str, header: str, query: str, connection: str, body: str) -> None:
    event = json.dumps({"detail": {"p": path, "h": header, "q": query}}).encode()
    target = {
        "PathParameterValues": ["$.detail.p"],
        "HeaderParameters": {"X-H": "$.detail.h"},
        "QueryStringParameters": {"q": "$.detail.q"},
    }
    http = {
        "HeaderParameters": [{"Key": "X-C", "Value": connection}],
        "BodyParameters": [{"Key": body or "b", "Value": connection}],
    }
    try:
        found = invocation(
            "https://x.example/a/*/b?fixed=1", "POST", target=target, connection={"InvocationHttpParameters": http},
            token=None, event=event, body=b'{"n":1.50}',
        )  # fmt: skip
    except InvocationError:
        assert path in (".", "..")
        return
    head, _, sent = found.request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert [line.partition(b":")[0] for line in lines] == [
        b"Host", b"User-Agent", b"Accept-Encoding", b"Range", b"Connection", b"X-H", b"X-C", b"Content-Type",
        b"Content-Length",
    ]  # fmt: skip
    assert not any(byte < 0x20 or byte == 0x7F for byte in b"".join([first, *lines]))
    method, url, version = first.split(b" ")
    assert (method, version) == (b"POST", b"HTTP/1.1")
    segments, _, pairs = url.partition(b"?")
    assert (segments.count(b"/"), pairs.count(b"&")) == (3, 1)
    assert unquote(segments.split(b"/")[2].decode(), errors="surrogatepass") == path
    assert lines[-1] == b"Content-Length: %d" % len(sent)
    assert json.loads(sent)[body or "b"] == connection


def test_the_place_of_an_endpoint_shows_neither_path_nor_query() -> None:
    found = made({"endpoint": "https://x.example/hooks/s3cret?key=s3cret"})
    assert found.place == "https://x.example"
    assert "s3cret" not in repr(found)
