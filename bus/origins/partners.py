"""Partner event sources: what a partner offers to an account, and what that account makes of it.

Theory of operation. A source is one record, kept under its customer (account, region, name); a name is offered to one
account at a time in a region. What state it is in is not written down but follows from the record, from whether the
customer has the bus of that name, and from the time, so that nothing has to happen at the end of the two weeks:

    the partner deleted it, or it was pending for two weeks    with the bus: DELETED    without: gone
    activated, and the bus is there                            ACTIVE
    otherwise                                                  PENDING

Making the bus activates the source, and deleting the bus makes it pending, in the same write as the bus. Every change
of a source is made under the lock of its customer's scope, as changes of buses are. Records of sources that are gone
are cleared away when the next one is created.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from bus.clock import Clock
from bus.errors import ApiError, not_found
from bus.pages import page
from bus.scope import Call, Scope
from bus.store import ConfChange, Store
from rules.arn import event_source_arn

KIND = "partner-source"
PATIENCE_MS = 14 * 86_400_000
"""How long a source stays pending before it is deleted."""

PENDING, ACTIVE, DELETED = "PENDING", "ACTIVE", "DELETED"


@dataclass(frozen=True, slots=True)
class Source:
    """A partner event source. Times are in ms; ``pending_since`` is None once it is activated."""

    name: str
    region: str
    partner: str
    customer: str
    created: int
    pending_since: int | None
    deleted: bool = False

    @property
    def scope(self) -> Scope:
        """Where the customer has it, and makes the bus for it."""
        return Scope(self.customer, self.region)

    @property
    def key(self) -> str:
        """The source's key in the store."""
        return f"{self.customer}/{self.region}/{self.name}"

    @property
    def expires(self) -> int | None:
        return None if self.pending_since is None else self.pending_since + PATIENCE_MS

    def state(self, *, has_bus: bool, now: int) -> str | None:
        """PENDING, ACTIVE or DELETED; None when the source is gone."""
        if self.is_over(now):
            return DELETED if has_bus else None
        return ACTIVE if has_bus and self.pending_since is None else PENDING

    def is_over(self, now: int) -> bool:
        """Whether the partner has it no more: it deleted it, or nobody used it."""
        return self.deleted or (self.expires is not None and now >= self.expires)


Rider = tuple[ConfChange, Callable[[], None]]
"""A change of a source to be written together with its bus's, and what puts it in place once it is."""


class Partners:
    """The operations of both sides.

    ``find_bus`` is the look-up of buses; ``lock`` is held while buses or sources of a scope change.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        find_bus: Callable[[Scope, str], object | None],
        lock: Callable[[Scope], asyncio.Lock],
    ) -> None:
        self._store = store
        self._clock = clock
        self._find_bus = find_bus
        self._lock = lock
        self._creating = asyncio.Lock()
        self._received: dict[Scope, dict[str, Source]] = {}
        self._offered: dict[tuple[str, str], Source] = {}

    async def load(self) -> None:
        """Read every source from the store."""
        _, entries = await self._store.conf_list(KIND)
        for entry in entries:
            if entry.value is not None:
                self._keep(Source(**orjson.loads(entry.value)))

    # -- looking up

    def destination(self, partner: Scope, name: str) -> tuple[Scope, str] | None:
        """Where the events of a partner's source go, as the customer's scope, and the source's state.

        None for a source that is not the partner's.
        """
        source = self._own(partner, name)
        return None if source is None else (source.scope, self._state(source) or PENDING)

    def _own(self, partner: Scope, name: str) -> Source | None:
        """The source of that name as its partner sees it."""
        source = self._offered.get((partner.region, name))
        mine = source is not None and source.partner == partner.account and not source.is_over(self._clock.now_ms())
        return source if mine else None

    def _require_own(self, partner: Scope, name: str) -> Source:
        source = self._own(partner, name)
        if source is None:
            raise _absent(name)
        return source

    def _find(self, customer: Scope, name: str) -> tuple[Source, str] | None:
        """The source of that name as its customer sees it, with its state."""
        source = self._received.get(customer, {}).get(name)
        state = None if source is None else self._state(source)
        return None if source is None or state is None else (source, state)

    def _state(self, source: Source) -> str | None:
        has_bus = self._find_bus(source.scope, source.name) is not None
        return source.state(has_bus=has_bus, now=self._clock.now_ms())

    # -- changing

    def _keep(self, source: Source) -> None:
        self._received.setdefault(source.scope, {})[source.name] = source
        place = (source.region, source.name)
        other = self._offered.get(place, source)
        if other.customer != source.customer and other.created >= source.created:
            return  # the name went to another customer meanwhile
        self._offered[place] = source

    def _drop(self, source: Source) -> None:
        self._received[source.scope].pop(source.name, None)
        if self._offered.get((source.region, source.name)) is source:
            del self._offered[source.region, source.name]

    async def _save(self, source: Source, *, forget: Iterable[Source] = ()) -> None:
        gone = [each for each in forget if each.key != source.key]
        await self._store.conf_put([_written(source), *(ConfChange(KIND, each.key, None) for each in gone)])
        for each in gone:
            self._drop(each)
        self._keep(source)

    def _gone(self) -> Iterator[Source]:
        """The sources that nobody sees any more."""
        for sources in self._received.values():
            yield from (each for each in sources.values() if self._state(each) is None)

    # -- riding with a bus

    def bus_made(self, customer: Scope, name: str) -> Rider:
        """What making the bus does to its source; ResourceNotFoundException when there is none to make it for."""
        found = self._find(customer, name)
        if found is None:
            raise _absent(name)
        active = replace(found[0], pending_since=None)
        return _written(active), lambda: self._keep(active)

    def bus_deleted(self, customer: Scope, name: str) -> Rider | None:
        """What deleting the bus does to its source: it waits for another bus, or goes when it was deleted before."""
        found = self._find(customer, name)
        if found is None:
            return None
        source, state = found
        if state == DELETED:
            return ConfChange(KIND, source.key, None), lambda: self._drop(source)
        waiting = replace(source, pending_since=source.pending_since or self._clock.now_ms())
        return _written(waiting), lambda: self._keep(waiting)

    # -- the partner's operations

    async def create_partner_event_source(self, call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
        name, region = request["Name"], call.scope.region
        now = self._clock.now_ms()
        source = Source(name, region, call.scope.account, request["Account"], now, now)
        async with self._creating, self._lock(source.scope):
            other = self._offered.get((region, name))
            if other is not None and not other.is_over(now):
                raise ApiError("ResourceAlreadyExistsException", f"Event source {name} already exists.")
            await self._save(source, forget=list(self._gone()))
        return {"EventSourceArn": _arn(source)}

    async def delete_partner_event_source(self, call: Call, request: Mapping[str, Any]) -> None:
        customer = Scope(request["Account"], call.scope.region)
        async with self._lock(customer):
            source = self._own(call.scope, request["Name"])
            if source is None or source.scope != customer:
                return
            if self._find_bus(customer, source.name) is not None:
                await self._save(replace(source, deleted=True))
            else:
                await self._store.conf_put([ConfChange(KIND, source.key, None)])
                self._drop(source)

    async def describe_partner_event_source(self, call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
        return _offer(self._require_own(call.scope, request["Name"]))

    async def list_partner_event_sources(self, call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
        prefix = request["NamePrefix"]
        names = sorted(
            name for region, name in self._offered if region == call.scope.region and name.startswith(prefix)
        )
        mine = [source for name in names if (source := self._own(call.scope, name)) is not None]
        found, token = page(mine, request, key=lambda source: source.name, of=("partner-sources", *call.scope))
        return {"PartnerEventSources": [_offer(source) for source in found], **token}

    async def list_partner_event_source_accounts(self, call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
        source = self._require_own(call.scope, request["EventSourceName"])
        of = ("partner-source-accounts", *call.scope, source.name)
        found, token = page([source], request, key=lambda each: each.customer, of=of)
        shown = [{"Account": each.customer, **_times(each, self._state(each))} for each in found]
        return {"PartnerEventSourceAccounts": shown, **token}

    # -- the customer's operations

    async def describe_event_source(self, call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
        found = self._find(call.scope, request["Name"])
        if found is None:
            raise _absent(request["Name"])
        return _described(*found)

    async def list_event_sources(self, call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
        prefix = request.get("NamePrefix") or ""
        names = sorted(name for name in self._received.get(call.scope, ()) if name.startswith(prefix))
        there = [found for name in names if (found := self._find(call.scope, name)) is not None]
        shown, token = page(there, request, key=lambda found: found[0].name, of=("event-sources", *call.scope))
        return {"EventSources": [_described(*found) for found in shown], **token}

    async def activate_event_source(self, call: Call, request: Mapping[str, Any]) -> None:
        name = request["Name"]
        async with self._lock(call.scope):
            found = self._find(call.scope, name)
            if found is None or self._find_bus(call.scope, name) is None:
                raise not_found(f"Event source {name} or event bus {name} does not exist.")
            _demand(PENDING, *found)
            await self._save(replace(found[0], pending_since=None))

    async def deactivate_event_source(self, call: Call, request: Mapping[str, Any]) -> None:
        async with self._lock(call.scope):
            found = self._find(call.scope, request["Name"])
            if found is None:
                raise _absent(request["Name"])
            _demand(ACTIVE, *found)
            await self._save(replace(found[0], pending_since=self._clock.now_ms()))


def _demand(wanted: str, source: Source, state: str) -> None:
    if state != wanted:
        text = f"Event source {source.name} is not in a valid state for this operation."
        raise ApiError("InvalidStateException", text)


def _absent(name: str) -> ApiError:
    return not_found(f"Event source {name} does not exist.")


def _written(source: Source) -> ConfChange:
    return ConfChange(KIND, source.key, orjson.dumps(asdict(source)))


def _arn(source: Source) -> str:
    return event_source_arn(source.name, region=source.region)


def _offer(source: Source) -> dict[str, Any]:
    return {"Arn": _arn(source), "Name": source.name}


def _times(source: Source, state: str | None) -> dict[str, Any]:
    """When the source was made, its state, and while it is pending when it will be deleted; epoch seconds."""
    shown: dict[str, Any] = {"CreationTime": source.created / 1000, "State": state}
    if state == PENDING and source.expires is not None:
        shown["ExpirationTime"] = source.expires / 1000
    return shown


def _described(source: Source, state: str) -> dict[str, Any]:
    partner = "/".join(source.name.split("/")[:2])
    return {"Arn": _arn(source), "CreatedBy": partner, "Name": source.name, **_times(source, state)}
