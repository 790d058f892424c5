"""PutPartnerEvents: a partner's events, each to the bus that the customer of its source made for it.

An entry is checked as one of PutEvents is. Those of a source that is not the caller's are refused; those of a source
that is pending are accepted and lost, as the customer has not asked for them, and counted. The events of one request
that go to one bus are stored together or not at all; the answer is made when all of them are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Any, Protocol

import msgspec
import structlog

from bus.arrival import Arrival, Envelope
from bus.clock import Clock, IdSource
from bus.errors import StoreError, validation
from bus.ingest import NOT_STORED
from bus.intake import TOO_LARGE
from bus.metrics import Metrics
from bus.scope import Call, Scope
from rules.event import (
    NOT_AUTHORIZED_SOURCE,
    EntryFault,
    EventTimeError,
    check_entry,
    compact_detail,
    entry_size,
    format_time,
)

log = structlog.get_logger("partner_events")

ACTIVE = "ACTIVE"

Group = list[tuple[Arrival, dict[str, Any]]]
"""Events for one bus, each with its result."""


class Put(Protocol):
    """Puts events on a bus; see `bus.ingest.Ingest.put`."""

    async def __call__(self, scope: Scope, bus_name: str, arrivals: Iterable[Arrival]) -> bool: ...


class PartnerEvents:
    """The operation. ``destination`` says where the events of a partner's source go, and in what state it is."""

    def __init__(
        self,
        clock: Clock,
        ids: IdSource,
        *,
        metrics: Metrics,
        destination: Callable[[Scope, str], tuple[Scope, str] | None],
        put: Put,
        max_bytes: int,
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._metrics = metrics
        self._destination = destination
        self._put = put
        self._max_bytes = max_bytes

    async def put_partner_events(self, call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
        """Put up to twenty events; each entry is answered in its place."""
        started = perf_counter()
        counts = self._metrics.partners
        counts.PutPartnerEventsApproximateCallCount += 1
        entries = request["Entries"]
        self._check_size(entries)
        now = format_time(self._clock.now_ms() / 1000)
        groups: dict[tuple[Scope, str], Group] = {}
        results = [self._take(call.scope, entry, now, groups) for entry in entries]
        await asyncio.gather(*(self._commit(*place, group) for place, group in groups.items()))
        failed = sum(1 for result in results if "EventId" not in result)
        counts.PutPartnerEventsApproximateSuccessCount += 1
        counts.PutPartnerEventsEntriesCount += len(entries)
        counts.PutPartnerEventsFailedEntriesCount += failed
        self._metrics.partner_latency.observe((perf_counter() - started) * 1000)
        return {"FailedEntryCount": failed, "Entries": results}

    def refused(self, request: Mapping[str, Any] | None) -> None:
        """Count a request that was refused as a whole before it came here."""
        self._metrics.partners.PutPartnerEventsApproximateCallCount += 1
        self._metrics.partners.PutPartnerEventsApproximateFailedCount += 1

    def _check_size(self, entries: list[dict[str, Any]]) -> None:
        if sum(map(entry_size, entries)) > self._max_bytes:
            self._metrics.partners.PutPartnerEventsApproximateFailedCount += 1
            raise validation(TOO_LARGE)

    def _take(
        self, partner: Scope, entry: Mapping[str, Any], now: str, groups: dict[tuple[Scope, str], Group]
    ) -> dict[str, Any]:
        """One entry: its result, with its event added to those for the same bus."""
        fault = check_entry(entry, by_source=True)
        place = None if fault is not None else self._destination(partner, entry["Source"])
        if place is None:
            return _refusal(fault or NOT_AUTHORIZED_SOURCE)
        try:
            time = now if entry.get("Time") is None else format_time(entry["Time"])
        except EventTimeError as error:
            return _refusal(EntryFault("InvalidArgument", f"Parameter Time is not valid. Reason: {error}"))
        customer, state = place
        result = {"EventId": self._ids.new()}
        if state == ACTIVE:
            arrival = _arrival(result["EventId"], time, entry, customer)
            groups.setdefault((customer, entry["Source"]), []).append((arrival, result))
        else:
            self._metrics.partners.DroppedPendingSource += 1
        return result

    async def _commit(self, customer: Scope, bus: str, group: Group) -> None:
        """Store the events for one bus; when the disk refuses, their entries say so and can be sent again."""
        try:
            there = await self._put(customer, bus, [arrival for arrival, _ in group])
        except StoreError as error:
            log.error("events refused: they could not be stored", reason=str(error), events=len(group))
            for _, result in group:
                result.clear()
                result.update(NOT_STORED)
            return
        for _ in group:
            if there:
                self._metrics.partner_event(bus)
            else:  # deleted a moment ago, so that its source is pending
                self._metrics.partners.DroppedPendingSource += 1


def _arrival(event_id: str, time: str, entry: Mapping[str, Any], customer: Scope) -> Arrival:
    """The event as the customer's rules see it; account and region are the customer's."""
    detail = msgspec.Raw(compact_detail(entry["Detail"]) or b"{}")
    envelope = Envelope(
        event_id, entry["Source"], customer.account, time, customer.region, detail, entry["DetailType"],
        list(entry.get("Resources") or ()),
    )  # fmt: skip
    return Arrival.of_envelope(envelope, event_id, time)


def _refusal(fault: EntryFault) -> dict[str, Any]:
    return {"ErrorCode": fault.code, "ErrorMessage": fault.message}
