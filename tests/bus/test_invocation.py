"""Requests to API destinations: what comes of an event, a target and a connection, case by case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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


def test_the_place_of_an_endpoint_shows_neither_path_nor_query() -> None:
    found = made({"endpoint": "https://x.example/hooks/s3cret?key=s3cret"})
    assert found.place == "https://x.example"
    assert "s3cret" not in repr(found)
