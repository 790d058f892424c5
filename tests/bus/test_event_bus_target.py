"""Forwarding to another bus: hops, regions, and buses that are not there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bus.accepted import Luggage
from bus.errors import ApiError, StoreUnavailable
from bus.scope import Scope
from bus.targets import Delivered, Delivery, Failed, Route
from bus.targets.event_bus import EventBus
from rules.arn import Arn

HERE = Scope("123456789012", "us-east-1")
SAME_REGION = "arn:aws:events:us-east-1:123456789012:event-bus/second"
OTHER_REGION = "arn:aws:events:eu-west-1:123456789012:event-bus/second"
OTHER_ACCOUNT = "arn:aws:events:us-east-1:210987654321:event-bus/second"
HOP_MESSAGE = (
    "Event ingestion rejected for event id-1 because an event can be sent to an event bus target only once. "
    "This event was previously delivered to an event bus target."
)
DENIED = Failed("NO_PERMISSIONS", "Lack of permissions to invoke cross account target.")


def delivery(arn: str, hops: tuple[int, int] = (0, 0), event: bytes = b'{"id":"id-1"}') -> Delivery:
    route = Route(1, HERE, "first", "r", "arn:rule", {"Id": "bus", "Arn": arn})
    return Delivery(route, "id-1", b"rendered", event, 1, 0, "Root=1", hops)


class Buses:
    def __init__(self, answer: bool | Exception = True) -> None:
        self.answer = answer
        self.calls: list[dict[str, Any]] = []

    async def __call__(
        self, scope: Scope, bus_name: str, event: bytes, *, new_identity: bool, luggage: Luggage
    ) -> bool:
        self.calls.append(
            {"scope": scope, "bus": bus_name, "event": event, "new_identity": new_identity, "luggage": luggage}
        )
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def open_to_all(buses: Buses) -> EventBus:
    return EventBus(buses, takes=lambda delivery, bus: True)


async def test_within_a_region_the_envelope_goes_on_as_it_is() -> None:
    buses = Buses()
    assert await open_to_all(buses).deliver(delivery(SAME_REGION)) == Delivered()
    assert buses.calls == [
        {
            "scope": HERE,
            "bus": "second",
            "event": b'{"id":"id-1"}',
            "new_identity": False,
            "luggage": Luggage("Root=1", (1, 0)),
        }
    ]


async def test_between_regions_the_event_gets_a_new_identity() -> None:
    buses = Buses()
    assert await open_to_all(buses).deliver(delivery(OTHER_REGION)) == Delivered()
    (call,) = buses.calls
    assert call["scope"] == Scope("123456789012", "eu-west-1")
    assert call["new_identity"] is True
    assert call["luggage"] == Luggage("Root=1", (0, 1))


@pytest.mark.parametrize(
    ("arn", "hops", "after"),
    [(SAME_REGION, (0, 1), (1, 1)), (OTHER_REGION, (1, 0), (1, 1)), (OTHER_ACCOUNT, (0, 1), (1, 1))],
)
async def test_one_hop_of_each_kind_is_allowed(arn: str, hops: tuple[int, int], after: tuple[int, int]) -> None:
    buses = Buses()
    assert await open_to_all(buses).deliver(delivery(arn, hops)) == Delivered()
    assert buses.calls[0]["luggage"].hops == after


@pytest.mark.parametrize(
    ("arn", "hops", "code"),
    [
        (SAME_REGION, (1, 0), "THIRD_ACCOUNT_HOP_DETECTED"),
        (SAME_REGION, (1, 1), "THIRD_ACCOUNT_HOP_DETECTED"),
        (OTHER_ACCOUNT, (1, 0), "THIRD_ACCOUNT_HOP_DETECTED"),
        (OTHER_REGION, (0, 1), "THIRD_REGION_HOP_DETECTED"),
        (OTHER_REGION, (1, 1), "THIRD_REGION_HOP_DETECTED"),
    ],
)
async def test_a_second_hop_of_a_kind_is_final(arn: str, hops: tuple[int, int], code: str) -> None:
    buses = Buses()
    outcome = await open_to_all(buses).deliver(delivery(arn, hops))
    assert outcome == Failed(code, HOP_MESSAGE)
    assert buses.calls == []


async def test_an_absent_bus_of_the_same_account_swallows_the_event() -> None:
    assert await open_to_all(Buses(False)).deliver(delivery(SAME_REGION)) == Delivered()
    assert await open_to_all(Buses(False)).deliver(delivery(OTHER_REGION)) == Delivered()


async def test_an_absent_bus_of_another_account_has_not_permitted_anything() -> None:
    assert await open_to_all(Buses(False)).deliver(delivery(OTHER_ACCOUNT)) == DENIED


async def test_a_bus_that_does_not_let_the_event_in() -> None:
    denied = Buses(ApiError("AccessDeniedException", "no"))
    assert await open_to_all(denied).deliver(delivery(SAME_REGION)) == DENIED


async def test_a_full_disk_is_tried_again() -> None:
    outcome = await open_to_all(Buses(StoreUnavailable("disk full"))).deliver(delivery(SAME_REGION))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("INTERNAL_ERROR", True)


async def test_a_bus_that_does_not_take_the_event_is_not_bothered_with_it() -> None:
    buses, asked = Buses(), []

    def takes(delivery: Delivery, bus: Arn) -> bool:
        asked.append((delivery.event_id, str(bus)))
        return bus.account == delivery.route.scope.account

    target = EventBus(buses, takes=takes)
    assert await target.deliver(delivery(OTHER_ACCOUNT)) == DENIED
    assert buses.calls == []
    for own in (SAME_REGION, OTHER_REGION):
        assert await target.deliver(delivery(own)) == Delivered()
    assert asked == [("id-1", OTHER_ACCOUNT), ("id-1", SAME_REGION), ("id-1", OTHER_REGION)]


@pytest.mark.parametrize(
    ("bus", "source", "let_in"),
    [
        ("aws.partner/example.com/orders", "aws.s3", False),
        ("aws.partner/example.com/orders", "aws.partner/example.com/orders", True),
        ("aws.partner/example.com/orders", "shop", True),
        ("second", "aws.s3", True),
    ],
)
async def test_partner_buses_receive_no_events_of_services(bus: str, source: str, let_in: bool) -> None:
    envelope = {
        "version": "0", "id": "id-1", "detail-type": "t", "source": source, "account": HERE.account,
        "time": "2026-03-02T09:00:00Z", "region": HERE.region, "resources": [], "detail": {},
    }  # fmt: skip
    buses = Buses()
    sent = delivery(SAME_REGION.replace("second", bus), event=json.dumps(envelope).encode())
    outcome = await EventBus(buses, takes=lambda delivery, bus: True).deliver(sent)
    refused = Failed("NO_PERMISSIONS", "Partner event buses do not receive events of AWS services.")
    assert outcome == (Delivered() if let_in else refused)
    assert len(buses.calls) == int(let_in)
