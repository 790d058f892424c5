"""Event buses as targets: an event is handed on to another bus of this process, once per kind of hop.

An event may cross into another bus of the same region once and into another region once, in either order; a second hop
of a kind is refused, which is what ends a loop of rules. The count travels beside the event, never in its envelope.
What the other bus does with the event is its own business: its acceptance is what this target waits for.

A bus takes no event of another account unless its policy says so, and none of its own that its policy denies. It is
asked at every attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from bus.accepted import Luggage
from bus.arrival import open_envelope
from bus.errors import ApiError, StoreError
from bus.scope import Scope
from bus.targets import Delivered, Delivery, Failed, Outcome
from rules.arn import Arn, ArnError, parse

NO_PERMISSIONS = Failed("NO_PERMISSIONS", "Lack of permissions to invoke cross account target.")
NOT_FOR_PARTNERS = Failed("NO_PERMISSIONS", "Partner event buses do not receive events of AWS services.")
PARTNER = "aws.partner/"

log = structlog.get_logger(__name__)


class Forward(Protocol):
    """Puts an event of one bus on another and returns once it is durable there; False when that bus is not there.

    ``new_identity`` asks for a new id and time, as a crossing between regions gives; ``luggage`` already counts this
    hop. ApiError when the bus does not let the event in, StoreError when it could not be stored.
    """

    async def __call__(
        self, scope: Scope, bus_name: str, event: bytes, *, new_identity: bool, luggage: Luggage
    ) -> bool: ...


Takes = Callable[[Delivery, Arn], bool]
"""Whether the bus of an ARN takes an event from a rule; see `bus.permissions.admission`."""


class EventBus:
    """Delivers to the buses of this process, as far as they take it."""

    def __init__(self, forward: Forward, *, takes: Takes) -> None:
        self._forward = forward
        self._takes = takes

    async def deliver(self, delivery: Delivery) -> Outcome:
        try:
            bus = parse(delivery.route.arn)
        except ArnError as error:
            return Failed("INVALID_PARAMETER", str(error))
        if not self._takes(delivery, bus):
            return NO_PERMISSIONS
        if _is_kept_out(delivery, bus):
            return NOT_FOR_PARTNERS
        crosses = bus.region != delivery.route.scope.region
        return hop_refusal(delivery, crosses=crosses) or await self._hop(delivery, bus, crosses=crosses)

    async def close(self) -> None:
        """Nothing is held."""

    async def _hop(self, delivery: Delivery, bus: Arn, *, crosses: bool) -> Outcome:
        try:
            there = await self._forward(
                Scope(bus.account, bus.region),
                bus.resource.removeprefix("event-bus/"),
                delivery.event,
                new_identity=crosses,
                luggage=Luggage(delivery.trace, count_hop(delivery.hops, crosses=crosses)),
            )
        except ApiError:
            return NO_PERMISSIONS
        except StoreError as error:
            return Failed("INTERNAL_ERROR", f"The event could not be stored: {error}", retry=True)
        except Exception as error:
            log.exception("forwarding ended in an unexpected way", target=delivery.route.arn)
            return Failed("INTERNAL_ERROR", f"Forwarding ended with {type(error).__name__}.", retry=True)
        # AWS acknowledges and drops what is sent to an absent bus of one's own account.
        return Delivered() if there or bus.account == delivery.route.scope.account else NO_PERMISSIONS


def _is_kept_out(delivery: Delivery, bus: Arn) -> bool:
    """Whether an event of an AWS service is on its way to the bus of a partner."""
    if not bus.resource.startswith("event-bus/" + PARTNER):
        return False
    source = open_envelope(delivery.event).source
    return source.startswith("aws.") and not source.startswith(PARTNER)


def count_hop(hops: tuple[int, int], *, crosses: bool) -> tuple[int, int]:
    """The hops of an event after one more; ``crosses`` says that it leaves the region."""
    same, other = hops
    return (same, other + 1) if crosses else (same + 1, other)


def hop_refusal(delivery: Delivery, *, crosses: bool) -> Failed | None:
    """The failure of a second hop of one kind."""
    if delivery.hops[crosses] == 0:
        return None
    return Failed(
        "THIRD_REGION_HOP_DETECTED" if crosses else "THIRD_ACCOUNT_HOP_DETECTED",
        f"Event ingestion rejected for event {delivery.event_id} because an event can be sent to an event bus target "
        "only once. This event was previously delivered to an event bus target.",
    )
