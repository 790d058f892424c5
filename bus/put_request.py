"""One request of PutEvents while it is worked through: what its entries share, and what they come to.

Theory of operation. An event that somebody waits for is planned, which says what has to be stored with it (`Received`).
Most events for queues need none of that: they are put there as they came, and whether a queue takes them so is the same
for all events of a request, since nothing else runs while its entries are read. The dispatcher is asked once for each
selection of rules (`Way`), and of an event that goes that way nothing is kept but its body; after the commit there are
only numbers to add. All that is unusual is planned, with the same result: transformed inputs, FIFO queues, trace
headers, a queue that refuses, or someone who looks on.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from time import perf_counter
from typing import Any

import msgspec

from bus.accepted import NOTHING, Accepted, Luggage
from bus.arrival import Arrival
from bus.clock import ENDING, IdSource
from bus.event_kinds import Bus, BusView, EventKind, Selection
from bus.metrics import Metrics
from bus.scope import Call
from bus.store import NOWHERE, Append, Appended, message_rows
from rules.event import format_time
from rules.trace import normalise


class Received(msgspec.Struct, gc=False):
    """An event between being matched and being stored; ``plan`` is None when nobody waits for it."""

    bus: Bus
    source: str
    selection: Selection
    event: Accepted
    result: dict[str, Any]
    plan: Any
    stored: Appended = NOWHERE
    key: str | None = None

    def append(self) -> Append:
        event, plan = self.event, self.plan
        return Append(
            event.bus, event.event_id, event.ts, event.body, event.attrs, plan.deliveries, plan.messages,
            dedup_key=self.key,
            archives=plan.archives,
        )  # fmt: skip

    def count(self, metrics: Metrics) -> None:
        """The event is taken for good."""
        count_matched(metrics, self.source, self.selection)


class Way:
    """The straight way of the events that are of one kind and matched the same rules; ``results`` are their answers."""

    __slots__ = ("max_bytes", "results", "selection", "source", "straight")

    def __init__(self, source: str, selection: Selection, straight: Any) -> None:
        self.source = source
        self.selection = selection
        self.straight = straight
        self.max_bytes = min(slot.max_bytes for slot in straight.slots)
        self.results: list[dict[str, Any]] = []

    def count(self, metrics: Metrics) -> None:
        """The events are taken for good."""
        count_matched(metrics, self.source, self.selection, len(self.results))


def count_matched(metrics: Metrics, source: str, selection: Selection, number: int = 1) -> None:
    """So many events of a source matched these rules."""
    if selection.counts:
        metrics.matched_events(source, number)
        for counts in selection.counts:
            counts.MatchedEvents += number
            counts.TriggeredRules += number


class PutRequest:
    """The request: ``results`` answer its entries, ``rows`` are the messages of events that go straight."""

    __slots__ = (
        "_endings", "_ids", "_ways", "call", "dropped", "kinds", "ms", "plain", "results", "rows", "size",
        "started", "taken", "time", "views", "watched",
    )  # fmt: skip

    def __init__(self, call: Call, ms: int, ids: IdSource, *, watched: bool) -> None:
        self.call = call
        self._ids = ids
        self.ms = ms
        self.time = format_time(ms / 1000)
        self.watched = watched
        self.plain = call.trace is None and not watched
        """Whether nothing about the request itself keeps events from going straight."""
        self.views: dict[str | None, BusView] = {}
        self.kinds: dict[tuple[str | None, str | None, str | None], EventKind] = {}
        """By bus name, source and detail-type: those of entries that may be put on their bus."""
        self.started = perf_counter()
        self.results: list[dict[str, Any]] = []
        self.size = 0
        self.dropped = 0
        self.taken: list[Received] = []
        self.rows: list[bytes] = []
        self._endings: list[bytes] = []
        """How the ids of messages end that begin like their event's: one for each of its queues."""
        self._ways: dict[Selection, Way | None] = {}

    def luggage(self, own_trace: str | None) -> Luggage:
        """What travels beside an event with this TraceHeader."""
        trace = own_trace or self.call.trace
        return NOTHING if trace is None else Luggage(trace=normalise(trace, _new_root(self.ms)))

    def goes_straight(
        self, event: Arrival, result: dict[str, Any], kind: EventKind, selection: Selection, find: Callable[[Any], Any]
    ) -> bool:
        """Put an event on the straight way, if there is one for its kind and selection and it fits."""
        try:
            way = self._ways[selection]
        except KeyError:
            straight = find(selection)
            way = self._ways[selection] = None if straight is None else Way(kind.source, selection, straight)
        if way is None:
            return False
        detail, letter = event.loose, message_rows.LOOSE
        if detail is None or len(detail) > message_rows.LONGEST_LOOSE:
            detail, letter = event.compact_detail(), message_rows.AS_IT_IS
        parts = kind.parts(event, detail)
        slots, endings, message_id = way.straight.slots, self._endings, event.event_id[:-ENDING].encode()
        while len(endings) < len(slots):
            endings.append(self._ids.ending().encode())
        new = []
        for slot, ending in zip(slots, endings, strict=False):
            new.append(b"".join((slot.beginning, message_id, ending, letter, *parts)))
        row = new[0]
        if len(row) - message_rows.HEAD > way.max_bytes or not (row.isascii() or is_message(row)):
            return False
        way.results.append(result)
        self.rows += new
        return True

    def ways(self) -> list[Way]:
        """Those that events took."""
        return [way for way in self._ways.values() if way is not None and way.results]


def is_message(event: bytes) -> bool:
    """Whether an envelope holds none of the two characters that JSON may hold and a message may not."""
    # The search for one byte is much the fastest, and settles nearly all.
    return b"\xef" not in event or not (b"\xef\xbf\xbe" in event or b"\xef\xbf\xbf" in event)


def _new_root(now: int) -> Callable[[], str]:
    return lambda: f"1-{now // 1000:08x}-{token_hex(12)}"
