"""Event buses and rules as values, and the form in which the store keeps them.

The values never change; an operation that changes a resource makes a new value, writes it, and only
then puts it in the place of the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from bus.scope import Scope
from bus.targets import Route
from rules import arn
from rules.event import format_time
from rules.states import RuleState


@dataclass(frozen=True, slots=True)
class Bus:
    """An event bus. ``number`` names it in the store; ``created`` and ``modified`` are in ms.

    ``described`` holds the optional members as CreateEventBus or UpdateEventBus took them
    (Description, KmsKeyIdentifier, DeadLetterConfig, LogConfig). ``policy`` is the text of its resource policy.
    """

    number: int
    scope: Scope
    name: str
    created: int
    modified: int
    described: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    policy: str | None = None

    @property
    def arn(self) -> str:
        return arn.bus_arn(self.name, region=self.scope.region, account=self.scope.account)

    @property
    def key(self) -> str:
        """The bus's key in the store."""
        return f"{self.scope.account}/{self.scope.region}/{self.name}"


def dump_bus(bus: Bus) -> bytes:
    """The stored form of a bus."""
    return orjson.dumps(
        {
            "number": bus.number,
            "account": bus.scope.account,
            "region": bus.scope.region,
            "name": bus.name,
            "created": bus.created,
            "modified": bus.modified,
            "described": bus.described,
            "tags": bus.tags,
            "policy": bus.policy,
        }
    )


def load_bus(value: bytes) -> Bus:
    """A bus from its stored form."""
    stored = orjson.loads(value)
    return Bus(scope=Scope(stored.pop("account"), stored.pop("region")), **stored)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with its targets, ordered by Id; each target is a route that deliveries refer to.

    ``pattern`` and ``schedule`` may be ``""``, which is returned as such and means the same as None. ``since`` is the
    instant (ms) from which the schedule counts. A rule that is ``managed_by`` a service is that service's to change.
    ``guest`` is the account that made the rule where it is not the bus's own.
    """

    scope: Scope
    bus: str
    name: str
    state: str = RuleState.ENABLED
    pattern: str | None = None
    schedule: str | None = None
    description: str | None = None
    role: str | None = None
    since: int = 0
    managed_by: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    routes: Sequence[Route] = ()
    guest: str | None = None

    @property
    def arn(self) -> str:
        return arn.rule_arn(self.name, bus=self.bus, region=self.scope.region, account=self.scope.account)

    @property
    def creator(self) -> str:
        """The account that made the rule."""
        return self.guest or self.scope.account

    @property
    def bus_arn(self) -> str:
        return arn.bus_arn(self.bus, region=self.scope.region, account=self.scope.account)

    @property
    def key(self) -> str:
        """The rule's key in the store."""
        return f"{self.scope.account}/{self.scope.region}/{self.bus}/{self.name}"

    @property
    def matched_by(self) -> str | None:
        """The event pattern that events are to be held against now; None when there is none to match."""
        return self.pattern if self.pattern and self.state != RuleState.DISABLED else None

    @property
    def timed_by(self) -> str | None:
        """The schedule expression that makes events now; None when there is none."""
        return self.schedule if self.schedule and self.state != RuleState.DISABLED else None

    def in_place_of(self, old: Rule | None, now: int) -> Rule:
        """The rule with its schedule counting from now, or from where it counted if it was already in force."""
        goes_on = old is not None and old.timed_by == self.timed_by
        return replace(self, since=old.since if old is not None and goes_on else now)


def dump_rule(rule: Rule) -> bytes:
    """The stored form of a rule: its routes by number."""
    return orjson.dumps(
        {
            "account": rule.scope.account,
            "region": rule.scope.region,
            "bus": rule.bus,
            "name": rule.name,
            "state": rule.state,
            "pattern": rule.pattern,
            "schedule": rule.schedule,
            "description": rule.description,
            "role": rule.role,
            "since": rule.since,
            "managed_by": rule.managed_by,
            "tags": rule.tags,
            "routes": [route.number for route in rule.routes],
            "guest": rule.guest,
        }
    )


def load_rule(value: bytes, routes: Mapping[int, Route]) -> Rule:
    """A rule from its stored form and the routes by number."""
    stored = orjson.loads(value)
    scope = Scope(stored.pop("account"), stored.pop("region"))
    return Rule(scope=scope, routes=tuple(routes[number] for number in stored.pop("routes")), **stored)


def rule_members(rule: Rule) -> dict[str, Any]:
    """The members that ListRules shows; DescribeRule adds one."""
    members = {
        "Name": rule.name,
        "Arn": rule.arn,
        "EventPattern": rule.pattern,
        "ScheduleExpression": rule.schedule,
        "State": rule.state,
        "Description": rule.description,
        "RoleArn": rule.role,
        "ManagedBy": rule.managed_by,
        "EventBusName": rule.bus,
    }
    return {member: value for member, value in members.items() if value is not None}


def rule_summary(rule: Rule, next_due: int | None = None) -> dict[str, Any]:
    """A rule as operators want to see it; ``next_due`` is when its schedule makes its next event (ms)."""
    return {
        "Account": rule.scope.account,
        "Region": rule.scope.region,
        **rule_members(rule),
        **({} if next_due is None else {"NextDue": format_time(next_due / 1000)}),
        "Targets": [{"Id": route.target["Id"], "Arn": route.arn} for route in rule.routes],
    }


def dump_route(route: Route) -> bytes:
    """The stored form of a route; its number is its key."""
    return orjson.dumps(
        {
            "account": route.scope.account,
            "region": route.scope.region,
            "bus": route.bus,
            "rule": route.rule,
            "rule_arn": route.rule_arn,
            "target": route.target,
        }
    )


def load_route(number: int, value: bytes) -> Route:
    """A route from its stored form."""
    stored = orjson.loads(value)
    return Route(number=number, scope=Scope(stored.pop("account"), stored.pop("region")), **stored)
