"""Requests as bytes: what clients that are not well-behaved send, and what anyone sees without a client library."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

DEADLINE_S = 60.0
JSON_1_1 = "application/x-amz-json-1.1"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The AWS error code."""
        return str(self.json["__type"])


def request(
    url: str,
    method: str = "GET",
    path: str = "/",
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own."""
    place = urlsplit(url)
    with closing(http.client.HTTPConnection(place.hostname or "", place.port, timeout=DEADLINE_S)) as connection:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        return read_answer(connection.getresponse())


def call(url: str, operation: str, body: bytes, *, prefix: str = "AWSEvents", **headers: str) -> Answer:
    """An AWS JSON call with exactly this body."""
    named = {"X-Amz-Target": f"{prefix}.{operation}", "Content-Type": JSON_1_1}
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    return request(url, "POST", body=body, headers={**named, **extra})


def read_answer(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def connect(url: str) -> socket.socket:
    """A plain connection to the server."""
    place = urlsplit(url)
    return socket.create_connection((place.hostname, place.port), DEADLINE_S)


def exchange(url: str, sent: bytes) -> Answer:
    """Send these bytes and read one answer."""
    with connect(url) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection, method="POST")
        response.begin()
        return read_answer(response)


def scrape(url: str) -> dict[str, float]:
    """Every sample of ``GET /metrics`` by its name with labels, as printed; series at zero left out."""
    lines = request(url, path="/metrics").body.decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in samples if float(value)}


def rule_metrics(url: str, account: str, rule: str) -> dict[str, float]:
    """The samples of one rule by EventBridge's names; those at zero left out."""
    wanted = (f'Account="{account}"', f'RuleName="{rule}"')
    found = {}
    for name, value in scrape(url).items():
        if all(label in name for label in wanted):
            found[name.partition("{")[0].removesuffix("_total")] = value
    return found


def until(probe: Callable[[], Any], what: str) -> Any:
    """Ask again and again until there is an answer that holds; asking takes its time, nothing else does."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := probe()):
        assert time.monotonic() < deadline, f"{what} never came true"
    return found
