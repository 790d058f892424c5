"""The way of an event: in, matched, and out to its targets. The table of targets is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import structlog

from bus.api import Method
from bus.api.model import Operation
from bus.bus_logs import BusLogs
from bus.composition import Foundation
from bus.composition.state import State
from bus.dispatch import Dispatch
from bus.endpoints.entry import EndpointEntry
from bus.ingest import Ingest
from bus.log_writer import LogWriter
from bus.permissions.admission import Admission
from bus.targets import Route, Target
from bus.targets.archive import ArchiveTarget
from bus.targets.aws import AwsService
from bus.targets.event_bus import EventBus
from bus.targets.log import LogGroup, lines_for
from bus.targets.queue import QueueTarget
from bus.targets.scheduled import AwsApi, PutEvents, Scheduled, ScheduledNow
from bus.targets.webhook import Webhook
from bus.targets.wired import Wired
from rules.arn import target_kind

log = structlog.get_logger("app")


@dataclass(frozen=True, slots=True)
class Targets:
    """Which target delivers for a route: a wire that covers its ARN first, then the ARN's kind."""

    by_kind: Mapping[str, Target]
    wired: Target
    match_wire: Callable[[str], str | None]

    def __call__(self, route: Route) -> Target:
        arn = route.arn
        if self.match_wire(arn) is not None and _kind(arn) != "archive":
            return self.wired
        return self.by_kind[_kind(arn)]


_kind = lru_cache(10_000)(target_kind)

OwnApi = dict[tuple[str, str], tuple[Operation, Method]]
"""By service and name: the operations that this process answers, for schedules that call them."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Who may put events on a bus, the way in, and the way out; ``own_api`` is filled when the wire is there."""

    admission: Admission
    ingest: Ingest
    dispatch: Dispatch
    own_api: OwnApi


def open_delivery(base: Foundation, state: State) -> Delivery:
    """Wire both ways; nothing moves before the dispatcher is started."""
    webhook, aws = Webhook(base.settings, base.clock, base.addresses), AwsService(base.settings)
    elsewhere = aws if base.settings.aws_endpoint_url else None
    queue = QueueTarget(
        state.queues.find,
        state.queues.message,
        slot=state.queues.slot,
        refuses=state.queues.refuses,
        elsewhere=elsewhere,
    )
    by_kind: dict[str, Target] = {
        "webhook": webhook,
        "queue": queue,
        "log_group": LogGroup(lines_for(base.settings)),
        "api_destination": state.destinations.target,
        "archive": ArchiveTarget(state.archives.number_for),
        "aws": aws,
    }
    for target in by_kind.values():
        base.stack.push_async_callback(target.close)
    wired = Wired(webhook, state.wires.match)
    own_api: OwnApi = {}
    by_schedule: dict[str, Target] = {
        "webhook": Scheduled(webhook),
        "queue": ScheduledNow(queue),
        "aws": Scheduled(AwsApi(lambda service, name: own_api.get((service, name)), aws)),
    }
    of_rules = Targets(by_kind, wired, state.wires.match)
    of_schedules = Targets(by_schedule, Scheduled(wired), state.wires.match)
    logs = _bus_logs(base, state)
    dispatch = Dispatch(
        base.store,
        base.clock,
        metrics=base.metrics,
        route=lambda number: state.catalog.route(number) or state.schedules.route(number),
        target=lambda route: (of_rules if route.bus else of_schedules)(route),
        dead_letter=queue.dead_letter,
        max_in_flight=base.settings.max_in_flight,
        turns=lambda route: state.destinations.api_destinations.turns(route.arn),
        logs=logs,
    )
    state.wires.changed = dispatch.look_for_targets
    admission = Admission(state.principals, find=state.buses.find, find_foreign=state.buses.find_foreign)
    ingest = _ingest(base, state, dispatch, admission, logs)
    by_kind["event_bus"] = EventBus(ingest.forward, takes=admission.takes)
    by_schedule["event_bus"] = Scheduled(PutEvents(ingest.put, takes=admission.takes_entry))
    return Delivery(admission, ingest, dispatch, own_api)


def _ingest(base: Foundation, state: State, dispatch: Dispatch, admission: Admission, logs: BusLogs) -> Ingest:
    ingest = Ingest(
        base.store,
        base.clock,
        base.ids,
        metrics=base.metrics,
        find_bus=state.buses.find,
        rule_set=state.catalog.ruleset,
        dispatch=dispatch,
        max_bytes=base.settings.max_put_events_bytes,
        admission=admission,
        watched=base.watchers.any,
        watch=base.watchers.show,
        logs=logs,
    )
    ingest.through_endpoint = EndpointEntry(
        base.clock,
        base.ids,
        find=state.endpoints.find,
        put_events=ingest.put_events,
        put=ingest.put,
        refused=ingest.refused,
    )
    return ingest


def _bus_logs(base: Foundation, state: State) -> BusLogs:
    """Files in the data directory, or this process's own log when nothing is to be kept."""
    if base.settings.in_memory:
        return BusLogs(
            base.clock,
            buses=state.buses.logging,
            write=lambda name, line: log.info("bus log", record=line.decode().rstrip()),
        )
    writer = LogWriter(Path(base.settings.data_dir) / "bus-logs")
    base.stack.push_async_callback(writer.close)
    return BusLogs(base.clock, buses=state.buses.logging, write=writer.add)
