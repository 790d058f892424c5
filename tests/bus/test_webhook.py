"""Webhooks against real sockets: what is sent, and what each way of answering comes to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
import uvloop

from bus.clock import ManualClock
from bus.config import Settings
from bus.errors import ConfigError
from bus.scope import Scope
from bus.targets import Delivered, Delivery, Failed, Outcome, Route, http_client
from bus.targets.addresses import Addresses
from bus.targets.http_client import LONGEST_ANSWER, Origin
from bus.targets.webhook import Webhook, failure, webhook_id

SECRET = "whsec_" + base64.b64encode(b"a key of twenty-four byte").decode()
RULE = "arn:aws:events:us-east-1:000000000000:rule/orders"
BODY = '{"detail":{"name":"Žofie"}}'.encode()


Answer = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    line: str
    headers: dict[str, str]
    body: bytes
    raw: bytes


@dataclass
class Peer:
    """A server on loopback that records requests and answers each with ``answer``."""

    answer: Answer
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/orders"

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *pairs = head.decode().rstrip("\r\n").split("\r\n")
                headers = {name.lower(): value for name, value in (pair.split(": ", 1) for pair in pairs)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append(Request(line, headers, body, head))
                await self.answer(self.requests[-1], writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.closed.set()


def saying(text: bytes) -> Answer:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(text)

    return answer


def status(line: str, *headers: str) -> Answer:
    return saying("\r\n".join([f"HTTP/1.1 {line}", "Content-Length: 0", *headers, "", ""]).encode())


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Peer]:
    peer = Peer(answer)
    server = await asyncio.start_server(peer.connection, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()


@asynccontextmanager
async def webhook(clock: ManualClock | None = None, **settings: Any) -> AsyncIterator[Webhook]:
    configured = Settings(**settings)
    target = Webhook(configured, clock or ManualClock(), Addresses(configured))
    try:
        yield target
    finally:
        await target.close()


def delivery(url: str, *, target: str = "hook", **changes: Any) -> Delivery:
    route = Route(1, Scope("000000000000", "us-east-1"), "default", "orders", RULE, {"Id": target, "Arn": url})
    plain = Delivery(route, "0198c0de-0000-7000-8000-000000000001", BODY, b"{}", 1, 0)
    return msgspec.structs.replace(plain, **changes)


async def outcome_of(answer: Answer, **settings: Any) -> Outcome:
    async with serving(answer) as peer, webhook(**settings) as target:
        return await target.deliver(delivery(peer.url))


# --- what is sent ----------------------------------------------------------------------------------------------------


async def test_a_request_holds_the_exact_body_and_its_headers() -> None:
    async with serving(status("204 No Content")) as peer, webhook(ManualClock(1_700_000_000_999)) as target:
        assert await target.deliver(delivery(peer.url, trace="Root=1-a-b")) == Delivered()
    (request,) = peer.requests
    assert request.line == "POST /orders HTTP/1.1"
    assert request.body == BODY
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-timestamp"] == "1700000000"
    assert request.headers["x-amzn-trace-id"] == "Root=1-a-b"
    assert request.headers["user-agent"].startswith("busbar/")
    assert "webhook-signature" not in request.headers
    assert "cookie" not in request.headers


async def test_no_trace_no_header() -> None:
    async with serving(status("200 OK")) as peer, webhook() as target:
        await target.deliver(delivery(peer.url))
    assert "x-amzn-trace-id" not in peer.requests[0].headers


async def test_the_signature_is_that_of_standard_webhooks() -> None:
    async with serving(status("200 OK")) as peer, webhook(webhook_secret=SECRET) as target:
        await target.deliver(delivery(peer.url))
    headers = peer.requests[0].headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + BODY
    digest = hmac.new(b"a key of twenty-four byte", signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    "secret", ["whsec_", "whsec_not base64", "whsec_abc", "whsec_\N{LATIN SMALL LETTER A WITH DIAERESIS}"]
)
def test_a_secret_without_a_key_stops_the_start(secret: str) -> None:
    settings = Settings(webhook_secret=secret)
    with pytest.raises(ConfigError, match="whsec_"):
        Webhook(settings, ManualClock(), Addresses(settings))


def test_the_id_is_one_for_all_attempts_and_another_for_each_target_rule_and_event() -> None:
    first = delivery("http://a/")
    again = msgspec.structs.replace(delivery("http://b/"), attempt=7, route=replace(first.route, number=99))
    assert webhook_id(first) == webhook_id(again)
    others = [
        delivery("http://a/", target="other"),
        delivery("http://a/", event_id="0198c0de-0000-7000-8000-000000000002"),
        msgspec.structs.replace(first, route=replace(first.route, rule_arn=RULE + "2")),
    ]
    assert len({webhook_id(each) for each in (first, *others)}) == 4
    assert webhook_id(first).startswith(first.event_id)
    assert "." not in webhook_id(first)


@pytest.mark.parametrize("event_id", ["e\r\nX-Admin: 1", "e\nX-Admin: 1", "\u017d", "\ud800", "\x7f"])
async def test_an_id_that_does_not_suit_a_header_stays_outside(event_id: str) -> None:
    async with serving(status("200 OK")) as peer, webhook() as target:
        sent = delivery(peer.url, event_id=event_id)
        assert await target.deliver(sent) == Delivered()
        assert await target.deliver(sent) == Delivered()
    first, again = (request.headers for request in peer.requests)
    assert "x-admin" not in first
    assert first["webhook-id"] == again["webhook-id"]
    assert first["webhook-id"].replace("_", "").isalnum()
    assert first["webhook-id"].isascii()


async def test_a_wired_arn_is_posted_to_the_url_of_its_wire() -> None:
    async with serving(status("200 OK")) as peer, webhook() as target:
        wired = delivery("arn:aws:lambda:us-east-1:000000000000:function:orders")
        assert await target.post(peer.url, wired) == Delivered()
    assert peer.requests[0].body == BODY


async def test_name_and_password_of_a_url_become_a_header_and_are_in_no_message() -> None:
    async with serving(status("500 Oops")) as peer, webhook() as target:
        url = f"http://user:pa%40ss@127.0.0.1:{peer.port}/token/secret?key=hidden#part"
        outcome = await target.deliver(delivery(url))
    request = peer.requests[0]
    assert request.line == "POST /token/secret?key=hidden HTTP/1.1"
    assert request.headers["authorization"] == "Basic " + base64.b64encode(b"user:pa@ss").decode()
    assert isinstance(outcome, Failed)
    assert outcome.message == f"http://127.0.0.1:{peer.port} answered with HTTP status 500."


async def test_the_escapes_of_a_url_are_sent_as_they_are() -> None:
    async with serving(status("200 OK")) as peer, webhook() as target:
        await target.deliver(delivery(f"http://127.0.0.1:{peer.port}/a%2Fb/c?x=1%2B1&y=a+b"))
    assert peer.requests[0].line == "POST /a%2Fb/c?x=1%2B1&y=a+b HTTP/1.1"


async def test_a_connection_is_used_again() -> None:
    async with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")) as peer, webhook() as target:
        for _ in range(5):
            assert await target.deliver(delivery(peer.url)) == Delivered()
    assert (len(peer.requests), peer.connections) == (5, 1)


async def test_cookies_are_not_kept() -> None:
    async with serving(status("200 OK", "Set-Cookie: a=b; Path=/")) as peer, webhook() as target:
        for _ in range(2):
            await target.deliver(delivery(peer.url))
    assert "cookie" not in peer.requests[1].headers


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    assert await outcome_of(status("200 OK")) == Delivered()


# --- what an answer comes to -----------------------------------------------------------------------------------------

STATUSES: Sequence[tuple[str, str, bool]] = [
    ("300 Multiple Choices", "SDK_CLIENT_ERROR", False),
    ("304 Not Modified", "SDK_CLIENT_ERROR", False),
    ("400 Bad Request", "SDK_CLIENT_ERROR", False),
    ("401 Unauthorized", "SDK_CLIENT_ERROR", True),
    ("403 Forbidden", "SDK_CLIENT_ERROR", False),
    ("404 Not Found", "SDK_CLIENT_ERROR", False),
    ("407 Proxy Authentication Required", "SDK_CLIENT_ERROR", True),
    ("408 Request Timeout", "SDK_CLIENT_ERROR", True),
    ("409 Conflict", "SDK_CLIENT_ERROR", True),
    ("410 Gone", "SDK_CLIENT_ERROR", False),
    ("413 Too Large", "SDK_CLIENT_ERROR", False),
    ("425 Too Early", "SDK_CLIENT_ERROR", True),
    ("429 Too Many Requests", "THROTTLING", True),
    ("500 Internal Server Error", "ERROR_FROM_TARGET", True),
    ("501 Not Implemented", "ERROR_FROM_TARGET", True),
    ("503 Unavailable", "ERROR_FROM_TARGET", True),
    ("599 Whatever", "ERROR_FROM_TARGET", True),
]


@pytest.mark.parametrize(("line", "code", "retry"), STATUSES, ids=[line[:3] for line, _, _ in STATUSES])
async def test_statuses(line: str, code: str, retry: bool) -> None:
    outcome = await outcome_of(status(line))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == (code, retry)
    assert line[:3] in outcome.message


@pytest.mark.parametrize("line", ["200 OK", "201 Created", "202 Accepted", "204 No Content", "299 Odd"])
async def test_statuses_of_success(line: str) -> None:
    assert await outcome_of(status(line)) == Delivered()


async def test_an_interim_answer_is_not_the_answer() -> None:
    assert await outcome_of(
        saying(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    ) == (Delivered())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("-1", -1.0),
        ("99999999999999999999", 1e9),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("soon", None),
        ("", None),
    ],
)
async def test_retry_after(header: str, seconds: float | None) -> None:
    outcome = await outcome_of(status("503 Unavailable", f"Retry-After: {header}"))
    assert isinstance(outcome, Failed)
    assert outcome.retry_after == seconds


async def test_a_redirect_is_not_followed() -> None:
    async with serving(status("200 OK")) as elsewhere:
        loop = status("302 Found", f"Location: {elsewhere.url}")
        async with serving(loop) as peer, webhook() as target:
            outcome = await target.deliver(delivery(peer.url))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("SDK_CLIENT_ERROR", False)
    assert (len(peer.requests), len(elsewhere.requests)) == (1, 0)


# --- peers that misbehave --------------------------------------------------------------------------------------------


async def test_a_peer_that_never_answers() -> None:
    async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    outcome = await outcome_of(silent, webhook_timeout=0.05)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("TIMEOUT", True)


async def test_headers_that_never_end() -> None:
    async def trickle(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        await asyncio.Event().wait()

    outcome = await outcome_of(trickle, webhook_timeout=0.05)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("TIMEOUT", True)


async def test_fifty_megabytes_are_not_downloaded() -> None:
    sent = 0

    async def flood(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 52428800\r\n\r\n")
        for _ in range(800):
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with serving(flood) as peer, webhook() as target:
        assert await target.deliver(delivery(peer.url)) == Delivered()
        await asyncio.wait_for(peer.closed.wait(), 10)
    assert LONGEST_ANSWER < sent < 52_428_800


async def test_a_short_answer_in_pieces_is_read_so_that_the_connection_lives() -> None:
    async def pieces(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            writer.write(b"5\r\nhello\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with serving(pieces) as peer, webhook() as target:
        for _ in range(3):
            assert await target.deliver(delivery(peer.url)) == Delivered()
    assert peer.connections == 1


@pytest.mark.parametrize(
    ("line", "kind"), [("200 OK", Delivered), ("503 No", Failed)], ids=["after-success", "after-failure"]
)
async def test_the_status_counts_although_the_rest_is_cut_off(line: str, kind: type[Outcome]) -> None:
    async def cut(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {line}\r\nContent-Length: 100\r\n\r\nhalf".encode())
        writer.close()

    outcome = await outcome_of(cut)
    assert isinstance(outcome, kind)
    assert not isinstance(outcome, Failed) or outcome.code == "ERROR_FROM_TARGET"


async def test_the_status_counts_although_the_rest_never_comes() -> None:
    async def stall(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await asyncio.Event().wait()

    assert await outcome_of(stall, webhook_timeout=0.05) == Delivered()


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\x01\x02\x03" * 50 + b"\r\n\r\n",
        b"HTTP/9.9 banana\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\x00: \x01\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000,
    ],
    ids=["other-protocol", "binary", "bad-status-line", "bad-length", "bad-header", "long-header"],
)
async def test_garbage_is_tried_again(text: bytes) -> None:
    outcome = await outcome_of(saying(text), webhook_timeout=1)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("ERROR_FROM_TARGET", True)


async def test_a_connection_closed_without_an_answer() -> None:
    async def close(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.close()

    outcome = await outcome_of(close)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("CONNECTION_FAILURE", True)


async def test_a_refused_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with webhook() as target:
            outcome = await target.deliver(delivery(f"http://127.0.0.1:{port}/"))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("CONNECTION_FAILURE", True)


async def test_tls_to_a_port_without_tls() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server, webhook() as target:
        outcome = await target.deliver(delivery(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("CONNECTION_FAILURE", True)
    assert "TLS" in outcome.message


async def test_a_name_that_does_not_exist() -> None:
    async with webhook() as target:
        outcome = await target.deliver(delivery("http://no-such-host.invalid/"))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("CONNECTION_FAILURE", True)


@pytest.mark.parametrize("url", ["http://", "ftp://x/", "nonsense", "http://[::1/", "http://" + "a" * 70 + ".example/"])
async def test_a_url_nothing_can_be_sent_to_is_final(url: str) -> None:
    async with webhook() as target:
        outcome = await target.deliver(delivery(url))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("SDK_CLIENT_ERROR", False)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ssl.SSLError("x"), "CONNECTION_FAILURE"),
        (ConnectionResetError(), "CONNECTION_FAILURE"),
        (ssl.SSLCertVerificationError("x"), "CONNECTION_FAILURE"),
        (RuntimeError("never seen"), "INTERNAL_ERROR"),
    ],
)
def test_other_errors_are_tried_again(error: Exception, code: str) -> None:
    failed = failure(error, "http://host")
    assert (failed.code, failed.retry) == (code, True)


# --- addresses -------------------------------------------------------------------------------------------------------

GUARDED: dict[str, Any] = {"host": "0.0.0.0", "insecure": True}


async def test_beyond_loopback_a_metadata_address_is_refused() -> None:
    async with webhook(**GUARDED) as target:
        outcome = await target.deliver(delivery("http://169.254.169.254/latest/meta-data"))
    assert isinstance(outcome, Failed)
    assert not outcome.retry


async def test_beyond_loopback_own_services_are_reached() -> None:
    assert await outcome_of(status("200 OK"), **GUARDED) == Delivered()


async def test_a_name_that_leads_to_a_metadata_address_is_refused_at_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def rebound(loop: asyncio.AbstractEventLoop, origin: Origin) -> list[Any]:
        asked.append(origin.host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"169.254.169.{n}", origin.port)) for n in (254, 253)]

    monkeypatch.setattr(http_client, "resolve", rebound)
    async with webhook(**GUARDED) as target:
        outcome = await target.deliver(delivery("http://hooks.example.com/"))
    assert asked == ["hooks.example.com"]
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("SDK_CLIENT_ERROR", False)


@pytest.mark.parametrize(
    "case",
    [
        test_a_request_holds_the_exact_body_and_its_headers,
        test_a_connection_is_used_again,
        test_a_peer_that_never_answers,
        test_fifty_megabytes_are_not_downloaded,
        test_the_status_counts_although_the_rest_never_comes,
        test_a_connection_closed_without_an_answer,
        test_a_refused_connection,
        test_tls_to_a_port_without_tls,
        test_beyond_loopback_own_services_are_reached,
    ],
    ids=lambda case: case.__name__.removeprefix("test_"),
)
def test_the_same_on_the_loop_of_the_server(case: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(case())
