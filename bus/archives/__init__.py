"""Archives: the operations, the managed rule that feeds each archive, and the removal of what has grown too old.

Theory of operation. An archive is a record, a managed rule on its bus whose target is the archive, and the rows that
the store keeps under its number. Record and rule come and go in one write. Events get into it as into any target, in
the transaction that accepts them; nothing else looks at events.

Whether an archive is ENABLED is not written down: it is while its rule is there with its target. Whoever removes the
target by force thereby disables the archive, and whatever mends the rule enables it.

Rows are removed in the background, some at a time: those that are older than the archive's retention, and those whose
number belongs to no archive (any more), which is also how a deleted archive's events go, a crash in between or not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

import msgspec
import structlog

from bus.archives.listing import named_page, one_filter
from bus.clock import Clock
from bus.config import Settings
from bus.errors import ApiError, StoreError, not_found, validation
from bus.resources import Bus, Rule
from bus.rule_checks import check_pattern
from bus.scope import Call, Scope
from bus.store import ArchiveSize, ConfChange, Store
from rules import arn, exact

KIND = "archive"
MANAGED_BY = "prod.vhs.events.aws.internal"
FORCED = "Managed rule for the archive was forcefully deleted."
NOT_A_BUS = "Must contain an event bus ARN."
LONGEST_RETENTION = 2_147_483_647

CHUNK = 100
"""Events removed in one transaction, which bounds how long it holds up the event loop."""

LOOK_EVERY_S = 60.0
_DAY_MS = 86_400_000
_END_OF_TIME = 1 << 62

log = structlog.get_logger("archives")


class Archive(msgspec.Struct, frozen=True):
    """An archive: ``number`` names it in the store, ``mark`` is in its managed target, ``created`` is in ms."""

    number: int
    account: str
    region: str
    name: str
    bus: str
    mark: str
    created: int
    retention: int = 0
    description: str | None = None
    pattern: str | None = None
    kms_key: str | None = None

    @property
    def scope(self) -> Scope:
        return Scope(self.account, self.region)

    @property
    def arn(self) -> str:
        return arn.archive_arn(self.name, region=self.region, account=self.account)

    @property
    def bus_arn(self) -> str:
        return arn.bus_arn(self.bus, region=self.region, account=self.account)

    @property
    def key(self) -> str:
        """The archive's key in the store."""
        return f"{self.account}/{self.region}/{self.name}"

    @property
    def rule(self) -> Rule:
        """Its managed rule, without a target."""
        return Rule(
            scope=self.scope,
            bus=self.bus,
            name=f"Events-Archive-{self.name}",
            pattern=managed_pattern(self.pattern),
            managed_by=MANAGED_BY,
        )

    @property
    def target(self) -> dict[str, Any]:
        """What its managed rule has as its target."""
        template = (
            f'{{"archive-arn": "{self.arn}:{self.mark}","event": <aws.events.event.json>,'
            '"ingestion-time": <aws.events.event.ingestion-time>}'
        )
        return {
            "Id": self.rule.name,
            "Arn": arn.archive_target_arn(self.region),
            "InputTransformer": {"InputPathsMap": {}, "InputTemplate": template},
        }


def managed_pattern(pattern: str | None) -> str:
    """An archive's pattern as its rule has it: nothing that comes out of an archive goes into one again."""
    own = exact.load(pattern.encode()) if pattern else {}
    own.pop("replay-name", None)
    return exact.dump({"replay-name": [{"exists": False}], **own}).decode()


class Catalog(Protocol):
    """What is needed of the rules; see `bus.catalog.Catalog`."""

    def find_rule(self, scope: Scope, bus: str | None, name: str) -> Rule | None: ...
    async def put_managed(self, rule: Rule, target: Mapping[str, Any], also: Sequence[ConfChange]) -> None: ...
    async def delete_managed(self, rule: Rule, also: Sequence[ConfChange]) -> None: ...


class Archives:
    """The archive operations.

    ``find_bus`` answers None for a bus that is not there; ``lock`` is held while rules or buses of a scope change.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        *,
        catalog: Catalog,
        find_bus: Callable[[Scope, str | None], Bus | None],
        require_bus: Callable[[Scope, str | None], Bus],
        lock: Callable[[Scope], asyncio.Lock],
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._catalog = catalog
        self._find_bus = find_bus
        self._require_bus = require_bus
        self._lock = lock
        self._archives: dict[tuple[Scope, str], Archive] = {}
        self._by_rule: dict[str, int] = {}
        self._look = asyncio.Event()

    async def load(self) -> None:
        """Read every archive from the store."""
        _, entries = await self._store.conf_list(KIND)
        for entry in entries:
            if entry.value is not None:
                self._keep(msgspec.json.decode(entry.value, type=Archive))

    def _keep(self, archive: Archive) -> None:
        self._archives[archive.scope, archive.name] = archive
        self._by_rule[archive.rule.arn] = archive.number

    # -- looking up

    def find(self, scope: Scope, name: str) -> Archive | None:
        """The archive of that name."""
        return self._archives.get((scope, name))

    def identify(self, scope: Scope, archive_arn: arn.Arn) -> str:
        """What tells the archive with that ARN from an earlier one of the same name."""
        name = archive_arn.resource.removeprefix("archive/")
        owner = Scope(archive_arn.account, archive_arn.region)
        if owner != scope:
            raise not_found(f"Archive {name} does not exist.")
        return str(self._require(scope, name).number)

    def number_for(self, rule_arn: str) -> int | None:
        """The number of the archive that a managed rule feeds."""
        return self._by_rule.get(rule_arn)

    def _require(self, scope: Scope, name: str) -> Archive:
        archive = self.find(scope, name)
        if archive is None:
            raise not_found(f"Archive {name} does not exist.")
        return archive

    def _rule_in_place(self, archive: Archive) -> Rule | None:
        """The rule that bears the name of the archive's rule, whoever made it; None when it or its bus is gone."""
        if self._find_bus(archive.scope, archive.bus) is None:
            return None
        return self._catalog.find_rule(archive.scope, archive.bus, archive.rule.name)

    def _is_enabled(self, archive: Archive) -> bool:
        rule = self._rule_in_place(archive)
        return rule is not None and rule.managed_by == MANAGED_BY and bool(rule.routes)

    def _state(self, archive: Archive) -> dict[str, str]:
        return {"State": "ENABLED"} if self._is_enabled(archive) else {"State": "DISABLED", "StateReason": FORCED}

    # -- operations

    async def create_archive(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        name, scope = request["ArchiveName"], call.scope
        source = _bus_arn(request["EventSourceArn"])
        _check_place(source, scope)
        self._check_pattern(request)
        async with self._lock(scope):
            if self.find(scope, name) is not None:
                raise ApiError("ResourceAlreadyExistsException", f"Archive {name} already exists.")
            bus = self._require_bus(scope, str(source))
            archive = Archive(
                self._store.allocate(), *scope, name, bus.name, str(uuid4()), self._clock.now_ms(), **_given(request)
            )
            self._check_name_of_rule(archive)
            await self._save(archive)
        return self._changed(archive)

    async def update_archive(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        if all(request.get(member) is None for member in ("Description", "EventPattern", "RetentionDays")):
            raise validation("At least one of EventPattern, RetentionDays or Description must be provided.")
        self._check_pattern(request)
        async with self._lock(call.scope):
            old = self._require(call.scope, request["ArchiveName"])
            if self._find_bus(old.scope, old.bus) is None:
                raise not_found(f"Archive {old.name} managed rule does not exist.")
            archive = msgspec.structs.replace(old, **_given(request))
            self._check_name_of_rule(archive)
            await self._save(archive)
        self._look.set()
        return self._changed(archive)

    async def delete_archive(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        async with self._lock(call.scope):
            archive = self._require(call.scope, request["ArchiveName"])
            gone = [ConfChange(KIND, archive.key, None)]
            rule = self._rule_in_place(archive)
            if rule is not None and rule.managed_by == MANAGED_BY:
                await self._catalog.delete_managed(rule, gone)
            else:
                await self._store.conf_put(gone)
            del self._archives[archive.scope, archive.name]
            self._by_rule.pop(archive.rule.arn, None)
        self._look.set()
        return {}

    async def describe_archive(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        archive = self._require(call.scope, request["ArchiveName"])
        members = {
            "ArchiveArn": archive.arn,
            "Description": archive.description,
            "EventPattern": archive.pattern,
            "KmsKeyIdentifier": archive.kms_key,
        }
        given = {member: value for member, value in members.items() if value}
        return {**given, **self._listed(archive, await self._sizes())}

    async def list_archives(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        one_filter(request, "ListArchives")
        found = [archive for archive in self._archives.values() if archive.scope == call.scope]
        if request.get("EventSourceArn") is not None:
            bus = self._require_bus(call.scope, str(_bus_arn(request["EventSourceArn"])))
            found = [archive for archive in found if archive.bus == bus.name]
        if request.get("State") is not None:
            found = [archive for archive in found if self._state(archive)["State"] == request["State"]]
        named = [archive for archive in found if archive.name.startswith(request.get("NamePrefix") or "")]
        shown, token = named_page(named, request, of=(KIND, *call.scope))
        sizes = await self._sizes()
        return {"Archives": [self._listed(archive, sizes) for archive in shown], **token}

    def _check_pattern(self, request: Mapping[str, Any]) -> None:
        if request.get("EventPattern"):
            check_pattern(request["EventPattern"], self._settings)

    def _check_name_of_rule(self, archive: Archive) -> None:
        """Refuse to take a name that a rule has which is not the archive's own."""
        there = self._rule_in_place(archive)
        if there is not None and there.managed_by is None:
            raise ApiError(
                "ResourceAlreadyExistsException",
                f"A rule with the pattern '{there.name}' already exists. Please choose a different archive name or"
                " delete your rule, then, try again.",
            )

    async def _save(self, archive: Archive) -> None:
        """Write the archive down with its rule, which is thereby mended if need be."""
        record = ConfChange(KIND, archive.key, msgspec.json.encode(archive))
        await self._catalog.put_managed(archive.rule, archive.target, [record])
        self._keep(archive)

    def _changed(self, archive: Archive) -> dict[str, Any]:
        return {"ArchiveArn": archive.arn, **self._state(archive), "CreationTime": archive.created // 1000}

    def _listed(self, archive: Archive, sizes: Mapping[int, ArchiveSize]) -> dict[str, Any]:
        size = sizes.get(archive.number) or ArchiveSize(archive.number, 0, 0)
        return {
            "ArchiveName": archive.name,
            "EventSourceArn": archive.bus_arn,
            **self._state(archive),
            "RetentionDays": archive.retention,
            "SizeBytes": size.bytes,
            "EventCount": size.events,
            "CreationTime": archive.created // 1000,
        }

    async def _sizes(self) -> dict[int, ArchiveSize]:
        return {size.archive: size for size in await self._store.archive_sizes()}

    # -- removal

    async def keep_up(self) -> None:
        """Remove what is to go, every minute and whenever an archive was changed, until cancelled."""
        while True:
            self._look.clear()
            try:
                await self.sweep()
            except StoreError as error:
                log.warning("events that are to go stay in their archives for now", reason=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), LOOK_EVERY_S)

    async def sweep(self) -> None:
        """Remove the events that are too old, and those of archives that are no more."""
        numbers = {archive.number: archive for archive in self._archives.values()}
        for size in await self._store.archive_sizes():
            archive = numbers.get(size.archive)
            if archive is None:
                await self._remove(size.archive, _END_OF_TIME)
            elif archive.retention:
                await self._remove(size.archive, self._clock.now_ms() - archive.retention * _DAY_MS)

    async def _remove(self, number: int, before: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            if await self._store.trim_archive(number, before, limit=CHUNK) < CHUNK:
                return
            await asyncio.sleep(loop.time() - started)  # at most half of the time is ours


def _given(request: Mapping[str, Any]) -> dict[str, Any]:
    """The members that a request gives a value; an empty text takes a value away."""
    given = {
        "description": request.get("Description"),
        "pattern": request.get("EventPattern"),
        "kms_key": request.get("KmsKeyIdentifier"),
    }
    members: dict[str, Any] = {name: value or None for name, value in given.items() if value is not None}
    if request.get("RetentionDays") is not None:
        members["retention"] = min(request["RetentionDays"], LONGEST_RETENTION)
    return members


def _bus_arn(text: str) -> arn.Arn:
    """The ARN of an event bus, or ValidationException."""
    try:
        found = arn.parse(text)
    except arn.ArnError:
        raise _bad_source(NOT_A_BUS) from None
    if not found.resource.startswith("event-bus/") or not found.account:
        raise _bad_source(NOT_A_BUS)
    return found


def _check_place(source: arn.Arn, scope: Scope) -> None:
    """Raise when a bus is somewhere else than its archive is to be."""
    there = (source.partition, source.account, source.region)
    here = (arn.partition_of(scope.region), *scope)
    for word, theirs, ours in zip(("partition", "account", "region"), there, here, strict=True):
        if theirs != ours:
            raise _bad_source(f"Creating cross-{word} archive is not permitted.")


def _bad_source(reason: str) -> ApiError:
    return validation(f"Parameter EventSourceArn is not valid. Reason: {reason}")
