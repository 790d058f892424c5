"""Where events come from beside PutEvents: partners, services, log files, schedules, archives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bus.api.sources import SourceRoutes
from bus.archives.replays import Replays
from bus.composition import Foundation
from bus.composition.delivery import Delivery
from bus.composition.state import State
from bus.origins.cloudtrail import CloudTrail
from bus.origins.partner_events import PartnerEvents
from bus.origins.service_events import ServiceEvents
from bus.scheduler import Scheduler
from bus.schedules.firing import Firing
from bus.targets import Route


@dataclass(frozen=True, slots=True)
class Origins:
    """Everything that puts events of its own accord or for others than callers of PutEvents."""

    partner_events: PartnerEvents
    services: SourceRoutes
    scheduler: Scheduler
    firing: Firing
    replays: Replays


def open_origins(base: Foundation, state: State, delivery: Delivery) -> Origins:
    """Make them; those that act by themselves are started later."""
    put, most = delivery.ingest.put, base.settings.max_put_events_bytes
    partner_events = PartnerEvents(
        base.clock, base.ids, metrics=base.metrics, destination=state.partners.destination, put=put, max_bytes=most
    )
    services = ServiceEvents(
        base.clock,
        base.ids,
        metrics=base.metrics,
        put=put,
        max_bytes=most,
        most_waiting=base.settings.best_effort_buffer,
    )
    services.start()
    base.stack.push_async_callback(services.close)
    trail = CloudTrail(base.ids, metrics=base.metrics, put=put, max_bytes=most)
    scheduler = Scheduler(base.store, base.clock, metrics=base.metrics, put=put)
    state.catalog.on_rule = scheduler.changed
    firing = Firing(base.store, base.clock, state.schedules, dispatch=delivery.dispatch)
    return Origins(partner_events, SourceRoutes(services, trail), scheduler, firing, _replays(base, state, delivery))


def _replays(base: Foundation, state: State, delivery: Delivery) -> Replays:
    def held_up(routes: Iterable[Route]) -> Route | None:
        crowded = (route for route in routes if delivery.dispatch.crowded(route.number))
        return next((route for route in crowded if state.catalog.has_route(route)), None)

    return Replays(
        base.store,
        base.clock,
        find_archive=state.archives.find,
        has_bus=lambda scope, name: state.buses.find(scope, name) is not None,
        put=delivery.ingest.put,
        held_up=held_up,
        traffic=base.metrics.entries_put,
    )
