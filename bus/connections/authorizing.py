"""Authorizing OAuth connections: asking for a first token until there is one, with longer and longer pauses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from bus.connections.connection import Connection
from bus.connections.tokens import Grant, NoToken, Tokens
from bus.errors import StoreError

log = structlog.get_logger("connections")

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0

Report = Callable[[Connection, Grant], Awaitable[None]]


class Authorizing:
    """One task for each connection that waits for its first token; ``report`` is told what each request came to."""

    def __init__(
        self, tokens: Tokens, *, report: Report, pause: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self._tokens = tokens
        self._report = report
        self._pause = pause
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, connection: Connection) -> None:
        """Ask for a token from now on; what was asked with earlier credentials is of no interest any more."""
        self.end(connection)
        self._tokens.flight(connection)  # so that deliveries of this very turn wait for it
        task = asyncio.get_running_loop().create_task(self._authorize(connection))
        self._tasks[connection.arn] = task
        task.add_done_callback(lambda done: self._ended(connection.arn, done))

    def end(self, connection: Connection) -> None:
        """Ask no more."""
        task = self._tasks.pop(connection.arn, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, arn: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(arn) is task:
            del self._tasks[arn]

    async def _authorize(self, connection: Connection) -> None:
        pause = FIRST_PAUSE_S
        while not await self._asked(connection):
            await self._pause(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _asked(self, connection: Connection) -> bool:
        """Whether the connection is authorized now, and that is on disk."""
        grant = await self._tokens.get(connection)
        if isinstance(grant, NoToken):
            log.warning("a connection could not be authorized", connection=connection.arn, reason=grant.reason)
        else:
            log.info("a connection is authorized", connection=connection.arn)
        try:
            await self._report(connection, grant)
        except StoreError as error:
            log.error("what became of a connection could not be stored", connection=connection.arn, reason=str(error))
            return False
        return not isinstance(grant, NoToken)
