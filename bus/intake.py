"""Intake: what the entries of a request of PutEvents come to, before anything is stored.

Theory of operation. What the bus, source and detail-type of an entry say about it is looked up (`bus.event_kinds`), and
so is what its request shares (`bus.put_request`). Neighbours with the same three are looked at together: most of them
are nothing but a short detail, which is matched, found to be JSON by that, and put on its straight way in one small
loop (`_take_alike`). An entry with anything else about it is looked at by itself (`_take`), with the same result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol

from msgspec import MsgspecError

from bus.accepted import Accepted, Luggage, pack
from bus.arrival import Arrival
from bus.bus_logs import BusLogs
from bus.clock import IdSource
from bus.entries import Entry
from bus.errors import validation
from bus.event_kinds import Bus, BusView, EventKind, Selection, Views
from bus.put_request import PutRequest, Received, Way, is_message
from bus.scope import Call, Scope
from bus.store import Appended, message_rows
from bus.targets import Route
from rules.event import (
    MALFORMED_DETAIL,
    MISSING_DETAIL,
    EntryFault,
    EventTimeError,
    extra_size,
    format_time,
    resolve_escapes,
    utf8_length,
)
from rules.flatten import EventError

TOO_LARGE = "Total size of the entries in the request is over the limit."

Name = tuple[str | None, str | None, str | None]
"""Of a bus, a source and a detail-type, as an entry has them."""

_name_of: Callable[[Entry], Name] = attrgetter("EventBusName", "Source", "DetailType")

_UNREADABLE = (EventError, MsgspecError, RecursionError, UnicodeError)
"""What matching says to a detail that has to be looked at more closely."""


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


class Intake:
    """Looks at entries. ``find_bus`` answers None for a bus that is not there."""

    def __init__(
        self,
        ids: IdSource,
        views: Views,
        *,
        find_bus: Callable[[Scope, str | None], Bus | None],
        admission: Admission | None,
        dispatch: Dispatcher,
        logs: BusLogs,
        max_bytes: int,
    ) -> None:
        self._ids = ids
        self._views = views
        self._find_bus = find_bus
        self._admission = admission or _NobodyElse()
        self._dispatch = dispatch
        self._logs = logs
        self._max_bytes = max_bytes
        self._ways: dict[Selection, Way | None] = {}

    def read(self, request: PutRequest, entries: Sequence[Entry]) -> None:
        """Look at every entry of a request; ApiError when it is refused as a whole."""
        ids = iter(self._ids.several(len(entries)))
        for name, alike in groupby(entries, _name_of):
            kind = request.kinds.get(name) or self._kind(request, name)
            self._take_alike(request, kind, alike, ids)
        if request.size > self._max_bytes:
            raise validation(TOO_LARGE)

    def _kind(self, request: PutRequest, name: Name) -> EventKind:
        """The kind of some entries of a request, once it is known that they may be put on their bus.

        ApiError when they may not, which refuses the whole request.
        """
        bus, source, detail_type = name
        view = request.views.get(bus) or self._look_up(request, bus)
        if view.asks:
            self._admission.put(request.call, view.bus, source, detail_type)
        kind = request.kinds[name] = view.kind(source, detail_type)
        return kind

    def _look_up(self, request: PutRequest, name: str | None) -> BusView:
        bus = self._find_bus(request.call.scope, name) or self._admission.reach(request.call, name)
        view = request.views[name] = self._views.of(bus)
        return view

    def _take_alike(self, request: PutRequest, kind: EventKind, entries: Iterable[Entry], ids: Iterator[str]) -> None:
        """Entries of one kind: their answers, size and what is to be stored of them are added to ``request``."""
        match = kind.match_plain if request.plain and not self._logs.buses else None
        middle = b"" if match is None else kind.plain_middle(request.time, request.call.scope)
        if not is_message(middle):
            match = None
        results, own_size = request.results, kind.size
        size = 0
        known: Sequence[Any] = ()
        way: Way | None = None
        for entry, event_id in zip(entries, ids, strict=False):
            text = entry.Detail or ""
            if (
                match is None
                or text[:1] != "{"
                or len(text) > message_rows.LONGEST_LOOSE
                or entry.Time is not None
                or entry.Resources
                or entry.TraceHeader is not None
            ):
                results.append(self._take(request, kind, entry, event_id))
                continue
            try:
                detail = resolve_escapes(text) if "\\" in text else text.encode()
                found = match(detail)
            except _UNREADABLE:
                results.append(self._take(request, kind, entry, event_id))
                continue
            size += own_size + (len(text) if text.isascii() else utf8_length(text))
            result = {"EventId": event_id}
            results.append(result)
            if not found:
                continue
            if found is not known:
                known, way = found, self._way(kind, kind.plain_selection(found))
            rows = [] if way is None else way.rows(event_id, middle, detail, message_rows.LOOSE)
            if way is not None and rows:
                request.go(way, rows, result)
            else:
                event = Arrival(event_id, request.time, kind.source, kind.detail_type, text, (), request.call.scope)
                self._keep(request, kind, event, found, None, result)
        request.size += size

    def _take(self, request: PutRequest, kind: EventKind, entry: Entry, event_id: str) -> dict[str, Any]:
        """The same for one entry, of which anything may be unusual; its answer."""
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
        if kind.view.bus is None:
            request.dropped += 1
        elif found or request.watched or self._logs.buses:
            self._keep(request, kind, event, found, entry.TraceHeader, result)
        return result

    def _keep(
        self,
        request: PutRequest,
        kind: EventKind,
        event: Arrival,
        names: Sequence[Any],
        trace: str | None,
        result: dict[str, Any],
    ) -> None:
        """An event that matched the rules of these names, if there is anything to be done about it."""
        view, selection = kind.view, kind.select(names, event)
        assert view.bus is not None
        if not (selection.rules or request.watched or self._logs.tell_of(view.bus.scope, view.bus.name)):
            return
        way = self._way(kind, selection) if request.plain and trace is None else None
        if way is not None and is_message(middle := kind.middle(event)):
            rows = way.rows(event.event_id, middle, *event.message_part())
            if rows:
                request.go(way, rows, result)
                return
        luggage, body = request.luggage(trace), kind.envelope(event)
        request.taken.append(self.received(view, kind, selection, event, request.ms, luggage, result, body))

    def _way(self, kind: EventKind, selection: Selection) -> Way | None:
        """The straight way for events of a kind that matched these rules, if there is one."""
        if self._logs.buses:
            return None
        if not self._ways:  # what changes in the same turn as an event comes is concurrent with it
            asyncio.get_running_loop().call_soon(self._ways.clear)
        try:
            return self._ways[selection]
        except KeyError:
            straight = self._dispatch.straight(selection.routes)
            way = None if straight is None else Way(kind.source, selection, straight, self._ids)
            self._ways[selection] = way
            return way

    def received(
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
