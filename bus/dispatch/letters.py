"""What a dead letter says of its death: EventBridge's attributes, and EventBridge Scheduler's for schedules."""

from __future__ import annotations

from bus.accepted import unpack
from bus.schedules.schedule import execution_id, instant_text
from bus.schedules.targets import api_arn
from bus.store import Lease
from bus.targets import Failed, Route
from rules.retry import Exhausted

INTERNAL_ERROR = "AWS.Scheduler.InternalServerError"


def letter_attributes(route: Route, lease: Lease, failure: Failed, exhausted: Exhausted | None) -> dict[str, str]:
    """The message attributes of a delivery's dead letter."""
    return _of_rule(route, failure, exhausted) if route.bus else _of_schedule(route, lease, failure, exhausted)


def _of_rule(route: Route, failure: Failed, exhausted: Exhausted | None) -> dict[str, str]:
    """Those of EventBridge; the two of retries only when retries ran out."""
    attributes = {
        "RULE_ARN": route.rule_arn,
        "TARGET_ARN": route.arn,
        "ERROR_CODE": failure.code,
        "ERROR_MESSAGE": failure.message or failure.code,
    }
    if exhausted is not None:
        attributes["EXHAUSTED_RETRY_CONDITION"] = exhausted.condition
        attributes["RETRY_ATTEMPTS"] = str(exhausted.retries)
    return attributes


def _of_schedule(route: Route, lease: Lease, failure: Failed, exhausted: Exhausted | None) -> dict[str, str]:
    """Those of EventBridge Scheduler; why retries ended only when they ran out."""
    scheduled = unpack(lease.attrs).scheduled
    attributes = {
        "SCHEDULE_ARN": route.rule_arn,
        "TARGET_ARN": api_arn(route.arn),
        "SCHEDULED_TIME": instant_text(lease.ts if scheduled is None else scheduled),
        "EXECUTION_ID": execution_id(lease.event_id),
        "ERROR_CODE": INTERNAL_ERROR if failure.code == "INTERNAL_ERROR" else failure.code,
        "ERROR_MESSAGE": failure.message or failure.code,
        "RETRY_ATTEMPTS": str(lease.attempts if exhausted is None else exhausted.retries),
        "IS_PAYLOAD_TRUNCATED": "false",
    }
    if exhausted is not None:
        attributes["EXHAUSTED_RETRY_CONDITION"] = exhausted.condition
    return attributes
