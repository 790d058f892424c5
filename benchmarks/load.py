"""The load generator: keep-alive connections over raw sockets, requests made beforehand, one under way on each.

Run as a process of its own, ``python -m benchmarks.load '{"port": 4010, "connections": 16, ...}'``, so that it shares
neither interpreter nor core with what it measures. It prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any, cast

import uvloop

from benchmarks import events
from benchmarks.framing import message_end

CONNECTIONS = 16
DISTINCT_REQUESTS = 256
WARM_UP_S = 0.5

_GOOD_STATUS = b"HTTP/1.1 200"
_NONE_FAILED = b'"FailedEntryCount":0'


class Connection(asyncio.Protocol):
    """One connection; ``answered`` is called with it and each whole answer."""

    def __init__(self, answered: Callable[[Connection, bytes], None]) -> None:
        self._answered = answered
        self._buffer = b""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def send(self, request: bytes) -> None:
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = message_end(self._buffer)
        if end is not None:
            answer, self._buffer = self._buffer[:end], self._buffer[end:]
            self._answered(self, answer)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


def is_good(answer: bytes) -> bool:
    """Whether PutEvents took every entry."""
    return answer.startswith(_GOOD_STATUS) and _NONE_FAILED in answer


async def connect(port: int, answered: Callable[[Connection, bytes], None]) -> Connection:
    """A connection to a server on this machine."""
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(answered), "127.0.0.1", port)
    return connection


class Flood:
    """As many requests as the other side answers."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self._requests = cycle(requests)
        self._running = True
        self.answers = 0
        self.refused = 0

    def answered(self, connection: Connection, answer: bytes) -> None:
        self.answers += 1
        if not is_good(answer):
            self.refused += 1
        if self._running:
            connection.send(next(self._requests))

    async def run(self, port: int, connections: int, seconds: float) -> dict[str, Any]:
        """Requests answered per second, over ``seconds`` that begin after a warm-up."""
        pool = [await connect(port, self.answered) for _ in range(connections)]
        for connection in pool:
            connection.send(next(self._requests))
        await asyncio.sleep(WARM_UP_S)
        before, started = self.answers, time.perf_counter()
        await asyncio.sleep(seconds)
        count, took = self.answers - before, time.perf_counter() - started
        self._running = False
        lost = sum(connection.lost for connection in pool)
        return {"per_second": count / took, "total": self.answers, "refused": self.refused, "lost": lost}


def requests(source: str = events.SOURCE) -> list[bytes]:
    """The requests of a flood, detail texts of both kinds by turns."""
    return [events.put_request(number * events.BATCH, source=source) for number in range(DISTINCT_REQUESTS)]


class Fill:
    """A given number of events, as fast as the other side takes them."""

    def __init__(self, count: int, source: str) -> None:
        self._left = count // events.BATCH
        self._under_way = 0
        self._requests = cycle(list(islice(requests(source), 64)))
        self._done = asyncio.get_running_loop().create_future()
        self.refused = 0

    def _next(self, connection: Connection) -> None:
        if self._left:
            self._left -= 1
            self._under_way += 1
            connection.send(next(self._requests))

    def answered(self, connection: Connection, answer: bytes) -> None:
        self._under_way -= 1
        if not is_good(answer):
            self.refused += 1
        self._next(connection)
        if not self._left and not self._under_way and not self._done.done():
            self._done.set_result(None)

    async def run(self, port: int, connections: int) -> dict[str, Any]:
        started = time.perf_counter()
        for connection in [await connect(port, self.answered) for _ in range(connections)]:
            self._next(connection)
        await self._done
        return {"seconds": time.perf_counter() - started, "refused": self.refused}


async def _run(job: dict[str, Any]) -> dict[str, Any]:
    connections = job.get("connections", CONNECTIONS)
    source = job.get("source", events.SOURCE)
    if "count" in job:
        return await Fill(job["count"], source).run(job["port"], connections)
    return await Flood(requests(source)).run(job["port"], connections, job["seconds"])


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_run(json.loads(sys.argv[1])))))
