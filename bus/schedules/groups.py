"""Schedule groups: their operations, and their tags, which schedules do not have.

A group is deleted with its schedules. It is marked first, so that nothing new gets into it, and its schedules then go
some hundred at a time, so that a large group holds nothing up; a restart goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from bus.clock import Clock
from bus.errors import StoreError, validation
from bus.pages import page
from bus.quotas import Quotas
from bus.schedules.refusals import check_quota, conflict, no_group
from bus.schedules.registry import Registry
from bus.schedules.schedule import DEFAULT_GROUP, DELETING, Group
from bus.schedules.tokens import Tokens, made_by
from bus.scope import Call, Scope
from rules.arn import parse

log = structlog.get_logger("schedules")

AT_ONCE = 250
"""Schedules removed in one transaction."""

AGAIN_S = 1.0


class Groups:
    """The operations on groups and tags."""

    def __init__(self, clock: Clock, registry: Registry, *, quotas: Quotas | None = None) -> None:
        self._clock = clock
        self._registry = registry
        self._quotas = quotas or Quotas()
        self._deletions = Tokens()
        self._emptying: set[asyncio.Task[None]] = set()

    # -- life

    def start(self) -> None:
        """Go on deleting the groups whose deletion was under way."""
        for group in list(self._registry.all_groups()):
            if group.state == DELETING:
                self._empty_in_background(group)

    async def stop(self) -> None:
        """Leave the rest of what is being deleted to the next start."""
        for task in self._emptying:
            task.cancel()
        await asyncio.gather(*self._emptying, return_exceptions=True)

    # -- groups

    async def create_schedule_group(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        name, by = request["Name"], made_by("create", request)
        _check_not_default(name)
        tags = self._tags({}, request.get("Tags") or ())
        async with self._registry.lock(call.scope, name):
            existing = self._registry.group(call.scope, name)
            if existing is not None:
                if by is not None and existing.made_by == by and existing.state != DELETING:
                    return {"ScheduleGroupArn": existing.arn}
                raise conflict(f"Schedule group {name} already exists.")
            count = len(self._registry.groups(call.scope)) + 1
            check_quota(count, self._quotas.schedule_groups, "schedule groups")
            now = self._clock.now_ms()
            group = Group(call.scope, name, now, now, tags=tags, made_by=by)
            await self._registry.save_group(group)
        return {"ScheduleGroupArn": group.arn}

    async def get_schedule_group(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        return self._require(call.scope, request["Name"]).members()

    async def list_schedule_groups(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        prefix = request.get("NamePrefix") or ""
        found = [group for group in self._registry.groups(call.scope) if group.name.startswith(prefix)]
        limits = {"Limit": request.get("MaxResults"), "NextToken": request.get("NextToken")}
        shown, token = page(found, limits, key=lambda group: group.name, of=("groups", *call.scope, prefix))
        return {"ScheduleGroups": [group.members() for group in shown], **token}

    async def delete_schedule_group(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        name, key = request["Name"], (call.scope, request["Name"])
        _check_not_default(name)
        async with self._registry.lock(*key):
            if self._deletions.knows(request.get("ClientToken"), key):
                return {}
            group = self._require(call.scope, name)
            if group.state != DELETING:
                group = replace(group, state=DELETING, modified=self._clock.now_ms())
                await self._registry.save_group(group)
                self._deletions.remember(request.get("ClientToken"), key)
                await self._registry.caught_up()  # with schedules that were on their way into the group
                await self._begin_emptying(group)
        return {}

    def _require(self, scope: Scope, name: str) -> Group:
        found = self._registry.group(scope, name)
        if found is None:
            raise no_group(name)
        return found

    # -- deleting a group

    async def _begin_emptying(self, group: Group) -> None:
        """The deletion is certain since it was marked: what cannot be done now is done later."""
        try:
            left = await self._empty_some(group)
        except StoreError as error:
            log.error("a schedule group could not be deleted; trying again", group=group.arn, reason=str(error))
            left = True
        if left:
            self._empty_in_background(group)

    async def _empty_some(self, group: Group) -> bool:
        """Remove some of the group's schedules, and with the last of them the group; whether any are left."""
        schedules = self._registry.in_group(group.scope, group.name, AT_ONCE)
        if schedules:
            await self._registry.remove(schedules)
        if self._registry.in_group(group.scope, group.name, 1):
            return True
        await self._registry.remove_group(group)
        return False

    def _empty_in_background(self, group: Group) -> None:
        task = asyncio.get_running_loop().create_task(self._empty(group))
        self._emptying.add(task)
        task.add_done_callback(self._emptying.discard)

    async def _empty(self, group: Group) -> None:
        left = True
        while left:
            try:
                async with self._registry.lock(group.scope, group.name):
                    left = await self._empty_some(group)
            except StoreError as error:
                log.error("a schedule group could not be deleted; trying again", group=group.arn, reason=str(error))
                await asyncio.sleep(AGAIN_S)

    # -- tags

    async def tag_resource(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        async with self._registry.lock(call.scope, _name_in(request["ResourceArn"])):
            group = self._tagged(call.scope, request["ResourceArn"])
            await self._registry.save_group(replace(group, tags=self._tags(group.tags, request["Tags"])))
        return {}

    async def untag_resource(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        gone = set(request["TagKeys"])
        async with self._registry.lock(call.scope, _name_in(request["ResourceArn"])):
            group = self._tagged(call.scope, request["ResourceArn"])
            kept = {key: value for key, value in group.tags.items() if key not in gone}
            await self._registry.save_group(replace(group, tags=kept))
        return {}

    async def list_tags_for_resource(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        tags = self._tagged(call.scope, request["ResourceArn"]).tags
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def _tagged(self, scope: Scope, text: str) -> Group:
        arn, name = parse(text), _name_in(text)
        if (arn.account, arn.region) != scope:
            raise no_group(name)
        return self._require(scope, name)

    def _tags(self, tags: Mapping[str, str], given: Any) -> dict[str, str]:
        new = {tag["Key"]: tag["Value"] for tag in given}
        if len(new) < len(given):
            raise validation("Duplicate tag keys are not allowed.")
        merged = {**tags, **new}
        if len(merged) > self._quotas.tags_per_resource:
            raise validation(f"A resource can have at most {self._quotas.tags_per_resource} tags.")
        return merged


def _name_in(text: str) -> str:
    """The group's name in an ARN, which is of the right form: the service model has its pattern."""
    return text.rpartition("/")[2]


def _check_not_default(name: str) -> None:
    if name == DEFAULT_GROUP:
        raise validation(f"This operation cannot be performed on schedule group {name}.")
