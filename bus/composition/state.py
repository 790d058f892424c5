"""Everything that the store keeps, loaded: the resources, before anything happens to them."""

from __future__ import annotations

from dataclasses import dataclass

from bus.archives import Archives
from bus.buses import Buses
from bus.catalog import Catalog
from bus.composition import Foundation
from bus.composition.destinations import Destinations, open_destinations
from bus.endpoints import Endpoints
from bus.origins.partners import Partners
from bus.permissions.principals import Principals
from bus.queues import Queues
from bus.schedules.registry import Registry
from bus.tags import TagBook
from bus.wires import Wires


@dataclass(frozen=True, slots=True)
class State:
    """The resources, and who asks for them."""

    principals: Principals
    queues: Queues
    buses: Buses
    catalog: Catalog
    wires: Wires
    partners: Partners
    archives: Archives
    schedules: Registry
    endpoints: Endpoints
    tag_book: TagBook
    destinations: Destinations


async def open_state(base: Foundation) -> State:
    """Make the capabilities that keep resources, and let each read its own."""
    store, settings, clock, check_url = base.store, base.settings, base.clock, base.addresses.check_url
    principals = Principals(settings, clock)
    queues = Queues(store, clock, base.ids, recreate_wait=settings.queue_recreate_wait, principals=principals)
    base.stack.push_async_callback(queues.close)
    await queues.load()
    store.on_messages = queues.arrived

    catalog: Catalog
    partners: Partners
    buses = Buses(
        store,
        clock,
        has_rules=lambda number: catalog.has_rules(number),  # noqa: PLW0108 - catalog comes next
        partners=lambda: partners,
    )
    partners = Partners(store, clock, find_bus=buses.find, lock=buses.lock)
    catalog = Catalog(store, settings, clock, require_bus=buses.require, lock=buses.lock, check_url=check_url)
    wires = Wires(store, check_url)
    archives = Archives(
        store, clock, settings, catalog=catalog, find_bus=buses.find, require_bus=buses.require, lock=buses.lock
    )
    endpoints = Endpoints(
        store, clock, has_bus=lambda scope, name: buses.find(scope, name) is not None, strict=settings.strict
    )
    schedules, tag_book = Registry(store), TagBook(store)
    for each in (buses, partners, catalog, wires, archives, schedules, endpoints, tag_book):
        await each.load()
    destinations = await open_destinations(base, buses)
    return State(
        principals, queues, buses, catalog, wires, partners, archives, schedules, endpoints, tag_book, destinations
    )
