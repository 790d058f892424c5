"""Connections: the operations, and the credentials that deliveries to API destinations ask for.

Every change follows the course of buses and rules: a new value is made from the one in place, written, and only then
put in its stead. What AWS does over some seconds after its answer (taking credentials away, deleting) has happened here
when the answer is sent; answers still bear the state in which AWS would be. Only the first token of an OAuth connection
is waited for in the background, across restarts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn
from uuid import uuid4

import structlog

from bus.clock import Clock
from bus.connections.authorizing import Authorizing
from bus.connections.connection import (
    DEAUTHORIZED_REASON,
    CheckEndpoint,
    Connection,
    Detached,
    State,
    described,
    dump_connection,
    listed,
    load_connection,
    new_secret_name,
    times,
)
from bus.connections.parameters import BLOCKS, INVOCATION, OAUTH, Parameters, ParametersError, accepted, updated
from bus.connections.secrets import Vault
from bus.connections.tokens import Fetch, Grant, NoToken, Token, Tokens
from bus.errors import ApiError, StoreUnavailable, not_found, validation
from bus.pages import page
from bus.quotas import Quotas, check_quota
from bus.scope import Call, Scope
from bus.store import ConfChange, Store

log = structlog.get_logger("connections")

KIND = "connection"

NOTHING_TO_UPDATE = (
    "Failed to update the connection(s). At least one of the following is required: Description, KmsKeyIdentifier,"
    " AuthorizationType with BasicAuthParameters, ApiKeyAuthParameters, or OAuthParameters."
)


class Connections:
    """The connection operations.

    ``fetch`` makes a token request; ``check_endpoint`` judges authorization endpoints; ``detach`` tells what becomes of
    the API destinations of a connection that is deleted; ``lock`` is held while connections or API destinations of a
    scope change.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        vault: Vault,
        *,
        fetch: Fetch,
        check_endpoint: CheckEndpoint,
        detach: Callable[[str], Detached],
        lock: Callable[[Scope], asyncio.Lock],
        quotas: Quotas | None = None,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._clock = clock
        self._vault = vault
        self._check_endpoint = check_endpoint
        self._detach = detach
        self._lock = lock
        self._quotas = quotas or Quotas()
        self._tokens = Tokens(fetch, clock)
        self._authorizing = Authorizing(self._tokens, report=self._report, pause=pause)
        self._by_scope: dict[Scope, dict[str, Connection]] = {}
        self._by_arn: dict[str, Connection] = {}

    # -- life

    async def load(self) -> None:
        """Read every connection; StoreUnusable or ConfigError when their secrets cannot be opened."""
        again = []
        _, found = await self._store.conf_list(KIND)
        for entry in found:
            if entry.value is not None:
                connection, sealed_before = load_connection(entry.value, self._vault)
                self._keep(connection)
                if sealed_before:
                    again.append(self._change(connection))
        if again:
            await self._seal_again(again)

    async def _seal_again(self, changes: Sequence[ConfChange]) -> None:
        """Let the new key hold what a former one sealed; both open it until that is on disk."""
        try:
            await self._store.conf_put(changes)
        except StoreUnavailable as error:
            log.error("secrets are still sealed with a former key", reason=str(error), connections=len(changes))
        else:
            log.info("secrets are sealed with the new key", connections=len(changes))

    def start(self) -> None:
        """Go on authorizing what was not authorized yet."""
        for connection in self._by_arn.values():
            if connection.state == "AUTHORIZING":
                self._authorizing.begin(connection)

    async def close(self) -> None:
        await self._authorizing.close()
        await self._tokens.close()

    # -- looking up

    def find(self, arn: str) -> Connection | None:
        """The connection with that ARN."""
        return self._by_arn.get(arn)

    async def token(self, connection: Connection) -> Grant:
        """An access token of an OAuth connection, or why there is none now."""
        failure = self._tokens.failure(connection) if connection.state == "AUTHORIZING" else None
        return failure or await self._tokens.get(connection)

    def token_refused(self, connection: Connection, token: Token) -> None:
        """An endpoint did not take the token."""
        self._tokens.refused(connection, token)

    def _require(self, scope: Scope, name: str, verb: str) -> Connection:
        found = self._by_scope.get(scope, {}).get(name)
        if found is None:
            raise not_found(f"Failed to {verb} the connection(s). Connection '{name}' does not exist.")
        return found

    # -- changing

    def _change(self, connection: Connection) -> ConfChange:
        return ConfChange(KIND, connection.key, dump_connection(connection, self._vault))

    def _keep(self, connection: Connection) -> None:
        self._by_scope.setdefault(connection.scope, {})[connection.name] = connection
        self._by_arn[connection.arn] = connection

    async def _save(self, connection: Connection) -> None:
        await self._store.conf_put([self._change(connection)])
        self._keep(connection)

    def _now(self) -> int:
        return self._clock.now_ms() // 1000

    async def _report(self, connection: Connection, grant: Grant) -> None:
        """What a request for a first token came to, written down unless the connection has changed meanwhile."""
        async with self._lock(connection.scope):
            current = self._by_arn.get(connection.arn)
            if current is None or current.version != connection.version or current.state != "AUTHORIZING":
                return
            if isinstance(grant, NoToken):
                after = replace(current, reason=grant.reason)
            else:
                after = replace(current, state="AUTHORIZED", reason=None, authorized=self._now())
            if after != current:
                await self._save(after)

    # -- operations

    async def create_connection(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        name, kind = request["Name"], request["AuthorizationType"]
        self._check_connectivity(request, "create")
        parameters = self._checked("create", accepted, kind, request["AuthParameters"])
        async with self._lock(call.scope):
            others = self._by_scope.get(call.scope, {})
            if name in others:
                raise ApiError(
                    "ResourceAlreadyExistsException",
                    f"Failed to create the connection(s). A connection with name '{name}' already exists.",
                )
            check_quota(len(others) + 1, self._quotas.connections)
            now = self._now()
            connection = Connection(
                call.scope, name, str(uuid4()), kind, "DEAUTHORIZED", now, now, 0, 0,
                description=request.get("Description"), kms_key=request.get("KmsKeyIdentifier"),
            )  # fmt: skip
            connection = self._with_credentials(connection, kind, parameters)
            await self._save(connection)
            self._settle(connection)
        return _without(times(connection), "LastAuthorizedTime")

    def _with_credentials(self, connection: Connection, kind: str, parameters: Parameters) -> Connection:
        """The connection with credentials that nothing was obtained with yet."""
        state: State = "AUTHORIZING" if kind == OAUTH else "AUTHORIZED"
        return replace(
            connection,
            kind=kind,
            state=state,
            reason=None,
            authorized=self._now() if state == "AUTHORIZED" else connection.authorized,
            version=self._store.allocate(),
            secret_name=connection.secret_name or new_secret_name(connection.name),
            parameters=parameters,
        )

    def _settle(self, connection: Connection) -> None:
        if connection.state == "AUTHORIZING":
            self._authorizing.begin(connection)
        else:
            self._authorizing.end(connection)

    async def update_connection(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        self._check_connectivity(request, "update")
        async with self._lock(call.scope):
            old = self._require(call.scope, request["Name"], "update")
            new = replace(
                old,
                modified=self._now(),
                description=_given(request, "Description", old.description),
                kms_key=_given(request, "KmsKeyIdentifier", old.kms_key),
            )
            if _changes_credentials(request, old):
                given, kind = request["AuthParameters"], request["AuthorizationType"]
                parameters = self._checked("update", updated, kind, old.kind, old.parameters, given)
                new = self._with_credentials(new, kind, parameters)
            await self._save(new)
            if new.version != old.version:
                self._tokens.forget(old)
                self._settle(new)
        return {**times(new), "LastModifiedTime": old.modified}

    async def deauthorize_connection(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        async with self._lock(call.scope):
            old = self._require(call.scope, request["Name"], "deauthorize")
            new = replace(
                old, state="DEAUTHORIZED", reason=DEAUTHORIZED_REASON, modified=self._now(), secret_name=None,
                version=self._store.allocate(), parameters={},
            )  # fmt: skip
            await self._save(new)
            self._let_go(old)
        return {**times(new), "ConnectionState": "DEAUTHORIZING"}

    async def delete_connection(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        async with self._lock(call.scope):
            old = self._require(call.scope, request["Name"], "delete")
            # As on AWS, API destinations go on naming a connection whose credentials had been taken away before.
            detached = self._detach(old.arn) if old.state != "DEAUTHORIZED" else Detached((), lambda: None)
            await self._store.conf_put([*detached.changes, ConfChange(KIND, old.key, None)])
            del self._by_scope[old.scope][old.name], self._by_arn[old.arn]
            detached.apply()
            self._let_go(old)
        return {**times(old), "ConnectionState": "DELETING"}

    def _let_go(self, connection: Connection) -> None:
        self._authorizing.end(connection)
        self._tokens.forget(connection)

    async def describe_connection(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        return described(self._require(call.scope, request["Name"], "describe"))

    async def list_connections(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        prefix, state = request.get("NamePrefix") or "", request.get("ConnectionState")
        named = sorted(
            (
                each
                for each in self._by_scope.get(call.scope, {}).values()
                if each.name.startswith(prefix) and state in (None, each.state)
            ),
            key=lambda each: each.name,
        )
        found, token = page(named, request, key=lambda each: each.name, of=("connections", *call.scope))
        return {"Connections": [listed(each) for each in found], **token}

    # -- checks

    def _checked(self, verb: str, read: Callable[..., dict[str, Any]], kind: str, *rest: Any) -> dict[str, Any]:
        """The parameters that ``read`` makes, their authorization endpoint found usable."""
        try:
            parameters = read(kind, *rest)
        except ParametersError as error:
            raise validation(f"Failed to {verb} the connection(s). {error}") from None
        if kind == OAUTH:
            reason = self._check_endpoint(parameters[BLOCKS[OAUTH]]["AuthorizationEndpoint"])
            if reason is not None:
                text = f"Parameter AuthorizationEndpoint is not valid. Reason: {reason}"
                raise validation(f"Failed to {verb} the connection(s). {text}")
        return parameters

    def _check_connectivity(self, request: Mapping[str, Any], verb: str) -> None:
        """Private networks behind VPC Lattice are nowhere near: no resource configuration exists."""
        inner = (request.get("AuthParameters") or {}).get("ConnectivityParameters")
        for given in (request.get("InvocationConnectivityParameters"), inner):
            named = given and given["ResourceParameters"]["ResourceConfigurationArn"]
            if named:
                _refuse_connectivity(named, verb)


def _refuse_connectivity(named: str, verb: str) -> NoReturn:
    raise not_found(f"Failed to {verb} the connection(s). Resource configuration '{named}' does not exist.")


def _changes_credentials(request: Mapping[str, Any], old: Connection) -> bool:
    """Whether an update brings credentials; ValidationException when it brings nothing, or not enough to go by."""
    given, kind = request.get("AuthParameters"), request.get("AuthorizationType")
    if kind is None and given is None:
        if request.get("Description") is None and request.get("KmsKeyIdentifier") is None:
            raise validation(NOTHING_TO_UPDATE)
        return False
    if kind is None or not given:
        raise validation(NOTHING_TO_UPDATE)
    if given.get(BLOCKS[kind]) is None and (kind != old.kind or given.get(INVOCATION) is None):
        raise validation(NOTHING_TO_UPDATE)
    return True


def _given(request: Mapping[str, Any], member: str, old: str | None) -> str | None:
    value = request.get(member)
    return old if value is None else value


def _without(members: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key != name}
