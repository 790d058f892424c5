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
from typing import Any

import msgspec
import structlog

from bus.accepted import LEASE_MS, NOTHING, Luggage
from bus.arrival import Arrival, open_envelope
from bus.bus_logs import BusLogs, silent
from bus.clock import Clock, IdSource
from bus.entries import Entry
from bus.errors import ApiError, StoreError
from bus.event_kinds import Bus, Rule, RuleSet, Views
from bus.intake import Admission, Dispatcher, Intake
from bus.metrics import Metrics
from bus.put_request import PutRequest, Received
from bus.scope import Call, Scope
from bus.store import Store
from rules.event import entry_size, format_time

log = structlog.get_logger("ingest")

NOT_STORED = {
    "ErrorCode": "InternalFailure",
    "ErrorMessage": "Service encountered unexpected problem. Please try again.",
}


ThroughEndpoint = Callable[[Call, Mapping[str, Any]], Coroutine[Any, Any, dict[str, Any]]]
"""PutEvents with an EndpointId; see `bus.endpoints.entry`."""

Choose = Callable[[list[Rule]], list[Rule]]
"""Makes the rules that receive an event from those that match it."""


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
        self._dispatch = dispatch
        self._watched = watched
        self._watch = watch
        self._logs = logs or silent(clock)
        self.views = Views(rule_set, metrics)
        self._intake = Intake(
            ids, self.views,
            find_bus=find_bus, admission=admission, dispatch=dispatch, logs=self._logs, max_bytes=max_bytes,
        )  # fmt: skip
        self._under_way: set[asyncio.Task[None]] = set()
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
        request = PutRequest(call, self._clock.now_ms(), watched=self._watched())
        try:
            self._intake.read(request, entries)
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
        request = PutRequest(call, self._clock.now_ms(), watched=self._watched())
        try:
            self._intake.read(request, entries)
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
        straight = request.straight

        def then() -> None:
            try:
                for way, results in straight.items():
                    way.count(self._metrics, len(results))
                    self._dispatch.went_straight(way.straight, len(results), request.ms)
            finally:  # it is stored: who waits must hear of that
                ended(None)

        def failed(error: Exception) -> None:
            if isinstance(error, StoreError):
                _not_stored([result for results in straight.values() for result in results], error)
                ended(None)
            else:
                ended(error)

        queues = {slot.queue for way in straight for slot in way.straight.slots}
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
        view = self.views.of(self._find_bus(scope, bus_name))
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
            taken.append(self._intake.received(view, kind, selection, arrival, now, luggage, {}, envelope))
            taken[-1].key = key
        await self._store_all(taken)
        return True

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
