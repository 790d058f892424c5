"""A webhook that tests look at and steer: it remembers every request, and answers what it is told to answer.

It runs in a thread with a loop of its own, so that tests may block while it serves; whoever waits for something to
arrive waits on a condition that every arrival notifies. It can go away and come back at the same port.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Mapping, Set
from dataclasses import dataclass
from typing import Any

DEADLINE_S = 60.0
"""How long anything awaited may take before the test fails; far beyond what it takes."""

CHUNK = bytes(1 << 20)


@dataclass(frozen=True, slots=True)
class Post:
    """A request; header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"

    @property
    def event(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its body is ``text``, or so many ``megabytes``; a ``silent`` one is never sent."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    megabytes: int = 0
    silent: bool = False
    text: bytes = b""


OK = Reply()


class Sink:
    """The webhook.

    ``answer`` decides about each request; ``received`` has them in order of arrival, ``events`` the ids of the events
    that came, as the webhook-id header tells them.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Post], Reply] = lambda post: OK
        self.received: list[Post] = []
        self.events: set[str] = set()
        self._changed = threading.Condition()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._answering = asyncio.Event()
        self._answering.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._port = 0
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def open(self) -> None:
        """Listen, at the port of before if there was one."""
        self._run(self._listen())

    def shut(self) -> None:
        """Stop listening and hang up on everyone."""
        self._run(self._hang_up())

    def hold(self) -> None:
        """Take requests and answer none until `release`."""
        self._loop.call_soon_threadsafe(self._answering.clear)

    def release(self) -> None:
        """Answer what is held, and what comes."""
        self._loop.call_soon_threadsafe(self._answering.set)

    def close(self) -> None:
        """The end."""
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for arrivals until ``condition`` holds; the test fails when it never does."""
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE_S), f"{what}; {len(self.received)} requests had come"

    def wait_for(self, number: int) -> list[Post]:
        """The first ``number`` requests."""
        self.wait_until(lambda: len(self.received) >= number, f"{number} requests never came")
        return self.received[:number]

    def wait_for_events(self, ids: Set[str]) -> None:
        """Wait until each of these events has come, once or more."""
        self.wait_until(lambda: len(self.events) >= len(ids) and self.events >= ids, f"{len(ids)} events never came")

    def next(self) -> Post:
        """The one request that comes; it is taken out."""
        self.wait_for(1)
        return self.received.pop(0)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=1 << 21, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side is gone, and with it the connection
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        lines = (line.partition(":") for line in head[1:-2])
        headers = {name.lower(): value.strip() for name, _, value in lines}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        post = Post(head[0].split()[1], headers, body, head[0].split()[0])
        reply = self.answer(post)
        with self._changed:
            self.received.append(post)
            self.events.add(headers.get("webhook-id", "").rpartition("_")[0])
            self._changed.notify_all()
        if reply.silent:
            await reader.read()  # until the other side gives up
            return False
        await self._answering.wait()
        await _send(writer, reply)
        return True


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> None:
    lines = [f"HTTP/1.1 {reply.status} Answer", f"content-length: {len(reply.text) or reply.megabytes << 20}"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + reply.text)
    for _ in range(reply.megabytes):
        writer.write(CHUNK)
        await writer.drain()
    await writer.drain()
