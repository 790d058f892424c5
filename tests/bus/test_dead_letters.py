"""Dead letters: what is sent again, as what, and what stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from bus import dead_letters as module
from bus.accepted import Accepted
from bus.clock import IdSource
from bus.dead_letters import DeadLetters
from bus.scope import Scope
from bus.store import NewDelivery, NewMessage, messages
from bus.targets import Route
from tests.bus.queue_rig import SCOPE, Rig, rig, turns

RULE = "arn:aws:events:us-east-1:000000000000:rule/orders"
HOOK = "http://127.0.0.1:9/"
BUS = "arn:aws:events:us-east-1:000000000000:event-bus/second"
EVENT_ID = "0198c0de-0000-7000-8000-000000000001"
EVENT = json.dumps(
    {"version": "0", "id": EVENT_ID, "source": "s", "detail-type": "t", "account": "000000000000",
     "time": "2026-01-02T03:04:05Z", "region": "us-east-1", "resources": [], "detail": {}}
)  # fmt: skip


@dataclass
class Plan:
    deliveries: list[NewDelivery] = field(default_factory=list)
    messages: list[NewMessage] = field(default_factory=list)


@dataclass
class Desk:
    """Dead letters over real queues, and a dispatcher that remembers what it was given."""

    on: Rig
    sent: list[Accepted] = field(default_factory=list)
    dies_again: bool = False

    def __post_init__(self) -> None:
        on = self.on
        self.letters = DeadLetters(
            on.store,
            on.clock,
            IdSource(on.clock),
            queues=on.queues,
            dispatch=self,
            route=lambda rule, target: Route(1, Scope(*SCOPE), "default", "orders", rule, {"Id": "t", "Arn": target}),
            bus_number=lambda route: 1,
        )

    def plan(self, event: Accepted, routes: Iterable[Route]) -> Plan:
        if not self.dies_again:
            return Plan()
        (route,) = routes
        return Plan(messages=[self.letter(event.body.decode(), target=route.arn)])

    def accepted(self, events: Sequence[tuple[Accepted, Plan, Any]]) -> None:
        self.sent.extend(event for event, _, _ in events)

    def letter(self, body: str, *, target: str = HOOK, code: str = "TIMEOUT") -> NewMessage:
        attributes = {"RULE_ARN": RULE, "TARGET_ARN": target, "ERROR_CODE": code}
        return self.on.queues.message(self.on.queue("dlq"), body, attributes=attributes)

    async def die(self, body: str, **how: str) -> None:
        letter = self.letter(body, **how)
        await self.on.store.transact(lambda connection: messages.insert(connection, [letter]))

    async def redrive(self) -> tuple[int, list[str]]:
        result = await self.letters.redrive(self.on.queue("dlq"))
        return result.sent, [reason for _, reason in result.kept]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with rig() as on:
        await on.create("dlq")
        yield Desk(on)


async def test_an_event_keeps_its_id(desk: Desk) -> None:
    await desk.die(EVENT)
    assert await desk.redrive() == (1, [])
    assert (desk.sent[0].event_id, desk.sent[0].body) == (EVENT_ID, EVENT.encode())
    assert await desk.redrive() == (0, [])


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"id": "e\r\nX-Admin: 1\r\nX-Filler: 0123456789ab"[:36]}),
        json.dumps({"id": "é" * 36}),
        json.dumps({"id": EVENT_ID + "\n"}),
        json.dumps({"id": 7}),
        "not json",
    ],
)
async def test_what_is_no_uuid_is_no_id(desk: Desk, body: str) -> None:
    await desk.die(body)
    assert await desk.redrive() == (1, [])
    assert str(UUID(desk.sent[0].event_id)) == desk.sent[0].event_id


@pytest.mark.parametrize("code", ["THIRD_ACCOUNT_HOP_DETECTED", "THIRD_REGION_HOP_DETECTED"])
async def test_an_event_that_went_in_a_loop_stays(desk: Desk, code: str) -> None:
    await desk.die(EVENT, target=BUS, code=code)
    assert await desk.redrive() == (0, ["the event went in a loop from bus to bus, and would do so again"])
    assert await desk.redrive() == (0, ["the event went in a loop from bus to bus, and would do so again"])


async def test_only_an_event_goes_to_a_bus(desk: Desk) -> None:
    await desk.die('{"message":"m"}', target=BUS)
    await desk.die("plain", target=BUS)
    await desk.die(EVENT, target=BUS)
    sent, kept = await desk.redrive()
    assert sent == 1
    assert kept == ["its target is an event bus, and its body is not an event"] * 2


async def test_letters_that_die_again_do_not_keep_a_redrive_busy(desk: Desk) -> None:
    desk.dies_again = True
    for _ in range(3):
        await desk.die(EVENT)
    assert await asyncio.wait_for(desk.redrive(), 10) == (3, [])
    assert await desk.on.counts("dlq") == (3, 0, 0)


async def test_two_redrives_at_once_send_a_letter_once(desk: Desk) -> None:
    for _ in range(5):
        await desk.die(EVENT)
    results = await asyncio.gather(desk.redrive(), desk.redrive())
    assert sorted(sent for sent, _ in results) == [0, 5]
    assert len(desk.sent) == 5


async def test_queues_do_not_wait_for_each_other(desk: Desk) -> None:
    await desk.on.create("other")
    async with desk.letters.alone(desk.on.queue("other")):
        await desk.die(EVENT)
        assert await asyncio.wait_for(desk.redrive(), 10) == (1, [])
        blocked = asyncio.create_task(desk.letters.redrive(desk.on.queue("other")))
        await turns()
        assert not blocked.done()
    assert (await blocked).sent == 0


async def test_a_page_ends_at_a_number_of_bytes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_BYTES", 1000)
    for letter in "abc":
        await desk.die(letter * 400)
    page = await desk.letters.page(desk.on.queue("dlq"), after=0, limit=100)
    assert [shown["Body"][0] for shown in page] == ["a", "b"]
    page = await desk.letters.page(desk.on.queue("dlq"), after=page[-1]["Number"], limit=100)
    assert [shown["Body"][0] for shown in page] == ["c"]
