"""PutPartnerEvents: what is refused, lost or put, and what each leaves in the metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from bus.arrival import Arrival
from bus.clock import IdSource, ManualClock
from bus.errors import ApiError, StoreUnavailable
from bus.ingest import NOT_STORED
from bus.metrics import Metrics
from bus.origins.partner_events import PartnerEvents
from bus.scope import Call, Scope

PARTNER, CUSTOMER = Scope("111111111111", "us-east-1"), Scope("222222222222", "us-east-1")
WORKS, WAITS, FULL, GONE = (f"aws.partner/example.com/{name}" for name in ("works", "waits", "full", "gone"))
ENTRY = {"Source": WORKS, "DetailType": "Order", "Detail": '{ "n": 1.50 }'}


class Bench:
    def __init__(self) -> None:
        clock = ManualClock()
        self.metrics = Metrics()
        self.put_on: list[tuple[Scope, str, list[Arrival]]] = []
        self.partner_events = PartnerEvents(
            clock, IdSource(clock), metrics=self.metrics, destination=self.destination, put=self.put, max_bytes=1000
        )

    def destination(self, partner: Scope, name: str) -> tuple[Scope, str] | None:
        states = {WORKS: "ACTIVE", WAITS: "PENDING", FULL: "ACTIVE", GONE: "ACTIVE"}
        return (CUSTOMER, states[name]) if partner == PARTNER and name in states else None

    async def put(self, scope: Scope, bus_name: str, arrivals: Iterable[Arrival]) -> bool:
        if bus_name == FULL:
            raise StoreUnavailable("full")
        if bus_name == GONE:
            return False
        self.put_on.append((scope, bus_name, list(arrivals)))
        return True

    async def call(self, *entries: dict[str, Any], scope: Scope = PARTNER) -> dict[str, Any]:
        return await self.partner_events.put_partner_events(Call(scope), {"Entries": list(entries)})


async def test_an_event_comes_to_the_customer_bus() -> None:
    bench = Bench()
    answer = await bench.call({**ENTRY, "Time": 1.9, "Resources": ["arn:r"]})
    ((scope, bus, (arrival,)),) = bench.put_on
    assert (scope, bus) == (CUSTOMER, WORKS)
    assert answer == {"FailedEntryCount": 0, "Entries": [{"EventId": arrival.event_id}]}
    assert arrival.fields() == {
        "version": "0", "id": arrival.event_id, "detail-type": "Order", "source": WORKS, "account": CUSTOMER.account,
        "time": "1970-01-01T00:00:01Z", "region": "us-east-1", "resources": ["arn:r"],
    }  # fmt: skip
    assert arrival.compact_detail() == b'{"n":1.50}'


async def test_results_stand_in_the_places_of_their_entries() -> None:
    bench = Bench()
    answer = await bench.call(
        ENTRY,
        {**ENTRY, "Detail": "[]"},
        {**ENTRY, "Source": WAITS},
        {**ENTRY, "Source": "aws.partner/someone/else"},
        {**ENTRY, "Source": FULL},
        {"Source": WORKS, "Detail": "{}"},
        {**ENTRY, "Source": None},
        {**ENTRY, "Time": 1e300},
        ENTRY,
    )
    codes = [result.get("ErrorCode") for result in answer["Entries"]]
    assert codes == [
        None, "MalformedDetail", None, "NotAuthorizedForSourceException", "InternalFailure", "InvalidArgument",
        "InvalidArgument", "InvalidArgument", None,
    ]  # fmt: skip
    assert answer["FailedEntryCount"] == 6
    assert answer["Entries"][4] == NOT_STORED
    assert answer["Entries"][5]["ErrorMessage"].startswith("Parameter DetailType is not valid. Reason: DetailType")
    ids = [answer["Entries"][place]["EventId"] for place in (0, 8)]
    assert [[arrival.event_id for arrival in arrivals] for _, _, arrivals in bench.put_on] == [ids]
    counts = bench.metrics.partners
    assert (counts.PutPartnerEventsEntriesCount, counts.PutPartnerEventsFailedEntriesCount) == (9, 6)
    assert (counts.PutPartnerEventsApproximateCallCount, counts.PutPartnerEventsApproximateSuccessCount) == (1, 1)
    assert counts.DroppedPendingSource == 1
    assert bench.metrics.partner_events == {WORKS: 2}


async def test_a_bus_that_goes_meanwhile_loses_the_event() -> None:
    bench = Bench()
    answer = await bench.call({**ENTRY, "Source": GONE})
    assert answer["FailedEntryCount"] == 0
    assert bench.metrics.partners.DroppedPendingSource == 1
    assert bench.metrics.partner_events == {}


async def test_nobody_puts_events_of_a_source_of_another() -> None:
    bench = Bench()
    answer = await bench.call(ENTRY, scope=CUSTOMER)
    assert answer["Entries"] == [
        {"ErrorCode": "NotAuthorizedForSourceException", "ErrorMessage": "Not authorized for the source."}
    ]
    assert bench.put_on == []


async def test_a_request_that_is_too_large_is_refused_whole() -> None:
    bench = Bench()
    entry = {**ENTRY, "Detail": '{"a":"' + "x" * 500 + '"}'}
    with pytest.raises(ApiError, match=r"Total size of the entries in the request is over the limit\."):
        await bench.call(entry, entry)
    counts = bench.metrics.partners
    assert (counts.PutPartnerEventsApproximateCallCount, counts.PutPartnerEventsApproximateFailedCount) == (1, 1)
    assert (counts.PutPartnerEventsApproximateSuccessCount, counts.PutPartnerEventsEntriesCount) == (0, 0)


def test_a_request_refused_before_is_counted() -> None:
    bench = Bench()
    bench.partner_events.refused(None)
    counts = bench.metrics.partners
    assert (counts.PutPartnerEventsApproximateCallCount, counts.PutPartnerEventsApproximateFailedCount) == (1, 1)
