"""Targets of schedules: those of rules, and three things that only schedules have.

Each attempt has its number filled into the input. A bus as target means PutEvents: the input is the detail of an event
that is made here. A universal target is any API of AWS; those of this bus's own services are called in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

import orjson
import structlog
from msgspec.structs import replace

from bus.accepted import Luggage
from bus.arrival import Arrival
from bus.errors import ApiError, StoreError
from bus.schedules.invocation import fill_attempt
from bus.scope import Call, Scope
from bus.targets import Delivered, Delivery, Failed, ImmediateTarget, Outcome, Target
from bus.targets.aws import classify
from bus.targets.aws_calls import fill
from bus.targets.universal import Api, find_api
from rules.arn import ArnError, parse
from rules.event import check_entry, format_time

log = structlog.get_logger(__name__)


class Put(Protocol):
    """Puts events on a bus and returns once they are durable there; False when that bus is not there."""

    async def __call__(self, scope: Scope, bus_name: str, arrivals: list[Arrival], *, luggage: Luggage) -> bool: ...


class Operation(Protocol):
    """An operation of this process's own API."""

    def check(self, request: Any) -> None: ...


Method = Callable[[Call, dict[str, Any]], Coroutine[Any, Any, dict[str, Any] | None]]
Own = Callable[[str, str], tuple[Operation, Method] | None]
"""Finds the operation that this process answers itself, by botocore's name of the service and the operation's."""


class Scheduled:
    """A target as schedules use it."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def deliver(self, delivery: Delivery) -> Outcome:
        return _in_service_terms(await self._target.deliver(_attempt(delivery)))

    async def close(self) -> None:
        """The target is closed by its owner."""


class ScheduledNow(Scheduled):
    """A target within this process as schedules use it."""

    def __init__(self, target: ImmediateTarget) -> None:
        super().__init__(target)
        self._now = target

    def deliver_now(self, delivery: Delivery) -> Outcome:
        return _in_service_terms(self._now.deliver_now(_attempt(delivery)))


def _attempt(delivery: Delivery) -> Delivery:
    body = fill_attempt(delivery.body, delivery.attempt)
    return delivery if body == delivery.body else replace(delivery, body=body)


def _in_service_terms(outcome: Outcome) -> Outcome:
    """EventBridge Scheduler passes on the code of the service that refused, where EventBridge has codes of its own."""
    if isinstance(outcome, Failed) and outcome.cause is not None:
        return replace(outcome, code=outcome.cause)
    return outcome


class PutEvents:
    """Buses as the templated targets of schedules."""

    def __init__(self, put: Put) -> None:
        self._put = put

    async def deliver(self, delivery: Delivery) -> Outcome:
        try:
            bus = parse(delivery.route.arn)
        except ArnError as error:
            return Failed("INVALID_PARAMETER", str(error))
        entry = _entry(delivery)
        fault = check_entry(entry)
        if fault is not None:
            return Failed("INVALID_PARAMETER", fault.message, cause=fault.code)
        time = format_time(delivery.accepted / 1000)
        arrival = Arrival(
            delivery.event_id, time, entry["Source"], entry["DetailType"], entry["Detail"], entry["Resources"],
            delivery.route.scope,
        )  # fmt: skip
        name = bus.resource.removeprefix("event-bus/")
        try:
            await self._put(Scope(bus.account, bus.region), name, [arrival], luggage=Luggage(trace=delivery.trace))
        except ApiError as error:
            return _refused(error)
        except StoreError as error:
            return Failed("INTERNAL_ERROR", f"The event could not be stored: {error}", retry=True)
        except Exception as error:
            log.exception("an event could not be put", target=delivery.route.arn)
            return Failed("INTERNAL_ERROR", f"Putting the event ended with {type(error).__name__}.", retry=True)
        return Delivered()  # also where the bus is absent: PutEvents drops an event for one that is not there

    async def close(self) -> None:
        """Nothing is held."""


def _entry(delivery: Delivery) -> dict[str, Any]:
    target = delivery.route.target
    detail = delivery.body if target.get("Input") is not None else b"{}"
    parameters = fill(target["EventBridgeParameters"], detail)
    return {
        "Source": parameters["Source"],
        "DetailType": parameters["DetailType"],
        "Detail": detail.decode(errors="replace"),
        "Resources": [delivery.route.rule_arn],
    }


class AwsApi:
    """AWS services as targets of schedules, and universal targets; ``elsewhere`` calls what is not answered here."""

    def __init__(self, own: Own, elsewhere: Target) -> None:
        self._own = own
        self._elsewhere = elsewhere

    async def deliver(self, delivery: Delivery) -> Outcome:
        try:
            api = find_api(parse(delivery.route.arn))
        except ArnError as error:
            return Failed("INVALID_PARAMETER", str(error))
        own = None if api is None else self._own(api.client, api.operation)
        if api is None or own is None:
            return await self._elsewhere.deliver(delivery)
        return await _perform(api, *own, delivery)

    async def close(self) -> None:
        """What it calls is closed by its owner."""


async def _perform(api: Api, operation: Operation, method: Method, delivery: Delivery) -> Outcome:
    try:
        request = orjson.loads(delivery.body)
        operation.check(request)
        result = await method(Call(delivery.route.scope, trace=delivery.trace), request)
    except ApiError as error:
        return _refused(error)
    except ValueError as error:
        return Failed("INVALID_PARAMETER", f"The input is not JSON: {error}")
    except StoreError as error:
        return Failed("INTERNAL_ERROR", f"The call could not be stored: {error}", retry=True)
    except Exception as error:
        log.exception("a call ended in an unexpected way", target=delivery.route.arn)
        return Failed("INTERNAL_ERROR", f"The call ended with {type(error).__name__}.", retry=True)
    return _of_entries(result or {}) or Delivered()


def _refused(error: ApiError) -> Failed:
    kind, retry = classify(error.code, error.status or 400)
    return Failed(kind, error.message, retry=retry, cause=error.code)


def _of_entries(result: Mapping[str, Any]) -> Failed | None:
    """The failure of the first entry that a batch operation refused while it answered as a whole with success."""
    entries = result.get("Entries") or result.get("FailedEntries") or result.get("Failed") or ()
    for entry in entries:
        code = entry.get("ErrorCode") or entry.get("Code")
        if code is not None:
            kind, retry = classify(code, 500 if code == "InternalFailure" else 400)
            return Failed(kind, entry.get("ErrorMessage") or entry.get("Message") or code, retry=retry, cause=code)
    return None
