"""The operator's side: routes under /_bus, dead letters, gauges."""

from __future__ import annotations

from typing import Any

from bus.api.access import Access
from bus.api.endpoints import endpoint_rows
from bus.api.operations import Operations
from bus.api.progress import Progress
from bus.composition import Foundation
from bus.composition.delivery import Delivery
from bus.composition.origins import Origins
from bus.composition.state import State
from bus.config import Settings
from bus.dead_letters import DeadLetters
from bus.errors import validation
from bus.schedules.invocation import NO_BUS
from bus.targets import Route
from rules.arn import ArnError, parse, queue_arn


def open_operations(base: Foundation, state: State, delivery: Delivery, origins: Origins, access: Access) -> Operations:
    """Everything under /_bus, and /metrics."""
    _gauges(base, delivery, origins)
    services = origins.services.rows
    return Operations(
        metrics=base.metrics,
        wires=state.wires,
        watchers=base.watchers,
        dead_letters=_dead_letters(base, state, delivery),
        admit=access.admit_operator,
        rules=lambda: state.catalog.rules_summary(origins.scheduler.next_due),
        find_queue=lambda text: state.queues.find(_queue_arn(base.settings, text)),
        health=lambda: _health(base, delivery),
        more=[*services, *Progress(origins.replays.summary).rows(), *endpoint_rows(state.endpoints)],
        longest={path: base.settings.max_body_bytes for _, path, _ in services},
    )


def _gauges(base: Foundation, delivery: Delivery, origins: Origins) -> None:
    metrics, store = base.metrics, base.store
    metrics.gauge("busbar_wal_bytes", "Size of the store's write-ahead log.", lambda: store.wal_bytes)
    metrics.gauge("busbar_deliveries_in_memory", "Deliveries claimed or under way.", delivery.dispatch.waiting)
    metrics.gauge("busbar_archived_events", "Events in all archives.", lambda: store.archived().events)
    metrics.gauge("busbar_archived_bytes", "SizeBytes of all archives.", lambda: store.archived().bytes)
    metrics.gauge("busbar_replays_active", "Replays that go on.", origins.replays.active)


def _dead_letters(base: Foundation, state: State, delivery: Delivery) -> DeadLetters:
    return DeadLetters(
        base.store,
        base.clock,
        base.ids,
        queues=state.queues,
        dispatch=delivery.dispatch,
        route=lambda rule, target: _current_route(state, rule, target),
        bus_number=lambda route: state.buses.require(route.scope, route.bus).number if route.bus else NO_BUS,
    )


def _current_route(state: State, rule_arn: str, target_arn: str) -> Route | str:
    """The target of a rule or schedule as it stands now, or a sentence that says what is missing."""
    if ":scheduler:" in rule_arn:
        route = next((each.route for each in state.schedules.all() if each.arn == rule_arn), None)
        return route or f"there is no schedule {rule_arn} any more"
    for rule in state.catalog.rules():
        if rule.arn == rule_arn:
            found = next((route for route in rule.routes if route.arn == target_arn), None)
            return found or f"rule {rule.name} has no target {target_arn} any more"
    return f"there is no rule {rule_arn} any more"


def _queue_arn(settings: Settings, text: str) -> str:
    """A queue as an operator names it: by ARN, or by name in the server's own account and region."""
    if text.startswith("arn:"):
        try:
            return str(parse(text))
        except ArnError as error:
            raise validation(f"{text} does not name a queue: {error}") from None
    return queue_arn(text, region=settings.region, account=settings.account_id)


def _health(base: Foundation, delivery: Delivery) -> dict[str, Any]:
    return {
        "status": "ok" if base.store.healthy else "the disk refuses writes",
        "deliveries_in_memory": delivery.dispatch.waiting(),
        "wal_bytes": base.store.wal_bytes,
    }
