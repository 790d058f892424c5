"""The floors: the least that could be done with the same parts, so that a ratio says what busbar adds.

``asgi``      a bare ASGI app under the uvicorn that busbar configures: parses the same bodies, answers as many ids
``responder`` raw asyncio that answers every request with the same bytes: the ceiling of the load generator itself
``post``      an aiohttp loop that posts the same events to the same sink, with the session options busbar uses

Each is a process: ``python -m benchmarks.floors NAME '{"port": ...}'``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from itertools import cycle
from typing import Any, cast

import aiohttp
import orjson
import uvicorn
import uvloop

from benchmarks import events
from benchmarks.framing import message_end
from bus.config import Settings
from bus.server import uvicorn_config

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def bare_app(scope: Message, receive: Receive, send: Send) -> None:
    """PutEvents without an event bus."""
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    entries = orjson.loads(body)["Entries"]
    answer = orjson.dumps({"FailedEntryCount": 0, "Entries": [{"EventId": str(uuid.uuid4())} for _ in entries]})
    headers = [(b"content-type", b"application/x-amz-json-1.1"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def asgi(job: Message) -> None:
    """Serve the bare app until the process is ended."""
    config = uvicorn_config(bare_app, Settings())
    config.port = job["port"]
    uvicorn.Server(config).run()


class Responder(asyncio.Protocol):
    """Answers every request with the same ten ids."""

    def __init__(self) -> None:
        ids = [{"EventId": str(uuid.uuid4())} for _ in range(events.BATCH)]
        body = orjson.dumps({"FailedEntryCount": 0, "Entries": ids})
        self._answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := message_end(self._buffer)) is not None:
            self._buffer = self._buffer[end:]
            self._transport.write(self._answer)


async def _respond(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Responder, "127.0.0.1", port)
    await server.serve_forever()


def responder(job: Message) -> None:
    """Serve the raw responder until the process is ended."""
    uvloop.run(_respond(job["port"]))


async def _post_all(url: str, count: int, in_flight: int) -> Message:
    bodies = cycle(events.envelopes(256))
    left = count

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            headers = {"content-type": "application/json"}
            async with session.post(url, data=next(bodies), headers=headers, allow_redirects=False) as response:
                await response.read()
                if response.status != 200:
                    raise RuntimeError(f"the sink answered {response.status}")

    async with _session() as session:
        await session.post(url, data=next(bodies))
        started, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worker(session) for _ in range(in_flight)))
        took, used = time.perf_counter() - started, time.process_time() - cpu
        return {"per_second": count / took, "cpu_us": used / count * 1e6}


def _session() -> aiohttp.ClientSession:
    """Without what a webhook does not need either: cookies, decompression, automatic headers."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
    )


def post(job: Message) -> None:
    """Post ``count`` events, ``in_flight`` at a time, and print how many a second."""
    print(json.dumps(uvloop.run(_post_all(job["url"], job["count"], job["in_flight"]))))


FLOORS = {"asgi": asgi, "responder": responder, "post": post}

if __name__ == "__main__":
    FLOORS[sys.argv[1]](json.loads(sys.argv[2]))
