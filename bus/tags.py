"""Tags of buses and rules: the three operations, and where each kind of resource keeps its tags.

Tags live in the record of the resource they belong to, so they come and go with it in one write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from bus.errors import validation
from bus.quotas import Quotas, check_quota
from bus.rule_checks import bad_arn, read_arn
from bus.scope import Call, Scope
from rules.arn import Arn

Change = Callable[[Mapping[str, str]], dict[str, str]]


class TagHolder(Protocol):
    """A capability whose resources carry tags; both methods raise ResourceNotFoundException."""

    def tags_of(self, scope: Scope, arn: Arn) -> Mapping[str, str]: ...

    async def change_tags(self, scope: Scope, arn: Arn, change: Change) -> None: ...


def given_tags(tags: Sequence[Mapping[str, str]], quotas: Quotas) -> dict[str, str]:
    """A request's list of tags as a map; a key given twice and too many of them are errors."""
    found = {tag["Key"]: tag["Value"] for tag in tags}
    if len(found) < len(tags):
        raise validation("Invalid parameter: Duplicated keys are not allowed.")
    check_quota(len(found), quotas.tags_per_resource)
    return found


class Tags:
    """TagResource, UntagResource and ListTagsForResource over every kind of resource that has tags.

    ``holders`` maps the first word of an ARN's resource (``rule``, ``event-bus``) to its capability.
    """

    def __init__(self, holders: Mapping[str, TagHolder], *, quotas: Quotas | None = None) -> None:
        self._holders = holders
        self._quotas = quotas or Quotas()

    async def tag_resource(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        holder, arn = self._holder(request["ResourceARN"])
        new = given_tags(request["Tags"], self._quotas)

        def add(tags: Mapping[str, str]) -> dict[str, str]:
            merged = {**tags, **new}
            check_quota(len(merged), self._quotas.tags_per_resource)
            return merged

        await holder.change_tags(call.scope, arn, add)
        return {}

    async def untag_resource(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        holder, arn = self._holder(request["ResourceARN"])
        gone = set(request["TagKeys"])
        await holder.change_tags(call.scope, arn, lambda tags: {k: v for k, v in tags.items() if k not in gone})
        return {}

    async def list_tags_for_resource(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        holder, arn = self._holder(request["ResourceARN"])
        return {"Tags": [{"Key": key, "Value": value} for key, value in holder.tags_of(call.scope, arn).items()]}

    def _holder(self, text: str) -> tuple[TagHolder, Arn]:
        arn = read_arn(text)
        kind, _, name = arn.resource.partition("/")
        if arn.service != "events" or kind not in self._holders or not name:
            raise bad_arn(text)
        return self._holders[kind], arn
