"""Connections over a store, with token requests that are answered by hand and pauses that end when told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from bus.api_destinations import ApiDestinations
from bus.clock import ManualClock
from bus.connections import Connections
from bus.connections.connection import Connection
from bus.connections.secrets import KEY_FILE, Vault
from bus.connections.tokens import Grant, NoToken, Token
from bus.errors import ApiError, StoreUnavailable
from bus.quotas import Quotas
from bus.scope import Call, Scope
from bus.store.sqlite import SqliteStore, open_store
from tests.waiting import eventually

CALL = Call(Scope("111111111111", "us-east-1"))
OTHER = Call(Scope("222222222222", "us-east-1"))
BASIC = {"BasicAuthParameters": {"Username": "u", "Password": "basic-secret"}}
API_KEY = {"ApiKeyAuthParameters": {"ApiKeyName": "x-key", "ApiKeyValue": "key-secret"}}
OAUTH = {
    "OAuthParameters": {
        "ClientParameters": {"ClientID": "c", "ClientSecret": "client-secret"},
        "AuthorizationEndpoint": "https://tokens.example/oauth",
        "HttpMethod": "POST",
    }
}
UNREACHABLE = NoToken("CONNECTION_FAILURE", "Could not connect to the specified endpoint.")
IN_AN_HOUR = ManualClock().now_ms() + 3_600_000


class Bench:
    """Connections and API destinations of one store; every token request waits in ``asked`` for its answer."""

    def __init__(self, store: SqliteStore, clock: ManualClock, vault: Vault, quotas: Quotas | None = None) -> None:
        self.clock = clock
        self.asked: list[tuple[Mapping[str, Any], asyncio.Future[Grant]]] = []
        self.pauses: list[tuple[float, asyncio.Future[None]]] = []
        self.locks: dict[Scope, asyncio.Lock] = {}
        self.connections = Connections(
            store, clock, vault, fetch=self._fetch, check_endpoint=_no_http, quotas=quotas, lock=self._lock,
            detach=lambda arn: self.destinations.detached(arn), pause=self._pause,  # noqa: PLW0108
        )  # fmt: skip
        self.destinations = ApiDestinations(
            store, clock, find_connection=self.connections.find, check_endpoint=_no_http, lock=self._lock, quotas=quotas
        )

    async def _fetch(self, oauth: Mapping[str, Any]) -> Grant:
        answer: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self.asked.append((oauth, answer))
        return await answer

    async def _pause(self, seconds: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pauses.append((seconds, over))
        await over

    def _lock(self, scope: Scope) -> asyncio.Lock:
        return self.locks.setdefault(scope, asyncio.Lock())

    async def load(self) -> Bench:
        await self.connections.load()
        await self.destinations.load()
        self.connections.start()
        return self

    async def call(self, operation: str, call: Call = CALL, /, **request: Any) -> Any:
        owner = self.destinations if "api_destination" in operation else self.connections
        return await getattr(owner, operation)(call, request)

    async def error(self, operation: str, call: Call = CALL, /, **request: Any) -> tuple[str, str]:
        with pytest.raises(ApiError) as refused:
            await self.call(operation, call, **request)
        return refused.value.code, refused.value.message

    async def create(self, name: str = "c", kind: str = "BASIC", parameters: Any = BASIC, **more: Any) -> Connection:
        made = await self.call(
            "create_connection", Name=name, AuthorizationType=kind, AuthParameters=parameters, **more
        )
        found = self.connections.find(made["ConnectionArn"])
        assert found is not None
        return found

    async def oauth(self, name: str = "c") -> Connection:
        return await self.create(name, "OAUTH_CLIENT_CREDENTIALS", OAUTH)

    async def describe(self, name: str = "c") -> dict[str, Any]:
        shown: dict[str, Any] = await self.call("describe_connection", Name=name)
        return shown

    async def state(self, name: str = "c") -> tuple[str, str | None]:
        shown = await self.describe(name)
        return shown["ConnectionState"], shown.get("StateReason")

    async def answer(self, grant: Grant) -> None:
        """Answer the one token request that is open."""
        await eventually(lambda: [a for _, a in self.asked if not a.done()], "a token request")
        (answer,) = [answer for _, answer in self.asked if not answer.done()]
        answer.set_result(grant)

    async def authorized(self, name: str = "c", token: Token | None = None) -> Connection:
        await self.oauth(name)
        await self.answer(token or Token("t1", IN_AN_HOUR))
        await eventually(lambda: self.current(name).state == "AUTHORIZED")
        return self.current(name)

    def current(self, name: str = "c") -> Connection:
        return self.connections._by_scope[CALL.scope][name]


def _no_http(endpoint: str) -> str | None:
    return None if endpoint.startswith("https:") else "not https"


@pytest.fixture
async def store() -> Any:
    opened = await open_store(":memory:", ManualClock())
    yield opened
    await opened.close()


@pytest.fixture
async def bench(store: SqliteStore) -> Any:
    made = await Bench(store, ManualClock(), Vault()).load()
    yield made
    await made.connections.close()


# --- what is kept and shown ------------------------------------------------------------------------------------------


async def test_a_connection_shows_all_but_its_secrets(bench: Bench) -> None:
    entries = [{"Key": "a", "Value": "open"}, {"Key": "b", "Value": "hidden", "IsValueSecret": True}]
    http = {"HeaderParameters": entries, "BodyParameters": []}
    made = await bench.create(parameters={**BASIC, "InvocationHttpParameters": http}, Description="d")
    shown = await bench.describe()
    assert shown["AuthParameters"] == {
        "BasicAuthParameters": {"Username": "u"},
        "InvocationHttpParameters": {
            "HeaderParameters": [
                {"Key": "a", "Value": "open", "IsValueSecret": False},
                {"Key": "b", "IsValueSecret": True},
            ],
            "BodyParameters": [],
        },
    }
    assert shown["SecretArn"].startswith("arn:aws:secretsmanager:us-east-1:111111111111:secret:events!connection/c/")
    assert (shown["ConnectionState"], shown["Description"]) == ("AUTHORIZED", "d")
    assert shown["LastAuthorizedTime"] == bench.clock.now_ms() // 1000
    assert "hidden" not in str(shown)
    assert "basic-secret" not in repr(made)


@pytest.mark.parametrize(("given", "shown"), [({}, {}), (None, None)])
async def test_invocation_parameters_are_shown_as_they_were_given(bench: Bench, given: Any, shown: Any) -> None:
    await bench.create(parameters={**BASIC, "InvocationHttpParameters": given})
    assert (await bench.describe())["AuthParameters"].get("InvocationHttpParameters") == shown


async def test_oauth_shows_its_endpoint_and_not_its_secret(bench: Bench) -> None:
    http = {"BodyParameters": [{"Key": "scope", "Value": "s3cret", "IsValueSecret": True}]}
    parameters = {"OAuthParameters": {**OAUTH["OAuthParameters"], "OAuthHttpParameters": http}}
    await bench.create("c", "OAUTH_CLIENT_CREDENTIALS", parameters)
    assert (await bench.describe())["AuthParameters"] == {
        "OAuthParameters": {
            "ClientParameters": {"ClientID": "c"},
            "AuthorizationEndpoint": "https://tokens.example/oauth",
            "HttpMethod": "POST",
            "OAuthHttpParameters": {"BodyParameters": [{"Key": "scope", "IsValueSecret": True}]},
        }
    }


async def test_lists_are_short_sorted_and_filtered(bench: Bench) -> None:
    await bench.create("b", Description="not shown")
    await bench.create("a", "API_KEY", API_KEY)
    await bench.oauth("ab")
    listed = (await bench.call("list_connections"))["Connections"]
    assert [each["Name"] for each in listed] == ["a", "ab", "b"]
    assert listed[2].keys() == {
        "ConnectionArn", "Name", "ConnectionState", "AuthorizationType", "CreationTime", "LastModifiedTime",
        "LastAuthorizedTime",
    }  # fmt: skip
    named = await bench.call("list_connections", NamePrefix="a", ConnectionState="AUTHORIZING")
    assert [each["Name"] for each in named["Connections"]] == ["ab"]
    first = await bench.call("list_connections", Limit=2)
    rest = await bench.call("list_connections", Limit=2, NextToken=first["NextToken"])
    assert [each["Name"] for each in rest["Connections"]] == ["b"]
    assert (await bench.call("list_connections", OTHER))["Connections"] == []


async def test_quotas_hold(store: SqliteStore) -> None:
    bench = await Bench(store, ManualClock(), Vault(), Quotas(connections=1, api_destinations=1)).load()
    connection = await bench.create("one")
    code, _ = await bench.error("create_connection", Name="two", AuthorizationType="BASIC", AuthParameters=BASIC)
    assert code == "LimitExceededException"
    request = {"ConnectionArn": connection.arn, "InvocationEndpoint": "https://x.example", "HttpMethod": "POST"}
    await bench.call("create_api_destination", Name="one", **request)
    code, _ = await bench.error("create_api_destination", Name="two", **request)
    assert code == "LimitExceededException"


# --- what is refused -------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, Any, str]] = {
    "nothing for the type": ("BASIC", {}, "BasicAuthParameters.Username, BasicAuthParameters.Password."),
    "parameters of another type": ("BASIC", API_KEY, "ApiKeyAuthParameters cannot be given with"),
    "an endpoint in the clear": (
        "OAUTH_CLIENT_CREDENTIALS",
        {"OAuthParameters": {**OAUTH["OAuthParameters"], "AuthorizationEndpoint": "http://tokens.example"}},
        "Parameter AuthorizationEndpoint is not valid. Reason: not https",
    ),
    "a key that no header can carry": (
        "API_KEY",
        {"ApiKeyAuthParameters": {"ApiKeyName": "two words", "ApiKeyValue": "v"}},
        "ApiKeyName is not the name of a header.",
    ),
    "an entry without a key": (
        "BASIC",
        {**BASIC, "InvocationHttpParameters": {"BodyParameters": [{"Value": "v"}]}},
        "Every entry of InvocationHttpParameters.BodyParameters requires a Key.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_parameters_that_make_no_connection(bench: Bench, name: str) -> None:
    kind, parameters, message = REFUSED[name]
    found = await bench.error("create_connection", Name="c", AuthorizationType=kind, AuthParameters=parameters)
    assert found[0] == "ValidationException"
    assert found[1].startswith("Failed to create the connection(s). ")
    assert message in found[1]
    assert "secret" not in found[1]


async def test_private_networks_do_not_exist(bench: Bench) -> None:
    named = {"ResourceParameters": {"ResourceConfigurationArn": "arn:aws:vpc-lattice:r:1:resourceconfiguration/rcfg-1"}}
    for given in (
        {"InvocationConnectivityParameters": named, "AuthParameters": BASIC},
        {"AuthParameters": {**BASIC, "ConnectivityParameters": named}},
    ):
        code, _ = await bench.error("create_connection", Name="c", AuthorizationType="BASIC", **given)
        assert code == "ResourceNotFoundException"


# --- updates ---------------------------------------------------------------------------------------------------------


async def test_an_update_keeps_what_it_does_not_give(bench: Bench) -> None:
    http = {"HeaderParameters": [{"Key": "h", "Value": "v"}]}
    old = await bench.create(parameters={**BASIC, "InvocationHttpParameters": http})
    created = bench.clock.now_ms() // 1000
    bench.clock.advance(10)
    answered = await bench.call(
        "update_connection",
        Name="c",
        AuthorizationType="BASIC",
        AuthParameters={"BasicAuthParameters": {"Password": "other"}},
    )
    assert (answered["LastModifiedTime"], answered["LastAuthorizedTime"]) == (created, created + 10)
    new = bench.current()
    assert new.parameters["BasicAuthParameters"] == {"Username": "u", "Password": "other"}
    assert new.parameters["InvocationHttpParameters"] == old.parameters["InvocationHttpParameters"]
    assert (new.arn, new.secret_name, new.modified) == (old.arn, old.secret_name, created + 10)


async def test_an_update_of_the_description_leaves_credentials_alone(bench: Bench) -> None:
    old = await bench.authorized()
    await bench.call("update_connection", Name="c", Description="new")
    new = bench.current()
    assert (new.description, new.state, new.version) == ("new", "AUTHORIZED", old.version)
    assert len(bench.asked) == 1


async def test_another_type_needs_all_its_parameters(bench: Bench) -> None:
    http = {"HeaderParameters": [{"Key": "h", "Value": "v"}]}
    await bench.create(parameters={**BASIC, "InvocationHttpParameters": http})
    incomplete = {"ApiKeyAuthParameters": {"ApiKeyName": "x"}}
    _, message = await bench.error(
        "update_connection", Name="c", AuthorizationType="API_KEY", AuthParameters=incomplete
    )
    assert "ApiKeyAuthParameters.ApiKeyValue" in message
    await bench.call("update_connection", Name="c", AuthorizationType="API_KEY", AuthParameters=API_KEY)
    assert bench.current().parameters.keys() == {"ApiKeyAuthParameters", "InvocationHttpParameters"}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"AuthParameters": BASIC},
        {"AuthorizationType": "BASIC"},
        {"AuthorizationType": "API_KEY", "AuthParameters": {"InvocationHttpParameters": {}}},
        {"Description": "d", "AuthParameters": BASIC},
    ],
)
async def test_an_update_of_nothing(bench: Bench, given: Any) -> None:
    await bench.create()
    code, message = await bench.error("update_connection", Name="c", **given)
    assert code == "ValidationException"
    assert message.startswith("Failed to update the connection(s). At least one of the following is required: ")


async def test_only_one_part_of_the_client_may_change(bench: Bench) -> None:
    await bench.authorized()
    change = {"OAuthParameters": {"ClientParameters": {"ClientSecret": "new"}}}
    await bench.call("update_connection", Name="c", AuthorizationType="OAUTH_CLIENT_CREDENTIALS", AuthParameters=change)
    await eventually(lambda: len(bench.asked) == 2)
    assert bench.asked[1][0]["ClientParameters"] == {"ClientID": "c", "ClientSecret": "new"}


# --- taking away and deleting ----------------------------------------------------------------------------------------


async def test_deauthorizing_takes_the_credentials_away(bench: Bench) -> None:
    old = await bench.create()
    for _ in range(2):
        assert (await bench.call("deauthorize_connection", Name="c"))["ConnectionState"] == "DEAUTHORIZING"
    shown = await bench.describe()
    assert shown["ConnectionState"] == "DEAUTHORIZED"
    assert shown["AuthParameters"] == {}
    assert "SecretArn" not in shown
    assert shown["StateReason"].endswith("were removed from this connection by a DeauthorizeConnection operation.")
    await bench.call("update_connection", Name="c", AuthorizationType="BASIC", AuthParameters=BASIC)
    new = bench.current()
    assert (new.state, new.reason, new.arn) == ("AUTHORIZED", None, old.arn)
    assert new.secret_name != old.secret_name


async def test_a_deleted_connection_is_gone_and_its_name_free(bench: Bench) -> None:
    old = await bench.create()
    assert (await bench.call("delete_connection", Name="c"))["ConnectionState"] == "DELETING"
    assert bench.connections.find(old.arn) is None
    assert (await bench.create()).arn != old.arn


async def destination(bench: Bench, connection: Connection) -> Any:
    await bench.call(
        "create_api_destination",
        Name="d",
        ConnectionArn=connection.arn,
        InvocationEndpoint="https://x.example/*",
        HttpMethod="POST",
    )


async def test_destinations_lose_a_connection_that_is_deleted(bench: Bench) -> None:
    await destination(bench, await bench.create())
    await bench.call("delete_connection", Name="c")
    shown = await bench.call("describe_api_destination", Name="d")
    assert shown["ApiDestinationState"] == "INACTIVE"
    assert "ConnectionArn" not in shown


async def test_destinations_keep_a_connection_that_was_deauthorized_before(bench: Bench) -> None:
    connection = await bench.create()
    await destination(bench, connection)
    await bench.call("deauthorize_connection", Name="c")
    await bench.call("delete_connection", Name="c")
    await bench.create()
    shown = await bench.call("describe_api_destination", Name="d")
    assert (shown["ApiDestinationState"], shown["ConnectionArn"]) == ("INACTIVE", connection.arn)


async def test_a_destination_is_active_while_its_connection_is_authorized(bench: Bench) -> None:
    await destination(bench, await bench.oauth())
    states = []

    async def look() -> None:
        states.append((await bench.call("describe_api_destination", Name="d"))["ApiDestinationState"])

    await look()
    await bench.answer(Token("t", None))
    await eventually(lambda: bench.current().state == "AUTHORIZED")
    await look()
    await bench.call("deauthorize_connection", Name="c")
    await look()
    assert states == ["INACTIVE", "ACTIVE", "INACTIVE"]


# --- authorizing -----------------------------------------------------------------------------------------------------


async def test_oauth_is_authorized_when_the_first_token_comes(bench: Bench) -> None:
    await bench.oauth()
    shown = await bench.describe()
    assert (shown["ConnectionState"], shown["LastAuthorizedTime"]) == ("AUTHORIZING", 0)
    bench.clock.advance(3)
    await bench.answer(Token("t", None))
    await eventually(lambda: bench.current().state == "AUTHORIZED")
    assert (await bench.describe())["LastAuthorizedTime"] == bench.clock.now_ms() // 1000


async def test_an_unreachable_endpoint_is_asked_again_after_longer_and_longer_pauses(bench: Bench) -> None:
    await bench.oauth()
    for _ in range(7):
        await bench.answer(UNREACHABLE)
        await eventually(lambda: bench.pauses and not bench.pauses[-1][1].done())
        assert await bench.state() == ("AUTHORIZING", UNREACHABLE.reason)
        assert (await bench.describe())["LastAuthorizedTime"] == 0
        bench.pauses[-1][1].set_result(None)
    assert [seconds for seconds, _ in bench.pauses] == [1, 2, 4, 8, 16, 30, 30]
    await bench.answer(Token("t", None))
    await eventually(lambda: bench.current().state == "AUTHORIZED")
    assert await bench.state() == ("AUTHORIZED", None)


async def test_what_waits_for_a_token_is_told_why_there_is_none(bench: Bench) -> None:
    connection = await bench.oauth()
    waiting = asyncio.create_task(bench.connections.token(connection))
    await bench.answer(UNREACHABLE)
    assert await waiting == UNREACHABLE
    await eventually(lambda: bench.pauses)
    assert await bench.connections.token(bench.current()) == UNREACHABLE
    assert len(bench.asked) == 1, "deliveries do not press a token server that is being waited for"


async def test_new_credentials_end_the_wait_for_old_ones(bench: Bench) -> None:
    await bench.oauth()
    await bench.answer(UNREACHABLE)
    await eventually(lambda: bench.pauses)
    await bench.call("update_connection", Name="c", AuthorizationType="OAUTH_CLIENT_CREDENTIALS", AuthParameters=OAUTH)
    assert await bench.state() == ("AUTHORIZING", None)
    await bench.answer(Token("t", None))
    await eventually(lambda: bench.current().state == "AUTHORIZED")
    assert bench.pauses[0][1].cancelled()


async def test_a_late_answer_to_old_credentials_changes_nothing(bench: Bench) -> None:
    connection = await bench.oauth()
    await eventually(lambda: bench.asked)
    await bench.call("deauthorize_connection", Name="c")
    bench.asked[0][1].set_result(Token("late", None))
    await eventually(lambda: not bench.connections._tokens._tasks)
    assert bench.current().state == "DEAUTHORIZED"
    assert bench.connections._tokens._grants == {}
    assert connection.version != bench.current().version


# --- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_token_is_used_until_a_minute_before_its_end(bench: Bench) -> None:
    connection = await bench.authorized()
    first = await bench.connections.token(connection)
    bench.clock.advance(3600 - 61)
    assert await bench.connections.token(connection) is first
    assert len(bench.asked) == 1
    bench.clock.advance(1)
    second = asyncio.create_task(bench.connections.token(connection))
    await bench.answer(Token("t2", None))
    assert await second == Token("t2", None)


async def test_one_request_serves_all_who_wait(bench: Bench) -> None:
    connection = await bench.authorized()
    bench.clock.advance(3600)
    waiting = [asyncio.create_task(bench.connections.token(connection)) for _ in range(20)]
    await eventually(lambda: len(bench.asked) == 2)
    waiting[0].cancel()
    await bench.answer(Token("t2", None))
    assert {await each for each in waiting[1:]} == {Token("t2", None)}
    assert len(bench.asked) == 2


async def test_a_refused_token_is_replaced_and_a_newer_one_is_not(bench: Bench) -> None:
    connection = await bench.authorized()
    first = await bench.connections.token(connection)
    assert isinstance(first, Token)
    bench.connections.token_refused(connection, first)
    second = asyncio.create_task(bench.connections.token(connection))
    await bench.answer(Token("t2", None))
    assert await second == Token("t2", None)
    bench.connections.token_refused(connection, first)
    assert await bench.connections.token(connection) == Token("t2", None)
    assert len(bench.asked) == 2


async def test_a_fetch_that_breaks_off_is_a_failure(bench: Bench) -> None:
    connection = await bench.oauth()
    await eventually(lambda: bench.asked)
    bench.asked[0][1].set_exception(RuntimeError("client-secret"))
    grant = await bench.connections.token(connection)
    assert grant == NoToken("INTERNAL_ERROR", "The token request ended with RuntimeError.")
    assert "client-secret" not in str(await bench.state())


def test_a_token_does_not_show_itself() -> None:
    assert "t0ken" not in repr(Token("t0ken", 1))


# --- restarts --------------------------------------------------------------------------------------------------------


async def test_everything_survives_a_restart_and_authorizing_goes_on(tmp_path: Path) -> None:
    clock = ManualClock()
    store = await open_store(str(tmp_path), clock)
    first = await Bench(store, clock, Vault(path=tmp_path / KEY_FILE)).load()
    await destination(first, await first.create("basic"))
    await first.oauth("waiting")
    await first.answer(UNREACHABLE)
    await eventually(lambda: first.pauses)
    await first.authorized("ready")
    before = [await first.describe(name) for name in ("basic", "ready", "waiting")]
    shown = await first.call("describe_api_destination", Name="d")
    await first.connections.close()
    await store.close()

    store = await open_store(str(tmp_path), clock)
    second = await Bench(store, clock, Vault(path=tmp_path / KEY_FILE)).load()
    assert [await second.describe(name) for name in ("basic", "ready", "waiting")] == before
    assert await second.call("describe_api_destination", Name="d") == shown
    assert second.current("basic").parameters == first.current("basic").parameters
    await second.answer(Token("t", None))
    await eventually(lambda: second.current("waiting").state == "AUTHORIZED")
    token = asyncio.create_task(second.connections.token(second.current("ready")))
    await second.answer(Token("t2", None))
    assert await token == Token("t2", None)
    await second.connections.close()
    await store.close()


async def test_secrets_are_sealed_anew_when_the_key_is_replaced(tmp_path: Path) -> None:
    old, new = Fernet(Fernet.generate_key()), Fernet(Fernet.generate_key())
    for keys in ([old], [new, old], [new]):
        store = await open_store(str(tmp_path), ManualClock())
        bench = await Bench(store, ManualClock(), Vault(keys)).load()
        if keys == [old]:
            await bench.create()
        assert bench.current().parameters == BASIC
        await store.close()


def bytes_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_nothing_on_disk_shows_a_secret(tmp_path: Path) -> None:
    store = await open_store(str(tmp_path), ManualClock())
    bench = await Bench(store, ManualClock(), Vault(path=tmp_path / KEY_FILE)).load()
    http = {"QueryStringParameters": [{"Key": "k", "Value": "query-secret", "IsValueSecret": True}]}
    await bench.create("a", parameters={**BASIC, "InvocationHttpParameters": http})
    await bench.create("b", "API_KEY", API_KEY)
    await bench.authorized("c", Token("token-secret", IN_AN_HOUR))
    await bench.call("update_connection", Name="a", AuthorizationType="BASIC", AuthParameters=BASIC)
    await bench.connections.close()
    await store.close()
    kept = bytes_below(tmp_path)
    assert b"events!connection/a/" in kept
    for secret in (b"basic-secret", b"key-secret", b"client-secret", b"query-secret", b"token-secret"):
        assert secret not in kept


async def test_a_disk_that_refuses_the_new_key_does_not_stop_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Fernet(Fernet.generate_key()), Fernet(Fernet.generate_key())
    store = await open_store(str(tmp_path), ManualClock())
    await (await Bench(store, ManualClock(), Vault([old])).load()).create()

    async def full(changes: Any) -> int:
        raise StoreUnavailable("full")

    monkeypatch.setattr(store, "conf_put", full)
    bench = await Bench(store, ManualClock(), Vault([new, old])).load()
    assert bench.current().parameters == BASIC
    await store.close()


async def test_what_the_disk_refuses_has_not_happened(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await bench.create()
    await destination(bench, connection)
    store = bench.connections._store

    async def full(changes: Any) -> int:
        raise StoreUnavailable("full")

    monkeypatch.setattr(store, "conf_put", full)
    for operation, request in (
        ("update_connection", {"Description": "d"}),
        ("deauthorize_connection", {}),
        ("delete_connection", {}),
    ):
        with pytest.raises(StoreUnavailable):
            await bench.call(operation, Name="c", **request)
    with pytest.raises(StoreUnavailable):
        await bench.call("delete_api_destination", Name="d")
    monkeypatch.undo()
    assert bench.current() is connection
    assert (await bench.call("describe_api_destination", Name="d"))["ConnectionArn"] == connection.arn


async def test_a_token_that_cannot_be_noted_is_noted_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.oauth()
    store = bench.connections._store

    async def full(changes: Any) -> int:
        raise StoreUnavailable("full")

    monkeypatch.setattr(store, "conf_put", full)
    await bench.answer(Token("t", None))
    await eventually(lambda: bench.pauses)
    assert await bench.state() == ("AUTHORIZING", None)
    monkeypatch.undo()
    bench.pauses[0][1].set_result(None)
    await eventually(lambda: bench.current().state == "AUTHORIZED")
    assert len(bench.asked) == 1
