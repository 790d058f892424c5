"""API destinations, the connections they use, and the target that delivers to them."""

from __future__ import annotations

from dataclasses import dataclass

from bus.api_destinations import ApiDestinations
from bus.buses import Buses
from bus.composition import Foundation
from bus.connections import Connections
from bus.connections.secrets import open_vault
from bus.https_endpoint import HttpsEndpoints
from bus.targets.api_destination import TIMEOUT_S, ApiDestinationTarget
from bus.targets.http_client import HttpClient
from bus.targets.token_request import TokenRequests


@dataclass(frozen=True, slots=True)
class Destinations:
    """The two capabilities and the target."""

    connections: Connections
    api_destinations: ApiDestinations
    target: ApiDestinationTarget


async def open_destinations(base: Foundation, buses: Buses) -> Destinations:
    """Make them, and let them read what is theirs."""
    addresses = base.addresses
    client = HttpClient(TIMEOUT_S, addresses.open_socket if addresses.guarded else None, reading=True)
    base.stack.push_async_callback(client.close)
    check = HttpsEndpoints(strict=base.settings.strict, check_host=addresses.check_host).refusal
    destinations: ApiDestinations
    connections = Connections(
        base.store,
        base.clock,
        open_vault(base.settings),
        fetch=TokenRequests(client, base.clock).fetch,
        check_endpoint=check,
        detach=lambda arn: destinations.detached(arn),  # noqa: PLW0108 - destinations come next
        lock=buses.lock,
    )
    destinations = ApiDestinations(
        base.store, base.clock, find_connection=connections.find, check_endpoint=check, lock=buses.lock
    )
    await connections.load()
    await destinations.load()
    base.stack.push_async_callback(connections.close)
    target = ApiDestinationTarget(client, base.clock, find=destinations.find, connections=connections)
    return Destinations(connections, destinations, target)
