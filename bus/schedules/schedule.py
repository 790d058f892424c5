"""Schedules and their groups as values, how clients see them, and the form in which the store keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from bus.schedules.timing import MINUTE_MS, Timing, find_zone, parse_expression
from bus.scope import Scope
from bus.targets import Route
from rules.arn import partition_of
from rules.schedule import At

DEFAULT_GROUP = "default"
ENABLED = "ENABLED"
ACTIVE, DELETING = "ACTIVE", "DELETING"

_TEXTS = ("Description", "KmsKeyArn", "StartDate", "EndDate")
TIMED_BY = ("ScheduleExpression", "ScheduleExpressionTimezone", "StartDate", "EndDate", "FlexibleTimeWindow", "State")
"""The members that decide when a schedule is due."""


def schedule_arn(name: str, group: str, scope: Scope) -> str:
    """Build the ARN of a schedule."""
    return f"arn:{partition_of(scope.region)}:scheduler:{scope.region}:{scope.account}:schedule/{group}/{name}"


def group_arn(name: str, scope: Scope) -> str:
    """Build the ARN of a schedule group."""
    return f"arn:{partition_of(scope.region)}:scheduler:{scope.region}:{scope.account}:schedule-group/{name}"


@dataclass(frozen=True, slots=True)
class Group:
    """A schedule group; ``created`` and ``modified`` (ms) are 0 for the default group, which was never created.

    ``made_by`` is the client token of the request that created it, and its digest.
    """

    scope: Scope
    name: str
    created: int = 0
    modified: int = 0
    state: str = ACTIVE
    tags: Mapping[str, str] = field(default_factory=dict)
    made_by: tuple[str, str] | None = None

    @property
    def arn(self) -> str:
        return group_arn(self.name, self.scope)

    @property
    def key(self) -> str:
        """The group's key in the store."""
        return f"{self.scope.account}/{self.scope.region}/{self.name}"

    def members(self) -> dict[str, Any]:
        """The group as GetScheduleGroup and ListScheduleGroups show it."""
        shown: dict[str, Any] = {"Arn": self.arn, "Name": self.name, "State": self.state}
        if self.created:
            shown |= {"CreationDate": self.created / 1000, "LastModificationDate": self.modified / 1000}
        return shown

    def dump(self) -> bytes:
        """The stored form; scope and name are in the key."""
        return orjson.dumps(
            {
                "created": self.created,
                "modified": self.modified,
                "state": self.state,
                "tags": self.tags,
                "made_by": self.made_by,
            }
        )

    @classmethod
    def load(cls, key: str, value: bytes) -> Group:
        account, region, name = key.split("/")
        stored = orjson.loads(value)
        made_by = stored.pop("made_by")
        return cls(Scope(account, region), name, **stored, made_by=None if made_by is None else tuple(made_by))


class Execution(NamedTuple):
    """One invocation of a schedule, the same after a restart: its nominal instant (ms) and the ids made from it."""

    nominal: int
    event_id: str

    @property
    def execution_id(self) -> str:
        return execution_id(self.event_id)


def execution_id(event_id: str) -> str:
    """The id that EventBridge Scheduler shows of an invocation: 16 hexadecimal digits."""
    return event_id.replace("-", "")[:16]


def instant_text(instant: int) -> str:
    """An instant (ms) as targets and dead letters are given it, such as 2022-03-22T18:59:43Z."""
    return datetime.fromtimestamp(instant // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule with its target.

    ``number`` names it in the store and tells it from an earlier one of the same name. ``described`` holds the members
    that say when and how, with their defaults. Up to ``since`` (ms) nothing is due; a rate without a StartDate counts
    from ``anchor``. ``made_by`` is the client token of the request that wrote this value, and its digest.
    """

    number: int
    scope: Scope
    group: str
    name: str
    created: int
    modified: int
    since: int
    anchor: int
    described: Mapping[str, Any]
    route: Route
    made_by: tuple[str, str] | None = None

    @property
    def arn(self) -> str:
        return schedule_arn(self.name, self.group, self.scope)

    @property
    def key(self) -> str:
        """The schedule's key in the store."""
        return f"{self.scope.account}/{self.scope.region}/{self.group}/{self.name}"

    @property
    def enabled(self) -> bool:
        return bool(self.described["State"] == ENABLED)

    @property
    def ends_itself(self) -> bool:
        """Whether it is to be deleted after its last invocation."""
        return bool(self.described["ActionAfterCompletion"] == "DELETE")

    @property
    def timing(self) -> Timing:
        return timing_of(self.described, self.anchor)

    def execution(self, nominal: int) -> Execution:
        """The invocation of a nominal instant."""
        digest = blake2b(f"{self.number} {self.created} {self.arn} {nominal}".encode(), digest_size=16).digest()
        return Execution(nominal, str(UUID(bytes=digest, version=5)))

    def members(self) -> dict[str, Any]:
        """The schedule as GetSchedule shows it."""
        target = {name: value for name, value in self.route.target.items() if name != "Id"}
        return {**self._head(), **self.described, "Target": target}

    def summary(self) -> dict[str, Any]:
        """The schedule as ListSchedules shows it."""
        return {**self._head(), "State": self.described["State"], "Target": {"Arn": self.route.arn}}

    def _head(self) -> dict[str, Any]:
        return {
            "Arn": self.arn,
            "GroupName": self.group,
            "Name": self.name,
            "CreationDate": self.created / 1000,
            "LastModificationDate": self.modified / 1000,
        }

    def dump(self) -> bytes:
        """The stored form; scope, group and name are in the key, the target is in the route's own record."""
        return orjson.dumps(
            {
                "number": self.number,
                "created": self.created,
                "modified": self.modified,
                "since": self.since,
                "anchor": self.anchor,
                "described": self.described,
                "route": self.route.number,
                "made_by": self.made_by,
            }
        )

    @classmethod
    def load(cls, key: str, value: bytes, routes: Mapping[int, Route]) -> Schedule:
        account, region, group, name = key.split("/")
        stored = orjson.loads(value)
        made_by = stored.pop("made_by")
        return cls(
            scope=Scope(account, region), group=group, name=name, route=routes[stored.pop("route")],
            made_by=None if made_by is None else tuple(made_by), **stored,
        )  # fmt: skip


def described(request: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a request that say when and how a schedule invokes, with EventBridge Scheduler's defaults."""
    found = {
        "ScheduleExpression": request["ScheduleExpression"],
        "ScheduleExpressionTimezone": request.get("ScheduleExpressionTimezone") or "UTC",
        "State": request.get("State") or ENABLED,
        "FlexibleTimeWindow": {k: v for k, v in request["FlexibleTimeWindow"].items() if v is not None},
        "ActionAfterCompletion": request.get("ActionAfterCompletion") or "NONE",
    }
    return found | {name: request[name] for name in _TEXTS if request.get(name) is not None}


def timing_of(members: Mapping[str, Any], anchor: int) -> Timing:
    """When a schedule with these members is due; ScheduleError for an expression or a time zone that is none."""
    start, end = (None if members.get(name) is None else int(members[name] * 1000) for name in ("StartDate", "EndDate"))
    return Timing(
        parse_expression(members["ScheduleExpression"]),
        find_zone(members["ScheduleExpressionTimezone"]),
        anchor,
        start,
        end,
        members["FlexibleTimeWindow"].get("MaximumWindowInMinutes", 0) * MINUTE_MS,
    )


def due_from(members: Mapping[str, Any], now: int, anchor: int) -> int:
    """The instant (ms) after which a schedule that is written now can be due.

    Schedules have a precision of a minute: one for the minute that has just begun is not late.
    """
    once = isinstance(timing_of(members, anchor).expression, At)
    return now - MINUTE_MS if once else now - 1
