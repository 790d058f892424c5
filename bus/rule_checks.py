"""The checks of PutRule, TestEventPattern and of ARNs anywhere that need nothing but the request."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bus.config import Settings
from bus.errors import ApiError, validation
from rules.arn import DEFAULT_BUS, Arn, ArnError, parse
from rules.errors import PatternError, ScheduleError
from rules.flatten import EventError, Repeated, parse_event
from rules.operators import AnythingBut, Wildcard
from rules.pattern import Pattern
from rules.schedule import parse_schedule
from rules.states import RuleState

_REQUIRED_OF_EVENT = ("id", "detail-type", "source", "account", "time", "region")


def check_rule(request: Mapping[str, Any], settings: Settings) -> None:
    """Raise what is wrong with PutRule's triggers and role."""
    pattern, schedule = request.get("EventPattern"), request.get("ScheduleExpression")
    if schedule is not None and not _is_default(request.get("EventBusName")):
        raise validation("ScheduleExpression is supported only on the default event bus.")
    if not pattern and not schedule:
        raise validation("Parameter(s) EventPattern or ScheduleExpression must be specified.")
    if request.get("State") == RuleState.ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS and _is_partner(request):
        raise validation(f"State {request['State']} is not supported on partner event buses.")
    if schedule:
        _check_schedule(schedule, request.get("State"))
    if pattern:
        check_pattern(pattern, settings)
    if request.get("RoleArn") is not None:
        _check_role(request["RoleArn"])


def check_pattern(pattern: str, settings: Settings) -> None:
    """Raise what is wrong with an event pattern that is to be stored."""
    _check_length(pattern, settings.max_event_pattern)
    parse_pattern(pattern)


def _is_default(name_or_arn: str | None) -> bool:
    return name_or_arn is None or name_or_arn.rpartition("event-bus/")[2] == DEFAULT_BUS


def _is_partner(request: Mapping[str, Any]) -> bool:
    return str(request.get("EventBusName")).rpartition("event-bus/")[2].startswith("aws.partner/")


def _check_schedule(schedule: str, state: str | None) -> None:
    try:
        parse_schedule(schedule)
    except ScheduleError:
        raise validation("Parameter ScheduleExpression is not valid.") from None
    if state == RuleState.ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS:
        raise validation(f"Parameter State is not valid. Reason: {state} is not for rules with a ScheduleExpression.")


def _check_length(pattern: str, longest: int) -> None:
    if len(pattern) > longest:
        raise validation(
            f"1 validation error detected: Value '{pattern}' at 'eventPattern' failed to satisfy constraint:"
            f" Member must have length less than or equal to {longest}"
        )


def _check_role(role: str) -> None:
    if not is_role(role):
        raise validation(f"Provided role '{role}' cannot be assumed by principal 'events.amazonaws.com'.")


def is_role(text: str) -> bool:
    """Whether an ARN is that of a role; ValidationException when it is no ARN."""
    arn = read_arn(text)
    return arn.service == "iam" and arn.resource.startswith("role/")


def read_arn(text: str) -> Arn:
    """The ARN in the text, or ValidationException."""
    try:
        return parse(text)
    except ArnError:
        raise bad_arn(text) from None


def bad_arn(text: str) -> ApiError:
    """The answer to an ARN that is not one, or does not name what it should."""
    return validation(f"Parameter {text} is not valid. Reason: Provided Arn is not in correct format.")


def parse_pattern(text: str) -> Pattern:
    """The event pattern, or InvalidEventPatternException with the reason."""
    try:
        return Pattern.parse(text)
    except PatternError as error:
        raise ApiError("InvalidEventPatternException", f"Event pattern is not valid. Reason: {error.reason}") from None


def uses_wildcard(pattern: str | None) -> bool:
    """Whether an accepted event pattern has a wildcard in it."""
    if not pattern or "wildcard" not in pattern:  # the text decides most cases without compiling it
        return False
    leaves = (leaf for fork in Pattern.parse(pattern).forks for leaf in fork.values())
    return any(
        isinstance(alternative, Wildcard) or (isinstance(alternative, AnythingBut) and alternative.form == "wildcard")
        for leaf in leaves
        for alternative in leaf
    )


def read_event(text: str) -> dict[str, Any]:
    """The event of TestEventPattern, or ValidationException."""
    try:
        event = parse_event(text)
    except EventError:
        raise _not_valid() from None
    if any(name not in event for name in _REQUIRED_OF_EVENT):
        raise _not_valid()
    if not _is_time(event["time"]):
        raise _not_valid(" Reason: Invalid time.")
    return event


def _not_valid(reason: str = "") -> ApiError:
    return validation(f"Parameter Event is not valid.{reason}")


def _is_time(value: object) -> bool:
    """Whether the value is a point in time: ISO 8601 text, or a number of seconds."""
    if isinstance(value, Repeated):
        return all(map(_is_time, value))
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            return False
        return True
    return isinstance(value, int | float) and not isinstance(value, bool)
