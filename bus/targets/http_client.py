"""An HTTP/1.1 client for one thing: send a request that is ready in bytes, learn the status of the answer.

Theory of operation. Sending is the hot path of webhooks, and general clients spend most of a request on what is the
same for all of them: sessions, headers as mappings, writer tasks, response objects. Here a request is one `write`, an
answer is read by llhttp (through httptools), and between the two lies one future.

* A `Connection` carries one exchange at a time. It is *idle* in its pool, or *busy* with a future that ends in exactly
  one of: an `Answer`, `Disconnected`, `NotHttp`, `TimeoutError`. What is received while idle closes it.
* The status decides. Once it is known the exchange ends in an `Answer` whatever happens to the rest: the peer may
  close, stall or flood. The rest is read up to `LONGEST_ANSWER`, so that the connection can be used again.
* Pools are stacks per origin: the connection used last is used next, and those left over grow old and are swept out.

Not here, because webhooks have no use for it: redirects, cookies, proxies, content encodings. Bodies of answers are for
those who ask for them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, cast

import httptools
from aiohappyeyeballs import start_connection

LONGEST_ANSWER = 65_536
"""Bytes after which an answer that has not ended is not read on, and one without a status is no HTTP."""

KEEPALIVE_SECONDS = 4.0
"""Common servers close an idle connection after five seconds; letting go first, a POST seldom meets one that closes."""

SECOND_ADDRESS_SECONDS = 0.25
"""How long the first address of a name may take before the next one is tried beside it."""

OpenSocket = Callable[[tuple[Any, ...]], socket.socket]


class Origin(NamedTuple):
    """Where connections lead; requests to one origin share them."""

    tls: bool
    host: str
    port: int


class Answer(NamedTuple):
    """What a webhook's sender needs of an answer."""

    status: int
    retry_after: str | None
    body: bytes = b""
    """Empty where nobody wants it: only a `ReadingConnection` keeps it."""


class Disconnected(ConnectionError):
    """The peer closed the connection without an answer; the request may have arrived."""


class NotHttp(ConnectionError):
    """The peer sent something that is not an HTTP answer."""


class HttpClient:
    """Exchanges requests for answers, each within ``seconds``; ``open_socket`` makes the socket for an address.

    With ``reading``, answers have their bodies (see `ReadingConnection`).
    """

    def __init__(self, seconds: float, open_socket: OpenSocket | None = None, *, reading: bool = False) -> None:
        self._seconds = seconds
        self._kind = ReadingConnection if reading else Connection
        self._open_socket = open_socket
        self._idle: dict[Origin, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._lookups: dict[Origin, asyncio.Task[list[Any]]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def exchange(self, origin: Origin, request: bytes) -> Answer:
        """Send a whole request; OSError or TimeoutError when no status came back."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        deadline = now + self._seconds
        connection = self._take_idle(origin, now)
        if connection is None:
            async with asyncio.timeout_at(deadline):
                connection = await self._connect(loop, origin)
        answer = connection.begin(request, deadline)
        try:
            return await answer
        except asyncio.CancelledError:
            connection.abandon(answer)
            raise

    async def close(self) -> None:
        """Drop every connection; exchanges under way end in `Disconnected`."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in tuple(self._open):
            connection.drop()
        for lookup in tuple(self._lookups.values()):
            lookup.cancel()
        await asyncio.sleep(0)  # sockets are closed in the next turn, and there may be none after the caller's

    async def _connect(self, loop: asyncio.AbstractEventLoop, origin: Origin) -> Connection:
        sock = await start_connection(
            await self._addresses(loop, origin),
            happy_eyeballs_delay=SECOND_ADDRESS_SECONDS,
            socket_factory=self._open_socket,
        )
        try:
            _, connection = await loop.create_connection(
                lambda: self._kind(loop, origin, self),
                sock=sock,
                ssl=tls() if origin.tls else None,
                server_hostname=origin.host.rstrip(".") if origin.tls else None,
            )
        except BaseException:
            sock.close()
            raise
        return connection

    async def _addresses(self, loop: asyncio.AbstractEventLoop, origin: Origin) -> list[Any]:
        """Look a name up once for all who wait for it: lookups share few threads, and a name server may be silent."""
        lookup = self._lookups.get(origin)
        if lookup is None:
            lookup = self._lookups[origin] = loop.create_task(resolve(loop, origin))
            lookup.add_done_callback(lambda done: self._looked_up(origin, done))
        return await asyncio.shield(lookup)

    def _looked_up(self, origin: Origin, lookup: asyncio.Task[list[Any]]) -> None:
        self._lookups.pop(origin, None)
        if not lookup.cancelled():
            lookup.exception()  # whoever waited may have given up, and then nobody else takes notice

    def _take_idle(self, origin: Origin, now: float) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable(now):
                return connection
            connection.drop()
        return None

    # -- what connections report

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)
        if self._closed:
            connection.drop()

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)

    def release(self, connection: Connection) -> None:
        """Take back a connection whose exchange left it usable."""
        self._idle.setdefault(connection.origin, []).append(connection)
        if self._sweep is None and not self._closed:
            self._sweep = connection.loop.call_later(KEEPALIVE_SECONDS, self._sweep_out, connection.loop)

    def _sweep_out(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let go of connections that have been idle for too long; look again while any are left."""
        self._sweep = None
        now = loop.time()
        for origin, idle in list(self._idle.items()):
            for connection in idle:
                if not connection.usable(now):
                    connection.drop()
            self._idle[origin] = [connection for connection in idle if connection.usable(now)]
            if not self._idle[origin]:
                del self._idle[origin]
        if self._idle:
            self._sweep = loop.call_later(KEEPALIVE_SECONDS, self._sweep_out, loop)


class Connection(asyncio.Protocol):
    """One connection and the exchange it carries. The ``on_…`` methods are called by the parser."""

    __slots__ = (
        "_answer",
        "_complete",
        "_idle_since",
        "_keep",
        "_owner",
        "_parser",
        "_received",
        "_retry_after",
        "_status",
        "_timer",
        "_transport",
        "loop",
        "origin",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: Origin, owner: HttpClient) -> None:
        self.loop = loop
        self.origin = origin
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._retry_after: str | None = None
        self._idle_since = loop.time()
        self._reset()

    def begin(self, request: bytes, deadline: float) -> asyncio.Future[Answer]:
        """Send ``request``; the future holds the answer, or why there is none."""
        answer = self._answer = self.loop.create_future()
        self._reset()
        if self._transport is None or self._transport.is_closing():
            self._end(Disconnected())
            return answer
        self._timer = self.loop.call_at(deadline, self._late)
        self._transport.write(request)
        return answer

    def usable(self, now: float) -> bool:
        """Whether an idle connection is still open and young enough."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and now - self._idle_since < KEEPALIVE_SECONDS

    def drop(self) -> None:
        """Close at once; an exchange under way ends in `Disconnected` unless its status is known."""
        if self._transport is not None:
            self._transport.abort()

    def abandon(self, answer: asyncio.Future[Answer]) -> None:
        """Nobody waits for this exchange any more. It may have ended all the same, and another one have begun."""
        if self._answer is answer:
            self.drop()

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.drop()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._keep, self._complete = False, True
        except httptools.HttpParserError:
            self._keep = False
            self._end(NotHttp())
            return
        self._received += len(data)
        if self._complete or self._received > LONGEST_ANSWER:
            self._end(NotHttp())

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)
        self._transport = None
        self._end(exc if isinstance(exc, ssl.SSLError) else Disconnected())

    # -- called by the parser

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 11 and name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            self._retry_after = None
        elif not self._complete:
            self._status = status

    def on_message_complete(self) -> None:
        if self._status and not self._complete:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # -- how an exchange ends

    def _late(self) -> None:
        self._end(TimeoutError())

    def _end(self, error: Exception) -> None:
        """The exchange is over: with an answer if the status is known, else with ``error``."""
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._complete and self._keep and self._transport is not None and not self._transport.is_closing():
            self._idle_since = self.loop.time()
            self._owner.release(self)
        else:
            self.drop()
        if answer.done():
            return
        if self._status:
            answer.set_result(self._made())
        else:
            answer.set_exception(error)

    def _made(self) -> Answer:
        return Answer(self._status, self._retry_after)

    def _reset(self) -> None:
        self._status = 0
        self._retry_after = None
        self._received = 0
        self._complete = self._keep = False


class ReadingConnection(Connection):
    """A connection for exchanges other than a webhook's: it keeps bodies, and knows that answers to HEAD have none."""

    __slots__ = ("_body", "_of_head")

    def begin(self, request: bytes, deadline: float) -> asyncio.Future[Answer]:
        self._body = bytearray()
        self._of_head = request.startswith(b"HEAD ")
        return super().begin(request, deadline)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._of_head and self._status:
            self._complete, self._keep = True, False

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._body += data

    def _made(self) -> Answer:
        return Answer(self._status, self._retry_after, bytes(self._body))


async def resolve(loop: asyncio.AbstractEventLoop, origin: Origin) -> list[Any]:
    """The addresses of an origin, as getaddrinfo answers them."""
    return await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)


@cache
def tls() -> ssl.SSLContext:
    """Certificates are checked against the system's authorities, or those of SSL_CERT_FILE."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
