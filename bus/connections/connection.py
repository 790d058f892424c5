"""A connection as a value, the form in which it is stored, and the members that answers show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

import orjson

from bus.connections.parameters import OAUTH, shown
from bus.connections.secrets import Vault
from bus.scope import Scope
from bus.store import ConfChange
from rules import arn

State = Literal["AUTHORIZED", "AUTHORIZING", "DEAUTHORIZED"]

DEAUTHORIZED_REASON = (
    "The authorization parameters were removed from this connection by a DeauthorizeConnection operation."
)


CheckEndpoint = Callable[[str], str | None]
"""Why an endpoint cannot be used, in AWS's words; None when it can."""


@dataclass(frozen=True, slots=True)
class Detached:
    """What the deletion of a connection changes elsewhere: to store with it, and to do once that is on disk."""

    changes: Sequence[ConfChange]
    apply: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection; times are whole seconds since the epoch.

    ``uuid`` tells it from an earlier one of the same name. ``version`` is another one with every change of the
    credentials; what was obtained with one version is of no use with the next. ``parameters`` are the AuthParameters,
    secrets among them, and empty once they were taken away.
    """

    scope: Scope
    name: str
    uuid: str
    kind: str
    state: State
    created: int
    modified: int
    authorized: int
    version: int
    description: str | None = None
    kms_key: str | None = None
    reason: str | None = None
    secret_name: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def arn(self) -> str:
        return arn.connection_arn(self.name, self.uuid, region=self.scope.region, account=self.scope.account)

    @property
    def key(self) -> str:
        """The connection's key in the store."""
        return f"{self.scope.account}/{self.scope.region}/{self.name}"

    @property
    def is_oauth(self) -> bool:
        return self.kind == OAUTH


def new_secret_name(name: str) -> str:
    """The name that the connection's secret would have in Secrets Manager; its UUID is not the connection's."""
    return f"events!connection/{name}/{uuid4()}-{uuid4().hex[:6]}"


def times(connection: Connection) -> dict[str, Any]:
    """State and times, as the operations that change a connection answer."""
    return {
        "ConnectionArn": connection.arn,
        "ConnectionState": connection.state,
        "CreationTime": connection.created,
        "LastModifiedTime": connection.modified,
        "LastAuthorizedTime": connection.authorized,
    }


def listed(connection: Connection) -> dict[str, Any]:
    """The members that ListConnections shows."""
    members = {
        **times(connection),
        "Name": connection.name,
        "StateReason": connection.reason,
        "AuthorizationType": connection.kind,
    }
    return {name: value for name, value in members.items() if value is not None}


def described(connection: Connection) -> dict[str, Any]:
    """The members that DescribeConnection shows; no secret is among them."""
    secret, scope = connection.secret_name, connection.scope
    members = {
        **listed(connection),
        "Description": connection.description or None,
        "KmsKeyIdentifier": connection.kms_key or None,
        "SecretArn": secret and arn.secret_arn(secret, region=scope.region, account=scope.account),
        "AuthParameters": shown(connection.parameters),
    }
    return {name: value for name, value in members.items() if value is not None}


def dump_connection(connection: Connection, vault: Vault) -> bytes:
    """The stored form: all parameters sealed, whether secret or not."""
    return orjson.dumps(
        {
            "account": connection.scope.account,
            "region": connection.scope.region,
            "name": connection.name,
            "uuid": connection.uuid,
            "kind": connection.kind,
            "state": connection.state,
            "created": connection.created,
            "modified": connection.modified,
            "authorized": connection.authorized,
            "version": connection.version,
            "description": connection.description,
            "kms_key": connection.kms_key,
            "reason": connection.reason,
            "secret_name": connection.secret_name,
            "sealed": vault.seal(orjson.dumps(connection.parameters)) if connection.parameters else None,
        }
    )


def load_connection(value: bytes, vault: Vault) -> tuple[Connection, bool]:
    """A connection from its stored form, and whether it should be stored again because a former key sealed it.

    StoreUnusable or ConfigError when no key opens it.
    """
    stored = orjson.loads(value)
    sealed = stored.pop("sealed")
    parameters = orjson.loads(vault.open(sealed)) if sealed else {}
    connection = Connection(scope=Scope(stored.pop("account"), stored.pop("region")), parameters=parameters, **stored)
    return connection, bool(sealed) and not vault.is_current(sealed)
