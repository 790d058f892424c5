"""Global endpoints: two event buses of one name in two regions, and which of them takes events now.

The region an endpoint was created in is its home and holds the primary bus; the route of its routing
configuration is the secondary region. AWS asks a Route 53 health check which one is active; here the operator says
so, and what the operator said is stored with the endpoint.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson

from bus.clock import Clock
from bus.errors import ApiError, not_found, validation
from bus.pages import page
from bus.quotas import Quotas, check_quota
from bus.rule_checks import bad_arn, is_role
from bus.scope import Call, Scope
from bus.store import ConfChange, Store
from rules.arn import Arn, bus_arn, endpoint_arn, parse

KIND = "endpoint"
ENABLED = "ENABLED"
_GIVEN = ("Description", "RoutingConfig", "ReplicationConfig", "EventBuses", "RoleArn")
_BUS = "event-bus/"
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH = 10


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A global endpoint. ``scope`` is its account and home region; ``created`` and ``modified`` are in ms.

    ``given`` holds the members that CreateEndpoint and UpdateEndpoint took. ``failed_over`` says that the secondary
    region is the active one.
    """

    scope: Scope
    name: str
    endpoint_id: str
    created: int
    modified: int
    given: Mapping[str, Any] = field(default_factory=dict)
    failed_over: bool = False

    @property
    def arn(self) -> str:
        return endpoint_arn(self.name, region=self.scope.region, account=self.scope.account)

    @property
    def key(self) -> str:
        """The endpoint's key in the store."""
        return f"{self.scope.account}/{self.scope.region}/{self.name}"

    @property
    def url(self) -> str:
        return f"https://{self.endpoint_id}.endpoint.events.amazonaws.com"

    @property
    def bus(self) -> str:
        """The name that both buses bear."""
        return _bus_name(self.given["EventBuses"][0]["EventBusArn"])

    @property
    def primary(self) -> Scope:
        return self.scope

    @property
    def secondary(self) -> Scope:
        return Scope(self.scope.account, self.given["RoutingConfig"]["FailoverConfig"]["Secondary"]["Route"])

    @property
    def active(self) -> Scope:
        """Where the bus is that takes events now."""
        return self.secondary if self.failed_over else self.primary

    @property
    def passive(self) -> Scope:
        """Where the other one is."""
        return self.primary if self.failed_over else self.secondary

    @property
    def replicates(self) -> bool:
        """Whether events reach both buses."""
        return bool(self.given["ReplicationConfig"]["State"] == ENABLED)

    def has_bus(self, name_or_arn: str) -> bool:
        """Whether this names one of the two buses: by their name, or by the ARN of either."""
        scopes = (self.primary, self.secondary)
        arns = (bus_arn(self.bus, region=scope.region, account=scope.account) for scope in scopes)
        return name_or_arn == self.bus or name_or_arn in arns


class Endpoints:
    """The operations of global endpoints, and the look-up that PutEvents with an EndpointId goes through.

    ``has_bus`` says whether a scope has a bus of that name.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        has_bus: Callable[[Scope, str], bool],
        strict: bool,
        quotas: Quotas | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._has_bus = has_bus
        self._strict = strict
        self._quotas = quotas or Quotas()
        self._by_name: dict[tuple[Scope, str], Endpoint] = {}
        self._by_id: dict[str, Endpoint] = {}
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Read every endpoint from the store."""
        _, entries = await self._store.conf_list(KIND)
        for entry in entries:
            if entry.value is not None:
                self._keep(_load(entry.value))

    # -- looking up

    def find(self, account: str, endpoint_id: str) -> Endpoint | None:
        """The endpoint of that account with that EndpointId."""
        found = self._by_id.get(endpoint_id)
        return found if found is not None and found.scope.account == account else None

    def all(self) -> list[Endpoint]:
        """Every endpoint of every scope, in order of account, region and name."""
        return sorted(self._by_id.values(), key=lambda each: (each.scope, each.name))

    def _require(self, scope: Scope, name: str) -> Endpoint:
        found = self._by_name.get((scope, name))
        if found is None:
            raise absent(name)
        return found

    def _keep(self, endpoint: Endpoint) -> None:
        self._by_name[endpoint.scope, endpoint.name] = self._by_id[endpoint.endpoint_id] = endpoint

    async def _save(self, endpoint: Endpoint) -> None:
        await self._store.conf_put([ConfChange(KIND, endpoint.key, orjson.dumps(asdict(endpoint), default=list))])
        self._keep(endpoint)

    # -- operations

    async def create_endpoint(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        name, given = request["Name"], self._checked(call.scope, _given(request))
        async with self._lock:
            if (call.scope, name) in self._by_name:
                raise ApiError("ResourceAlreadyExistsException", f"Endpoint {name} already exists.")
            check_quota(sum(scope == call.scope for scope, _ in self._by_name) + 1, self._quotas.endpoints)
            now = self._clock.now_ms()
            endpoint = Endpoint(call.scope, name, self._new_id(), now, now, given)
            await self._save(endpoint)
        shown = _shown(endpoint)
        return {m: shown[m] for m in ("Name", "Arn", *_GIVEN, "State") if m in shown and m != "Description"}

    async def update_endpoint(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        """Change the members that are given; the others stay."""
        async with self._lock:
            old = self._require(call.scope, request["Name"])
            given = self._checked(call.scope, {**old.given, **_given(request)})
            endpoint = replace(old, given=given, modified=self._clock.now_ms())
            await self._save(endpoint)
        shown = _shown(endpoint)
        return {m: v for m, v in shown.items() if m not in ("Description", "CreationTime", "LastModifiedTime")}

    async def delete_endpoint(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        async with self._lock:
            endpoint = self._require(call.scope, request["Name"])
            await self._store.conf_put([ConfChange(KIND, endpoint.key, None)])
            del self._by_name[endpoint.scope, endpoint.name], self._by_id[endpoint.endpoint_id]
        return {}

    async def describe_endpoint(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        return _shown(self._require(_home(call, request), request["Name"]))

    async def list_endpoints(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        home, prefix = _home(call, request), request.get("NamePrefix") or ""
        named = [each for each in self.all() if each.scope == home and each.name.startswith(prefix)]
        found, token = page(named, request, key=lambda each: each.name, of=("endpoints", *home), limit="MaxResults")
        return {"Endpoints": [_shown(each) for each in found], **token}

    # -- failing over

    async def fail_over(self, arn_or_id: str, *, failed_over: bool) -> Endpoint:
        """Make the secondary region the active one, or the primary again; not found when there is no such endpoint."""
        async with self._lock:
            old = next((each for each in self._by_id.values() if arn_or_id in (each.arn, each.endpoint_id)), None)
            if old is None:
                raise absent(arn_or_id)
            endpoint = replace(old, failed_over=failed_over)
            await self._save(endpoint)
        return endpoint

    # -- tags

    def identify(self, scope: Scope, arn: Arn) -> str:
        """What tells the endpoint with that ARN from an earlier one of the same name."""
        name = arn.resource.removeprefix("endpoint/")
        if (arn.account, arn.region) != scope:
            raise absent(name)
        return self._require(scope, name).endpoint_id

    # -- checks

    def _checked(self, scope: Scope, given: dict[str, Any]) -> dict[str, Any]:
        """The members with their defaults; ApiError when they do not describe two buses of one name."""
        state = (given.get("ReplicationConfig") or {}).get("State") or ENABLED
        given = {**given, "ReplicationConfig": {"State": state}}
        role = given.get("RoleArn")
        if role is not None and not is_role(role):
            raise bad_arn(role)
        if role is None and state == ENABLED and self._strict:
            raise validation("RoleArn is required when event replication is enabled.")
        self._check_buses(scope, given)
        return given

    def _check_buses(self, scope: Scope, given: Mapping[str, Any]) -> None:
        texts = [each["EventBusArn"] for each in given["EventBuses"]]
        arns = [parse(text) for text in texts]
        secondary = given["RoutingConfig"]["FailoverConfig"]["Secondary"]["Route"]
        if len({arn.resource for arn in arns}) > 1:
            raise _bad_buses("The event buses must have the same name.")
        if any(arn.account != scope.account for arn in arns):
            raise _bad_buses("The event buses must be in the account of the endpoint.")
        if secondary == scope.region or {arn.region for arn in arns} != {scope.region, secondary}:
            raise _bad_buses("One event bus must be in the endpoint's Region and the other in the secondary Region.")
        name = _bus_name(texts[0])
        if not all(self._has_bus(Scope(scope.account, region), name) for region in (scope.region, secondary)):
            raise not_found(f"Event bus {name} does not exist.")

    def _new_id(self) -> str:
        while True:
            made = "".join(secrets.choice(_LETTERS) for _ in range(_ID_LENGTH)) + ".veo"
            if made not in self._by_id:
                return made


def absent(name: str) -> ApiError:
    """There is no such endpoint."""
    return not_found(f"Endpoint {name} does not exist.")


def _bad_buses(reason: str) -> ApiError:
    return validation(f"Parameter EventBuses is not valid. Reason: {reason}")


def _bus_name(arn: str) -> str:
    return parse(arn).resource.removeprefix(_BUS)


def _home(call: Call, request: Mapping[str, Any]) -> Scope:
    """The scope whose endpoints a request looks at: the region that is named, else that of the call."""
    return Scope(call.scope.account, request.get("HomeRegion") or call.scope.region)


def _given(request: Mapping[str, Any]) -> dict[str, Any]:
    return {member: request[member] for member in _GIVEN if request.get(member) is not None}


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    """The members that DescribeEndpoint and ListEndpoints show; times are epoch seconds."""
    members = {"Name": endpoint.name, "Arn": endpoint.arn, **endpoint.given}
    return members | {
        "EndpointId": endpoint.endpoint_id,
        "EndpointUrl": endpoint.url,
        "State": "ACTIVE",
        "CreationTime": endpoint.created / 1000,
        "LastModifiedTime": endpoint.modified / 1000,
    }


def _load(value: bytes) -> Endpoint:
    stored = orjson.loads(value)
    return Endpoint(scope=Scope(*stored.pop("scope")), **stored)
