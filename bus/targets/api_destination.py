"""API destinations as targets: one HTTP request with a connection's credentials, within five seconds.

Where the connection is not authorized there is nothing to prove who calls; such an attempt is made again later, because
new credentials are what one gives a connection next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bus.api_destinations import ApiDestination
from bus.clock import Clock
from bus.connections.connection import Connection
from bus.connections.tokens import Grant, NoToken, Token
from bus.targets import Delivered, Delivery, Failed, Outcome
from bus.targets.http_client import Answer, HttpClient
from bus.targets.invocation import InvocationError, invocation
from bus.targets.webhook import failure
from rules.retry import parse_retry_after

TIMEOUT_S = 5.0
"""The whole exchange, as on AWS."""

RETRIED = frozenset({401, 407, 409, 429})
TOKEN_REFUSED = frozenset({401, 407})

_DELIVERED = Delivered()


class Credentials(Protocol):
    """What is needed of connections."""

    def find(self, arn: str) -> Connection | None: ...
    async def token(self, connection: Connection) -> Grant: ...
    def token_refused(self, connection: Connection, token: Token) -> None: ...


class ApiDestinationTarget:
    """Invokes API destinations; ``find`` looks one up by ARN."""

    def __init__(
        self,
        client: HttpClient,
        clock: Clock,
        *,
        find: Callable[[str], ApiDestination | None],
        connections: Credentials,
    ) -> None:
        self._client = client
        self._clock = clock
        self._find = find
        self._connections = connections

    async def deliver(self, delivery: Delivery) -> Outcome:
        arn = delivery.route.arn
        destination = self._find(arn)
        if destination is None or destination.scope != delivery.route.scope:
            return Failed("NO_RESOURCE", f"API destination {arn} does not exist.")
        connection = self._connections.find(destination.connection)
        if connection is None or not connection.parameters:
            reason = "its connection is deleted" if connection is None else "its connection is not authorized"
            return Failed("NO_PERMISSIONS", f"API destination {destination.name} is inactive: {reason}.", retry=True)
        token = await self._connections.token(connection) if connection.is_oauth else None
        if isinstance(token, NoToken):
            return Failed(token.code, f"No access token for {connection.name}: {token.reason}", retry=True)
        return await self._invoke(delivery, destination, connection, token)

    async def close(self) -> None:
        """The client is closed by its owner, since token requests share it."""

    async def _invoke(
        self, delivery: Delivery, destination: ApiDestination, connection: Connection, token: Token | None
    ) -> Outcome:
        trace = delivery.trace
        try:
            made = invocation(
                destination.endpoint,
                destination.method,
                target=delivery.route.target.get("HttpParameters") or {},
                connection=connection.parameters,
                token=None if token is None else token.value,
                event=delivery.event,
                body=delivery.body,
                trace=trace if trace is not None and trace.isascii() and trace.isprintable() else None,
            )
        except InvocationError as error:
            return Failed("INVALID_PARAMETER", str(error))
        try:
            answer = await self._client.exchange(made.origin, made.request)
        except Exception as error:
            return failure(error, made.place)
        if 200 <= answer.status < 300:
            return _DELIVERED
        if token is not None and answer.status in TOKEN_REFUSED:
            self._connections.token_refused(connection, token)
        return self._judge(answer, made.place)

    def _judge(self, answer: Answer, place: str) -> Failed:
        asked = answer.retry_after
        return Failed(
            _code(answer.status),
            f"{place} answered with HTTP status {answer.status}.",
            retry=answer.status >= 500 or answer.status in RETRIED,
            retry_after=None if asked is None else parse_retry_after(asked, self._clock.now_ms()),
        )


def _code(status: int) -> str:
    if status == 429:
        return "THROTTLING"
    return "ERROR_FROM_TARGET" if status >= 500 else "SDK_CLIENT_ERROR"
