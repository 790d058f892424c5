"""OAuth token requests: what is sent, and what answers mean."""

from __future__ import annotations

from typing import Any

import pytest

from bus.clock import ManualClock
from bus.connections.tokens import Grant, NoToken, Token
from bus.targets.http_client import Answer, Disconnected, HttpClient, NotHttp, Origin
from bus.targets.token_request import UNREACHABLE, TokenRequests, read_answer, token_request

OAUTH: dict[str, Any] = {
    "ClientParameters": {"ClientID": "owned-client", "ClientSecret": "owned client&secret"},
    "AuthorizationEndpoint": "https://tokens.example/oauth?tenant=1",
    "HttpMethod": "POST",
    "OAuthHttpParameters": {
        "BodyParameters": [{"Key": "grant_type", "Value": "client_credentials"}, {"Key": "scope", "Value": "a b"}],
        "HeaderParameters": [{"Key": "x-owned", "Value": "yes"}, {"Key": "Host", "Value": "evil"}],
        "QueryStringParameters": [{"Key": "audience", "Value": "my api"}],
    },
}
FORM = "grant_type=client_credentials&scope=a+b&client_secret=owned+client%26secret&client_id=owned-client"


def parts(oauth: dict[str, Any]) -> tuple[str, list[str], str]:
    origin, request = token_request(oauth)
    assert origin == Origin(True, "tokens.example", 443)
    head, _, body = request.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    return first, lines, body


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_form_in_the_body(method: str) -> None:
    first, lines, body = parts({**OAUTH, "HttpMethod": method})
    assert first == f"{method} /oauth?tenant=1&audience=my%20api HTTP/1.1"
    assert body == FORM
    assert "Host: tokens.example" in lines
    assert "Content-Type: application/x-www-form-urlencoded" in lines
    assert f"Content-Length: {len(FORM)}" in lines
    assert "x-owned: yes" in lines
    assert not any(line.startswith("Authorization") or "evil" in line for line in lines)


def test_a_form_in_the_query() -> None:
    first, lines, body = parts({**OAUTH, "HttpMethod": "GET"})
    form = FORM.replace("+", "%20")
    assert first == f"GET /oauth?tenant=1&audience=my%20api&{form} HTTP/1.1"
    assert body == ""
    assert not any(line.startswith("Content-") for line in lines)


def test_nothing_is_added_to_what_the_connection_says() -> None:
    bare = {name: value for name, value in OAUTH.items() if name != "OAuthHttpParameters"}
    _, _, body = parts(bare)
    assert body == "client_secret=owned+client%26secret&client_id=owned-client"


ANSWERS: dict[str, tuple[Answer, Grant]] = {
    "a token with an end": (Answer(200, None, b'{"access_token":"t","expires_in":3600}'), Token("t", 3_601_000)),
    "an end in quotes": (Answer(200, None, b'{"access_token":"t","expires_in":"60"}'), Token("t", 61_000)),
    "no end": (Answer(201, None, b'{"token_type":"Bearer","access_token":"t"}'), Token("t", None)),
    "over already": (Answer(200, None, b'{"access_token":"t","expires_in":-5}'), Token("t", 1_000)),
    "refused": (
        Answer(401, None, b'{"error":"invalid_client"}'),
        NoToken("NO_PERMISSIONS", "The authorization endpoint answered with HTTP status 401."),
    ),
    "redirected": (
        Answer(302, None, b""),
        NoToken("ERROR_FROM_TARGET", "The authorization endpoint answered with HTTP status 302."),
    ),
    "too often": (
        Answer(429, None, b""),
        NoToken("THROTTLING", "The authorization endpoint answered with HTTP status 429."),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name: str) -> None:
    answer, grant = ANSWERS[name]
    assert read_answer(answer, 1_000) == grant


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"s3cret"', b"{}", b'{"access_token":7}', b'{"access_token":""}',
        b'{"access_token":"a\\nb"}',
        b'{"access_token":"\\u00e9"}', b'{"access_token":"s3cret","expires_in":"soon"}', b'{"access_token":"s3cret',
        b'{"access_token":"s3cret","expires_in":[]}', b"\xff", b'{"access_token":"s3cret","expires_in":"nan"}',
    ],
)  # fmt: skip
def test_answers_without_a_usable_token(body: bytes) -> None:
    grant = read_answer(Answer(200, None, body), 1_000)
    assert isinstance(grant, NoToken)
    assert grant.code == "ERROR_FROM_TARGET"
    assert "s3cret" not in grant.reason


class Failing(HttpClient):
    """Every exchange ends in the same way."""

    def __init__(self, error: Exception) -> None:
        super().__init__(5)
        self._error = error

    async def exchange(self, origin: Origin, request: bytes) -> Answer:
        raise self._error


@pytest.mark.parametrize("error", [TimeoutError(), Disconnected(), OSError(111, "refused"), UnicodeError()])
async def test_an_endpoint_that_cannot_be_reached(error: Exception) -> None:
    grant = await TokenRequests(Failing(error), ManualClock()).fetch(OAUTH)
    assert grant == NoToken("CONNECTION_FAILURE", UNREACHABLE)


async def test_an_endpoint_that_speaks_something_else() -> None:
    grant = await TokenRequests(Failing(NotHttp()), ManualClock()).fetch(OAUTH)
    assert isinstance(grant, NoToken)
    assert grant.code == "ERROR_FROM_TARGET"
