"""Event buses: the default one of every scope, custom ones, and those for partner event sources.

The default bus is there without having been created, and it is not written down until someone updates
or tags it: its number is derived from its scope instead of being handed out, so an event can be stored
under it at once and is found under the same number after a restart. Derived numbers start at 2^61, far
above those the store hands out, and are 61 bits of a hash, too many for two scopes to meet.
Its time of creation is that of the data directory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Protocol

import orjson

from bus.bus_logs import Logging, logging_of
from bus.clock import Clock
from bus.errors import ApiError, not_found, validation
from bus.pages import page
from bus.quotas import Quotas, check_quota
from bus.resources import Bus, dump_bus, load_bus
from bus.scope import Call, Scope
from bus.store import ConfChange, Store
from bus.tags import Change, given_tags
from rules.arn import DEFAULT_BUS, Arn, ArnError, parse

KIND = "bus"
DEFAULTS_KIND = "default-buses"
_DERIVED = 1 << 61
_DESCRIBED = ("Description", "KmsKeyIdentifier", "DeadLetterConfig", "LogConfig")
_PREFIX = "event-bus/"


class Partnership(Protocol):
    """What making and deleting a partner bus does to its source: a change to be written with the bus's own, and what
    is to be called when that is done."""

    def bus_made(self, customer: Scope, name: str) -> tuple[ConfChange, Callable[[], None]]: ...
    def bus_deleted(self, customer: Scope, name: str) -> tuple[ConfChange, Callable[[], None]] | None: ...


class Buses:
    """The bus operations, and the look-up that every event goes through.

    ``has_rules`` says whether the bus of a number still has rules; ``partners`` has the partner event sources.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        has_rules: Callable[[int], bool],
        quotas: Quotas | None = None,
        partners: Callable[[], Partnership] | None = None,
    ) -> None:
        self._partners = partners
        self._store = store
        self._clock = clock
        self._has_rules = has_rules
        self._quotas = quotas or Quotas()
        self._custom: dict[Scope, dict[str, Bus]] = {}
        self._known: dict[tuple[Scope, str], Bus] = {}
        self.logging: dict[tuple[Scope, str], Logging] = {}
        """The buses that log, by scope and name: those whose LogConfig asks for it now."""
        self._locks: dict[Scope, asyncio.Lock] = {}
        self._defaults_since = 0

    async def load(self) -> None:
        """Read every bus from the store."""
        _, entries = await self._store.conf_list(KIND)
        for entry in entries:
            if entry.value is not None:
                self._keep(load_bus(entry.value))
        await self._load_defaults_since()

    async def _load_defaults_since(self) -> None:
        _, entries = await self._store.conf_list(DEFAULTS_KIND)
        for entry in entries:
            if entry.value is not None:
                self._defaults_since = orjson.loads(entry.value)
        if not entries:
            self._defaults_since = self._clock.now_ms()
            change = ConfChange(DEFAULTS_KIND, "since", orjson.dumps(self._defaults_since))
            await self._store.conf_put([change])

    def lock(self, scope: Scope) -> asyncio.Lock:
        """Held by whoever changes buses or rules of the scope: a bus must not go while a rule is put on it."""
        return self._locks.setdefault(scope, asyncio.Lock())

    # -- looking up

    def find(self, scope: Scope, name_or_arn: str | None) -> Bus | None:
        """The bus of this scope with that name or ARN; None stands for the default bus."""
        name = name_or_arn or DEFAULT_BUS
        return self._known.get((scope, name)) or self._find_default(scope, name)

    def _find_default(self, scope: Scope, name: str) -> Bus | None:
        if name not in (DEFAULT_BUS, _arn(scope, DEFAULT_BUS)):
            return None
        number = _DERIVED | int.from_bytes(blake2b("/".join(scope).encode(), digest_size=8).digest()) >> 3
        bus = Bus(number, scope, DEFAULT_BUS, created=self._defaults_since, modified=self._defaults_since)
        self._remember(bus)
        return bus

    def require(self, scope: Scope, name_or_arn: str | None) -> Bus:
        """The same as `find`; ResourceNotFoundException when the bus is absent or another scope's."""
        bus = self.find(scope, name_or_arn)
        if bus is None:
            raise not_found(f"Event bus {_name_in(name_or_arn or DEFAULT_BUS)} does not exist.")
        return bus

    def find_foreign(self, scope: Scope, name_or_arn: str | None) -> tuple[Arn, Bus | None] | None:
        """The bus of another account that an ARN names, None where it names none.

        The second value is None for a bus that is not there, is in another region, or has never been changed, so that
        it cannot have a policy.
        """
        if name_or_arn is None or not name_or_arn.startswith("arn:"):
            return None
        try:
            arn = parse(name_or_arn)
        except ArnError:
            return None
        if arn.account == scope.account or not arn.resource.startswith(_PREFIX):
            return None
        return arn, self._known.get((Scope(arn.account, scope.region), name_or_arn))

    def _remember(self, bus: Bus) -> None:
        self._known[bus.scope, bus.name] = self._known[bus.scope, bus.arn] = bus

    def _keep(self, bus: Bus) -> None:
        self._remember(bus)
        self._note_logging(bus)
        if bus.name != DEFAULT_BUS:
            self._custom.setdefault(bus.scope, {})[bus.name] = bus

    def _note_logging(self, bus: Bus) -> None:
        logging = logging_of(bus.described.get("LogConfig"))
        if logging is None:
            self.logging.pop((bus.scope, bus.name), None)
        else:
            self.logging[bus.scope, bus.name] = logging

    async def _save(self, bus: Bus, rider: tuple[ConfChange, Callable[[], None]] | None = None) -> None:
        await self._write(ConfChange(KIND, bus.key, dump_bus(bus)), rider)
        self._keep(bus)

    async def _write(self, change: ConfChange, rider: tuple[ConfChange, Callable[[], None]] | None) -> None:
        """Write a bus's change, and together with it that of its source."""
        if rider is None:
            await self._store.conf_put([change])
            return
        await self._store.conf_put([change, rider[0]])
        rider[1]()

    # -- operations

    async def create_event_bus(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        name, source = request["Name"], request.get("EventSourceName")
        _check_new(name, source)
        tags = given_tags(request.get("Tags") or (), self._quotas)
        async with self.lock(call.scope):
            made = None if source is None else self._source_made(call.scope, source)
            if self.find(call.scope, name) is not None:
                raise ApiError("ResourceAlreadyExistsException", f"Event bus {name} already exists.")
            # The default bus counts, as one that an account always has.
            check_quota(len(self._custom.get(call.scope, ())) + 2, self._quotas.event_buses)
            now = self._clock.now_ms()
            bus = Bus(self._store.allocate(), call.scope, name, now, now, _described(request), tags)
            await self._save(bus, made)
        return {"EventBusArn": bus.arn, **bus.described}

    def _source_made(self, scope: Scope, source: str) -> tuple[ConfChange, Callable[[], None]]:
        if self._partners is None:
            raise not_found(f"Event source {source} does not exist.")
        return self._partners().bus_made(scope, source)

    async def update_event_bus(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        async with self.lock(call.scope):
            old = self.require(call.scope, request.get("Name"))
            bus = replace(old, described=_described(request), modified=self._clock.now_ms())
            await self._save(bus)
        return {"Arn": bus.arn, "Name": bus.name, **bus.described}

    async def delete_event_bus(self, call: Call, request: dict[str, Any]) -> None:
        async with self.lock(call.scope):
            bus = self.find(call.scope, request["Name"])
            if bus is None:
                return
            if bus.name == DEFAULT_BUS:
                raise validation("Cannot delete event bus default.")
            if self._has_rules(bus.number):
                raise validation("EventBus can't be deleted since it has rules.")
            gone = self._partners().bus_deleted(bus.scope, bus.name) if self._partners and "/" in bus.name else None
            await self._write(ConfChange(KIND, bus.key, None), gone)
            del self._custom[bus.scope][bus.name]
            del self._known[bus.scope, bus.name], self._known[bus.scope, bus.arn]
            self.logging.pop((bus.scope, bus.name), None)

    async def describe_event_bus(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        bus = self.require(call.scope, request.get("Name"))
        return {**_listed(bus), **bus.described}

    async def list_event_buses(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        prefix = request.get("NamePrefix") or ""
        buses = [self.require(call.scope, None), *self._custom.get(call.scope, {}).values()]
        named = sorted((bus for bus in buses if bus.name.startswith(prefix)), key=lambda bus: bus.name)
        found, token = page(named, request, key=lambda bus: bus.name, of=("buses", *call.scope))
        return {"EventBuses": [_listed(bus) for bus in found], **token}

    # -- policy

    async def change_policy(self, scope: Scope, name: str | None, change: Callable[[Bus], str | None]) -> None:
        """Replace the policy of a bus by what ``change`` makes of it; what stays the same is not written."""
        async with self.lock(scope):
            bus = self.require(scope, name)
            policy = change(bus)
            if policy != bus.policy:
                await self._save(replace(bus, policy=policy, modified=self._clock.now_ms()))

    # -- tags

    def tags_of(self, scope: Scope, arn: Arn) -> Mapping[str, str]:
        """The tags of the bus with that ARN."""
        return self.require(scope, str(arn)).tags

    async def change_tags(self, scope: Scope, arn: Arn, change: Change) -> None:
        """Replace the tags of the bus with that ARN by what ``change`` makes of them."""
        async with self.lock(scope):
            bus = self.require(scope, str(arn))
            await self._save(replace(bus, tags=change(bus.tags)))


def _check_new(name: str, source: str | None) -> None:
    if source is not None:
        if name != source:
            raise validation(f"Event bus name {name} must match event source name {source}.")
    elif name.startswith("aws."):
        raise validation("EventBus name starting with 'aws.' is not valid.")
    elif "/" in name:
        raise validation("Event bus name must not contain '/'.")


def _arn(scope: Scope, name: str) -> str:
    return Bus(0, scope, name, 0, 0).arn


def _described(request: Mapping[str, Any]) -> dict[str, Any]:
    return {member: request[member] for member in _DESCRIBED if request.get(member) is not None}


def _listed(bus: Bus) -> dict[str, Any]:
    """The members that a list of buses shows; times are epoch seconds with milliseconds."""
    shown: dict[str, Any] = {"Name": bus.name, "Arn": bus.arn}
    if "Description" in bus.described:
        shown["Description"] = bus.described["Description"]
    if bus.policy is not None:
        shown["Policy"] = bus.policy
    return shown | {"CreationTime": bus.created / 1000, "LastModifiedTime": bus.modified / 1000}


def _name_in(name_or_arn: str) -> str:
    try:
        return parse(name_or_arn).resource.removeprefix(_PREFIX)
    except ArnError:
        return name_or_arn
