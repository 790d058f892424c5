"""The conformance suite of targets: what holds for every row, whatever it delivers to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bus.accepted import Luggage
from bus.api_destinations import ApiDestination
from bus.clock import ManualClock
from bus.config import Settings
from bus.connections.connection import Connection
from bus.connections.tokens import Grant, Token
from bus.errors import ApiError, StoreUnavailable
from bus.scope import Scope
from bus.store import NewMessage
from bus.targets import Delivered, Delivery, Failed, Outcome, Route, Target
from bus.targets.addresses import Addresses
from bus.targets.api_destination import ApiDestinationTarget
from bus.targets.aws import AwsService
from bus.targets.event_bus import EventBus
from bus.targets.http_client import HttpClient
from bus.targets.log import LogFiles, LogGroup, RecentLines
from bus.targets.queue import QueueTarget
from bus.targets.webhook import Webhook
from bus.targets.wired import Wired
from rules.arn import Arn

SCOPE = Scope("123456789012", "us-east-1")
RULE = "arn:aws:events:us-east-1:123456789012:rule/orders"
EVENT = (
    b'{"version":"0","id":"0198c0de-0000-7000-8000-000000000001","detail-type":"t","source":"s",'
    b'"account":"123456789012","time":"2026-01-02T03:04:05Z","region":"us-east-1","resources":[],"detail":{}}'
)

CODES = {
    "CONNECTION_FAILURE", "ERROR_FROM_TARGET", "INTERNAL_ERROR", "INVALID_PARAMETER", "NO_PERMISSIONS", "NO_RESOURCE",
    "SDK_CLIENT_ERROR", "THIRD_ACCOUNT_HOP_DETECTED", "THIRD_REGION_HOP_DETECTED", "THROTTLING", "TIMEOUT",
    "TRANSIENT_ASSUME_ROLE",
}  # fmt: skip
"""What ERROR_CODE of a dead letter may say, as far as targets decide it."""


def delivery(arn: str, *, body: bytes = EVENT, hops: tuple[int, int] = (0, 0), **members: Any) -> Delivery:
    route = Route(1, SCOPE, "default", "orders", RULE, {"Id": "target", "Arn": arn, **members})
    return Delivery(route, "0198c0de-0000-7000-8000-000000000001", body, EVENT, 1, 0, None, hops)


@dataclass
class Stage:
    """A target and deliveries to it that are known to be taken, refused for good, and refused for now.

    ``hangs``, where a target can be kept waiting, sets ``waiting`` and then gets no answer.
    """

    target: Target
    taken: Delivery
    final: Delivery
    retried: Delivery
    hangs: Delivery | None = None
    waiting: asyncio.Event | None = None


@asynccontextmanager
async def answering(statuses: Mapping[str, int], waiting: asyncio.Event) -> AsyncIterator[int]:
    """An HTTP server whose status is that of the word which the request's target contains; none: no answer."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = head.partition("content-length:")[2].partition("\r\n")[0]
                await reader.readexactly(int(length or 0))
                status = next((number for word, number in statuses.items() if word in head.partition("\r\n")[0]), None)
                if status is None:
                    waiting.set()
                    await reader.read()
                    return
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


STATUSES = {"taken": 202, "denied": 403, "busy": 503}


@asynccontextmanager
async def webhook(folder: Path) -> AsyncIterator[Stage]:
    waiting = asyncio.Event()
    async with answering(STATUSES, waiting) as port:
        url = f"http://127.0.0.1:{port}"
        target = Webhook(Settings(), ManualClock(), Addresses(Settings()))
        yield Stage(
            target,
            delivery(f"{url}/taken"),
            delivery(f"{url}/denied"),
            delivery(f"{url}/busy"),
            delivery(f"{url}/silent"),
            waiting,
        )


@asynccontextmanager
async def wired(folder: Path) -> AsyncIterator[Stage]:
    waiting = asyncio.Event()
    async with answering(STATUSES, waiting) as port, closing_webhook() as posting:
        function = "arn:aws:lambda:us-east-1:123456789012:function:"
        yield Stage(
            Wired(posting, lambda arn: arn.replace(function, f"http://127.0.0.1:{port}/")),
            delivery(function + "taken"),
            delivery(function + "denied"),
            delivery(function + "busy"),
            delivery(function + "silent"),
            waiting,
        )


@asynccontextmanager
async def closing_webhook() -> AsyncIterator[Webhook]:
    target = Webhook(Settings(), ManualClock(), Addresses(Settings()))
    yield target
    await target.close()


@asynccontextmanager
async def aws(folder: Path) -> AsyncIterator[Stage]:
    waiting = asyncio.Event()
    async with answering(STATUSES, waiting) as port:
        function = "arn:aws:lambda:us-east-1:123456789012:function:"
        yield Stage(
            AwsService(Settings(aws_endpoint_url=f"http://127.0.0.1:{port}"), timeout=2),
            delivery(function + "taken"),
            delivery(function + "denied"),
            delivery(function + "busy"),
            delivery(function + "silent"),
            waiting,
        )


@asynccontextmanager
async def api_destination(folder: Path) -> AsyncIterator[Stage]:
    waiting = asyncio.Event()
    connection = Connection(
        SCOPE, "c", "1", "BASIC", "AUTHORIZED", 0, 0, 0, 1,
        parameters={"BasicAuthParameters": {"Username": "u", "Password": "p"}},
    )  # fmt: skip
    async with answering(STATUSES, waiting) as port:

        def find(arn: str) -> ApiDestination | None:
            prefix, _, name = arn.partition(":api-destination/")
            endpoint = f"http://127.0.0.1:{port}/{name}"
            made = ApiDestination(SCOPE, name, "1", connection.arn, endpoint, "POST", 300, 0, 0)
            return made if name and prefix else None

        client = HttpClient(5.0, reading=True)
        target = ApiDestinationTarget(client, ManualClock(), find=find, connections=OneConnection(connection))
        arn = "arn:aws:events:us-east-1:123456789012:api-destination/"
        yield Stage(
            ClosingWith(target, client),
            delivery(arn + "taken"),
            delivery(arn + "denied"),
            delivery(arn + "busy"),
            delivery(arn + "silent"),
            waiting,
        )


@dataclass
class OneConnection:
    """All there is of connections, for a connection without tokens."""

    connection: Connection

    def find(self, arn: str) -> Connection | None:
        return self.connection if arn == self.connection.arn else None

    async def token(self, connection: Connection) -> Grant:
        raise AssertionError("no token is needed")

    def token_refused(self, connection: Connection, token: Token) -> None:
        raise AssertionError("no token was used")


@dataclass
class ClosingWith:
    """A target together with the client that its owner closes."""

    target: Target
    client: HttpClient

    async def deliver(self, delivery: Delivery) -> Outcome:
        return await self.target.deliver(delivery)

    async def close(self) -> None:
        await self.target.close()
        await self.client.close()


@asynccontextmanager
async def event_bus(folder: Path) -> AsyncIterator[Stage]:
    waiting = asyncio.Event()

    async def forward(scope: Scope, bus_name: str, event: bytes, *, new_identity: bool, luggage: Luggage) -> bool:
        if bus_name == "full":
            raise StoreUnavailable("disk full")
        if bus_name == "slow":
            waiting.set()
            await asyncio.Event().wait()
        return True

    bus = "arn:aws:events:us-east-1:123456789012:event-bus/"
    yield Stage(
        EventBus(forward, takes=lambda delivery, bus: True),
        delivery(bus + "other"),
        delivery(bus + "other", hops=(1, 0)),
        delivery(bus + "full"),
        delivery(bus + "slow"),
        waiting,
    )


@asynccontextmanager
async def queue(folder: Path) -> AsyncIterator[Stage]:
    def find(arn: str) -> str | None:
        return arn if arn.endswith((":q", ":broken")) else None

    def message(queue: str, body: str, **_: Any) -> NewMessage:
        if queue.endswith("broken"):
            raise RuntimeError("unexpected")
        return NewMessage(1, "id", 0, 0, body)

    arn = "arn:aws:sqs:us-east-1:123456789012:"
    yield Stage(QueueTarget(find, message), delivery(arn + "q"), delivery(arn + "absent"), delivery(arn + "broken"))


def _log_stage(target: Target, **hanging: Any) -> Stage:
    group = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/events/"
    no_message = delivery(group + "orders", body=b'{"timestamp":1}', InputTransformer={"InputTemplate": "x"})
    return Stage(target, delivery(group + "orders:*"), no_message, delivery(group + "full"), **hanging)


@asynccontextmanager
async def log_files(folder: Path) -> AsyncIterator[Stage]:
    blocked = folder / "logs" / "123456789012" / "us-east-1" / "+aws+events+full.jsonl"
    blocked.mkdir(parents=True)
    yield _log_stage(LogGroup(LogFiles(folder / "logs")))


@asynccontextmanager
async def log_memory(folder: Path) -> AsyncIterator[Stage]:
    waiting = asyncio.Event()

    class Lines(RecentLines):
        async def add(self, group: Arn, line: bytes) -> None:
            if group.resource.endswith("full"):
                raise OSError(28, "No space left on device")
            if group.resource.endswith("slow"):
                waiting.set()
                await asyncio.Event().wait()
            await super().add(group, line)

    slow = delivery("arn:aws:logs:us-east-1:123456789012:log-group:slow")
    yield _log_stage(LogGroup(Lines()), hangs=slow, waiting=waiting)


TARGETS: dict[str, Callable[[Path], AbstractAsyncContextManager[Stage]]] = {
    "webhook": webhook,
    "wired": wired,
    "aws": aws,
    "api_destination": api_destination,
    "event_bus": event_bus,
    "queue": queue,
    "log_files": log_files,
    "log_memory": log_memory,
}


@pytest.fixture(params=TARGETS)
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with TARGETS[request.param](tmp_path) as made:
        try:
            yield made
        finally:
            await made.target.close()


async def test_what_is_taken_is_delivered(stage: Stage) -> None:
    assert isinstance(await stage.target.deliver(stage.taken), Delivered)


async def test_what_is_refused_for_good_is_final(stage: Stage) -> None:
    _check_failure(await stage.target.deliver(stage.final), retry=False)


async def test_what_is_refused_for_now_is_tried_again(stage: Stage) -> None:
    _check_failure(await stage.target.deliver(stage.retried), retry=True)


async def test_nothing_is_remembered_between_attempts(stage: Stage) -> None:
    for _ in range(2):
        for each, kind in ((stage.retried, Failed), (stage.final, Failed), (stage.taken, Delivered)):
            assert isinstance(await stage.target.deliver(each), kind)


async def test_attempts_run_side_by_side(stage: Stage) -> None:
    outcomes = await asyncio.gather(*(stage.target.deliver(stage.taken) for _ in range(20)))
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)


async def test_an_arn_that_means_nothing_is_final(stage: Stage) -> None:
    for text in ("nonsense", "", "arn:aws:", "http://", "arn:aws:nothing:::"):
        _check_failure(await stage.target.deliver(delivery(text)), retry=False)


async def test_cancelling_an_attempt_ends_it_and_nothing_else(stage: Stage) -> None:
    if stage.hangs is None or stage.waiting is None:
        pytest.skip("this target answers at once")
    attempt = asyncio.create_task(stage.target.deliver(stage.hangs))
    await asyncio.wait_for(stage.waiting.wait(), 10)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert isinstance(await stage.target.deliver(stage.taken), Delivered)


async def test_nothing_is_raised_after_close(stage: Stage) -> None:
    await stage.target.deliver(stage.taken)
    await stage.target.close()
    outcome = await stage.target.deliver(stage.taken)
    assert isinstance(outcome, Delivered) or outcome.retry


def _check_failure(outcome: object, *, retry: bool) -> None:
    assert isinstance(outcome, Failed)
    assert outcome.retry is retry
    assert outcome.code in CODES
    assert outcome.message
    assert "\n" not in outcome.message


# --- queues: outcomes without waiting ---------------------------------------------------------------------------------


async def test_an_immediate_target_says_the_same_with_and_without_waiting(tmp_path: Path) -> None:
    async with queue(tmp_path) as made:
        assert isinstance(made.target, QueueTarget)
        for each in (made.taken, made.retried):
            assert made.target.deliver_now(each) == await made.target.deliver(each)


def test_a_refusing_queue_is_an_invalid_parameter() -> None:
    def refuse(queue: str, body: str, **_: Any) -> NewMessage:
        raise ApiError("InvalidParameterValue", "One or more parameters are invalid.", 400)

    outcome = QueueTarget(str, refuse).deliver_now(delivery("arn:aws:sqs:us-east-1:123456789012:q"))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("INVALID_PARAMETER", False)


# --- wires ------------------------------------------------------------------------------------------------------------


async def test_a_wire_removed_under_a_delivery_leaves_it_to_the_next_attempt() -> None:
    async with closing_webhook() as posting:
        outcome = await Wired(posting, lambda arn: None).deliver(delivery("arn:aws:lambda:us-east-1:123456789012:x"))
    assert isinstance(outcome, Failed)
    assert outcome.retry
