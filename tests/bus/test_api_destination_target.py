"""API destinations as targets: what an attempt comes to, with a client that answers what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bus.api_destinations import ApiDestination
from bus.clock import ManualClock
from bus.connections.connection import Connection
from bus.connections.tokens import Grant, NoToken, Token
from bus.scope import Scope
from bus.targets import Delivered, Delivery, Failed, Outcome, Route
from bus.targets.api_destination import ApiDestinationTarget
from bus.targets.http_client import Answer, Disconnected, HttpClient, Origin

SCOPE = Scope("123456789012", "us-east-1")
BASIC = {"BasicAuthParameters": {"Username": "u", "Password": "p"}}
CONNECTION = Connection(SCOPE, "c", "1", "BASIC", "AUTHORIZED", 0, 0, 0, 1, parameters=BASIC)
OAUTH = replace(CONNECTION, kind="OAUTH_CLIENT_CREDENTIALS", parameters={"OAuthParameters": {}})
DESTINATION = ApiDestination(SCOPE, "d", "2", CONNECTION.arn, "https://api.example/hook?key=s3cret", "POST", 300, 0, 0)


@dataclass
class Connections:
    """One connection, or none, and its token."""

    connection: Connection | None = CONNECTION
    grant: Grant = Token("t0ken")  # noqa: RUF009 - an immutable value
    refused: list[Token] = field(default_factory=list)

    def find(self, arn: str) -> Connection | None:
        return self.connection

    async def token(self, connection: Connection) -> Grant:
        return self.grant

    def token_refused(self, connection: Connection, token: Token) -> None:
        self.refused.append(token)


class Client(HttpClient):
    """Answers every request in one way, and keeps them all."""

    def __init__(self, answer: Answer | Exception) -> None:
        super().__init__(5)
        self._answer = answer
        self.requests: list[bytes] = []

    async def exchange(self, origin: Origin, request: bytes) -> Answer:
        self.requests.append(request)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


async def attempt(
    answer: Answer | Exception,
    *,
    connections: Connections | None = None,
    destination: ApiDestination | None = DESTINATION,
    scope: Scope = SCOPE,
    **members: Any,
) -> tuple[Outcome, Client]:
    client = Client(answer)
    target = ApiDestinationTarget(
        client, ManualClock(), find=lambda arn: destination, connections=connections or Connections()
    )
    route = Route(1, scope, "default", "r", "arn:rule", {"Id": "t", "Arn": DESTINATION.arn, **members})
    return await target.deliver(Delivery(route, "id", b'{"a":1}', b'{"a":1}', 1, 0)), client


OUTCOMES: dict[int, tuple[str, bool]] = {
    301: ("SDK_CLIENT_ERROR", False),
    304: ("SDK_CLIENT_ERROR", False),
    400: ("SDK_CLIENT_ERROR", False),
    401: ("SDK_CLIENT_ERROR", True),
    403: ("SDK_CLIENT_ERROR", False),
    404: ("SDK_CLIENT_ERROR", False),
    407: ("SDK_CLIENT_ERROR", True),
    408: ("SDK_CLIENT_ERROR", False),
    409: ("SDK_CLIENT_ERROR", True),
    425: ("SDK_CLIENT_ERROR", False),
    429: ("THROTTLING", True),
    500: ("ERROR_FROM_TARGET", True),
    503: ("ERROR_FROM_TARGET", True),
}


@pytest.mark.parametrize("status", OUTCOMES)
async def test_statuses(status: int) -> None:
    outcome, _ = await attempt(Answer(status, None))
    message = f"https://api.example answered with HTTP status {status}."
    assert outcome == Failed(OUTCOMES[status][0], message, OUTCOMES[status][1])


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_taken(status: int) -> None:
    outcome, client = await attempt(Answer(status, None))
    assert outcome == Delivered()
    assert client.requests[0].startswith(b"POST /hook?key=s3cret HTTP/1.1\r\n")


@pytest.mark.parametrize(("header", "seconds"), [("120", 120.0), ("-1", -1.0), ("soon", None)])
async def test_retry_after(header: str, seconds: float | None) -> None:
    outcome, _ = await attempt(Answer(503, header))
    assert isinstance(outcome, Failed)
    assert outcome.retry_after == seconds


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TimeoutError(), "TIMEOUT"),
        (Disconnected(), "CONNECTION_FAILURE"),
        (OSError(111, "Connection refused"), "CONNECTION_FAILURE"),
    ],
)
async def test_no_answer(error: Exception, code: str) -> None:
    outcome, _ = await attempt(error)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == (code, True)
    assert "s3cret" not in outcome.message


async def test_an_absent_destination_is_final() -> None:
    outcome, client = await attempt(Answer(200, None), destination=None)
    assert outcome == Failed("NO_RESOURCE", f"API destination {DESTINATION.arn} does not exist.")
    assert client.requests == []


async def test_a_destination_of_another_account_does_not_exist() -> None:
    outcome, client = await attempt(Answer(200, None), scope=Scope("999999999999", "us-east-1"))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry, client.requests) == ("NO_RESOURCE", False, [])


@pytest.mark.parametrize("connection", [None, replace(CONNECTION, state="DEAUTHORIZED", parameters={})])
async def test_an_inactive_destination_is_tried_again(connection: Connection | None) -> None:
    outcome, client = await attempt(Answer(200, None), connections=Connections(connection))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry, client.requests) == ("NO_PERMISSIONS", True, [])


async def test_without_a_token_nothing_is_sent() -> None:
    connections = Connections(OAUTH, NoToken("CONNECTION_FAILURE", "Could not connect to the specified endpoint."))
    outcome, client = await attempt(Answer(200, None), connections=connections)
    message = "No access token for c: Could not connect to the specified endpoint."
    assert outcome == Failed("CONNECTION_FAILURE", message, retry=True)
    assert client.requests == []


@pytest.mark.parametrize(("status", "refused"), [(401, 1), (407, 1), (403, 0), (500, 0), (200, 0)])
async def test_a_token_that_is_not_taken_is_reported(status: int, refused: int) -> None:
    connections = Connections(OAUTH)
    _, client = await attempt(Answer(status, None), connections=connections)
    assert b"Authorization: Bearer t0ken\r\n" in client.requests[0]
    assert len(connections.refused) == refused


async def test_what_cannot_be_a_request_is_final() -> None:
    outcome, _ = await attempt(Answer(200, None), HttpParameters={"HeaderParameters": {"a,b": "v"}})
    assert outcome == Failed("INVALID_PARAMETER", "A header parameter has a name that no header can have.")
