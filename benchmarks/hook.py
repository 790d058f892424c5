"""The far end of webhooks: a sink over raw sockets, and the putter of the events that it receives.

Both live in one process, so that "put" and "received" are read from one clock and the number of events that are
neither here nor there is known. As a process, ``python -m benchmarks.hook JOB '{...}'``:

``sink`` serves until the process is ended (the sink of the floor)
``peak`` puts ``count`` events by tens, at most ``outstanding`` of them undelivered, and waits for the last delivery
``pace`` puts single events at ``rate`` a second for ``seconds`` and reports how long they took to arrive
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import uvloop

from benchmarks import events
from benchmarks.framing import message_end
from benchmarks.load import Connection, connect, is_good

PUT_CONNECTIONS = 16
PACE_CONNECTIONS = 64
"""More than ever wait for an answer at a rate the bus keeps up with, so that no put waits for a connection."""

STALLED_S = 30.0
"""Without any delivery for so long, what is missing will not come."""

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_NUMBER = b'"n":"'
_AT = b'"at":"'


class SinkConnection(asyncio.Protocol):
    """Takes POSTs and hands each to ``received``."""

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while (end := message_end(self._buffer)) is not None:
            request, self._buffer = self._buffer[:end], self._buffer[end:]
            self._transport.write(_ANSWER)
            self._received(request)


async def open_sink(port: int, received: Callable[[bytes], None]) -> asyncio.Server:
    """A sink that is ready when this returns."""
    return await asyncio.get_running_loop().create_server(lambda: SinkConnection(received), "127.0.0.1", port)


def _stamp(request: bytes, name: bytes) -> int:
    start = request.index(name) + len(name)
    return int(request[start : start + events.STAMP_WIDTH])


class Receipts:
    """Which events arrived, and when the last one did."""

    def __init__(self, count: int) -> None:
        self._seen = bytearray(count)
        self._changed = asyncio.Event()
        self.arrived = 0
        self.repeated = 0
        self.last = 0
        self._refusal: bytes | None = None

    def answered(self, answer: bytes) -> None:
        """A request was answered: an event that was not taken will not arrive, so a refusal ends the wait."""
        if not is_good(answer):
            self._refusal = answer
            self._changed.set()

    def note(self, request: bytes) -> None:
        number = _stamp(request, _NUMBER)
        if self._seen[number]:
            self.repeated += 1
            return
        self._seen[number] = 1
        self.arrived += 1
        self.last = time.monotonic_ns()
        self._changed.set()

    async def wait_for(self, count: int) -> None:
        """Until so many arrived; RuntimeError when puts are refused, TimeoutError when deliveries cease before."""
        while self.arrived < count:
            if self._refusal is not None:
                raise RuntimeError(f"refused: {self._refusal!r}")
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), STALLED_S)


class Peak:
    """As many events as get through while only so many are outstanding."""

    def __init__(self, count: int, outstanding: int) -> None:
        self._requests = deque(events.put_request(first) for first in range(0, count, events.BATCH))
        self._count = count
        self._outstanding = outstanding
        self._idle: list[Connection] = []
        self._put = 0
        self._receipts = Receipts(count)

    def _pump(self) -> None:
        while self._idle and self._requests and self._put - self._receipts.arrived < self._outstanding:
            self._put += events.BATCH
            self._idle.pop().send(self._requests.popleft())

    def _answered(self, connection: Connection, answer: bytes) -> None:
        self._receipts.answered(answer)
        self._idle.append(connection)
        self._pump()

    def _received(self, request: bytes) -> None:
        self._receipts.note(request)
        self._pump()

    async def run(self, job: dict[str, Any]) -> dict[str, Any]:
        await open_sink(job["sink"], self._received)
        self._idle = [await connect(job["port"], self._answered) for _ in range(PUT_CONNECTIONS)]
        started = time.monotonic_ns()
        self._pump()
        await self._receipts.wait_for(self._count)
        took = (self._receipts.last - started) / 1e9
        return {
            "per_second": self._count / took,
            "repeated": self._receipts.repeated,
        }


class Pace:
    """Single events at a steady rate, whatever becomes of them."""

    def __init__(self, rate: float, seconds: float) -> None:
        self._count = int(rate * seconds)
        self._gap_ns = 1e9 / rate
        self._pieces = events.stamped_request()
        self._idle: deque[Connection] = deque()  # taken in turn, so that none idles until the server closes it
        self._waiting: deque[bytes] = deque()
        self._receipts = Receipts(self._count)
        self._latencies: list[int] = []

    def _put(self, number: int) -> None:
        before, between, after = self._pieces
        stamps = (b"%0*d" % (events.STAMP_WIDTH, value) for value in (number, time.monotonic_ns()))
        request = b"".join((before, next(stamps), between, next(stamps), after))
        if self._idle:
            self._idle.popleft().send(request)
        else:
            self._waiting.append(request)

    def _answered(self, connection: Connection, answer: bytes) -> None:
        self._receipts.answered(answer)
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _received(self, request: bytes) -> None:
        self._latencies.append(time.monotonic_ns() - _stamp(request, _AT))
        self._receipts.note(request)

    async def _put_all(self) -> None:
        started, put = time.monotonic_ns(), 0
        while put < self._count:
            wanted = min(self._count, int((time.monotonic_ns() - started) / self._gap_ns) + 1)
            while put < wanted:
                self._put(put)
                put += 1
            await asyncio.sleep(0.0005)

    async def run(self, job: dict[str, Any]) -> dict[str, Any]:
        await open_sink(job["sink"], self._received)
        self._idle.extend([await connect(job["port"], self._answered) for _ in range(PACE_CONNECTIONS)])
        await self._put_all()
        ended = time.monotonic_ns()
        await self._receipts.wait_for(self._count)
        return {
            "latencies": [round(latency / 1e6, 3) for latency in self._latencies],
            "behind": max(0, self._receipts.last - ended) / 1e6,
            "repeated": self._receipts.repeated,
        }


async def sink(job: dict[str, Any]) -> dict[str, Any]:
    server = await open_sink(job["sink"], lambda request: None)
    await server.serve_forever()
    return {}


async def peak(job: dict[str, Any]) -> dict[str, Any]:
    return await Peak(job["count"], job["outstanding"]).run(job)


async def pace(job: dict[str, Any]) -> dict[str, Any]:
    return await Pace(job["rate"], job["seconds"]).run(job)


JOBS = {"sink": sink, "peak": peak, "pace": pace}

if __name__ == "__main__":
    print(json.dumps(uvloop.run(JOBS[sys.argv[1]](json.loads(sys.argv[2])))))
