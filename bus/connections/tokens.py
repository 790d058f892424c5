"""Access tokens of OAuth connections: kept in memory, fetched by one request at a time, renewed before they end.

A token belongs to one version of a connection's credentials. Whoever needs one while it is being fetched waits for that
request (a *flight*) instead of making another; a flight goes on when one of those who wait for it gives up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from bus.clock import Clock
from bus.connections.connection import Connection

log = structlog.get_logger("tokens")

RENEWED_MS = 60_000
"""A token with no more than this left to live is renewed before it is used."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and when it ends (ms); None when the token server did not say."""

    value: str = field(repr=False)
    ends: int | None = None


@dataclass(frozen=True, slots=True)
class NoToken:
    """Why there is none: an ERROR_CODE for dead letters, and a sentence without secrets."""

    code: str
    reason: str


Grant = Token | NoToken
Fetch = Callable[[Mapping[str, Any]], Awaitable[Grant]]
"""One token request, from a connection's OAuthParameters."""

Version = tuple[str, int]


class Tokens:
    """The tokens of every OAuth connection; ``fetch`` makes one request."""

    def __init__(self, fetch: Fetch, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._grants: dict[Version, Grant] = {}
        self._flights: dict[Version, asyncio.Task[Grant]] = {}
        self._tasks: set[asyncio.Task[Grant]] = set()

    async def get(self, connection: Connection) -> Grant:
        """A token that is good for another minute at least, or was fetched this moment."""
        grant = self._grants.get(_version(connection))
        if isinstance(grant, Token) and (grant.ends is None or grant.ends - self._clock.now_ms() > RENEWED_MS):
            return grant
        return await asyncio.shield(self.flight(connection))

    def flight(self, connection: Connection) -> asyncio.Task[Grant]:
        """The token request that is under way for the connection, begun if there is none."""
        version = _version(connection)
        flight = self._flights.get(version)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(self._ask(version, connection))
            self._flights[version] = flight
            self._tasks.add(flight)
            flight.add_done_callback(self._tasks.discard)
        return flight

    def failure(self, connection: Connection) -> NoToken | None:
        """What the latest request came to, when it failed and no other is under way."""
        version = _version(connection)
        grant = self._grants.get(version)
        return grant if isinstance(grant, NoToken) and version not in self._flights else None

    def refused(self, connection: Connection, token: Token) -> None:
        """An endpoint did not take this token: the next one who needs one gets another."""
        if self._grants.get(_version(connection)) == token:
            del self._grants[_version(connection)]

    def forget(self, connection: Connection) -> None:
        """The connection's credentials are gone, and what they were good for is too."""
        self._grants.pop(_version(connection), None)
        self._flights.pop(_version(connection), None)

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, version: Version, connection: Connection) -> Grant:
        try:
            grant = await self._fetch(connection.parameters["OAuthParameters"])
        except Exception as error:
            kind = type(error).__name__  # its text might show what was sent
            log.error("a token request ended in an unexpected way", connection=connection.arn, error=kind)
            grant = NoToken("INTERNAL_ERROR", f"The token request ended with {kind}.")
        if self._flights.get(version) is asyncio.current_task():
            del self._flights[version]
            self._grants[version] = grant
        return grant


def _version(connection: Connection) -> Version:
    return connection.arn, connection.version
