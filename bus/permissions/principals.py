"""Who asks, as resource policies see it: principals, and the condition keys that come with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import uuid4

from bus.clock import Clock
from bus.config import Settings
from bus.scope import Call
from bus.targets import Route
from rules.arn import partition_of
from rules.policy import Principal, Request

Known = Mapping[str, str | list[str]]
"""Condition keys in lower case, with what the request says of each."""

_ROLE = re.compile(r"arn:aws[a-z\-]*:iam::([0-9]{12}):role/(?:.*/)?([^/]+)")


class Principals:
    """Makes the requests that policies judge.

    Callers are the root of their account, or, where signatures are verified, the user that their access key stands
    for. ``--organization`` says which organisation all accounts belong to; without it they belong to none.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._organization = settings.organization
        self._verified = settings.credentials is not None
        self._clock = clock

    def caller(self, call: Call, action: str, resources: Sequence[str], context: Known) -> Request:
        """A caller of the API."""
        account = call.account
        user = self._verified and call.access_key is not None
        arn = _iam(call.scope.region, account, f"user/{call.access_key}" if user else "root")
        own = {"aws:principaltype": "User" if user else "Account"}
        return self._request(Principal(arn, account), action, resources, own | _in_account(account, arn), context)

    def forwarding(self, route: Route, bus_arn: str, context: Known) -> Request:
        """A rule that puts an event on another bus: its role, or its account where the target has none."""
        account, role = route.scope.account, route.target.get("RoleArn")
        arn = role or _iam(route.scope.region, account, "root")
        services = frozenset(() if role else (service_of(route.rule_arn),))
        own = {
            "aws:principaltype": "AssumedRole" if role else "Account",
            **_in_account(account, arn),
            **_from_rule(route.rule_arn),
        }
        return self._request(Principal(arn, account, services), "events:PutEvents", (bus_arn,), own, context)

    def delivering(self, rule_arn: str, role: str | None, action: str, resource: str) -> Request:
        """A rule that sends to a resource: the service of the rule itself, or the target's role."""
        found = _ROLE.fullmatch(role or "")
        if role is None or found is None:
            service = service_of(rule_arn)
            own = {
                "aws:principalservicename": service,
                "aws:principalisawsservice": "true",
                "aws:principaltype": "User",
                **_from_rule(rule_arn),
            }
            principal = Principal(service, None, frozenset((service,)))
        else:
            own = {"aws:principaltype": "AssumedRole", **_in_account(found[1], role)}
            principal = Principal(role, found[1])
        return self._request(principal, action, (resource,), own, {})

    def _request(
        self,
        principal: Principal,
        action: str,
        resources: Sequence[str],
        own: Mapping[str, str],
        context: Known,
    ) -> Request:
        now = self._clock.now_ms() / 1000
        everything: dict[str, str | list[str]] = {
            "aws:principalisawsservice": "false",
            "aws:currenttime": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "aws:epochtime": str(int(now)),
            **own,
            **context,
        }
        if self._organization is not None:
            for key, witness in _ORGANIZATION_KEYS.items():
                if witness in everything:
                    everything[key] = self._organization
        made = {key: [value] if isinstance(value, str) else value for key, value in everything.items()}
        return Request(principal, action, resources, made)


_ORGANIZATION_KEYS = {"aws:principalorgid": "aws:principalaccount", "aws:sourceorgid": "aws:sourceaccount"}
"""A principal's organisation is known with its account, a source's with the source's."""


def _in_account(account: str, arn: str) -> dict[str, str]:
    return {"aws:principalaccount": account, "aws:principalarn": arn}


def _from_rule(rule_arn: str) -> dict[str, str]:
    return {"aws:sourcearn": rule_arn, "aws:sourceaccount": rule_arn.split(":")[4]}


def _iam(region: str, account: str, resource: str) -> str:
    return f"arn:{partition_of(region)}:iam::{account}:{resource}"


def service_of(arn: str) -> str:
    """The service principal that acts for a rule."""
    return f"{arn.split(':')[2]}.amazonaws.com"


def sender_name(rule_arn: str, role: str | None) -> str:
    """How a refusal names who was refused: the service, or a session of the role."""
    found = _ROLE.fullmatch(role or "")
    if found is None:
        return service_of(rule_arn)
    return f"arn:aws:sts::{found[1]}:assumed-role/{found[2]}/{uuid4().hex}"
