"""PutEvents with an EndpointId: to the bus that is active, and a replica to the other one.

The entries go the way of every PutEvents, in the region that the endpoint points to now. With replication each
accepted event is put on the other bus too, before the answer: as an event that has crossed into another region, with
an id and a time of its own, the region it came from, and the endpoint's ARN among its resources. An answer of success
therefore means that the event is stored on both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from secrets import token_hex
from typing import Any, Protocol

import structlog

from bus.accepted import Luggage
from bus.arrival import Arrival
from bus.clock import Clock, IdSource
from bus.endpoints import Endpoint, absent
from bus.errors import ApiError, StoreError, validation
from bus.scope import Call, Scope
from rules.arn import DEFAULT_BUS
from rules.event import format_time
from rules.trace import normalise

log = structlog.get_logger("endpoints")

NOT_REPLICATED = {
    "ErrorCode": "InternalFailure",
    "ErrorMessage": "Service encountered unexpected problem. Please try again.",
}
CROSSED = (0, 1)
"""The hops of a replica: none within its region, one into another."""

PutEvents = Callable[[Call, dict[str, Any]], Coroutine[Any, Any, dict[str, Any]]]


class Put(Protocol):
    """Puts events of the bus's own making on a bus and returns when they are stored."""

    async def __call__(self, scope: Scope, bus_name: str, arrivals: list[Arrival], *, luggage: Luggage) -> object: ...


class EndpointEntry:
    """The way in through global endpoints.

    ``find`` gives an account's endpoint by its EndpointId; ``put_events`` is the ordinary PutEvents, ``put`` the way
    in for the replicas, and ``refused`` counts a request that is refused as a whole.
    """

    def __init__(
        self,
        clock: Clock,
        ids: IdSource,
        *,
        find: Callable[[str, str], Endpoint | None],
        put_events: PutEvents,
        put: Put,
        refused: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._find = find
        self._put_events = put_events
        self._put = put
        self._refused = refused

    async def __call__(self, call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
        """What PutEvents answers to a request that names an endpoint."""
        try:
            endpoint = self._endpoint(call, request)
        except ApiError:
            self._refused(request)
            raise
        origin, other = endpoint.active, endpoint.passive  # a change of state in between is for the next request
        entries = [{**entry, "EventBusName": endpoint.bus} for entry in request["Entries"]]
        answer = await self._put_events(replace(call, scope=origin), {"Entries": entries})
        if endpoint.replicates:
            taken = [
                (entry, result) for entry, result in zip(entries, answer["Entries"], strict=True) if "EventId" in result
            ]
            await asyncio.gather(*(self._replicate(call, endpoint, origin, other, *each) for each in taken))
            answer["FailedEntryCount"] = sum("EventId" not in result for result in answer["Entries"])
        return answer

    def _endpoint(self, call: Call, request: Mapping[str, Any]) -> Endpoint:
        endpoint = self._find(call.scope.account, request["EndpointId"])
        if endpoint is None:
            raise absent(request["EndpointId"])
        for entry in request["Entries"]:
            bus = entry.get("EventBusName") or DEFAULT_BUS
            if not endpoint.has_bus(bus):
                reason = f"Event bus {bus} is not one of endpoint {endpoint.name}."
                raise validation(f"Parameter EventBusName is not valid. Reason: {reason}")
        return endpoint

    async def _replicate(
        self,
        call: Call,
        endpoint: Endpoint,
        origin: Scope,
        other: Scope,
        entry: Mapping[str, Any],
        result: dict[str, Any],
    ) -> None:
        """Put one accepted entry on the other bus; an entry that cannot be is answered as failed, to be sent again."""
        now = self._clock.now_ms()
        resources = [*(entry.get("Resources") or ()), endpoint.arn]
        arrival = Arrival(
            self._ids.new(), format_time(now / 1000), entry["Source"], entry["DetailType"], entry["Detail"], resources,
            origin,
        )  # fmt: skip
        trace = entry.get("TraceHeader") or call.trace
        if trace is not None:
            trace = normalise(trace, lambda: f"1-{now // 1000:08x}-{token_hex(12)}")
        try:
            await self._put(other, endpoint.bus, [arrival], luggage=Luggage(trace, CROSSED))
        except StoreError as error:
            log.error("an event could not be replicated", endpoint=endpoint.arn, reason=str(error))
            result.clear()
            result.update(NOT_REPLICATED)
