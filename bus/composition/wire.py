"""The AWS wire: which capability answers which operation is found by name among those listed here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bus.api.access import Access
from bus.api.model import load_events, load_queues, load_scheduler
from bus.api.rest import Rest
from bus.api.rpc import Rpc, ShortCut
from bus.composition import Foundation
from bus.composition.delivery import Delivery
from bus.composition.origins import Origins
from bus.composition.state import State
from bus.entries import read_entries
from bus.errors import not_found
from bus.permissions import Permissions
from bus.permissions.governed import Gate, Governed, governed
from bus.queues import ERROR_CODES
from bus.schedules import Schedules
from bus.schedules.groups import Groups
from bus.schedules.targets import TargetChecks
from bus.scope import Scope
from bus.tags import Tags
from bus.targets.universal import action_of
from rules.arn import Arn


@dataclass(frozen=True, slots=True)
class Wire:
    """The endpoint of EventBridge and SQS, that of EventBridge Scheduler, and the upkeep of schedule groups."""

    rpc: Rpc
    scheduler: Rest
    groups: Groups


def open_wire(base: Foundation, state: State, delivery: Delivery, origins: Origins, access: Access) -> Wire:
    """Make the endpoints; what they answer may also be called by schedules."""
    rpc = _rpc(base, state, delivery, origins, access)
    groups = Groups(base.clock, state.schedules)
    checks = TargetChecks(check_url=base.addresses.check_url, action_of=action_of)
    schedules = Schedules(base.store, base.clock, state.schedules, targets=checks, may=access.may)
    most = base.settings.max_body_bytes
    scheduler = Rest(load_scheduler(), [schedules, groups], access=access, max_body_bytes=most)
    for operation, method in (*rpc.methods(), *scheduler.methods()):
        delivery.own_api[operation.service, operation.name] = operation, method
    return Wire(rpc, scheduler, groups)


def _rpc(base: Foundation, state: State, delivery: Delivery, origins: Origins, access: Access) -> Rpc:
    ingest, partner_events = delivery.ingest, origins.partner_events
    return Rpc(
        [load_events(), load_queues()],
        [
            ingest,
            *_behind_gate(state, delivery),
            Permissions(state.buses.change_policy),
            state.queues,
            state.partners,
            partner_events,
            state.destinations.connections,
            state.destinations.api_destinations,
            state.archives,
            origins.replays,
            state.endpoints,
        ],
        access=access,
        max_body_bytes=base.settings.max_body_bytes,
        error_codes=ERROR_CODES,
        refused={"events:PutEvents": ingest.refused, "events:PutPartnerEvents": partner_events.refused},
        short_cuts={"events:PutEvents": ShortCut(read_entries, ingest.put_entries, ingest.put_soon)},
    )


def _behind_gate(state: State, delivery: Delivery) -> list[Governed]:
    """The capabilities that other accounts may use as far as the policy of a bus allows."""
    gate = Gate(
        delivery.admission,
        find_bus=state.buses.find,
        find_rule=lambda number, name: state.catalog.ruleset(number).rules.get(name),
    )
    return governed([state.buses, state.catalog, _tags(state)], gate)


def _tags(state: State) -> Tags:
    """Every kind of resource that has tags, by the first word of its ARN's resource."""
    return Tags(
        {
            "rule": state.catalog,
            "event-bus": state.buses,
            "endpoint": state.tag_book.of(state.endpoints.identify),
            "archive": state.tag_book.of(state.archives.identify),
            "connection": state.tag_book.of(_named_once(state.destinations.connections.find, "Connection")),
            "api-destination": state.tag_book.of(
                _named_once(state.destinations.api_destinations.find, "Api-destination")
            ),
        }
    )


def _named_once(find: Callable[[str], object | None], what: str) -> Callable[[Scope, Arn], str]:
    """How to identify a resource whose ARN no other ever bears."""

    def identify(scope: Scope, arn: Arn) -> str:
        if (arn.account, arn.region) != scope or find(str(arn)) is None:
            raise not_found(f"{what} '{arn}' does not exist.")
        return str(arn)

    return identify
