"""PutEvents: check, match, commit, answer; and the same way in for events that come from inside.

Theory of operation. `put_entries` looks at every entry once. What its bus, source and detail-type say
about it is looked up (`bus.event_kinds`); its detail is validated and matched in one reading; and only
an event that some rule's target wants is rendered and stored, because an event nobody waits for has
nothing left that could be lost. What the events of one request come to is handed over at once, so that
it shares a forced write with every other request of the same turn of the loop. The answer is made from
what the commit returned, never before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import repeat
from time import perf_counter
from typing import Any, Protocol

import msgspec
import structlog

from bus.accepted import LEASE_MS, NOTHING, Accepted, Luggage, pack
from bus.arrival import Arrival, open_envelope
from bus.bus_logs import BusLogs, silent
from bus.clock import Clock, IdSource
from bus.entries import Entry
from bus.errors import ApiError, StoreError, validation
from bus.event_kinds import Bus, BusView, EventKind, Rule, RuleSet, Selection
from bus.metrics import Metrics
from bus.put_request import PutRequest, Received
from bus.scope import Call, Scope
from bus.store import Appended, Store
from bus.targets import Route
from rules.event import (
    MALFORMED_DETAIL,
    MISSING_DETAIL,
    EntryFault,
    EventTimeError,
    entry_size,
    extra_size,
    format_time,
    utf8_length,
)

log = structlog.get_logger("ingest")

TOO_LARGE = "Total size of the entries in the request is over the limit."
MOST_VIEWS = 1024
"""Views kept. Any region that a caller signs for has a default bus, and buses come and go; when there are more, all are
made anew as they are needed."""

NOT_STORED = {
    "ErrorCode": "InternalFailure",
    "ErrorMessage": "Service encountered unexpected problem. Please try again.",
}


ThroughEndpoint = Callable[[Call, Mapping[str, Any]], Coroutine[Any, Any, dict[str, Any]]]
"""PutEvents with an EndpointId; see `bus.endpoints.entry`."""

Choose = Callable[[list[Rule]], list[Rule]]
"""Makes the rules that receive an event from those that match it."""


class Admission(Protocol):
    """Who may put events on which bus; see `bus.permissions.admission.Admission`. Both raise AccessDeniedException."""

    def reach(self, call: Call, name: str | None) -> Bus | None:
        """The bus of another account under that name, None where the name is not one of another account's."""
        ...

    def put(self, call: Call, bus: Any, source: str | None, detail_type: str | None) -> None:
        """Let an entry onto a bus that has a policy, whoever's it is."""
        ...


class _NobodyElse:
    """Admission to the own account's buses."""

    def reach(self, call: Call, name: str | None) -> Bus | None:
        return None

    def put(self, call: Call, bus: Any, source: str | None, detail_type: str | None) -> None:
        """Nothing is asked."""


class Dispatcher(Protocol):
    """How deliveries come to be; see `bus.dispatch.Dispatch`."""

    def plan(self, event: Accepted, routes: Iterable[Route]) -> Any:
        """What has to be stored with the event: ``deliveries``, ``messages`` and ``archives``."""
        ...

    def accepted(self, events: Sequence[tuple[Accepted, Any, Appended]]) -> None:
        """All of these events are stored."""
        ...

    def straight(self, routes: Iterable[Route]) -> Any:
        """What events come to that need no plan, as ``slots``; None where each needs one."""
        ...

    def went_straight(self, straight: Any, number: int, ts: int) -> None:
        """So many events, accepted at ``ts`` (ms), are stored that needed no plan."""
        ...


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
        admission: Admission | None = None,
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
        self._admission = admission or _NobodyElse()
        self._watched = watched
        self._watch = watch
        self._views: dict[int, BusView] = {}
        self._no_bus = BusView(None, None, metrics)
        self._logs = logs or silent(clock)
        self._under_way: set[asyncio.Task[None]] = set()
        self._straights: dict[Selection, Any] = {}
        self.through_endpoint: ThroughEndpoint | None = None
        """Set once by the composition root; it comes back here with the region's own bus."""

    # -- PutEvents

    async def put_events(self, call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
        """Put up to ten events on their buses; each entry is answered in its place."""
        if self.through_endpoint is not None and request.get("EndpointId") is not None:
            return await self.through_endpoint(call, request)
        return await self.put_entries(call, [Entry.of(members) for members in request["Entries"]])

    async def put_entries(self, call: Call, entries: Sequence[Entry]) -> dict[str, Any]:
        """The same with entries that have been read already."""
        request = PutRequest(call, self._clock.now_ms(), self._ids, watched=self._watched())
        try:
            self._read(request, entries)
        except ApiError:
            self._metrics.requests.PutEventsApproximateCallCount += 1
            self._metrics.requests.PutEventsApproximateFailedCount += 1
            self._metrics.put_size.observe(sum(entry_size(msgspec.structs.asdict(entry)) for entry in entries))
            raise
        if request.taken or request.rows:
            await self._commit(request)
        return self._answer(request)

    def put_soon(
        self, call: Call, entries: Sequence[Entry], done: Callable[[dict[str, Any] | Exception], None]
    ) -> bool:
        """The same for one who does not wait: ``done`` gets the answer, or what went wrong in storing.

        False, with nothing done, for a request that is refused; `put_entries` says why.
        """
        request = PutRequest(call, self._clock.now_ms(), self._ids, watched=self._watched())
        try:
            self._read(request, entries)
        except ApiError:
            return False
        try:
            self._hand_over(request, done)
        except Exception as error:  # something may have come of it, so that it must not be tried again
            done(error)
        return True

    def _hand_over(self, request: PutRequest, done: Callable[[dict[str, Any] | Exception], None]) -> None:
        """Have a request stored and ``done`` called."""
        if request.taken:
            task = asyncio.get_running_loop().create_task(self._commit(request))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            task.add_done_callback(lambda ended: done(_error(ended) or self._answer(request)))
        elif request.rows:
            self._send(request, lambda error: done(error or self._answer(request)))
        else:
            done(self._answer(request))

    def _read(self, request: PutRequest, entries: Sequence[Entry]) -> None:
        """Look at every entry; ApiError when the request as a whole is refused."""
        ids = self._ids.several(len(entries))
        request.results = [self._take(request, entry, event_id) for entry, event_id in zip(entries, ids, strict=True)]
        if request.size > self._max_bytes:
            raise validation(TOO_LARGE)

    def _answer(self, request: PutRequest) -> dict[str, Any]:
        """The answer to a request of which everything is stored or refused; it is counted with it."""
        results = request.results
        failed = sum(["EventId" not in result for result in results])
        counts = self._metrics.requests
        counts.PutEventsApproximateCallCount += 1
        counts.PutEventsApproximateSuccessCount += 1
        counts.PutEventsEntriesCount += len(results)
        counts.PutEventsFailedEntriesCount += failed
        counts.DroppedNoSuchBus += request.dropped
        self._metrics.put_size.observe(request.size)
        self._metrics.put_latency.observe((perf_counter() - request.started) * 1000)
        return {"FailedEntryCount": failed, "Entries": results}

    def refused(self, request: Mapping[str, Any] | None) -> None:
        """Count a request that was refused as a whole before it came to `put_events`."""
        counts = self._metrics.requests
        counts.PutEventsApproximateCallCount += 1
        counts.PutEventsApproximateFailedCount += 1
        if request is not None:
            self._metrics.put_size.observe(sum(map(entry_size, request.get("Entries") or ())))

    def _take(self, request: PutRequest, entry: Entry, event_id: str) -> dict[str, Any]:
        """One entry: its answer, with its size and what is to be stored of it added to ``request``.

        ApiError when it may not be put on its bus, which refuses the whole request.
        """
        name = (entry.EventBusName, entry.Source, entry.DetailType)
        kind = request.kinds.get(name) or self._kind(request, *name)
        view = kind.view
        text = entry.Detail or ""
        request.size += kind.size + (len(text) if text.isascii() else utf8_length(text))
        time, late_fault = request.time, kind.refused
        if entry.Time is not None or entry.Resources:
            request.size += extra_size(entry.Time, entry.Resources)
            time, late_fault = _time_of(entry, time, late_fault)
        if kind.missing is not None or not text:
            return _refusal(kind.missing or MISSING_DETAIL)
        event = Arrival(event_id, time, kind.source, kind.detail_type, text, entry.Resources or (), request.call.scope)
        found = kind.match(event)
        if found is None or late_fault is not None:
            return _refusal(MALFORMED_DETAIL if found is None else late_fault)
        result = {"EventId": event_id}
        if view.bus is None:
            request.dropped += 1
        elif found or request.watched or self._logs.buses:
            selection = kind.select(found, event)
            if selection.rules or request.watched or self._logs.tell_of(view.bus.scope, view.bus.name):
                plain = request.plain and entry.TraceHeader is None
                if not (plain and request.goes_straight(event, result, kind, selection, self._straight)):
                    luggage = request.luggage(entry.TraceHeader)
                    body = kind.envelope(event)
                    request.taken.append(
                        self._received(view, kind, selection, event, request.ms, luggage, result, body)
                    )
        return result

    def _straight(self, selection: Selection) -> Any:
        """Whether events of a selection need no plan; see `Dispatcher.straight`."""
        if self._logs.buses:
            return None
        if not self._straights:  # what is found holds for all that came in the same turn
            asyncio.get_running_loop().call_soon(self._straights.clear)
        if selection not in self._straights:
            self._straights[selection] = self._dispatch.straight(selection.routes)
        return self._straights[selection]

    def _kind(self, request: PutRequest, bus: str | None, source: str | None, detail_type: str | None) -> EventKind:
        """The kind of some entries of a request, once it is known that they may be put on their bus."""
        view = request.views.get(bus) or self._look_up(request, bus)
        if view.asks:
            self._admission.put(request.call, view.bus, source, detail_type)
        kind = request.kinds[bus, source, detail_type] = view.kind(source, detail_type)
        return kind

    def _look_up(self, request: PutRequest, name: str | None) -> BusView:
        bus = self._find_bus(request.call.scope, name) or self._admission.reach(request.call, name)
        view = request.views[name] = self._view(bus)
        return view

    async def _commit(self, request: PutRequest) -> None:
        """Store what was taken; when the disk refuses, the entries concerned say so and can be sent again."""
        sent: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        if request.rows:
            self._send(request, lambda error: None if sent.done() else sent.set_result(error))
        else:
            sent.set_result(None)
        try:
            await self._store_all(request.taken)
        except StoreError as error:
            waiting = [received for received in request.taken if received.plan is not None]
            _not_stored([received.result for received in waiting], error)
            for received in waiting:
                self._logs.refused(received.bus.scope, received.bus.name, received.event, str(error))
        unexpected = await sent
        if unexpected is not None:
            raise unexpected

    def _send(self, request: PutRequest, ended: Callable[[Exception | None], None]) -> None:
        """Store the events that go straight; ``ended`` gets an error when it is nothing that a client can be told."""
        ways = request.ways()

        def then() -> None:
            try:
                for way in ways:
                    way.count(self._metrics)
                    self._dispatch.went_straight(way.straight, len(way.results), request.ms)
            finally:  # it is stored: who waits must hear of that
                ended(None)

        def failed(error: Exception) -> None:
            if isinstance(error, StoreError):
                _not_stored([result for way in ways for result in way.results], error)
                ended(None)
            else:
                ended(error)

        queues = {slot.queue for way in ways for slot in way.straight.slots}
        self._store.send(request.rows, queues, then=then, failed=failed)

    # -- from inside

    async def forward(self, scope: Scope, bus_name: str, event: bytes, *, new_identity: bool, luggage: Luggage) -> bool:
        """Put an event of another bus on this one; False when the bus is not there.

        With ``new_identity`` it gets an id and a time of its own, as an event that crosses into
        another region does. Raises StoreError when it could not be stored.
        """
        envelope = open_envelope(event)
        event_id, time = envelope.id, envelope.time
        if new_identity:
            event_id, time = self._ids.new(), format_time(self._clock.now_ms() / 1000)
        arrival = Arrival.of_envelope(envelope, event_id, time)
        return await self.put(scope, bus_name, [arrival], luggage=luggage, body=None if new_identity else event)

    async def put(
        self,
        scope: Scope,
        bus_name: str,
        arrivals: Iterable[Arrival],
        *,
        luggage: Luggage = NOTHING,
        choose: Choose | None = None,
        body: bytes | None = None,
        keys: Iterable[str | None] = repeat(None),
    ) -> bool:
        """Put events of the bus's own making (replayed, scheduled, a service's) on a bus; False when it is not there.

        ``choose`` makes the rules that receive an event from those that match it; ``body`` is the envelope, where it
        is at hand already. ``keys``, one for each event, let the store know an event that comes again within its
        window, which then does nothing. All of them are stored or none: raises StoreError when they could not be.
        """
        view = self._view(self._find_bus(scope, bus_name))
        if view.bus is None:
            return False
        now = self._clock.now_ms()
        taken = []
        for arrival, key in zip(arrivals, keys, strict=False):
            kind = view.kind(arrival.source, arrival.detail_type)
            selection = kind.select(kind.match(arrival) or (), arrival)
            if choose is not None:
                selection = view.selection(choose(list(selection.rules)))
            envelope = body or kind.envelope(arrival)
            taken.append(self._received(view, kind, selection, arrival, now, luggage, {}, envelope))
            taken[-1].key = key
        await self._store_all(taken)
        return True

    # -- shared

    def _view(self, bus: Bus | None) -> BusView:
        """The view of a bus as it is now."""
        if bus is None:
            return self._no_bus
        rules = self._rule_set(bus.number)
        view = self._views.get(bus.number)
        if view is None or view.rules is not rules or view.bus is not bus:
            if view is None and len(self._views) >= MOST_VIEWS:
                self._views.clear()
            view = self._views[bus.number] = BusView(bus, rules, self._metrics)
        return view

    def _received(
        self,
        view: BusView,
        kind: EventKind,
        selection: Selection,
        arrival: Arrival,
        now: int,
        luggage: Luggage,
        result: dict[str, Any],
        body: bytes,
    ) -> Received:
        """An event that somebody waits for or looks at, with what the dispatcher wants stored of it."""
        assert view.bus is not None
        event = Accepted(arrival.event_id, view.bus.number, now, body, luggage, pack(luggage))
        plan = self._dispatch.plan(event, selection.routes) if selection.routes else None
        return Received(view.bus, kind.source, selection, event, result, plan)

    async def _store_all(self, taken: list[Received]) -> None:
        """Store what somebody waits for; an event that nobody waits for is done with at once."""
        waiting = [received for received in taken if received.plan is not None]
        if len(waiting) < len(taken):
            for received in taken:
                if received.plan is None:
                    self._accepted(received)
        if not waiting:
            return
        rows, messages = [], []
        for received in waiting:
            if received.plan.deliveries or received.plan.archives or received.key is not None:
                rows.append(received)
            else:
                messages += received.plan.messages
        appends = [received.append() for received in rows]
        appended = await self._store.append(appends, messages=messages, lease_until=waiting[0].event.ts + LEASE_MS)
        for received, stored in zip(rows, appended, strict=True):
            received.stored = stored
        new = [received for received in waiting if not received.stored.duplicate]
        try:
            for received in new:
                self._accepted(received)
        finally:  # their deliveries are leased to the lanes: what goes wrong in telling of them must not strand them
            self._dispatch.accepted([(received.event, received.plan, received.stored) for received in new])

    def _accepted(self, received: Received) -> None:
        """The event is taken for good: count what it matched, and show it to whoever looks."""
        received.count(self._metrics)
        if self._watched():
            self._watch(received.bus.scope, received.bus.name, received.event.body)
        if self._logs.buses:
            bus = received.bus
            self._logs.accepted(bus.scope, bus.name, received.event, received.selection.rules)


def _time_of(entry: Entry, now: str, fault: EntryFault | None) -> tuple[str, EntryFault | None]:
    """The time of an event as its envelope shows it, and the fault that ``fault`` comes before."""
    if entry.Time is None:
        return now, fault
    try:
        return format_time(entry.Time), fault
    except EventTimeError as error:
        return now, fault or EntryFault("InvalidArgument", f"Parameter Time is not valid. Reason: {error}")


def _refusal(fault: EntryFault | None) -> dict[str, Any]:
    assert fault is not None
    return {"ErrorCode": fault.code, "ErrorMessage": fault.message}


def _not_stored(results: Sequence[dict[str, Any]], error: StoreError) -> None:
    """Say in these results that their entries were not stored."""
    log.error("events refused: they could not be stored", reason=str(error), events=len(results))
    for result in results:
        result.clear()
        result.update(NOT_STORED)


def _error(ended: asyncio.Task[None]) -> Exception | None:
    """What a task that has ended raised."""
    if ended.cancelled():
        return StoreError("the request was cancelled")
    error = ended.exception()
    return error if error is None or isinstance(error, Exception) else RuntimeError(repr(error))
