"""Event kinds: what all events of one bus, source and detail-type have in common, worked out once.

Theory of operation. The events of a bus repeat few pairs of source and detail-type. For each pair an `EventKind` keeps
its faults, its size, the head of its envelopes, what is left to match (`rules.index.Narrowing`), and for every set of
rules that was found the `Selection` of their targets. A kind belongs to a `BusView`, and a view to one snapshot of the
bus and its rules: when either is replaced, the view is made anew, so that nothing kept here is ever out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from bus.arrival import Arrival
from bus.metrics import Metrics, RuleCounts
from bus.scope import Scope
from bus.targets import Route
from rules.cloudtrail import API_CALL
from rules.event import (
    ENVELOPE_BEGIN,
    ENVELOPE_END,
    NOT_AUTHORIZED_SOURCE,
    SHALLOW,
    EntryFault,
    envelope_middle,
    is_detail,
    is_too_deep,
    load_json,
    missing_member,
    utf8_length,
)
from rules.flatten import EventError
from rules.index import MatchIndex, Narrowing
from rules.states import receives

MOST_VIEWS = 1024
"""Views kept. Any region that a caller signs for has a default bus, and buses come and go; when there are more, all are
made anew as they are needed."""

REMEMBERED = 1024
"""Kinds kept per view; more than these are worked out each time."""

REMEMBERED_SELECTIONS = 4096
"""Selections kept by all kinds of a view together."""

LONGEST_REMEMBERED = 512
"""Bytes of the source and detail-type of a kind that is kept: a request may name a megabyte, in each entry another."""


class Bus(Protocol):
    """What events need of an event bus."""

    @property
    def number(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def scope(self) -> Scope: ...
    @property
    def policy(self) -> str | None: ...


class Rule(Protocol):
    """What events need of a rule."""

    @property
    def name(self) -> str: ...
    @property
    def arn(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def managed_by(self) -> str | None: ...
    @property
    def routes(self) -> Iterable[Route]: ...


class RuleSet(Protocol):
    """The rules of one bus with their index, as one snapshot."""

    @property
    def index(self) -> MatchIndex[Any]: ...
    def rule(self, name: Any) -> Rule: ...


class Selection:
    """The rules that some event matched, with their targets and counters."""

    __slots__ = ("counts", "routes", "rules")

    def __init__(self, rules: Sequence[Rule], counts: Sequence[RuleCounts]) -> None:
        self.rules = rules
        self.routes = [route for rule in rules for route in rule.routes]
        self.counts = counts


class EventKind:
    """Events of one bus, source and detail-type; either may be missing, which is a fault of each of them."""

    __slots__ = (
        "_index", "_middle", "_narrowing", "_origin", "_selections", "detail_type", "missing", "refused",
        "size", "source", "view", "withholding",
    )  # fmt: skip

    def __init__(self, view: BusView, source: str | None, detail_type: str | None) -> None:
        self.view = view
        self.source = source or ""
        self.detail_type = detail_type or ""
        self.missing = missing_member(source, detail_type)
        self.refused: EntryFault | None = NOT_AUTHORIZED_SOURCE if self.source.startswith("aws.") else None
        self.size = utf8_length(self.source) + utf8_length(self.detail_type)
        self.withholding = self.detail_type == API_CALL
        """Whether the state of a rule may keep some of these events from it."""
        self._index = view.index
        self._narrowing: Narrowing[Any] | None = None
        self._selections: dict[Sequence[Any], Selection] = {}
        self._origin: tuple[str, Scope] | None = None
        self._middle = b""

    def match(self, event: Arrival) -> Sequence[Any] | None:
        """The names of the rules that match an event of this kind; None when its detail is no JSON object."""
        narrowing = self._narrowing
        if narrowing is not None and narrowing.open is not None and narrowing.match_detail is not None:
            # Matching reads all of the detail, so that what it accepts need not be looked at once more.
            try:
                found = narrowing.match_detail(event.detail_bytes())
            except EventError:
                if is_detail(event.detail):
                    raise
                return None
            return None if len(event.detail) > SHALLOW and is_too_deep(event.detail) else found
        if not is_detail(event.detail):
            return None
        if narrowing is not None and narrowing.open is None:
            return narrowing.certain
        names = self._index.match_parts(self.source, self.detail_type, event.fields, event.detail_bytes)
        self._narrowing = self._index.narrowed(self.source, self.detail_type)
        return names

    @property
    def match_plain(self) -> Callable[[bytes], Sequence[Any]] | None:
        """The same for details in UTF-8 that spell nothing as an escape and cannot be too deep.

        None where there may be more to an event than its detail. It raises for a detail that takes a closer look.
        """
        if self.missing or self.refused or self.withholding or self.view.bus is None or self._narrowing is None:
            return None
        return self._narrowing.match_detail

    def envelope(self, event: Arrival) -> bytes:
        """An event of this kind as every target receives it."""
        return b"".join(
            (ENVELOPE_BEGIN, event.event_id.encode(), self.middle(event), event.compact_detail(), ENVELOPE_END)
        )

    def middle(self, event: Arrival) -> bytes:
        """What stands between the id and the detail of an event's envelope."""
        if event.resources or event.replay_name is not None:
            return self._middle_of(event.time, event.scope, event.resources, event.replay_name)
        return self.plain_middle(event.time, event.scope)

    def plain_middle(self, time: str, scope: Scope) -> bytes:
        """The same for events without resources, which is kept for the next one."""
        if self._origin != (time, scope):
            self._middle = self._middle_of(time, scope)
            self._origin = time, scope
        return self._middle

    def _middle_of(
        self, time: str, scope: Scope, resources: Sequence[str] = (), replay_name: str | None = None
    ) -> bytes:
        account, region = scope
        return envelope_middle(
            detail_type=self.detail_type, source=self.source, account=account, time=time, region=region,
            resources=resources, replay_name=replay_name,
        )  # fmt: skip

    def select(self, names: Sequence[Any], event: Arrival) -> Selection:
        """The rules of these names that receive an event of this kind, with all that follows from them."""
        if self.withholding:
            detail = lambda: load_json(event.detail_bytes())  # noqa: E731
            named = self.view.named(names)
            return self.view.selection([rule for rule in named if receives(rule.state, self.detail_type, detail)])
        return self.plain_selection(names)

    def plain_selection(self, names: Sequence[Any]) -> Selection:
        """The same for events that no rule of these is withheld from."""
        key = tuple(names)
        selection = self._selections.get(key)
        if selection is None:
            selection = self.view.selection(self.view.named(names))
            if self.view.selections_kept < REMEMBERED_SELECTIONS:
                self.view.selections_kept += 1
                self._selections[key] = selection
        return selection


class BusView:
    """One bus with one snapshot of its rules, and the kinds of events that it has met; ``bus`` is None for no bus.

    ``asks`` says that its policy has something to say about who may put which events.
    """

    __slots__ = ("_metrics", "asks", "bus", "index", "kinds", "rules", "selections_kept")

    def __init__(self, bus: Bus | None, rules: RuleSet | None, metrics: Metrics) -> None:
        self.bus = bus
        self.asks = bus is not None and bus.policy is not None
        self.rules = rules
        self.index: MatchIndex[Any] = rules.index if rules is not None else MatchIndex({})
        self.kinds: dict[tuple[str | None, str | None], EventKind] = {}
        self.selections_kept = 0
        self._metrics = metrics

    def kind(self, source: str | None, detail_type: str | None) -> EventKind:
        """The kind of an event, from ``kinds`` if it was met before."""
        pair = (source, detail_type)
        kind = self.kinds.get(pair)
        if kind is None:
            kind = EventKind(self, source, detail_type)
            if len(self.kinds) < REMEMBERED and kind.size <= LONGEST_REMEMBERED:
                self.kinds[pair] = kind
        return kind

    def named(self, names: Iterable[Any]) -> list[Rule]:
        """The rules that the index answered with."""
        return [] if self.rules is None else [self.rules.rule(name) for name in names]

    def selection(self, rules: Sequence[Rule]) -> Selection:
        """All that follows from an event's being received by these rules of the bus."""
        if self.bus is None:
            return Selection([], [])
        return Selection(rules, [self._metrics.rule(self.bus.scope, self.bus.name, rule.name) for rule in rules])


class Views:
    """The views of all buses; ``rule_set`` gives the rules of a bus by its number."""

    def __init__(self, rule_set: Callable[[int], RuleSet], metrics: Metrics) -> None:
        self._rule_set = rule_set
        self._metrics = metrics
        self.kept: dict[int, BusView] = {}
        """By number of the bus."""
        self._no_bus = BusView(None, None, metrics)

    def of(self, bus: Bus | None) -> BusView:
        """The view of a bus as it is now."""
        if bus is None:
            return self._no_bus
        rules = self._rule_set(bus.number)
        view = self.kept.get(bus.number)
        if view is None or view.rules is not rules or view.bus is not bus:
            if view is None and len(self.kept) >= MOST_VIEWS:
                self.kept.clear()
            view = self.kept[bus.number] = BusView(bus, rules, self._metrics)
        return view
