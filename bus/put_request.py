"""One request of PutEvents while it is worked through: what its entries share, and what they come to.

Theory of operation. An event that somebody waits for is planned, which says what has to be stored with it (`Received`).
Most events for queues need none of that: they are put there as they came, and whether a queue takes them so is the same
for all events of a turn of the loop: what changes meanwhile is concurrent with them. The dispatcher is asked once for
each selection of rules (`Way`), and of an event that goes that way nothing is kept but its message; after the commit
there are only numbers to add. All that is unusual is planned, with the same result: transformed inputs, FIFO queues,
trace headers, a queue that refuses, or someone who looks on.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from time import perf_counter
from typing import Any

import msgspec

from bus.accepted import NOTHING, Accepted, Luggage
from bus.clock import ENDING, ID_LENGTH, IdSource
from bus.event_kinds import Bus, BusView, EventKind, Selection
from bus.metrics import Metrics
from bus.scope import Call
from bus.store import NOWHERE, Append, Appended
from rules.event import ENVELOPE_BEGIN, ENVELOPE_END, format_time
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
    """The straight way of events of one turn that are of one kind and matched the same rules.

    ``straight`` is what the dispatcher made of their selection.
    """

    __slots__ = ("_room", "_slots", "selection", "source", "straight")

    def __init__(self, source: str, selection: Selection, straight: Any, ids: IdSource) -> None:
        self.source = source
        self.selection = selection
        self.straight = straight
        self._room = min(slot.max_bytes for slot in straight.slots) - _AROUND
        # The id of a message begins like its event's and ends like those of its slot.
        self._slots = [(slot.beginning, ids.ending().encode()) for slot in straight.slots]

    def rows(self, event_id: str, middle: bytes, detail: bytes, letter: bytes) -> list[bytes]:
        """The messages of an event, one for each slot; none if a queue would refuse its detail.

        ``middle`` is what stands between the id and the detail of its envelope; for ``letter`` see `message_rows`.
        """
        if len(middle) + len(detail) > self._room or not (detail.isascii() or is_message(detail)):
            return []
        name = event_id.encode()
        start = name[:-ENDING]
        return [
            b"".join((beginning, start, ending, letter, ENVELOPE_BEGIN, name, middle, detail, ENVELOPE_END))
            for beginning, ending in self._slots
        ]

    def count(self, metrics: Metrics, number: int) -> None:
        """So many events are taken for good."""
        count_matched(metrics, self.source, self.selection, number)


_AROUND = len(ENVELOPE_BEGIN) + ID_LENGTH + len(ENVELOPE_END)
"""Bytes of an envelope beside its middle and its detail."""


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
        "call", "dropped", "kinds", "ms", "plain", "results", "rows", "size",
        "started", "straight", "taken", "time", "views", "watched",
    )  # fmt: skip

    def __init__(self, call: Call, ms: int, *, watched: bool) -> None:
        self.call = call
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
        self.straight: dict[Way, list[dict[str, Any]]] = {}
        """The answers of the events that went each way."""

    def luggage(self, own_trace: str | None) -> Luggage:
        """What travels beside an event with this TraceHeader."""
        trace = own_trace or self.call.trace
        return NOTHING if trace is None else Luggage(trace=normalise(trace, _new_root(self.ms)))

    def go(self, way: Way, rows: list[bytes], result: dict[str, Any]) -> None:
        """Let an event go a way."""
        self.rows += rows
        try:
            self.straight[way].append(result)
        except KeyError:
            self.straight[way] = [result]


def is_message(text: bytes) -> bool:
    """Whether a part of an envelope holds none of the two characters that JSON may hold and a message may not."""
    # The search for one byte is much the fastest, and settles nearly all.
    return b"\xef" not in text or not (b"\xef\xbf\xbe" in text or b"\xef\xbf\xbf" in text)


def _new_root(now: int) -> Callable[[], str]:
    return lambda: f"1-{now // 1000:08x}-{token_hex(12)}"
