"""What is sent wrong, cut short or too large: a clear refusal, and a server that goes on as if nothing had been."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Server, clean_environment
from tests.e2e.tenant import Tenant
from tests.e2e.wire import Answer, call, connect, exchange, read_answer, request

pytestmark = pytest.mark.xdist_group("e2e_bad_input")

MAX_BODY = 16_777_216
MISSING = "Parameter {0} is not valid. Reason: {0} is a required argument."
ENTRY = '{"Source":"s","DetailType":"T","Detail":"{}"}'


def entries(*texts: str) -> bytes:
    return f'{{"Entries":[{",".join(texts)}]}}'.encode()


@pytest.fixture(autouse=True)
def _goes_on_serving(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test that uses the module's server, the same process answers, and no traceback was logged."""
    if "server" not in request.fixturenames:
        yield
        return
    server: Server = request.getfixturevalue("server")
    pid = server.pid
    yield
    answer = call(server.url, "PutEvents", entries(ENTRY))
    assert (answer.status, server.pid) == (200, pid)
    assert "EventId" in answer.json["Entries"][0]
    assert "Traceback" not in server.said()


BODIES: dict[str, tuple[bytes, str, str]] = {
    "not_json": (b"{", "SerializationException", "The body is not JSON in UTF-8: "),
    "text": (b"hello", "SerializationException", "The body is not JSON in UTF-8: "),
    "invalid_utf8": (b'{"Entries":[{"Source":"\xff"}]}', "SerializationException", "The body is not JSON in UTF-8: "),
    "lone_surrogate_bytes": (
        b'{"Entries":"\xed\xa0\x80"}',
        "SerializationException",
        "The body is not JSON in UTF-8: ",
    ),
    "deep": (b"[" * 100_000, "SerializationException", "The body is not JSON in UTF-8: "),
    "deep_in_entries": (b'{"Entries":' + b"[" * 100_000, "SerializationException", "The body is not JSON in UTF-8: "),
    "a_list": (b"[]", "SerializationException", ""),
    "a_number": (b"7", "SerializationException", ""),
    "null": (b"null", "SerializationException", ""),
    "entries_a_text": (b'{"Entries":"x"}', "SerializationException", ""),
    "entry_a_number": (b'{"Entries":[1]}', "SerializationException", ""),
    "source_a_number": (b'{"Entries":[{"Source":1}]}', "SerializationException", ""),
    "time_a_list": (b'{"Entries":[{"Time":[]}]}', "SerializationException", ""),
    "resources_of_numbers": (b'{"Entries":[{"Resources":[1]}]}', "SerializationException", ""),
    "no_entries": (
        b'{"Entries":[]}',
        "ValidationException",
        "1 validation error detected: Value '[]' at 'entries' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1",
    ),
    "entries_absent": (
        b"{}",
        "ValidationException",
        "1 validation error detected: Value null at 'entries' failed to satisfy constraint: Member must not be null",
    ),
    "nothing_at_all": (
        b"",
        "ValidationException",
        "1 validation error detected: Value null at 'entries' failed to satisfy constraint: Member must not be null",
    ),
    "eleven_entries": (
        entries(*[ENTRY] * 11),
        "ValidationException",
        "1 validation error detected: Value '[PutEventsRequestEntry(time=null, source=s, ",
    ),
    "two_megabytes": (
        entries('{"Source":"s","DetailType":"T","Detail":"{\\"x\\":\\"' + "x" * (2 << 20) + '\\"}"}'),
        "ValidationException",
        "Total size of the entries in the request is over the limit.",
    ),
    "empty_trace_header": (
        entries('{"Source":"s","DetailType":"T","Detail":"{}","TraceHeader":""}'),
        "ValidationException",
        "1 validation error detected: Value '' at 'entries.1.member.traceHeader' failed to satisfy constraint: ",
    ),
}


class TestPutEvents:
    @pytest.mark.parametrize("name", BODIES)
    def test_a_body_that_is_refused_as_a_whole(self, name: str, server: Server) -> None:
        body, code, message = BODIES[name]

        answer = call(server.url, "PutEvents", body)

        assert (answer.status, answer.code) == (400, code)
        assert answer.json["message"].startswith(message)
        assert answer.json.keys() == {"__type", "message"}
        assert answer.headers["content-type"] == "application/x-amz-json-1.1"
        assert answer.headers["x-amzn-requestid"]

    @pytest.mark.parametrize(
        ("entry", "code", "message"),
        [
            ("{}", "InvalidArgument", MISSING.format("Source")),
            ('{"Source":"s"}', "InvalidArgument", MISSING.format("DetailType")),
            ('{"Source":"s","DetailType":"T"}', "InvalidArgument", MISSING.format("Detail")),
            ('{"Source":"s","DetailType":"T","Detail":"[]"}', "MalformedDetail", "Detail is malformed."),
            ('{"Source":"s","DetailType":"T","Detail":"{"}', "MalformedDetail", "Detail is malformed."),
            (
                '{"Source":"aws.s","DetailType":"T","Detail":"{}"}',
                "NotAuthorizedForSourceException",
                "Not authorized for the source.",
            ),
        ],
    )
    def test_one_entry_is_refused_in_its_place(self, entry: str, code: str, message: str, server: Server) -> None:
        answer = call(server.url, "PutEvents", entries(ENTRY, entry, ENTRY))

        first, second, third = answer.json["Entries"]
        assert (answer.status, answer.json["FailedEntryCount"]) == (200, 1)
        assert second == {"ErrorCode": code, "ErrorMessage": message}
        assert "EventId" in first
        assert "EventId" in third

    def test_a_detail_nested_too_deeply_is_malformed(self, server: Server) -> None:
        deep = '{"a":' * 50_000 + "1" + "}" * 50_000
        entry = json.dumps({"Source": "s", "DetailType": "T", "Detail": deep})

        (result,) = call(server.url, "PutEvents", entries(entry)).json["Entries"]

        assert result["ErrorCode"] == "MalformedDetail"

    def test_an_unknown_bus_takes_the_event_and_drops_it(self, server: Server) -> None:
        entry = '{"Source":"s","DetailType":"T","Detail":"{}","EventBusName":"absent"}'

        answer = call(server.url, "PutEvents", entries(entry)).json

        assert answer["FailedEntryCount"] == 0
        assert "EventId" in answer["Entries"][0]


class TestHttp:
    def test_a_declared_body_beyond_the_limit_is_refused_before_it_comes(self, server: Server) -> None:
        head = (
            "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Amz-Target: AWSEvents.PutEvents\r\n"
            f"Content-Type: application/x-amz-json-1.1\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
        )

        self._too_large(exchange(server.url, head.encode()))

    def test_a_body_that_grows_beyond_the_limit_is_refused(self, server: Server) -> None:
        head = (
            "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Amz-Target: AWSEvents.PutEvents\r\n"
            "Content-Type: application/x-amz-json-1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"

        self._too_large(exchange(server.url, head.encode() + chunk * 17))

    def _too_large(self, answer: Answer) -> None:
        assert (answer.status, answer.code) == (413, "RequestEntityTooLargeException")
        assert answer.json["message"] == f"The request body is larger than {MAX_BODY} bytes."

    @pytest.mark.parametrize("content_type", ["text/plain", "application/xml", ""])
    def test_a_content_type_that_is_not_of_aws_json(self, content_type: str, server: Server) -> None:
        headers = {"X-Amz-Target": "AWSEvents.PutEvents", "Content-Type": content_type}

        answer = request(server.url, "POST", body=entries(ENTRY), headers=headers)

        assert (answer.status, answer.code) == (400, "UnknownOperationException")
        assert repr(content_type) in answer.json["message"]

    def test_a_form_is_told_that_queries_are_not_spoken(self, server: Server) -> None:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}

        answer = request(server.url, "POST", body=b"Action=ListQueues", headers=headers)

        assert answer.status == 400
        assert answer.headers["x-amzn-query-error"].startswith("AWS.SimpleQueueService.UnsupportedOperation;")

    @pytest.mark.parametrize("target", ["AWSEvents.FlyToTheMoon", "AWSEvents.", "Nobody.PutEvents", "x", None])
    def test_a_target_that_leads_nowhere(self, target: str | None, server: Server) -> None:
        headers = {"Content-Type": "application/x-amz-json-1.1"} | ({} if target is None else {"X-Amz-Target": target})

        answer = request(server.url, "POST", body=b"{}", headers=headers)

        assert (answer.status, answer.code) == (400, "UnknownOperationException")

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
    def test_another_method_than_post(self, method: str, server: Server) -> None:
        answer = request(server.url, method)

        assert (answer.status, answer.code) == (404, "UnknownOperationException")

    def test_head_has_no_body(self, server: Server) -> None:
        assert request(server.url, "HEAD").status == 404

    @pytest.mark.parametrize("path", ["/_bus/absent", "/_bus/", "/metrics/x"])
    def test_a_path_of_the_operators_that_is_not_there(self, path: str, server: Server) -> None:
        assert request(server.url, path=path).status == 404

    @pytest.mark.parametrize("sent", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n"])
    def test_what_is_not_http_gets_400_or_the_end(self, sent: bytes, server: Server) -> None:
        with connect(server.url) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile("rb").read()

        assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 505"))

    @pytest.mark.parametrize(("number", "status"), [(1000, 200), (50_000, 431)])
    def test_thousands_of_headers(self, number: int, status: int, server: Server) -> None:
        lines = "".join(f"X-Header-{n}: {n}\r\n" for n in range(number))
        head = f"GET /_bus/health HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n"

        with suppress(ConnectionError):  # whoever goes on sending may find the connection closed before the answer
            assert exchange(server.url, head.encode()).status == status

    @pytest.mark.parametrize(
        ("start", "more"),
        [
            (b"GET /", b"x" * 1000),
            (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ", b"x" * 1000),
            (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"X-More: y\r\n" * 100),
            (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-More: y\r\n" * 100),
        ],
        ids=["path", "one_header", "headers", "trailers"],
    )
    def test_a_head_without_end_is_cut_off(self, start: bytes, more: bytes, server: Server) -> None:
        with connect(server.url) as connection:
            connection.sendall(start)
            with pytest.raises(ConnectionError):
                self._flood(connection, more * 100)

    def _flood(self, connection: socket.socket, text: bytes) -> None:
        for _ in range(1000):
            connection.sendall(text)


class TestClientsThatDoNotFinish:
    HALF = (
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Amz-Target: AWSEvents.PutEvents\r\n"
        b'Content-Type: application/x-amz-json-1.1\r\nContent-Length: 1000\r\n\r\n{"Entries":['
    )

    @pytest.mark.parametrize("sent", [HALF[:40], HALF], ids=["in_the_head", "in_the_body"])
    def test_many_half_requests_hold_up_nobody(self, sent: bytes, tenant: Tenant, server: Server) -> None:
        slow = [connect(server.url) for _ in range(100)]
        for connection in slow:
            connection.sendall(sent)

        assert tenant.events.list_event_buses()["EventBuses"][0]["Name"] == "default"
        assert call(server.url, "PutEvents", entries(ENTRY)).status == 200

        for connection in slow:
            connection.close()

    def test_a_half_request_that_is_finished_later_is_answered(self, server: Server) -> None:
        body = entries(ENTRY).ljust(1000)
        with connect(server.url) as connection:
            connection.sendall(self.HALF.replace(b'{"Entries":[', b"") + body[:20])
            assert call(server.url, "PutEvents", entries(ENTRY)).status == 200
            connection.sendall(body[20:])
            response = http.client.HTTPResponse(connection, method="POST")
            response.begin()
            assert "EventId" in read_answer(response).json["Entries"][0]

    def test_a_client_that_leaves_in_the_middle_of_its_body_put_nothing(self, tenant: Tenant, server: Server) -> None:
        queue = tenant.queue("copies")
        tenant.rule("cut", {"Id": "q", "Arn": queue.arn})
        credential = f"AWS4-HMAC-SHA256 Credential={tenant.account}/20240101/us-east-1/events/aws4_request"
        entry = b'{"Source":"cut","DetailType":"T","Detail":"{}"}'
        for _ in range(20):
            with connect(server.url) as connection:
                authorization = b"Authorization: " + credential.encode() + b"\r\nContent-Type"
                connection.sendall(self.HALF.replace(b"Content-Type", authorization) + entry + b"]}")
        event_id = tenant.put("cut")

        (message,) = tenant.drain(queue)
        assert json.loads(message["Body"])["id"] == event_id

    def test_half_requests_do_not_keep_it_from_stopping(self, start_server: Any) -> None:
        server: Server = start_server(stop_grace=1)
        slow = [connect(server.url) for _ in range(3)]
        for connection, sent in zip(slow, (b"", self.HALF[:40], self.HALF), strict=True):
            connection.sendall(sent)
        assert call(server.url, "PutEvents", entries(ENTRY)).status == 200

        assert server.stop() == 0
        for connection in slow:
            connection.close()


class TestConfiguration:
    def test_duplicate_target_ids(self, tenant: Tenant) -> None:
        tenant.rule("twice")
        target = {"Id": "same", "Arn": "http://127.0.0.1:9/"}

        with pytest.raises(ClientError) as failed:
            tenant.events.put_targets(Rule="twice", Targets=[target, {**target, "Arn": "http://127.0.0.1:10/"}])

        assert failed.value.response["Error"] == {
            "Code": "ValidationException",
            "Message": "Invalid parameter: Duplicated target ids are not allowed.",
        }
        assert tenant.events.list_targets_by_rule(Rule="twice")["Targets"] == []

    @pytest.mark.parametrize("url", ["http://", "http:///path", "http://[::1", "http://a b/", "http://é.example/"])
    def test_a_url_that_is_none(self, url: str, tenant: Tenant) -> None:
        tenant.rule("bad")

        with pytest.raises(ClientError) as failed:
            tenant.events.put_targets(Rule="bad", Targets=[{"Id": "t", "Arn": url}])

        assert failed.value.response["Error"]["Code"] == "ValidationException"

    def test_an_unknown_bus(self, tenant: Tenant) -> None:
        with pytest.raises(tenant.events.exceptions.ResourceNotFoundException, match="Event bus absent does not exist"):
            tenant.events.put_rule(Name="r", EventPattern='{"source":["s"]}', EventBusName="absent")

    @pytest.mark.parametrize("pattern", ["{", "[]", '{"source":"s"}', '{"source":[{"no-such":1}]}', '{"a":' * 400])
    def test_a_pattern_that_is_none(self, pattern: str, tenant: Tenant) -> None:
        with pytest.raises(tenant.events.exceptions.InvalidEventPatternException):
            tenant.events.put_rule(Name="r", EventPattern=pattern)

    def test_a_queue_that_is_not_there(self, tenant: Tenant) -> None:
        with pytest.raises(tenant.sqs.exceptions.QueueDoesNotExist):
            tenant.sqs.send_message(QueueUrl="http://127.0.0.1/000000000000/absent", MessageBody="x")

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"Arn":1,"Url":"x"}', b'{"Arn":"arn:aws:x"}', b"\xff"])
    def test_a_wire_that_is_none(self, body: bytes, server: Server) -> None:
        answer = request(server.url, "PUT", "/_bus/wires", body=body)

        assert (answer.status, answer.json["error"]) == (400, "ValidationException")
        assert request(server.url, path="/_bus/wires").json == {"Wires": []}


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a server that ran and was stopped."""
    made = Server(tmp_path_factory.mktemp("left-behind"), {}, {})
    for n in range(30):
        rule = json.dumps({"Name": f"r{n}", "EventPattern": '{"source":["s"]}'})
        assert call(made.url, "PutRule", rule.encode()).status == 200
    assert made.stop() == 0
    return made.data_dir


@pytest.fixture
def data_dir(left_behind: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(left_behind, tmp_path / "data"))


class TestStart:
    """`serve` that cannot begin: status 2 and one line that says why."""

    def refused(self, *options: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "bus", "serve", *options],
            capture_output=True, text=True, env=clean_environment(), check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("busbar: ")
        return line

    def test_a_port_in_use(self, tmp_path: Path) -> None:
        with closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            line = self.refused("--port", str(port), "--data-dir", str(tmp_path / "data"))

        assert f"cannot listen on 127.0.0.1 port {port}: " in line
        assert not (tmp_path / "data").exists()

    def test_a_second_process_on_the_data_directory(self, server: Server) -> None:
        line = self.refused("--port", "0", "--data-dir", str(server.data_dir))

        assert f"the data directory {server.data_dir} is in use by another busbar (process {server.pid})" in line

    def test_a_database_that_is_damaged(self, data_dir: Path) -> None:
        path = data_dir / "bus.sqlite3"
        content = bytearray(path.read_bytes())
        content[4096:] = os.urandom(len(content) - 4096)
        path.write_bytes(content)

        line = self.refused("--port", "0", "--data-dir", str(data_dir))

        assert f"the database {path} is damaged" in line
        assert path.read_bytes() == content

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "bus.sqlite3").write_text("This is not a database, however long one looks at it.\n" * 100)

        assert "is damaged" in self.refused("--port", "0", "--data-dir", str(tmp_path))

    def test_the_database_of_another_program(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "bus.sqlite3")) as database:
            database.execute("CREATE TABLE other(x)")

        assert "is the database of another program" in self.refused("--port", "0", "--data-dir", str(tmp_path))

    def test_a_newer_schema(self, data_dir: Path) -> None:
        with closing(sqlite3.connect(data_dir / "bus.sqlite3")) as database:
            database.execute("PRAGMA user_version=999")

        line = self.refused("--port", "0", "--data-dir", str(data_dir))

        assert "was written by a newer busbar (schema 999; " in line

    def test_a_data_directory_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        line = self.refused("--port", "0", "--data-dir", str(tmp_path / "file" / "data"))

        assert "cannot be made" in line

    def test_a_data_directory_that_may_not_be_written(self, tmp_path: Path) -> None:
        directory = tmp_path / "read-only"
        directory.mkdir(mode=0o500)
        if os.access(directory, os.W_OK):
            pytest.skip("this user may write everywhere")

        assert "is not writable" in self.refused("--port", "0", "--data-dir", str(directory))

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--account-id", "12"), "--account-id must be 12 digits"),
            (("--webhook-secret", "whsec_%%%"), "must be whsec_ followed by base64"),
            (("--allow-target", "everywhere"), "--allow-target must be a network"),
            (("--credentials", "/absent.json"), "credentials file /absent.json does not exist"),
        ],
    )
    def test_a_setting_without_a_usable_value(self, options: tuple[str, ...], said: str, tmp_path: Path) -> None:
        assert said in self.refused("--port", "0", "--data-dir", str(tmp_path / "data"), *options)

    def test_a_stop_frees_the_directory_at_once(self, left_behind: Path) -> None:
        with (left_behind / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_interrupt_stops_as_sigterm_does(start_server: Any) -> None:
    server: Server = start_server()

    assert server._end(signal.SIGINT) == 0
    assert "stopped" in server.said()
