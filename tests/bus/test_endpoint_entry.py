from __future__ import annotations

from typing import Any

import pytest

from bus.accepted import Luggage
from bus.arrival import Arrival
from bus.clock import IdSource, ManualClock
from bus.endpoints import Endpoint
from bus.endpoints.entry import EndpointEntry
from bus.errors import ApiError, StoreUnavailable
from bus.scope import Call, Scope

HOME = Scope("111111111111", "us-east-1")
AWAY = Scope("111111111111", "us-west-2")
BUSES = [{"EventBusArn": f"arn:aws:events:{scope.region}:{scope.account}:event-bus/b"} for scope in (HOME, AWAY)]
ENTRY = {"Source": "shop", "DetailType": "t", "Detail": '{"a": 1}', "EventBusName": "b"}


def endpoint(*, replication: str = "ENABLED", failed_over: bool = False) -> Endpoint:
    given = {
        "RoutingConfig": {"FailoverConfig": {"Primary": {"HealthCheck": "h"}, "Secondary": {"Route": AWAY.region}}},
        "ReplicationConfig": {"State": replication},
        "EventBuses": BUSES,
    }
    return Endpoint(HOME, "e", "abc.veo", 0, 0, given, failed_over)


class Rig:
    """An entry whose PutEvents refuses what has no Source, and whose replicas may fail to be stored."""

    def __init__(self, found: Endpoint, *, disk_full: bool = False) -> None:
        self.clock = ManualClock()
        self.put_to: list[tuple[Scope, Any]] = []
        self.replicas: list[tuple[Scope, str, Arrival, Luggage]] = []
        self.refused: list[Any] = []
        self._disk_full = disk_full
        self.entry = EndpointEntry(
            self.clock,
            IdSource(self.clock),
            find=lambda account, endpoint_id: found if (account, endpoint_id) == (HOME.account, "abc.veo") else None,
            put_events=self._put_events,
            put=self._put,
            refused=self.refused.append,
        )

    async def _put_events(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        self.put_to.append((call.scope, request))
        results = [{"EventId": "i"} if "Source" in entry else {"ErrorCode": "c"} for entry in request["Entries"]]
        return {"FailedEntryCount": sum("ErrorCode" in each for each in results), "Entries": results}

    async def _put(self, scope: Scope, bus_name: str, arrivals: list[Arrival], *, luggage: Luggage) -> bool:
        if self._disk_full:
            raise StoreUnavailable("full")
        self.replicas += [(scope, bus_name, arrival, luggage) for arrival in arrivals]
        return True

    async def put(self, *entries: dict[str, Any], endpoint_id: str = "abc.veo") -> dict[str, Any]:
        call = Call(Scope(HOME.account, "eu-west-1"), trace="Root=1-5759e988-bd862e3fe1be46a994272793")
        return await self.entry(call, {"EndpointId": endpoint_id, "Entries": list(entries)})


@pytest.mark.parametrize(("failed_over", "origin", "other"), [(False, HOME, AWAY), (True, AWAY, HOME)])
async def test_the_active_bus_gets_it_and_the_other_a_replica(failed_over: bool, origin: Scope, other: Scope) -> None:
    rig = Rig(endpoint(failed_over=failed_over))
    answer = await rig.put(ENTRY, {"EventBusName": BUSES[0]["EventBusArn"]})
    assert answer == {"FailedEntryCount": 1, "Entries": [{"EventId": "i"}, {"ErrorCode": "c"}]}
    assert rig.put_to == [(origin, {"Entries": [ENTRY, {"EventBusName": "b"}]})]
    ((scope, bus, arrival, luggage),) = rig.replicas
    assert (scope, bus) == (other, "b")
    assert (arrival.scope, arrival.resources) == (origin, [endpoint().arn])
    assert arrival.event_id != "i"
    assert luggage == Luggage("Root=1-5759e988-bd862e3fe1be46a994272793", (0, 1))


async def test_without_replication_there_is_one_event() -> None:
    rig = Rig(endpoint(replication="DISABLED"))
    await rig.put(ENTRY)
    assert (len(rig.put_to), rig.replicas) == (1, [])


async def test_a_replica_that_cannot_be_stored_fails_the_entry() -> None:
    rig = Rig(endpoint(), disk_full=True)
    answer = await rig.put(ENTRY, {"EventBusName": "b"})
    assert answer["FailedEntryCount"] == 2
    assert [each["ErrorCode"] for each in answer["Entries"]] == ["InternalFailure", "c"]


async def test_refusals_are_counted_and_nothing_is_put() -> None:
    rig = Rig(endpoint())
    for entry, endpoint_id in ((ENTRY, "other.veo"), ({**ENTRY, "EventBusName": "c"}, "abc.veo"), ({}, "abc.veo")):
        with pytest.raises(ApiError):
            await rig.put(entry, endpoint_id=endpoint_id)
    assert len(rig.refused) == 3
    assert rig.put_to == []
