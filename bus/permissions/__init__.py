"""PutPermission and RemovePermission: the policy of an event bus, statement by statement or as a whole.

Only the bus's own account changes its policy; both operations take the names of buses, never ARNs.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bus.config import ORGANIZATION
from bus.errors import ApiError, not_found, validation
from bus.resources import Bus
from bus.scope import Call, Scope
from rules.arn import parse
from rules.bus_policy import (
    PolicyError,
    PolicyTooLong,
    normal_policy,
    statement_for,
    with_statement,
    without_statement,
)

ChangePolicy = Callable[[Scope, str | None, Callable[[Bus], str | None]], Awaitable[None]]
"""Replaces the policy of a bus by what the callable makes of the bus; ResourceNotFoundException."""

SHORT_FORM = ("Action", "Principal", "StatementId", "Condition")
REQUIRED = ("Action", "Principal", "StatementId")
ACTION = "events:PutEvents"


class Permissions:
    """The two operations."""

    service = "events"

    def __init__(self, change_policy: ChangePolicy) -> None:
        self._change_policy = change_policy

    async def put_permission(self, call: Call, request: dict[str, Any]) -> None:
        text = request.get("Policy")
        if text is None:
            change = _short_form(request)
        elif any(request.get(member) is not None for member in SHORT_FORM):
            raise validation(
                "Action, Principal, StatementId and Condition could not be combined with Policy parameter."
            )
        else:
            change = _whole(text)
        await self._change_policy(call.scope, request.get("EventBusName"), _refusing(change))

    async def remove_permission(self, call: Call, request: dict[str, Any]) -> None:
        sid, everything = request.get("StatementId"), request.get("RemoveAllPermissions")
        if sid is not None and everything:
            raise validation("StatementId could not be combined with All parameter.")
        if sid is None and not everything:
            raise validation("Parameter(s) StatementId must be specified.")
        change = _without(sid) if sid is not None else lambda bus: None
        await self._change_policy(call.scope, request.get("EventBusName"), change)


def _short_form(request: Mapping[str, Any]) -> Callable[[Bus], str]:
    """Add the one statement that a request describes."""
    _check_short_form(request)

    def change(bus: Bus) -> str:
        statement = statement_for(
            parse(bus.arn),
            sid=request["StatementId"],
            action=request["Action"],
            principal=request["Principal"],
            condition=request.get("Condition"),
        )
        return with_statement(bus.policy, statement)

    return change


def _check_short_form(request: Mapping[str, Any]) -> None:
    for member in REQUIRED:
        if request.get(member) is None:
            raise validation(f"Parameter(s) {member} must be specified.")
    if request["Action"] != ACTION:
        raise validation("Provided value in parameter 'action' is not supported.")
    condition = request.get("Condition")
    if condition is not None:
        _check_condition(condition)
        if request["Principal"] != "*":
            raise validation("Value of the parameter 'principal' must be '*' when the parameter 'condition' is set.")


def _check_condition(condition: Mapping[str, str]) -> None:
    if condition["Type"] != "StringEquals":
        raise validation("Provided value in parameter 'condition.type' is not supported.")
    if condition["Key"] != "aws:PrincipalOrgID":
        raise validation("Provided value in parameter 'condition.key' is not supported.")
    if not re.fullmatch(ORGANIZATION, condition["Value"]):
        raise validation("Provided value in parameter 'condition.value' is invalid.")


def _whole(text: str) -> Callable[[Bus], str]:
    return lambda bus: normal_policy(text, parse(bus.arn))


def _without(sid: str) -> Callable[[Bus], str | None]:
    def change(bus: Bus) -> str | None:
        try:
            return without_statement(bus.policy, sid)
        except KeyError:
            raise not_found("Statement with the provided id does not exist.") from None

    return change


def _refusing(change: Callable[[Bus], str]) -> Callable[[Bus], str]:
    """A refused document as AWS answers it."""

    def refusing(bus: Bus) -> str:
        try:
            return change(bus)
        except PolicyTooLong as error:
            raise ApiError("PolicyLengthExceededException", str(error)) from None
        except PolicyError as error:
            raise validation(str(error)) from None

    return refusing
