"""Tags: the three operations, and where each kind of resource keeps its tags.

Tags of buses and rules live in the record of the resource, so they come and go with it in one write. Kinds whose
operations take no tags keep them in the `TagBook`, together with what identifies the resource: when it is gone, or
another one has taken its name, the entry says nothing any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from bus.errors import ApiError, validation
from bus.quotas import Quotas, check_quota
from bus.rule_checks import bad_arn, read_arn
from bus.scope import Call, Scope
from bus.store import ConfChange, Store
from rules.arn import Arn, parse

Change = Callable[[Mapping[str, str]], dict[str, str]]

Identify = Callable[[Scope, Arn], str]
"""What tells the resource with an ARN from any other that ever bore it; ResourceNotFoundException when it is absent."""

KIND = "tags"
RESERVED = "aws:"


class TagHolder(Protocol):
    """A capability whose resources carry tags; both methods raise ResourceNotFoundException."""

    def tags_of(self, scope: Scope, arn: Arn) -> Mapping[str, str]: ...

    async def change_tags(self, scope: Scope, arn: Arn, change: Change) -> None: ...


def given_tags(tags: Sequence[Mapping[str, str]], quotas: Quotas) -> dict[str, str]:
    """A request's list of tags as a map; a key given twice, a reserved one, and too many of them are errors."""
    found = {tag["Key"]: tag["Value"] for tag in tags}
    if len(found) < len(tags):
        raise validation("Invalid parameter: Duplicated keys are not allowed.")
    if any(key.lower().startswith(RESERVED) for key in found):
        raise validation("Invalid parameter: Tag keys that begin with aws: are reserved for system use.")
    check_quota(len(found), quotas.tags_per_resource)
    return found


class TagBook:
    """Tags of resources whose own records hold none, by ARN."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._entries: dict[str, tuple[str, dict[str, str]]] = {}
        self._identify: list[Identify] = []

    async def load(self) -> None:
        """Read all tags from the store."""
        _, entries = await self._store.conf_list(KIND)
        for entry in entries:
            if entry.value is not None:
                identity, tags = orjson.loads(entry.value)
                self._entries[entry.key] = identity, tags

    def of(self, identify: Identify) -> TagHolder:
        """The holder for one kind of resource."""
        self._identify.append(identify)
        return _Section(self, identify)

    async def forget_gone(self) -> None:
        """Let go of the tags of resources that are no more; most ARNs are never borne again."""
        async with self._lock:
            gone = [arn for arn, (identity, _) in self._entries.items() if not self._is_there(parse(arn), identity)]
            if gone:
                await self._store.conf_put([ConfChange(KIND, arn, None) for arn in gone])
            for arn in gone:
                del self._entries[arn]

    def _is_there(self, arn: Arn, identity: str) -> bool:
        for identify in self._identify:
            try:
                if identify(Scope(arn.account, arn.region), arn) == identity:
                    return True
            except ApiError:
                continue  # it is not of this kind, or there no more
        return False

    def read(self, arn: str, identity: str) -> Mapping[str, str]:
        """The tags of that resource; none when the entry is that of an earlier one."""
        found, tags = self._entries.get(arn, ("", {}))
        return tags if found == identity else {}

    async def write(self, arn: str, identify: Callable[[], str], change: Change) -> None:
        """Replace the tags of the resource by what ``change`` makes of them."""
        async with self._lock:
            identity = identify()
            tags = change(self.read(arn, identity))
            value = orjson.dumps([identity, tags]) if tags else None
            await self._store.conf_put([ConfChange(KIND, arn, value)])
            self._entries[arn] = identity, tags


@dataclass(frozen=True, slots=True)
class _Section:
    """The part of a book that belongs to one kind of resource."""

    book: TagBook
    identify: Identify

    def tags_of(self, scope: Scope, arn: Arn) -> Mapping[str, str]:
        return self.book.read(str(arn), self.identify(scope, arn))

    async def change_tags(self, scope: Scope, arn: Arn, change: Change) -> None:
        await self.book.write(str(arn), lambda: self.identify(scope, arn), change)


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
