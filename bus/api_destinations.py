"""API destinations: the operations, and what a delivery needs to know of a destination."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

import orjson

from bus.clock import Clock
from bus.connections.connection import CheckEndpoint, Connection, Detached
from bus.dispatch.turns import Turns
from bus.errors import ApiError, not_found, validation
from bus.pages import page
from bus.quotas import Quotas, check_quota
from bus.scope import Call, Scope
from bus.store import ConfChange, Store
from rules import arn

KIND = "api-destination"
HIGHEST_RATE = 300

_TOKEN_PATTERN = r"^(?:[A-Za-z0-9+\/]{4})*(?:[A-Za-z0-9+\/]{4}|[A-Za-z0-9+\/]{3}=|[A-Za-z0-9+\/]{2}={2})$"
_TOKEN = re.compile(_TOKEN_PATTERN.strip("^$"))


@dataclass(frozen=True, slots=True)
class ApiDestination:
    """An API destination; times are whole seconds since the epoch.

    ``connection`` is the connection's ARN, or ``""`` once that was deleted.
    """

    scope: Scope
    name: str
    uuid: str
    connection: str
    endpoint: str
    method: str
    rate: int
    created: int
    modified: int
    description: str | None = None

    @property
    def arn(self) -> str:
        return arn.api_destination_arn(self.name, self.uuid, region=self.scope.region, account=self.scope.account)

    @property
    def key(self) -> str:
        """The destination's key in the store."""
        return f"{self.scope.account}/{self.scope.region}/{self.name}"


class ApiDestinations:
    """The operations of API destinations.

    ``find_connection`` finds a connection by ARN; ``check_endpoint`` says why an endpoint cannot be used; ``lock`` is
    held while connections or API destinations of a scope change.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        find_connection: Callable[[str], Connection | None],
        check_endpoint: CheckEndpoint,
        lock: Callable[[Scope], asyncio.Lock],
        quotas: Quotas | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._find_connection = find_connection
        self._check_endpoint = check_endpoint
        self._lock = lock
        self._quotas = quotas or Quotas()
        self._by_scope: dict[Scope, dict[str, ApiDestination]] = {}
        self._by_arn: dict[str, ApiDestination] = {}
        self._turns: WeakValueDictionary[str, Turns] = WeakValueDictionary()

    async def load(self) -> None:
        """Read every API destination."""
        _, found = await self._store.conf_list(KIND)
        for entry in found:
            if entry.value is not None:
                self._keep(_load(entry.value))

    # -- looking up

    def find(self, destination_arn: str) -> ApiDestination | None:
        """The API destination with that ARN."""
        return self._by_arn.get(destination_arn)

    def turns(self, destination_arn: str) -> Turns | None:
        """What keeps the rate of the destination, one for all who deliver to it; None for other ARNs."""
        if ":api-destination/" not in destination_arn:
            return None
        turns = self._turns.get(destination_arn)
        if turns is None:
            found = self.find(destination_arn)
            turns = self._turns[destination_arn] = Turns(None if found is None else found.rate)
        return turns

    def _require(self, scope: Scope, name: str, verb: str) -> ApiDestination:
        found = self._by_scope.get(scope, {}).get(name)
        if found is None:
            raise not_found(f"Failed to {verb} the api-destination(s). An api-destination '{name}' does not exist.")
        return found

    # -- changing

    def _keep(self, destination: ApiDestination) -> None:
        self._by_scope.setdefault(destination.scope, {})[destination.name] = destination
        self._by_arn[destination.arn] = destination
        self._pace(destination.arn, destination.rate)

    def _pace(self, destination_arn: str, rate: int | None) -> None:
        turns = self._turns.get(destination_arn)
        if turns is not None:
            turns.change(rate)

    async def _save(self, destination: ApiDestination) -> None:
        await self._store.conf_put([_change(destination)])
        self._keep(destination)

    def detached(self, connection_arn: str) -> Detached:
        """What the end of a connection means for the destinations that name it: they name none any more."""
        after = [replace(each, connection="") for each in self._by_arn.values() if each.connection == connection_arn]

        def apply() -> None:
            for each in after:
                self._keep(each)

        return Detached([_change(each) for each in after], apply)

    # -- operations

    async def create_api_destination(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        name = request["Name"]
        async with self._lock(call.scope):
            others = self._by_scope.get(call.scope, {})
            if name in others:
                raise ApiError(
                    "ResourceAlreadyExistsException",
                    f"Failed to create the api-destination(s). An api-destination with name '{name}' already exists.",
                )
            now = self._clock.now_ms() // 1000
            destination = ApiDestination(
                scope=call.scope,
                name=name,
                uuid=str(uuid4()),
                connection=request["ConnectionArn"],
                endpoint=request["InvocationEndpoint"],
                method=request["HttpMethod"],
                rate=request.get("InvocationRateLimitPerSecond") or HIGHEST_RATE,
                created=now,
                modified=now,
                description=request.get("Description"),
            )
            self._check(destination, request, "create")
            check_quota(len(others) + 1, self._quotas.api_destinations)
            await self._save(destination)
        return self._summary(destination)

    async def update_api_destination(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        async with self._lock(call.scope):
            old = self._require(call.scope, request["Name"], "update")
            given = {field: request[member] for member, field in _FIELDS.items() if request.get(member) is not None}
            new = replace(old, modified=self._clock.now_ms() // 1000, **given)
            self._check(new, request, "update")
            await self._save(new)
        return self._summary(new)

    def _check(self, destination: ApiDestination, request: dict[str, Any], verb: str) -> None:
        """Refuse what the request brings and what cannot be."""
        failed = f"Failed to {verb} the api-destination(s)."
        if destination.rate > HIGHEST_RATE:
            raise ApiError(
                "LimitExceededException",
                f"{failed} Invalid Invocation Rate Limit: Rate specified '{destination.rate}' for '{destination.name}'"
                f" exceeds maximum allowed of '{HIGHEST_RATE}'.",
            )
        if request.get("InvocationEndpoint") is not None:
            reason = self._check_endpoint(destination.endpoint)
            if reason is not None:
                raise validation(f"{failed} Parameter InvocationEndpoint is not valid. Reason: {reason}")
        if request.get("ConnectionArn") is not None:
            connection = self._find_connection(destination.connection)
            if connection is None or connection.scope != destination.scope:
                raise not_found(f"{failed} Connection '{destination.connection}' does not exist.")

    async def delete_api_destination(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        async with self._lock(call.scope):
            old = self._require(call.scope, request["Name"], "delete")
            await self._store.conf_put([ConfChange(KIND, old.key, None)])
            del self._by_scope[old.scope][old.name], self._by_arn[old.arn]
            self._pace(old.arn, None)
        return {}

    async def describe_api_destination(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        found = self._require(call.scope, request["Name"], "describe")
        shown = self._listed(found)
        return {**shown, "Description": found.description} if found.description else shown

    async def list_api_destinations(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        prefix, connection = request.get("NamePrefix"), request.get("ConnectionArn")
        _check_token(request.get("NextToken"))
        if prefix is not None and connection is not None:
            raise validation(
                "Failed to list the api-destination(s). Request failed because only one filter is supported per"
                " request, either ConnectionArn or NamePrefix."
            )
        named = sorted(
            (
                each
                for each in self._by_scope.get(call.scope, {}).values()
                if each.name.startswith(prefix or "") and connection in (None, each.connection)
            ),
            key=lambda each: each.name,
        )
        found, token = page(named, request, key=lambda each: each.name, of=("api-destinations", *call.scope))
        return {"ApiDestinations": [self._listed(each) for each in found], **token}

    # -- showing

    def _summary(self, destination: ApiDestination) -> dict[str, Any]:
        """ARN, state and times, as the operations that change a destination answer."""
        connection = self._find_connection(destination.connection)
        active = connection is not None and connection.state == "AUTHORIZED"
        return {
            "ApiDestinationArn": destination.arn,
            "ApiDestinationState": "ACTIVE" if active else "INACTIVE",
            "CreationTime": destination.created,
            "LastModifiedTime": destination.modified,
        }

    def _listed(self, destination: ApiDestination) -> dict[str, Any]:
        shown = {
            **self._summary(destination),
            "Name": destination.name,
            "ConnectionArn": destination.connection,
            "InvocationEndpoint": destination.endpoint,
            "HttpMethod": destination.method,
            "InvocationRateLimitPerSecond": destination.rate,
        }
        return {name: value for name, value in shown.items() if value != ""}


_FIELDS = {
    "Description": "description",
    "ConnectionArn": "connection",
    "InvocationEndpoint": "endpoint",
    "HttpMethod": "method",
    "InvocationRateLimitPerSecond": "rate",
}
"""The members of an update, and the fields they go to."""


def _change(destination: ApiDestination) -> ConfChange:
    stored = {
        "account": destination.scope.account,
        "region": destination.scope.region,
        "name": destination.name,
        "uuid": destination.uuid,
        "connection": destination.connection,
        "endpoint": destination.endpoint,
        "method": destination.method,
        "rate": destination.rate,
        "created": destination.created,
        "modified": destination.modified,
        "description": destination.description,
    }
    return ConfChange(KIND, destination.key, orjson.dumps(stored))


def _load(value: bytes) -> ApiDestination:
    stored = orjson.loads(value)
    return ApiDestination(scope=Scope(stored.pop("account"), stored.pop("region")), **stored)


def _check_token(token: str | None) -> None:
    """What is not base64 is refused here as a broken constraint, which the model does not know of."""
    if token is not None and _TOKEN.fullmatch(token) is None:
        raise validation(
            f"1 validation error detected: Value '{token}' at 'nextToken' failed to satisfy constraint: Member must"
            f" satisfy regular expression pattern: {_TOKEN_PATTERN}"
        )
