"""The Target protocol: what a delivery is given, and how it says what became of an attempt.

A target is one file with one class and one row in `bus.app`. Its contract, which
``tests/test_targets.py`` holds for every row:

* ``deliver`` makes one attempt and returns an `Outcome`; it raises nothing but CancelledError
  (a stop is under way, the attempt may have arrived).
* An attempt that may have arrived is never reported as `Failed` with a final class.
* `Delivered` may carry messages for embedded queues; they are committed together with the
  settlement of the delivery, so that a message is never there without it. Archives are carried by a target that takes
  the event at once, and only there.
* It keeps no state about a delivery between attempts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from bus.scope import Scope
from bus.store import NewArchived, NewMessage


@dataclass(frozen=True, slots=True)
class Route:
    """One target of one rule as it stood when work for it was created; never changed afterwards.

    ``number`` is the route's key in the store; ``target`` the target's members as PutTargets took
    them (Id, Arn, RoleArn, Input..., RetryPolicy, DeadLetterConfig, ...). The target of a schedule has no ``bus``;
    then ``rule`` is the schedule's group and name, ``rule_arn`` its ARN.
    """

    number: int
    scope: Scope
    bus: str
    rule: str
    rule_arn: str
    target: Mapping[str, Any]

    @property
    def arn(self) -> str:
        return str(self.target["Arn"])


class Delivery(msgspec.Struct, gc=False):
    """One attempt's input.

    ``body`` is what the target is to receive (after Input, InputPath or InputTransformer);
    ``event`` the whole envelope. ``attempt`` counts from 1. ``accepted`` is when the bus took
    the event (ms). ``trace`` is the normalised trace header; ``hops`` counts forwardings so far
    (same region, other region).
    """

    route: Route
    event_id: str
    body: bytes
    event: bytes
    attempt: int
    accepted: int
    trace: str | None = None
    hops: tuple[int, int] = (0, 0)


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """The target took it."""

    messages: Sequence[NewMessage] = ()
    archives: Sequence[NewArchived] = ()


class Failed(msgspec.Struct, frozen=True, gc=False):
    """The target did not take it.

    ``code`` and ``message`` become ERROR_CODE and ERROR_MESSAGE of the dead letter. ``retry``:
    whether another attempt could end differently; ``retry_after`` the seconds the target asked for
    (negative: do not come back); ``cause`` the code in the words of the service that refused, where one did.
    """

    code: str
    message: str
    retry: bool = False
    retry_after: float | None = None
    cause: str | None = None


Outcome = Delivered | Failed


class Target(Protocol):
    """Delivers to one kind of ARN."""

    async def deliver(self, delivery: Delivery) -> Outcome: ...

    async def close(self) -> None: ...


class ImmediateTarget(Target, Protocol):
    """A target inside this process, whose outcome is known without waiting.

    Its messages and archives ride in the transaction that accepts the event, so no delivery row is written.
    """

    def deliver_now(self, delivery: Delivery) -> Outcome: ...


class Slot(NamedTuple):
    """Where whole events lie in a queue from now on: its number, how their rows begin, and how long they may be."""

    queue: int
    beginning: bytes
    max_bytes: int


class SlotTarget(ImmediateTarget, Protocol):
    """A target that takes most events of a route as they come, so that it need not be asked about each."""

    def slot(self, route: Route) -> Slot | None:
        """Where the route's events go, as long as nothing else runs; None when each has to be looked at."""
        ...
