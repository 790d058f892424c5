"""Who may do what: on loopback, with a credentials file, and where everyone can connect."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.conftest import Server, clean_environment
from tests.e2e.sink import Sink
from tests.e2e.tenant import Tenant, letter, to_dead_letters
from tests.e2e.wire import Answer, call, exchange, request

pytestmark = pytest.mark.xdist_group("e2e_access")

REGION = "us-east-1"
TOKEN = "open-sesame"
KEYS: list[dict[str, Any]] = [
    {"access_key": "AKIDADMIN", "secret": "admin-secret", "account": "111122223333"},
    {
        "access_key": "AKIDPUTTER",
        "secret": "putter-secret",
        "account": "111122223333",
        "actions": ["events:PutEvents", "sqs:*", "busbar:Read"],
    },
    {"access_key": "AKIDOTHER", "secret": "other-secret", "account": "444455556666"},
]
SECRETS = {key["access_key"]: key["secret"] for key in KEYS}
PUT = b'{"Entries":[{"Source":"s","DetailType":"T","Detail":"{}"}]}'


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a credentials file, and a bearer token for operators."""
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "keys.json").write_text(json.dumps(KEYS))
    (directory / "keys.json").chmod(0o600)
    made = Server(directory, {"credentials": directory / "keys.json", "token": TOKEN}, {})
    yield made
    made.stop()


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that listens on every address, to be reached on loopback."""
    made = Server(tmp_path_factory.mktemp("exposed"), {"host": "0.0.0.0", "insecure": True}, {})
    made.url = made.url.replace("0.0.0.0", "127.0.0.1")
    yield made
    made.stop()


def client(server: Server, service: str, access_key: str, secret: str | None = None) -> Any:
    return boto3.client(
        service,
        endpoint_url=server.url,
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret or SECRETS[access_key],
        config=Config(retries={"total_max_attempts": 1}),
    )


def error_of(attempt: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as failed:
        attempt()
    response = failed.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def signed(server: Server, method: str, path: str, access_key: str, body: bytes = b"") -> Answer:
    """A request of an operator, signed as `busbar` signs it."""
    made = AWSRequest(method, server.url + path, data=body)
    SigV4Auth(Credentials(access_key, SECRETS[access_key]), "busbar", REGION).add_auth(made)
    return request(server.url, method, path, body=body, headers=dict(made.headers.items()))


class TestStarting:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])
    def test_beyond_loopback_it_wants_credentials_or_a_word(self, host: str, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "bus", "serve", "--host", host, "--port", "0", "--data-dir", str(tmp_path / "data")],
            capture_output=True, text=True, env=clean_environment(), check=False, timeout=60,
        )  # fmt: skip

        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"busbar: {host} can be reached from other machines: ")
        assert "--credentials" in line
        assert "--insecure" in line
        assert not (tmp_path / "data").exists()


class TestCredentials:
    def test_the_right_key_acts_in_its_own_account(self, guarded: Server) -> None:
        events = client(guarded, "events", "AKIDADMIN")

        arn = events.put_rule(Name="mine", EventPattern='{"source":["s"]}')["RuleArn"]

        assert arn == f"arn:aws:events:{REGION}:111122223333:rule/mine"
        assert client(guarded, "events", "AKIDOTHER").list_rules()["Rules"] == []

    @pytest.mark.parametrize(
        ("access_key", "secret", "code"),
        [
            ("AKIDADMIN", "wrong", "InvalidSignatureException"),
            ("AKIDNOBODY", "admin-secret", "UnrecognizedClientException"),
        ],
    )
    def test_a_wrong_signature_changes_nothing(self, access_key: str, secret: str, code: str, guarded: Server) -> None:
        events = client(guarded, "events", access_key, secret)
        before = client(guarded, "events", "AKIDADMIN").list_rules()["Rules"]

        said, status = error_of(lambda: events.put_rule(Name="forged", EventPattern='{"source":["s"]}'))

        assert (said, status // 100) == (code, 4)
        assert client(guarded, "events", "AKIDADMIN").list_rules()["Rules"] == before

    def test_a_body_changed_on_its_way_is_refused(self, guarded: Server) -> None:
        headers = {"X-Amz-Target": "AWSEvents.PutEvents", "Content-Type": "application/x-amz-json-1.1"}
        made = AWSRequest("POST", guarded.url + "/", headers=headers, data=PUT)
        SigV4Auth(Credentials("AKIDADMIN", SECRETS["AKIDADMIN"]), "events", REGION).add_auth(made)
        sent = dict(made.headers.items())

        assert request(guarded.url, "POST", body=PUT, headers=sent).status == 200
        changed = request(guarded.url, "POST", body=PUT.replace(b'"s"', b'"x"'), headers=sent)
        assert changed.code == "InvalidSignatureException"

    def test_no_signature_at_all(self, guarded: Server) -> None:
        answer = call(guarded.url, "PutEvents", PUT)

        assert answer.code == "MissingAuthenticationTokenException"
        assert answer.status // 100 == 4

    def test_the_actions_of_a_key_are_all_it_may_do(self, guarded: Server) -> None:
        events, sqs = client(guarded, "events", "AKIDPUTTER"), client(guarded, "sqs", "AKIDPUTTER")

        assert events.put_events(Entries=[{"Source": "s", "DetailType": "T", "Detail": "{}"}])["FailedEntryCount"] == 0
        assert sqs.create_queue(QueueName="allowed")["QueueUrl"].endswith("/111122223333/allowed")
        code, _ = error_of(lambda: events.put_rule(Name="denied", EventPattern='{"source":["s"]}'))
        assert code == "AccessDeniedException"
        names = [rule["Name"] for rule in client(guarded, "events", "AKIDADMIN").list_rules()["Rules"]]
        assert "denied" not in names

    @pytest.mark.parametrize("path", ["/metrics", "/_bus/rules", "/_bus/wires", "/_bus/tail", "/_bus/dead-letters"])
    def test_the_operators_pages_are_closed(self, path: str, guarded: Server) -> None:
        assert request(guarded.url, path=path).status == 401
        assert request(guarded.url, path=path, headers={"Authorization": "Bearer wrong"}).status in (401, 403)

    def test_token_or_signature_opens_them(self, guarded: Server) -> None:
        bearer = {"Authorization": f"Bearer {TOKEN}"}

        assert request(guarded.url, path="/metrics", headers=bearer).status == 200
        assert request(guarded.url, path="/_bus/wires", headers=bearer).json == {"Wires": []}
        assert signed(guarded, "GET", "/metrics", "AKIDADMIN").status == 200
        assert signed(guarded, "GET", "/_bus/wires", "AKIDPUTTER").status == 200

    def test_a_key_that_may_read_may_not_write(self, guarded: Server) -> None:
        wire = json.dumps({"Arn": "arn:aws:lambda:*:*:function:f", "Url": "http://127.0.0.1:9/"}).encode()

        denied = signed(guarded, "PUT", "/_bus/wires", "AKIDPUTTER", wire)

        assert (denied.status, denied.json["error"]) == (403, "AccessDeniedException")
        assert signed(guarded, "GET", "/_bus/wires", "AKIDADMIN").json == {"Wires": []}

    def test_health_is_open_to_probes(self, guarded: Server) -> None:
        assert request(guarded.url, path="/_bus/health").json["status"] == "ok"

    def test_no_secret_is_logged(self, guarded: Server) -> None:
        assert not [secret for secret in (*SECRETS.values(), TOKEN) if secret in guarded.said()]


class TestBrowsers:
    @pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {}], ids=["foreign", "none"])
    @pytest.mark.parametrize("path", ["/", "/_bus/health", "/metrics"])
    def test_no_answer_carries_cors(self, path: str, headers: Mapping[str, str], server: Server) -> None:
        preflight = {**headers, "Access-Control-Request-Method": "POST"}

        for answer in (
            request(server.url, path=path, headers=headers),
            request(server.url, "OPTIONS", path, headers=preflight),
            request(server.url, "POST", path, body=b"{}", headers=headers),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control-")]

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:4010", "127.0.0.1.evil.example", "192.168.1.7", ""])
    @pytest.mark.parametrize("target", ["PutEvents", "CreateEventBus"])
    def test_a_host_that_is_not_this_machine_is_refused(self, host: str, target: str, server: Server) -> None:
        body = PUT if target == "PutEvents" else b'{"Name":"rebound"}'
        sent = (
            f"POST / HTTP/1.1\r\nHost: {host}\r\nX-Amz-Target: AWSEvents.{target}\r\n"
            f"Content-Type: application/x-amz-json-1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        )

        answer = exchange(server.url, sent.encode() + body)

        assert answer.status == 403
        assert answer.code == "AccessDeniedException"
        assert b"rebound" not in call(server.url, "ListEventBuses", b"{}").body

    @pytest.mark.parametrize("path", ["/metrics", "/_bus/wires", "/_bus/health"])
    def test_so_are_the_operators_pages(self, path: str, server: Server) -> None:
        sent = f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n"

        assert exchange(server.url, sent.encode()).status == 403

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9", "[::1]:80"])
    def test_every_name_of_this_machine_will_do(self, host: str, server: Server) -> None:
        sent = f"GET /_bus/health HTTP/1.1\r\nHost: {host}\r\n\r\n"

        assert exchange(server.url, sent.encode()).status == 200

    def test_a_page_of_another_server_may_not_call(self, server: Server) -> None:
        assert call(server.url, "PutEvents", PUT, Origin="http://evil.example").status == 403
        assert call(server.url, "PutEvents", PUT, Origin="null").status == 403
        assert call(server.url, "PutEvents", PUT, Origin=server.url).status == 200


LINK_LOCAL = [
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.1.1/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fe80::1]/",
    "http://metadata.google.internal/",
    "http://0.0.0.0/",
]


class TestTargets:
    @pytest.mark.parametrize("url", LINK_LOCAL)
    def test_beyond_loopback_a_metadata_address_is_no_target(self, url: str, exposed: Server, aws: Any) -> None:
        owner = Tenant(aws, at=exposed)
        owner.rule("probe")

        with pytest.raises(ClientError) as failed:
            owner.events.put_targets(Rule="probe", Targets=[{"Id": "t", "Arn": url}])

        error = failed.value.response["Error"]
        assert error["Code"] == "ValidationException"
        assert error["Message"].startswith(f"Parameter {url} is not valid. Reason: ")
        assert "--allow-target" in error["Message"]
        assert owner.events.list_targets_by_rule(Rule="probe")["Targets"] == []

    def test_nor_is_it_the_end_of_a_wire(self, exposed: Server) -> None:
        wire = json.dumps({"Arn": "arn:aws:lambda:*:*:function:f", "Url": LINK_LOCAL[0]}).encode()

        assert request(exposed.url, "PUT", "/_bus/wires", body=wire).status == 400
        assert request(exposed.url, path="/_bus/wires").json == {"Wires": []}

    def test_loopback_stays_open_and_any_host_header_will_do(self, exposed: Server, aws: Any, sink: Sink) -> None:
        owner = Tenant(aws, at=exposed)
        owner.rule("local", {"Id": "hook", "Arn": sink.url})

        event_id = owner.put("local")

        assert sink.next().event["id"] == event_id
        head = b"GET /_bus/health HTTP/1.1\r\nHost: bus.example\r\n\r\n"
        assert exchange(exposed.url, head).status == 200

    def test_a_bus_that_moves_beyond_loopback(self, start_server: Any, aws: Any) -> None:
        """What was taken on loopback is refused at delivery; --allow-target opens one network and no more."""
        server: Server = start_server()
        owner = Tenant(aws, at=server)
        letters = owner.queue("letters")
        owner.rule("old", {"Id": "t", "Arn": LINK_LOCAL[0], **to_dead_letters(letters)})
        server.stop()
        server._options |= {"host": "0.0.0.0", "insecure": True, "allow_target": "169.254.10.0/24"}
        server.start()
        server.url = server.url.replace("0.0.0.0", "127.0.0.1")
        owner = Tenant(aws, at=server, account=owner.account)

        owner.put("old")

        said = letter(owner.receive(letters)[0])
        assert said["ERROR_CODE"] == "SDK_CLIENT_ERROR"
        assert "--allow-target" in said["ERROR_MESSAGE"]
        owner.rule("open", {"Id": "t", "Arn": "http://169.254.10.9/"})
        with pytest.raises(ClientError):
            owner.rule("open", {"Id": "t", "Arn": "http://169.254.11.9/"})
