"""Who is let in: on this machine, with credentials, and with neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import structlog

from bus.api.access import Access, names_this_machine
from bus.api.credentials import read_credentials
from bus.api.model import load_events
from bus.api.request import Request
from bus.api.rpc import Rpc
from bus.clock import ManualClock
from bus.config import Settings
from bus.errors import ApiError, ConfigError
from bus.scope import Call, Scope
from tests.bus.signing import ACCESS_KEY, NOW_MS, SECRET, signed, with_header

KEY = {"access_key": ACCESS_KEY, "secret": SECRET, "account": "111111111111"}
LIMITED = {"access_key": "LIMITED", "secret": "s2", "account": "222222222222", "actions": ["events:Put*", "sqs:*"]}
LOOKER = {"access_key": "LOOKER", "secret": "s3", "account": "222222222222", "actions": ["busbar:Read"]}
TOKEN = "a-long-bearer-token"


def credentials_file(directory: Path, content: Any) -> str:
    path = directory / "credentials.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def guarded(tmp_path: Path) -> Access:
    file = credentials_file(tmp_path, [KEY, LIMITED, LOOKER])
    return Access(Settings(host="0.0.0.0", credentials=file, token=TOKEN), clock=ManualClock(NOW_MS))


def access(**settings: Any) -> Access:
    return Access(Settings(**settings), clock=ManualClock(NOW_MS))


def plain(method: str = "POST", path: str = "/", query: bytes = b"", **headers: str) -> Request:
    named = {"host": "127.0.0.1:4010", **headers}
    pairs = [(name.encode(), value.encode()) for name, value in named.items()]
    return Request(method, path.encode(), query, dict(pairs), pairs, b"")


def admit(gate: Access, request: Request, action: str = "events:PutEvents", service: str = "events") -> Call:
    return gate.admit_call(request, service=service, action=action)


def refused(gate: Access, request: Request, action: str = "events:PutEvents") -> ApiError:
    with pytest.raises(ApiError) as caught:
        admit(gate, request, action)
    return caught.value


class TestOnThisMachine:
    def test_no_credentials_are_needed(self) -> None:
        assert admit(access(), plain()) == Call(Scope("000000000000", "us-east-1"), "127.0.0.1:4010", None, None)

    def test_any_credentials_will_do(self) -> None:
        call = admit(access(), signed(secret="whatever"))
        assert (call.scope, call.access_key) == (Scope("000000000000", "eu-west-1"), ACCESS_KEY)

    def test_twelve_digits_are_the_account(self) -> None:
        gate = access(account_id="999999999999", region="ap-south-1")
        assert admit(gate, signed(access_key="123456789012")).scope == Scope("123456789012", "eu-west-1")
        assert admit(gate, signed(access_key="1234567890123")).scope == Scope("999999999999", "eu-west-1")
        assert admit(gate, plain()).scope == Scope("999999999999", "ap-south-1")

    def test_callers_are_remembered_but_not_mixed_up(self) -> None:
        gate = access()
        for _ in range(2):
            for region in ("eu-west-1", "eu-west-2"):
                for account in ("111111111111", "222222222222"):
                    call = admit(gate, signed(access_key=account, region=region))
                    assert call.scope == Scope(account, region)
        assert admit(gate, with_header(signed(), "host", "localhost")).host == "localhost"
        traced = with_header(signed(), "x-amzn-trace-id", "Root=1")
        assert [admit(gate, request).trace for request in (traced, signed(), traced)] == ["Root=1", None, "Root=1"]

    def test_the_credential_may_be_anywhere_in_the_header(self) -> None:
        late = plain(authorization="AWS4-HMAC-SHA256 Signature=x, Credential=111111111111/d/eu-west-3/events/t")
        assert admit(access(), late).scope == Scope("111111111111", "eu-west-3")

    def test_the_credential_may_be_in_the_query(self) -> None:
        request = signed(method="GET", url="http://localhost/", headers={}, presigned=True, access_key="111111111111")
        assert admit(access(), request).scope == Scope("111111111111", "eu-west-1")

    @pytest.mark.parametrize("header", ["Bearer x", "Basic eDp5", "AWS4-HMAC-SHA256 Credential=a/b", "é"])
    def test_other_credentials_name_no_scope(self, header: str) -> None:
        assert admit(access(), plain(authorization=header)).scope == Scope("000000000000", "us-east-1")

    def test_a_region_that_could_not_be_in_an_arn_is_refused(self) -> None:
        request = plain(authorization="AWS4-HMAC-SHA256 Credential=AKID/20231114/a:b/events/aws4_request, Signature=x")
        assert refused(access(), request).message == "Credential should be scoped to a valid region."

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:4010", "169.254.169.254", "", "127.0.0.1.evil.example"]
    )
    def test_the_host_header_must_name_this_machine(self, host: str) -> None:
        for _ in range(2):
            error = refused(access(), with_header(signed(), "host", host))
            assert (error.code, error.status) == ("AccessDeniedException", 403)
        with pytest.raises(ApiError):
            access().admit_operator(with_header(plain("GET", "/_bus/health"), "host", host))

    def test_a_missing_host_header_names_nothing(self) -> None:
        assert refused(access(), with_header(signed(), "host", None)).status == 403

    @pytest.mark.parametrize(
        "origin", ["http://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:4010"]
    )
    def test_pages_of_other_servers_may_not_call(self, origin: str) -> None:
        request = plain("POST", "/_bus/wires", origin=origin)
        with pytest.raises(ApiError, match="Pages of other servers"):
            access().admit_operator(request)
        assert refused(access(), request).status == 403

    def test_pages_of_this_server_may(self) -> None:
        request = plain("POST", "/_bus/wires", origin="http://127.0.0.1:4010")
        assert access().admit_operator(request).scope == Scope("000000000000", "us-east-1")

    def test_with_credentials_given_calls_are_verified_here_too(self, tmp_path: Path) -> None:
        gate = access(credentials=credentials_file(tmp_path, [KEY]))
        assert refused(gate, plain()).code == "MissingAuthenticationTokenException"
        assert admit(gate, signed()).access_key == ACCESS_KEY


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST:4010", True),
        ("localhost.", True),
        ("127.0.0.1", True),
        ("127.9.9.9:80", True),
        ("[::1]", True),
        ("[::1]:4010", True),
        ("box", True),
        ("Box:4010", True),
        ("[::2]:4010", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
        ("localhost@evil.example", False),
        ("127.0.0.1:80:90", False),
        ("127.0.0.1:x", False),
        ("::1", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_names_of_this_machine(host: str, expected: bool) -> None:
    assert names_this_machine(host, "box") is expected


def test_insecure_is_open_under_any_name() -> None:
    gate = access(host="0.0.0.0", insecure=True)
    assert admit(gate, plain(host="bus.example")).host == "bus.example"
    assert admit(gate, plain(host="bus.example", origin="http://other.example")).host == "bus.example"
    assert gate.admit_operator(plain("POST", "/_bus/wires", host="bus.example")).access_key is None


class TestWithCredentials:
    def test_a_signed_call_has_the_account_of_its_key(self, guarded: Access) -> None:
        request = with_header(signed(), "x-amzn-trace-id", "Root=1")
        assert admit(guarded, request) == Call(
            Scope("111111111111", "eu-west-1"), "127.0.0.1:4010", "Root=1", ACCESS_KEY
        )

    def test_a_call_that_is_not_well_signed_is_refused(self, guarded: Access) -> None:
        assert refused(guarded, plain()).code == "MissingAuthenticationTokenException"
        assert refused(guarded, signed(secret="x")).code == "InvalidSignatureException"
        assert refused(guarded, signed(access_key="nobody")).code == "UnrecognizedClientException"
        assert refused(guarded, signed()._replace(body=b"[]")).code == "InvalidSignatureException"
        assert refused(guarded, signed(service="sqs")).code == "InvalidSignatureException"
        assert refused(guarded, plain(authorization=f"Bearer {TOKEN}")).code == "MissingAuthenticationTokenException"
        assert refused(guarded, signed(now_ms=NOW_MS - 301_000)).code == "InvalidSignatureException"

    def test_a_key_does_only_what_its_actions_allow(self, guarded: Access) -> None:
        request = signed(access_key="LIMITED", secret="s2")
        assert admit(guarded, request, "events:PutEvents").scope.account == "222222222222"
        assert admit(guarded, request, "events:PutRule").scope.account == "222222222222"
        error = refused(guarded, request, "events:DeleteRule")
        assert (error.code, error.message) == (
            "AccessDeniedException",
            "User: arn:aws:iam::222222222222:user/LIMITED is not authorized to perform: events:DeleteRule "
            "because no identity-based policy allows the events:DeleteRule action",
        )
        queue = signed(access_key="LIMITED", secret="s2", service="sqs")
        assert admit(guarded, queue, "sqs:SendMessage", "sqs").access_key == "LIMITED"

    @pytest.mark.parametrize("service", ["busbar", "events"])
    def test_operators_sign_too(self, guarded: Access, service: str) -> None:
        request = signed(b"{}", url="http://bus.example/_bus/wires", headers={}, service=service)
        assert guarded.admit_operator(request).scope == Scope("111111111111", "eu-west-1")
        with pytest.raises(ApiError) as caught:
            guarded.admit_operator(request._replace(body=b"[]"))
        assert (caught.value.code, caught.value.status) == ("InvalidSignatureException", 403)

    def test_operators_may_bear_the_token(self, guarded: Access) -> None:
        for scheme in ("Bearer", "bearer"):
            call = guarded.admit_operator(plain("POST", "/_bus/wires", authorization=f"{scheme} {TOKEN}"))
            assert (call.scope, call.access_key) == (Scope("000000000000", "us-east-1"), None)

    @pytest.mark.parametrize(
        "header", [None, "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}"]
    )
    def test_nobody_else_operates(self, guarded: Access, header: str | None) -> None:
        for path in ("/metrics", "/_bus/wires", "/_bus/health/", "/_bus"):
            with pytest.raises(ApiError) as caught:
                guarded.admit_operator(with_header(plain("GET", path), "authorization", header))
            assert (caught.value.code, caught.value.status) == ("MissingAuthenticationTokenException", 401)

    def test_an_empty_token_is_no_token(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="--token must not be empty"):
            access(credentials=credentials_file(tmp_path, [KEY]), token="")

    def test_when_no_token_is_configured_none_is_good(self, tmp_path: Path) -> None:
        gate = access(credentials=credentials_file(tmp_path, [KEY]), token=None)
        for header in ("Bearer", "Bearer ", "Bearer None"):
            with pytest.raises(ApiError):
                gate.admit_operator(plain("GET", "/metrics", authorization=header))

    def test_health_is_open_and_knows_who_is_known(self, guarded: Access) -> None:
        unknown = plain("GET", "/_bus/health", host="10.0.0.1")
        assert guarded.admit_operator(unknown) is None
        assert guarded.admit_operator(with_header(unknown, "authorization", "Bearer wrong")) is None
        assert guarded.admit_operator(with_header(unknown, "authorization", f"Bearer {TOKEN}")) is not None

    def test_looking_and_changing_are_separate_actions(self, guarded: Access) -> None:
        def operate(method: str, key: str, secret: str) -> Call:
            url = "http://bus.example/_bus/wires"
            return guarded.admit_operator(
                signed(b"", url=url, method=method, headers={}, access_key=key, secret=secret)
            )

        assert operate("GET", "LOOKER", "s3").access_key == "LOOKER"
        for method, key, secret in (("POST", "LOOKER", "s3"), ("GET", "LIMITED", "s2")):
            with pytest.raises(ApiError, match="AccessDeniedException") as caught:
                operate(method, key, secret)
            assert caught.value.status == 403

    def test_secrets_are_in_no_printed_form(self, guarded: Access, tmp_path: Path) -> None:
        keys = read_credentials(tmp_path / "credentials.json")
        assert SECRET not in repr(keys)
        assert SECRET not in repr(guarded)
        assert TOKEN not in repr(guarded)
        assert SECRET not in str(refused(guarded, signed(secret="x")))

    async def test_a_wrong_signature_changes_nothing(self, guarded: Access) -> None:
        class Events:
            calls = 0

            async def put_events(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
                self.calls += 1
                return {}

        events = Events()
        rpc = Rpc([load_events()], [events], access=guarded, max_body_bytes=1000, error_codes={})
        body = b'{"Entries":[{}]}'
        assert await status(rpc, signed(body)) == 200
        assert await status(rpc, signed(body, secret="x")) == 400
        assert await status(rpc, signed(body)._replace(body=b'{"Entries":[{},{}]}')) == 400
        assert await status(rpc, with_header(signed(body), "x-amz-target", "AWSEvents.PutRule")) == 400
        assert events.calls == 1


async def status(rpc: Rpc, request: Request) -> int:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": request.method,
        "path": request.path.decode(),
        "raw_path": request.path,
        "query_string": request.query,
        "headers": list(request.all_headers),
    }
    await rpc(scope, receive, send)
    return int(sent[0]["status"])


class TestCredentialsFile:
    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ("[{]", "is not JSON: .* \\(line 1, column 3\\)"),
            ("", "is not JSON"),
            ({}, "must hold a JSON list with at least one key"),
            ([], "must hold a JSON list with at least one key"),
            ([KEY, "x"], "entry 2: must be an object"),
            ([{**KEY, "acount": "1"}], "entry 1: 'acount' is not known; did you mean 'account'"),
            ([{"access_key": "a", "account": "111111111111"}], "entry 1: secret is missing"),
            ([{**KEY, "secret": ""}], "entry 1: secret must be a text that is not empty"),
            ([{**KEY, "secret": 5}], "entry 1: secret must be a text that is not empty"),
            ([{**KEY, "account": "12"}], "entry 1: account must be 12 digits, not '12'"),
            ([{**KEY, "access_key": "a b"}], "entry 1: access_key may have letters"),
            ([{**KEY, "actions": "events:*"}], "entry 1: actions must be a list"),
            ([{**KEY, "actions": ["events"]}], "entry 1: action 'events' must look like"),
            ([{**KEY, "actions": [1]}], "entry 1: action 1 must look like"),
            ([KEY, KEY], "entry 2: access_key 'AKIDEXAMPLE' is there twice"),
        ],
    )
    def test_a_mistake_is_explained(self, tmp_path: Path, content: Any, complaint: str) -> None:
        with pytest.raises(ConfigError, match=complaint) as caught:
            access(credentials=credentials_file(tmp_path, content))
        assert SECRET not in str(caught.value)

    def test_a_file_that_cannot_be_read_is_explained(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            read_credentials(tmp_path)

    @pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o644, 1), (0o640, 1), (0o604, 1)])
    def test_a_file_that_others_can_read_is_worth_a_warning(self, tmp_path: Path, mode: int, warnings: int) -> None:
        path = Path(credentials_file(tmp_path, [KEY]))
        path.chmod(mode)
        with structlog.testing.capture_logs() as logs:
            read_credentials(path)
        assert [log["mode"] for log in logs] == [oct(mode)] * warnings

    @pytest.mark.parametrize(
        ("pattern", "action", "allowed"),
        [
            ("*", "events:PutEvents", True),
            ("events:*", "events:PutEvents", True),
            ("events:*", "sqs:SendMessage", False),
            ("events:Put*", "events:PutRule", True),
            ("events:Put*", "events:ListPuts", False),
            ("events:PutRul?", "events:PutRule", True),
            ("Events:putevents", "events:PutEvents", True),
            ("events:PutEvent", "events:PutEvents", False),
        ],
    )
    def test_actions_are_iam_patterns(self, tmp_path: Path, pattern: str, action: str, allowed: bool) -> None:
        keys = read_credentials(Path(credentials_file(tmp_path, [{**KEY, "actions": ["x:Y", pattern]}])))
        assert keys[ACCESS_KEY].allows(action) is allowed

    def test_no_actions_are_none(self, tmp_path: Path) -> None:
        keys = read_credentials(Path(credentials_file(tmp_path, [{**KEY, "actions": []}])))
        assert not keys[ACCESS_KEY].allows("events:PutEvents")
