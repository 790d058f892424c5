"""PutEvents: check, match, commit, answer; and the same way in for events that come from inside.

Theory of operation. `put_events` looks at every entry once: `check_entry` validates it, the bus's
`RuleSet` says which rules match, and only an event that some rule's target wants is rendered and
stored, because an event nobody waits for has nothing left that could be lost. The events of one
request are one `append`, so they share a forced write with every other request of the same turn of
the loop. The answer is made from what the commit returned, never before it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from secrets import token_hex
from time import perf_counter
from typing import Any, Protocol

import structlog

from bus.accepted import LEASE_MS, NOTHING, Accepted, Luggage, pack
from bus.arrival import Arrival, open_envelope
from bus.bus_logs import BusLogs, silent
from bus.clock import Clock, IdSource
from bus.errors import StoreError, validation
from bus.metrics import Metrics
from bus.scope import Call, Scope
from bus.store import Append, Appended, Store
from bus.targets import Route
from rules.event import (
    EventTimeError,
    check_entry,
    entry_size,
    format_time,
    load_json,
)
from rules.index import MatchIndex
from rules.states import receives
from rules.trace import normalise

log = structlog.get_logger("ingest")

TOO_LARGE = "Total size of the entries in the request is over the limit."
NOT_STORED = {
    "ErrorCode": "InternalFailure",
    "ErrorMessage": "Service encountered unexpected problem. Please try again.",
}


class Bus(Protocol):
    """What ingest needs of an event bus."""

    @property
    def number(self) -> int: ...
    @property
    def name(self) -> str: ...


class Rule(Protocol):
    """What ingest needs of a rule."""

    @property
    def name(self) -> str: ...
    @property
    def arn(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def routes(self) -> Iterable[Route]: ...


class RuleSet(Protocol):
    """The rules of one bus with their index, as one snapshot."""

    @property
    def index(self) -> MatchIndex[Any]: ...
    def rule(self, name: Any) -> Rule: ...


ThroughEndpoint = Callable[[Call, Mapping[str, Any]], Coroutine[Any, Any, dict[str, Any]]]
"""PutEvents with an EndpointId; see `bus.endpoint_entry`."""

Choose = Callable[[list[Rule]], list[Rule]]
"""Makes the rules that receive an event from those that match it."""


class Dispatcher(Protocol):
    """How deliveries come to be; see `bus.dispatch.Dispatch`."""

    def plan(self, event: Accepted, routes: Iterable[Route]) -> Any:
        """What has to be stored with the event: ``deliveries`` and ``messages``."""
        ...

    def accepted(self, event: Accepted, plan: Any, appended: Appended) -> None: ...


class Ingest:
    """Takes events in.

    ``find_bus`` answers None for a bus that is not there; ``rule_set`` gives the rules of a bus by
    its number; ``watch`` is called with the bus and the envelope of every accepted event while
    ``watched`` says that someone is looking.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: IdSource,
        *,
        metrics: Metrics,
        find_bus: Callable[[Scope, str | None], Bus | None],
        rule_set: Callable[[int], RuleSet],
        dispatch: Dispatcher,
        max_bytes: int,
        watched: Callable[[], bool] = lambda: False,
        watch: Callable[[Scope, str, bytes], None] = lambda scope, bus, event: None,
        logs: BusLogs | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._metrics = metrics
        self._find_bus = find_bus
        self._rule_set = rule_set
        self._dispatch = dispatch
        self._max_bytes = max_bytes
        self._watched = watched
        self._watch = watch
        self._logs = logs or silent(clock)
        self.through_endpoint: ThroughEndpoint | None = None
        """Set once by the composition root; it comes back here with the region's own bus."""

    # -- PutEvents

    async def put_events(self, call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
        """Put up to ten events on their buses; each entry is answered in its place."""
        if self.through_endpoint is not None and request.get("EndpointId") is not None:
            return await self.through_endpoint(call, request)
        started = perf_counter()
        counts = self._metrics.requests
        counts.PutEventsApproximateCallCount += 1
        entries = request["Entries"]
        self._check_size(entries)
        pending: list[_Received] = []
        instant = _Instant(self._clock.now_ms())
        results = [self._take(call, entry, instant, pending) for entry in entries]
        if pending:
            await self._commit(pending)
        failed = sum(1 for result in results if "EventId" not in result)
        counts.PutEventsApproximateSuccessCount += 1
        counts.PutEventsEntriesCount += len(entries)
        counts.PutEventsFailedEntriesCount += failed
        self._metrics.put_latency.observe((perf_counter() - started) * 1000)
        return {"FailedEntryCount": failed, "Entries": results}

    def refused(self, request: Mapping[str, Any] | None) -> None:
        """Count a request that was refused as a whole before it came to `put_events`."""
        counts = self._metrics.requests
        counts.PutEventsApproximateCallCount += 1
        counts.PutEventsApproximateFailedCount += 1
        if request is not None:
            self._metrics.put_size.observe(sum(map(entry_size, request.get("Entries") or ())))

    def _check_size(self, entries: list[dict[str, Any]]) -> None:
        size = sum(map(entry_size, entries))
        self._metrics.put_size.observe(size)
        if size > self._max_bytes:
            self._metrics.requests.PutEventsApproximateFailedCount += 1
            raise validation(TOO_LARGE)

    def _take(
        self, call: Call, entry: Mapping[str, Any], instant: _Instant, pending: list[_Received]
    ) -> dict[str, Any]:
        """One entry: its answer, with what is to be stored added to ``pending``."""
        fault = check_entry(entry)
        if fault is not None:
            return {"ErrorCode": fault.code, "ErrorMessage": fault.message}
        time = instant.text
        if entry.get("Time") is not None:
            try:
                time = format_time(entry["Time"])
            except EventTimeError as error:
                return {"ErrorCode": "InvalidArgument", "ErrorMessage": f"Parameter Time is not valid. Reason: {error}"}
        event_id = self._ids.new()
        result = {"EventId": event_id}
        bus = self._find_bus(call.scope, entry.get("EventBusName"))
        if bus is None:
            self._metrics.requests.DroppedNoSuchBus += 1
            return result
        arrival = Arrival(event_id, time, entry, call.scope)
        rules = self._match(bus, arrival)
        if rules or self._watched() or (self._logs.buses and (call.scope, bus.name) in self._logs.buses):
            trace = entry.get("TraceHeader") or call.trace
            luggage = NOTHING if trace is None else Luggage(trace=normalise(trace, _new_root(instant.ms)))
            event = Accepted(event_id, bus.number, instant.ms, arrival.envelope(), luggage, pack(luggage))
            self._receive(_Received(call.scope, bus.name, arrival.source, rules, event, result), pending)
        return result

    async def _commit(self, pending: list[_Received]) -> None:
        """Store what was taken; when the disk refuses, the entries concerned say so and can be sent again."""
        try:
            await self._store_all(pending)
        except StoreError as error:
            log.error("events refused: they could not be stored", reason=str(error), events=len(pending))
            for received in pending:
                received.result.clear()
                received.result.update(NOT_STORED)
                self._logs.refused(received.scope, received.bus, received.event, str(error))

    # -- from inside

    async def forward(self, scope: Scope, bus_name: str, event: bytes, *, new_identity: bool, luggage: Luggage) -> bool:
        """Put an event of another bus on this one; False when the bus is not there.

        With ``new_identity`` it gets an id and a time of its own, as an event that crosses into
        another region does. Raises StoreError when it could not be stored.
        """
        bus = self._find_bus(scope, bus_name)
        if bus is None:
            return False
        envelope = open_envelope(event)
        instant = _Instant(self._clock.now_ms())
        if new_identity:
            arrival = Arrival.of_envelope(envelope, self._ids.new(), instant.text)
            event = arrival.envelope()
        else:
            arrival = Arrival.of_envelope(envelope, envelope.id, envelope.time)
        accepted = Accepted(arrival.event_id, bus.number, instant.ms, event, luggage, pack(luggage))
        pending: list[_Received] = []
        received = _Received(scope, bus.name, arrival.source, self._match(bus, arrival), accepted, {})
        self._receive(received, pending)
        if pending:
            await self._store_all(pending)
        return True

    async def put(
        self,
        scope: Scope,
        bus_name: str,
        arrivals: Iterable[Arrival],
        *,
        luggage: Luggage = NOTHING,
        choose: Choose = lambda rules: rules,
    ) -> bool:
        """Put events of the bus's own making (replayed, scheduled, a service's) on a bus; False when it is not there.

        ``choose`` makes the rules that receive an event from those that match it. All of them are stored or none:
        raises StoreError when they could not be.
        """
        bus = self._find_bus(scope, bus_name)
        if bus is None:
            return False
        now = self._clock.now_ms()
        pending: list[_Received] = []
        for arrival in arrivals:
            rules = choose(self._match(bus, arrival))
            event = Accepted(arrival.event_id, bus.number, now, arrival.envelope(), luggage, pack(luggage))
            self._receive(_Received(scope, bus.name, arrival.source, rules, event, {}), pending)
        if pending:
            await self._store_all(pending)
        return True

    # -- shared

    def _match(self, bus: Bus, arrival: Arrival) -> list[Rule]:
        """The rules that receive the event."""
        rules = self._rule_set(bus.number)
        names = rules.index.match_parts(arrival.source, arrival.detail_type, arrival.fields, arrival.detail_bytes)
        found = []
        for name in names:
            rule = rules.rule(name)
            if receives(rule.state, arrival.detail_type, lambda: load_json(arrival.detail_bytes())):
                found.append(rule)
        return found

    def _receive(self, received: _Received, pending: list[_Received]) -> None:
        """Let the dispatcher plan what has to be stored; an event that nobody waits for is done with at once."""
        routes = [route for rule in received.rules for route in rule.routes]
        if routes:
            received.plan = self._dispatch.plan(received.event, routes)
            pending.append(received)
        else:
            self._accepted(received)

    async def _store_all(self, pending: list[_Received]) -> None:
        appends = [received.append() for received in pending]
        appended = await self._store.append(appends, lease_until=pending[0].event.ts + LEASE_MS)
        for received, stored in zip(pending, appended, strict=True):
            self._accepted(received)
            self._dispatch.accepted(received.event, received.plan, stored)

    def _accepted(self, received: _Received) -> None:
        """The event is taken for good: count what it matched, and show it to whoever looks."""
        if received.rules:
            self._metrics.matched_event(received.source)
            for rule in received.rules:
                counts = self._metrics.rule(received.scope, received.bus, rule.name)
                counts.MatchedEvents += 1
                counts.TriggeredRules += 1
        if self._watched():
            self._watch(received.scope, received.bus, received.event.body)
        if self._logs.buses:
            self._logs.accepted(received.scope, received.bus, received.event, received.rules)


class _Received:
    """An event between being matched and being stored."""

    __slots__ = ("bus", "event", "plan", "result", "rules", "scope", "source")

    def __init__(
        self, scope: Scope, bus: str, source: str, rules: list[Rule], event: Accepted, result: dict[str, Any]
    ) -> None:
        self.scope = scope
        self.bus = bus
        self.source = source
        self.rules = rules
        self.event = event
        self.result = result
        self.plan: Any = None

    def append(self) -> Append:
        event, plan = self.event, self.plan
        return Append(event.bus, event.event_id, event.ts, event.body, event.attrs, plan.deliveries, plan.messages)


class _Instant:
    """When a request came in, as a number and as events show it."""

    __slots__ = ("ms", "text")

    def __init__(self, ms: int) -> None:
        self.ms = ms
        self.text = format_time(ms / 1000)


def _new_root(now: int) -> Callable[[], str]:
    return lambda: f"1-{now // 1000:08x}-{token_hex(12)}"
