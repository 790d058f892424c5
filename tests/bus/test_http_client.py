"""The client of webhooks: one connection fed by hand, and pools of them against real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from bus.targets import http_client
from bus.targets.http_client import (
    KEEPALIVE_SECONDS,
    LONGEST_ANSWER,
    Answer,
    Connection,
    Disconnected,
    HttpClient,
    NotHttp,
    Origin,
    ReadingConnection,
)

ORIGIN = Origin(False, "127.0.0.1", 80)
REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
TLS = Path(__file__).parent.parent / "cases" / "tls"

# --- one connection --------------------------------------------------------------------------------------------------


class Wire:
    """The transport of a connection that is fed by hand."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Pool(HttpClient):
    """Remembers which connections came back."""

    def __init__(self) -> None:
        super().__init__(30)
        self.back: list[Connection] = []

    def release(self, connection: Connection) -> None:
        self.back.append(connection)


def connected() -> tuple[Connection, Wire, Pool]:
    pool, wire = Pool(), Wire()
    connection = Connection(asyncio.get_running_loop(), ORIGIN, pool)
    connection.connection_made(cast(asyncio.BaseTransport, wire))
    return connection, wire, pool


def begin(connection: Connection) -> asyncio.Future[Answer]:
    return connection.begin(REQUEST, connection.loop.time() + 30)


ANSWERS: dict[str, tuple[bytes, Answer, bool]] = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Answer(200, None), True),
    "empty": (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, None), True),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        Answer(200, None),
        True,
    ),
    "retry-after": (
        b"HTTP/1.1 503 Busy\r\nretry-AFTER:  12 \r\nContent-Length: 0\r\n\r\n",
        Answer(503, "12"),
        True,
    ),
    "interim": (
        b"HTTP/1.1 103 Hints\r\nRetry-After: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        Answer(200, None),
        True,
    ),
    "to-be-closed": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", Answer(200, None), False),
    "old": (b"HTTP/1.0 500 No\r\nContent-Length: 2\r\n\r\nok", Answer(500, None), False),
    "upgrade": (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", Answer(101, None), False),
}


@pytest.mark.parametrize("step", [1, 2, 7, 10_000], ids=lambda step: f"by-{step}")
@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_whole_and_in_pieces(name: str, step: int) -> None:
    text, expected, reusable = ANSWERS[name]
    connection, wire, pool = connected()
    answer = begin(connection)
    assert wire.sent == REQUEST
    for at in range(0, len(text), step):
        assert not answer.done()
        connection.data_received(text[at : at + step])
    assert answer.result() == expected
    assert (pool.back == [connection], wire.closed) == (reusable, not reusable)


async def test_one_exchange_after_another() -> None:
    connection, _, pool = connected()
    for text, expected, reusable in ANSWERS.values():
        if reusable:
            answer = begin(connection)
            connection.data_received(text)
            assert answer.result() == expected
    assert len(pool.back) == sum(reusable for _, _, reusable in ANSWERS.values())


async def test_an_answer_with_a_tail_is_taken_and_the_connection_is_not() -> None:
    for tail in (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 500 No\r\nRetry-After: 9\r\n"):
        connection, wire, pool = connected()
        answer = begin(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + tail)
        assert answer.result().status == 200
        assert wire.closed
        assert pool.back == []


def reading() -> tuple[ReadingConnection, Wire, Pool]:
    pool, wire = Pool(), Wire()
    connection = ReadingConnection(asyncio.get_running_loop(), ORIGIN, pool)
    connection.connection_made(cast(asyncio.BaseTransport, wire))
    return connection, wire, pool


BODIES = {"length": b"hello", "empty": b"", "chunked": b"hello", "interim": b"", "to-be-closed": b"ok", "old": b"ok"}


@pytest.mark.parametrize("step", [1, 7, 10_000], ids=lambda step: f"by-{step}")
@pytest.mark.parametrize("name", BODIES)
async def test_a_reading_connection_keeps_the_body(name: str, step: int) -> None:
    text, expected, reusable = ANSWERS[name]
    connection, _, pool = reading()
    for _ in range(2 if reusable else 1):
        answer = begin(connection)
        for at in range(0, len(text), step):
            connection.data_received(text[at : at + step])
        assert answer.result() == Answer(expected.status, expected.retry_after, BODIES[name])
    assert (connection in pool.back) == reusable


async def test_a_reading_connection_reads_only_so_much_and_nothing_of_a_tail() -> None:
    connection, wire, _ = reading()
    answer = begin(connection)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * LONGEST_ANSWER)
    assert len(answer.result().body) <= LONGEST_ANSWER
    assert wire.closed
    connection, wire, _ = reading()
    answer = begin(connection)
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    connection.data_received(one + one)
    assert answer.result().body == b"ok"
    assert wire.closed


async def test_an_answer_to_head_ends_with_its_headers() -> None:
    connection, wire, pool = reading()
    answer = connection.begin(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", connection.loop.time() + 30)
    connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n")
    assert not answer.done()
    connection.data_received(b"\r\n")
    assert answer.result() == Answer(200, None)
    assert (wire.closed, pool.back) == (True, [])


async def test_what_comes_unasked_closes_the_connection() -> None:
    connection, wire, _ = connected()
    connection.data_received(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
    assert wire.closed
    with pytest.raises(Disconnected):
        await begin(connection)


async def test_a_body_that_ends_with_the_connection() -> None:
    connection, _, pool = connected()
    answer = begin(connection)
    connection.data_received(b"HTTP/1.1 202 Accepted\r\n\r\nuntil the end")
    assert not answer.done()
    connection.connection_lost(None)
    assert answer.result().status == 202
    assert pool.back == []


@pytest.mark.parametrize("text", [b"", b"HTT", b"HTTP/1.1 200 OK\r\nX: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_connection_lost_before_the_status_is_known(text: bytes) -> None:
    connection, _, _ = connected()
    answer = begin(connection)
    if text:
        connection.data_received(text)
    connection.connection_lost(ConnectionResetError())
    with pytest.raises(Disconnected):
        answer.result()


@pytest.mark.parametrize(
    "flood",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * LONGEST_ANSWER,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: x\r\n" * LONGEST_ANSWER,
    ],
    ids=["body", "trailers"],
)
async def test_a_flood_after_the_status(flood: bytes) -> None:
    connection, wire, pool = connected()
    answer = begin(connection)
    connection.data_received(flood)
    assert answer.result().status == 200
    assert wire.closed
    assert pool.back == []


@pytest.mark.parametrize(
    "flood",
    [b"HTTP/1.1 200 OK\r\nX: " + b"x" * LONGEST_ANSWER, b"HTTP/1.1 103 Hints\r\n\r\n" * LONGEST_ANSWER],
    ids=["header", "interim-answers"],
)
async def test_a_flood_without_a_status(flood: bytes) -> None:
    connection, wire, _ = connected()
    answer = begin(connection)
    connection.data_received(flood)
    with pytest.raises(NotHttp):
        answer.result()
    assert wire.closed


async def test_giving_up_after_the_end_does_not_harm_the_next_exchange() -> None:
    connection, wire, _ = connected()
    first = begin(connection)
    connection.data_received(ANSWERS["empty"][0])
    second = begin(connection)
    connection.abandon(first)
    assert not wire.closed
    connection.data_received(ANSWERS["empty"][0])
    assert second.result().status == 204
    third = begin(connection)
    connection.abandon(third)
    assert wire.closed


async def test_a_connection_grows_too_old_to_be_used() -> None:
    connection, wire, _ = connected()
    now = connection.loop.time()
    assert connection.usable(now)
    assert not connection.usable(now + KEEPALIVE_SECONDS + 1)
    wire.closed = True
    assert not connection.usable(now)


# --- pools -----------------------------------------------------------------------------------------------------------


class Server:
    """Answers every request with 204; counts connections, and says when one has ended."""

    def __init__(self) -> None:
        self.connections = 0
        self.ended = asyncio.Event()
        self.begun = asyncio.Event()
        self.silent = False

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.begun.set()
                if not self.silent:
                    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.set()
            writer.close()


@asynccontextmanager
async def serving(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    listening = await asyncio.start_server(server, "127.0.0.1", 0, ssl=tls)
    yield listening.sockets[0].getsockname()[1]
    listening.close()


async def test_connections_are_shared_by_origin_and_used_again() -> None:
    server, client = Server(), HttpClient(10)
    async with serving(server) as port:
        for _ in range(3):
            await asyncio.gather(*(client.exchange(Origin(False, "127.0.0.1", port), REQUEST) for _ in range(5)))
        assert server.connections == 5
        await client.exchange(Origin(False, "localhost", port), REQUEST)
        assert server.connections == 6
        await client.close()


async def test_an_idle_connection_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "KEEPALIVE_SECONDS", 0.01)
    server, client = Server(), HttpClient(10)
    async with serving(server) as port:
        await client.exchange(Origin(False, "127.0.0.1", port), REQUEST)
        await asyncio.wait_for(server.ended.wait(), 10)
        assert await client.exchange(Origin(False, "127.0.0.1", port), REQUEST) == Answer(204, None)
        assert server.connections == 2
        await client.close()


async def test_closing_ends_exchanges_and_connections() -> None:
    server, client = Server(), HttpClient(10)
    server.silent = True
    async with serving(server) as port:
        exchange = asyncio.create_task(client.exchange(Origin(False, "127.0.0.1", port), REQUEST))
        await asyncio.wait_for(server.begun.wait(), 10)
        await client.close()
        with pytest.raises(Disconnected):
            await exchange
        await asyncio.wait_for(server.ended.wait(), 10)
        with pytest.raises(Disconnected):
            await client.exchange(Origin(False, "127.0.0.1", port), REQUEST)


async def test_a_cancelled_exchange_takes_its_connection_along() -> None:
    server, client = Server(), HttpClient(10)
    server.silent = True
    async with serving(server) as port:
        exchange = asyncio.create_task(client.exchange(Origin(False, "127.0.0.1", port), REQUEST))
        await asyncio.wait_for(server.begun.wait(), 10)
        exchange.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange
        await asyncio.wait_for(server.ended.wait(), 10)
        await client.close()


async def test_a_name_is_looked_up_once_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Origin] = []
    go_on = asyncio.Event()
    genuine = http_client.resolve

    async def slow(loop: asyncio.AbstractEventLoop, origin: Origin) -> list[Any]:
        asked.append(origin)
        await go_on.wait()
        return await genuine(loop, origin)

    monkeypatch.setattr(http_client, "resolve", slow)
    client = HttpClient(10)
    async with serving(Server()) as port:
        origin = Origin(False, "localhost", port)
        exchanges = [asyncio.create_task(client.exchange(origin, REQUEST)) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        exchanges.pop().cancel()
        go_on.set()
        assert {await each for each in exchanges} == {Answer(204, None)}
        assert asked == [origin]
        await client.close()


async def test_a_silent_name_server_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(loop: asyncio.AbstractEventLoop, origin: Origin) -> list[Any]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(http_client, "resolve", silent)
    client = HttpClient(0.02)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await client.exchange(ORIGIN, REQUEST)
    await client.close()


def _server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "loopback.pem", TLS / "loopback.key.pem")
    return context


@pytest.fixture
def fresh_tls() -> Iterator[None]:
    http_client.tls.cache_clear()
    yield
    http_client.tls.cache_clear()


@pytest.mark.usefixtures("fresh_tls")
async def test_tls_with_a_known_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "loopback.pem"))
    server, client = Server(), HttpClient(10)
    async with serving(server, _server_tls()) as port:
        for host in ("localhost", "127.0.0.1", "localhost"):
            assert await client.exchange(Origin(True, host, port), REQUEST) == Answer(204, None)
        assert server.connections == 2
        await client.close()


@pytest.mark.usefixtures("fresh_tls")
async def test_tls_with_an_unknown_authority() -> None:
    client = HttpClient(10)
    async with serving(Server(), _server_tls()) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await client.exchange(Origin(True, "localhost", port), REQUEST)
        await client.close()
