"""EventBridge Scheduler: the operations on schedules; those on groups and tags are in `bus.schedules.groups`.

Every change is made under the schedule's lock: a new value is made from the one in place and written, and takes its
place when it is on disk. Firing follows it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bus.clock import Clock
from bus.errors import ApiError, not_found, validation
from bus.pages import page
from bus.quotas import Quotas
from bus.schedules.refusals import check_quota, conflict, no_group
from bus.schedules.registry import Registry
from bus.schedules.schedule import (
    DEFAULT_GROUP,
    DELETING,
    TIMED_BY,
    Group,
    Schedule,
    described,
    due_from,
    schedule_arn,
    timing_of,
)
from bus.schedules.targets import TargetChecks
from bus.schedules.timing import find_zone, parse_expression
from bus.schedules.tokens import Tokens, made_by
from bus.scope import Call, Scope
from bus.store import Store
from bus.targets import Route
from rules.errors import ScheduleError
from rules.schedule import At

EARLIEST_START_MS = 300_000
"""How long ago a StartDate may be."""


class Schedules:
    """CreateSchedule, GetSchedule, UpdateSchedule, DeleteSchedule and ListSchedules.

    ``may`` says whether a caller may do what a schedule would do in its stead.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        *,
        targets: TargetChecks,
        may: Callable[[Call, str], bool] = lambda call, action: True,
        quotas: Quotas | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._targets = targets
        self._may = may
        self._quotas = quotas or Quotas()
        self._deletions = Tokens()

    async def create_schedule(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        members, target = self._accepted(call, request)
        name, by = request["Name"], made_by("create", request)
        async with self._registry.lock(call.scope, request.get("GroupName") or DEFAULT_GROUP, name):
            group = self._require_group(call.scope, request.get("GroupName"))
            existing = self._registry.schedule(call.scope, group.name, name)
            if existing is not None:
                if by is not None and existing.made_by == by:
                    return {"ScheduleArn": existing.arn}
                raise conflict(f"Schedule {name} already exists.")
            _demand_kept(group)
            check_quota(self._registry.count(call.scope) + 1, self._quotas.schedules, "schedules")
            now = self._clock.now_ms()
            self._check_dates(members, now, {})
            route = self._route(call.scope, group.name, name, target)
            schedule = Schedule(
                self._store.allocate(), call.scope, group.name, name, now, now, due_from(members, now, now), now,
                members, route, by,
            )  # fmt: skip
            await self._registry.save(schedule)
        return {"ScheduleArn": schedule.arn}

    async def update_schedule(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        members, target = self._accepted(call, request)
        by = made_by("update", request)
        async with self._registry.lock(call.scope, request.get("GroupName") or DEFAULT_GROUP, request["Name"]):
            old = self._require(call.scope, request)
            _demand_kept(self._require_group(call.scope, old.group))
            if by is not None and old.made_by == by:
                return {"ScheduleArn": old.arn}
            now = self._clock.now_ms()
            self._check_dates(members, now, old.described)
            route = old.route
            if _without_id(route.target) != target:
                route = self._route(call.scope, old.group, old.name, target)
            new = replace(old, modified=now, described=members, route=route, made_by=by)
            await self._registry.save(_retimed(old, new, now))
        return {"ScheduleArn": old.arn}

    async def get_schedule(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        return self._require(call.scope, request).members()

    async def delete_schedule(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        key = (call.scope, request.get("GroupName") or DEFAULT_GROUP, request["Name"])
        async with self._registry.lock(*key):
            if not self._deletions.knows(request.get("ClientToken"), key):
                await self._registry.remove([self._require(call.scope, request)])
                self._deletions.remember(request.get("ClientToken"), key)
        return {}

    async def list_schedules(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        group, prefix, state = request.get("GroupName"), request.get("NamePrefix") or "", request.get("State")
        if group is not None:
            self._require_group(call.scope, group)
        groups = [group] if group is not None else [each.name for each in self._registry.groups(call.scope)]
        found = [
            schedule
            for schedule in self._registry.schedules(call.scope, groups)
            if schedule.name.startswith(prefix) and state in (None, schedule.described["State"])
        ]
        limits = {"Limit": request.get("MaxResults"), "NextToken": request.get("NextToken")}
        of = ("schedules", *call.scope, group or "", prefix, state or "")
        shown, token = page(found, limits, key=lambda each: f"{each.group}\0{each.name}", of=of)
        return {"Schedules": [schedule.summary() for schedule in shown], **token}

    # -- what the operations share

    def _accepted(self, call: Call, request: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a request says of a schedule: when and how, and its target; ValidationException."""
        members = described(request)
        _check_window(members["FlexibleTimeWindow"])
        text, zone = members["ScheduleExpression"], members["ScheduleExpressionTimezone"]
        try:
            parse_expression(text)
        except ScheduleError:
            raise validation(f"Invalid Schedule Expression {text}.") from None
        try:
            find_zone(zone)
        except ScheduleError:
            raise validation(f"Invalid Schedule Expression Timezone {zone}.") from None
        target = self._targets.accept(request["Target"], call.scope)
        action = self._targets.action(target)
        if action is not None and not self._may(call, action):
            raise ApiError("AccessDeniedException", f"Not authorized to perform: {action}", 403)
        return members, target

    def _check_dates(self, members: Mapping[str, Any], now: int, before: Mapping[str, Any]) -> None:
        """Refuse dates that make no sense; a StartDate that an update leaves alone may be any time ago."""
        start, end = members.get("StartDate"), members.get("EndDate")
        if start is not None and end is not None and start >= end:
            raise validation("The StartDate you specify must come before the EndDate.")
        once = isinstance(timing_of(members, now).expression, At)
        if start is None or once or start == before.get("StartDate"):
            return
        if start * 1000 < now - EARLIEST_START_MS:
            raise validation("The StartDate you specify cannot be earlier than 5 minutes ago.")

    def _require_group(self, scope: Scope, name: str | None) -> Group:
        found = self._registry.group(scope, name or DEFAULT_GROUP)
        if found is None:
            raise no_group(str(name))
        return found

    def _require(self, scope: Scope, request: Mapping[str, Any]) -> Schedule:
        name = request["Name"]
        found = self._registry.schedule(scope, request.get("GroupName") or DEFAULT_GROUP, name)
        if found is None:
            raise not_found(f"Schedule {name} does not exist.")
        return found

    def _route(self, scope: Scope, group: str, name: str, target: Mapping[str, Any]) -> Route:
        arn = schedule_arn(name, group, scope)
        return Route(self._store.allocate(), scope, "", f"{group}/{name}", arn, {"Id": name, **target})


def _demand_kept(group: Group) -> None:
    if group.state == DELETING:
        raise conflict(f"Schedule group {group.name} is being deleted.")


def _check_window(window: Mapping[str, Any]) -> None:
    minutes = window.get("MaximumWindowInMinutes")
    if window["Mode"] == "FLEXIBLE" and minutes is None:
        raise validation("MaximumWindowInMinutes must be provided when FlexibleTimeWindowMode is set to FLEXIBLE.")
    if window["Mode"] == "OFF" and minutes is not None:
        raise validation("MaximumWindowInMinutes must not be provided when FlexibleTimeWindowMode is set to OFF.")


def _without_id(target: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in target.items() if name != "Id"}


def _retimed(old: Schedule, new: Schedule, now: int) -> Schedule:
    """An updated schedule, which begins anew where the update changes when it is due.

    One that is left as it was keeps what it still has to do; a rate whose own members change counts from now.
    """
    changed = {name for name in TIMED_BY if old.described.get(name) != new.described.get(name)}
    if not changed:
        return new
    anchor = now if changed - {"State", "EndDate", "FlexibleTimeWindow"} else old.anchor
    return replace(new, since=due_from(new.described, now, anchor), anchor=anchor)
