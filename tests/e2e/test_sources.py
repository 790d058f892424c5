"""Services and CloudTrail files against a real server: the routes, the commands, the client, and kill -9."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from bus.cli import main
from bus.sources import EventRefused, ServiceSource
from tests.conftest import Server, StartServer, clean_environment
from tests.e2e.sink import Sink
from tests.e2e.tenant import Queue, Tenant
from tests.e2e.wire import Answer, request, scrape

pytestmark = pytest.mark.xdist_group("e2e_sources")

CASES = Path(__file__).parents[1] / "cases/cloudtrail"
EVENT = {"source": "aws.s3", "detail-type": "Object Created", "detail": {"n": 1}}
SERVICES, CLOUDTRAIL = "/_bus/service-events", "/_bus/cloudtrail"
ALL = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
_numbers = count(1)


def post(server: Server, tenant: Tenant | None, path: str, body: Any, **headers: str) -> Answer:
    """A request of an operator, in the account of a tenant."""
    if tenant is not None:
        credential = f"{tenant.account}/20260302/us-east-1/busbar/aws4_request"
        headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, Signature=x"
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request(server.url, "POST", path, body=data, headers={k.replace("_", "-"): v for k, v in headers.items()})


def put(server: Server, tenant: Tenant | None, *events: Any, **members: Any) -> Answer:
    return post(server, tenant, SERVICES, {"Entries": list(events), **members})


def everything_to(tenant: Tenant, name: str = "all", *, bus: str = "default", state: str = "ENABLED") -> Queue:
    """A queue that gets every event of services on a bus."""
    queue = tenant.queue(name)
    tenant.rule(name, {"Id": "t", "Arn": queue.arn}, pattern={"source": [{"prefix": "aws."}]}, bus=bus, state=state)
    return queue


def bodies(messages: list[Any]) -> list[Any]:
    return [json.loads(message["Body"]) for message in messages]


def records() -> list[Any]:
    """Realistic records, with ids of their own so that no other test has sent them."""
    found = [case["record"] for case in json.loads((CASES / "records.json").read_text())]
    return [{**record, "eventID": str(uuid4())} for record in found]


class TestServiceEvents:
    def test_they_come_to_the_default_bus_and_to_no_other(self, server: Server, tenant: Tenant) -> None:
        tenant.events.create_event_bus(Name="own")
        queue, other = everything_to(tenant), everything_to(tenant, "other", bus="own")
        answer = put(server, tenant, {**EVENT, "resources": ["arn:aws:s3:::b"], "time": "2026-03-02T09:00:00Z"})
        ((event_id,),) = [[entry["EventId"] for entry in answer.json["Entries"]]]
        assert (answer.status, answer.json) == (200, {"FailedEntryCount": 0, "Entries": [{"EventId": event_id}]})
        assert bodies(tenant.receive(queue)) == [
            {
                "version": "0", "id": event_id, **EVENT, "account": tenant.account, "time": "2026-03-02T09:00:00Z",
                "region": "us-east-1", "resources": ["arn:aws:s3:::b"],
            }
        ]  # fmt: skip
        assert tenant.drain(other) == []

    def test_put_events_refuses_what_they_may_be(self, tenant: Tenant) -> None:
        entry = {"Source": "aws.s3", "DetailType": "Object Created", "Detail": "{}"}
        (result,) = tenant.events.put_events(Entries=[entry])["Entries"]
        assert result == {
            "ErrorCode": "NotAuthorizedForSourceException", "ErrorMessage": "Not authorized for the source."
        }  # fmt: skip

    def test_an_id_that_comes_again_is_delivered_once(self, server: Server, tenant: Tenant) -> None:
        queue = everything_to(tenant)
        for _ in range(3):
            assert put(server, tenant, {**EVENT, "id": "one"}, {**EVENT, "id": "one"}).json["FailedEntryCount"] == 0
        put(server, tenant, {**EVENT, "id": "two"}, {**EVENT, "source": "aws.sqs", "id": "one"})
        found = [(event["source"], event["id"]) for event in bodies(tenant.receive(queue, 3))]
        assert sorted(found) == [("aws.s3", "one"), ("aws.s3", "two"), ("aws.sqs", "one")]
        assert tenant.drain(queue) == []

    def test_best_effort_is_answered_at_once_and_put_in_time(self, server: Server, tenant: Tenant) -> None:
        queue = everything_to(tenant)
        answer = put(server, tenant, EVENT, {"source": "shop"}, EVENT, Delivery="best-effort")
        assert (answer.status, answer.json["FailedEntryCount"], answer.json["DroppedEntryCount"]) == (202, 1, 0)
        ids = [entry["EventId"] for entry in answer.json["Entries"] if "EventId" in entry]
        assert [event["id"] for event in bodies(tenant.receive(queue, 2))] == ids

    def test_under_overload_best_effort_is_dropped_and_counted(self, start_server: StartServer) -> None:
        server = start_server(best_effort_buffer=5)
        answer = put(server, None, *[EVENT] * 20, Delivery="best-effort")
        assert (answer.status, answer.json["DroppedEntryCount"]) == (202, 15)
        assert scrape(server.url)["ServiceEventsDropped_total"] == 15
        assert scrape(server.url)["ServiceEventsEntriesCount_total"] == 20

    def test_best_effort_that_was_taken_is_put_before_a_stop(
        self, start_server: StartServer, sink: Sink, aws: Any
    ) -> None:
        server = start_server()
        tenant = Tenant(aws, at=server, account="000000000000")
        sink.hold()
        tenant.rule("all", {"Id": "t", "Arn": sink.url}, pattern={"source": ["aws.s3"]})
        answer = put(server, tenant, *[EVENT] * 50, Delivery="best-effort")
        server.stop()
        sink.release()
        server.start()
        sink.wait_for_events({entry["EventId"] for entry in answer.json["Entries"]})

    def test_what_was_answered_survives_a_kill(self, start_server: StartServer, sink: Sink, aws: Any) -> None:
        server = start_server()
        tenant = Tenant(aws, at=server, account="000000000000")
        sink.hold()
        tenant.rule("all", {"Id": "t", "Arn": sink.url}, pattern={"source": ["aws.s3"]})
        queue = everything_to(tenant, "copies")
        given = [{**EVENT, "id": f"e{n}"} for n in range(100)]
        assert put(server, tenant, *given).json["FailedEntryCount"] == 0
        server.kill()
        server.start()
        assert put(server, tenant, *given).json["FailedEntryCount"] == 0, "the adapter had no answer, and asks again"
        sink.release()
        sink.wait_for_events({f"e{n}" for n in range(100)})
        assert [event["id"] for event in bodies(tenant.drain(queue))] == [f"e{n}" for n in range(100)]

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", "The body is not a request to put service events"),
            (b"[]", "The body is not a request to put service events: Expected `object`, got `array`."),
            (b"{}", "The body is not a request to put service events: Object missing required field `Entries`."),
            (b'{"Entries":[],"x":1}', "The body is not a request to put service events: Object contains unknown field"),
            (b'{"Entries":[]}', "Entries must have from 1 to 1000 elements."),
            (b'{"Entries":[' + b"{}," * 1000 + b"{}]}", "Entries must have from 1 to 1000 elements."),
            (b'{"Entries":[{}],"Delivery":"fast"}', "Delivery must be one of durable, best-effort."),
            (b"[" * 100_000, "The body is not a request to put service events"),
        ],
    )
    def test_what_is_no_request(self, body: bytes, said: str, server: Server) -> None:
        answer = post(server, None, SERVICES, body)
        assert (answer.status, answer.json["error"]) == (400, "ValidationException")
        assert answer.json["message"].startswith(said)

    @pytest.mark.parametrize("path", [SERVICES, CLOUDTRAIL])
    def test_a_body_that_is_too_long(self, path: str, server: Server) -> None:
        answer = request(server.url, "POST", path, body=b"", headers={"content-length": "16777217"})
        assert (answer.status, answer.json["error"]) == (413, "RequestEntityTooLargeException")

    @pytest.mark.parametrize("path", [SERVICES, CLOUDTRAIL])
    def test_they_are_for_those_who_may(self, path: str, start_server: StartServer, tmp_path: Path) -> None:
        keys = tmp_path / "keys.json"
        keys.write_text(json.dumps([{"access_key": "AKID", "secret": "s", "account": "111122223333"}]))
        keys.chmod(0o600)
        server = start_server(credentials=keys, token="open")
        assert post(server, None, path, b"{}").status == 401
        assert post(server, None, path, b"{}", authorization="Bearer wrong").status == 401
        assert post(server, None, path, b"{}", authorization="Bearer open").status == 400


class TestCloudTrail:
    @pytest.mark.parametrize("form", ["plain", "packed", "said to be packed"])
    def test_states_hold_for_records(self, form: str, server: Server, tenant: Tenant) -> None:
        plain, every = everything_to(tenant, "plain"), everything_to(tenant, "every", state=ALL)
        off = everything_to(tenant, "off", state="DISABLED")
        sent = records()
        body = json.dumps({"Records": sent}).encode()
        headers = {"content_encoding": "gzip"} if form == "said to be packed" else {}
        answer = post(server, tenant, CLOUDTRAIL, body if form == "plain" else gzip.compress(body), **headers)
        assert (answer.status, answer.json) == (200, {"Accepted": len(sent), "Refused": 0, "Reasons": []})

        cases = json.loads((CASES / "records.json").read_text())
        withheld = [case["withheld"] for case in cases]
        details = [event["detail"] for event in bodies(tenant.receive(every, len(sent)))]
        assert details == sent
        kept = [record for record, away in zip(sent, withheld, strict=True) if not away]
        assert [event["detail"] for event in bodies(tenant.receive(plain, len(kept)))] == kept
        assert tenant.drain(plain) + tenant.drain(every) + tenant.drain(off) == []

    def test_the_envelope_says_what_the_record_says(self, server: Server, tenant: Tenant) -> None:
        queue = everything_to(tenant, state=ALL)
        record = records()[0]
        post(server, tenant, CLOUDTRAIL, {"Records": [record]})
        (event,) = bodies(tenant.receive(queue))
        assert event.pop("id") not in ("", record["eventID"])
        assert event == {
            "version": "0", "detail-type": "AWS API Call via CloudTrail", "source": "aws.sts",
            "account": "111122223333", "time": "2026-03-02T09:15:27Z", "region": "eu-west-1",
            "resources": ["arn:aws:iam::111122223333:role/deploy"], "detail": record,
        }  # fmt: skip

    def test_a_file_that_comes_again_doubles_nothing(self, server: Server, tenant: Tenant) -> None:
        queue = everything_to(tenant, state=ALL)
        sent = records()
        for _ in range(2):
            assert post(server, tenant, CLOUDTRAIL, {"Records": sent}).json["Accepted"] == len(sent)
        assert len(tenant.receive(queue, len(sent))) == len(sent)
        assert tenant.drain(queue) == []

    def test_bad_records_keep_no_good_ones_back(self, server: Server, tenant: Tenant) -> None:
        queue = everything_to(tenant, state=ALL)
        before = scrape(server.url)
        good = records()[:2]
        answer = post(server, tenant, CLOUDTRAIL, {"Records": [good[0], {}, 7, good[1]]})
        assert answer.json == {
            "Accepted": 2, "Refused": 2,
            "Reasons": [{"Index": 1, "Reason": "has no eventSource"}, {"Index": 2, "Reason": "is not a JSON object"}],
        }  # fmt: skip
        assert len(tenant.receive(queue, 2)) == 2
        after = scrape(server.url)
        grown = [after[f"CloudTrail{each}Count_total"] - before.get(f"CloudTrail{each}Count_total", 0)
                 for each in ("Records", "FailedRecords")]  # fmt: skip
        assert grown == [4, 2]

    def test_a_bomb_is_refused(self, server: Server) -> None:
        answer = post(server, None, CLOUDTRAIL, gzip.compress(bytes(80 << 20), 9))
        assert (answer.status, answer.json["error"]) == (413, "RequestEntityTooLargeException")
        assert answer.json["message"] == "The log file is longer than 67108864 bytes unpacked."

    @pytest.mark.parametrize(
        ("body", "encoding", "status", "said"),
        [
            (b"", "identity", 400, "The body is not a log file of CloudTrail"),
            (b'{"Records":7}', "identity", 400, "The body is not a log file of CloudTrail"),
            (b'{"Records":[]}', "gzip", 400, "The body is not gzip, although its content encoding says so."),
            (b'{"Records":[]}', "br", 415, "The content encoding 'br' is not gzip."),
            (gzip.compress(b'{"Records":[]}', mtime=0)[:-3], "gzip", 400, "The body is gzip that breaks off."),
        ],
    )
    def test_what_is_no_log_file(self, body: bytes, encoding: str, status: int, said: str, server: Server) -> None:
        answer = post(server, None, CLOUDTRAIL, body, content_encoding=encoding)
        assert answer.status == status
        assert answer.json["message"].startswith(said)


class TestCommands:
    @pytest.fixture
    def environment(self, server: Server, tenant: Tenant) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": tenant.account, "AWS_SECRET_ACCESS_KEY": "any"}
        return {**clean_environment(), **keys, "BUSBAR_ENDPOINT_URL": server.url}

    def run(self, environment: dict[str, str], *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "bus", *words], input=stdin, env=environment, capture_output=True, timeout=60,
            check=False,
        )  # fmt: skip

    @pytest.mark.parametrize("delivery", ["durable", "best-effort"])
    def test_one_event_as_a_service(self, delivery: str, environment: dict[str, str], tenant: Tenant) -> None:
        queue = everything_to(tenant)
        done = self.run(
            environment, "put", "--as-service", "aws.s3", "--delivery", delivery, "--resource", "arn:aws:s3:::b",
            "Object Created", '{"size": 1.50}',
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        (message,) = tenant.receive(queue)
        event = json.loads(message["Body"])
        assert (event["id"], event["source"], event["resources"]) == (
            done.stdout.decode().strip(), "aws.s3", ["arn:aws:s3:::b"]
        )  # fmt: skip
        assert '"detail":{"size":1.50}' in message["Body"]

    def test_many_events_as_a_service(self, environment: dict[str, str], tenant: Tenant) -> None:
        queue = everything_to(tenant)
        whole = {
            "version": "0", "id": "mine", "detail-type": "B", "source": "aws.ec2", "account": "111122223333",
            "time": "2026-03-02T09:00:00Z", "region": "eu-west-1", "resources": ["arn:r"], "detail": {"n": 2},
        }  # fmt: skip
        lines = [{"DetailType": "A", "Detail": {"n": 1}, "Time": 1772442000}, whole, {"detail-type": "C", "detail": {}}]
        bad = {"source": "shop", "detail-type": "D", "detail": {}}
        text = "\n".join(json.dumps(line) for line in [*lines, bad])
        done = self.run(environment, "put", "--as-service", "aws.s3", stdin=text.encode())
        assert done.returncode == 1
        assert done.stdout == b"3 events put, 1 refused\n"
        assert b"refused: line 4 (shop): InvalidArgument: Parameter source is not valid." in done.stderr
        found = {event["detail-type"]: event for event in bodies(tenant.receive(queue, 3))}
        assert (found["A"]["source"], found["A"]["time"]) == ("aws.s3", "2026-03-02T09:00:00Z")
        assert found["B"] == whole
        assert found["C"]["source"] == "aws.s3"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("A", "{}", "x"), "with --as-service give DETAIL_TYPE and DETAIL: the source is the service"),
            (("--bus", "own", "A", "{}"), "--as-service and --bus do not go together"),
            (("A",), "one event needs SOURCE, DETAIL_TYPE and DETAIL"),
            (("A", "[]"), "is not a JSON object"),
            (("--delivery", "fast", "A", "{}"), "'fast' is not one of 'durable', 'best-effort'"),
        ],
    )
    def test_mistakes(self, words: tuple[str, ...], said: str) -> None:
        done = CliRunner().invoke(main, ["put", "--as-service", "aws.s3", *words])
        assert done.exit_code == 2
        assert said in done.stderr

    def test_log_files(self, environment: dict[str, str], tenant: Tenant, tmp_path: Path) -> None:
        queue = everything_to(tenant, state=ALL)
        sent = [{**record, "eventID": str(uuid4())} for _ in range(30) for record in records()]
        half = len(sent) // 2
        packed, plain = tmp_path / "a.json.gz", tmp_path / "b.json"
        packed.write_bytes(gzip.compress(json.dumps({"Records": sent[:half]}).encode()))
        plain.write_text(json.dumps({"Records": sent[half:]}))
        done = self.run(environment, "cloudtrail", str(packed), str(plain))
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{len(sent)} records put\n".encode(), b"")
        assert [event["detail"] for event in bodies(tenant.receive(queue, len(sent)))] == sent

        again = self.run(environment, "cloudtrail", "-", "--quiet", stdin=packed.read_bytes())
        assert (again.returncode, again.stdout, again.stderr) == (0, b"", b"")
        assert tenant.drain(queue) == []

    def test_records_that_are_no_events_are_named(self, environment: dict[str, str]) -> None:
        sent = [*[record for _ in range(15) for record in records()], {}, 7]
        done = self.run(environment, "cloudtrail", "-", stdin=json.dumps({"Records": sent}).encode())
        assert done.returncode == 1
        assert done.stdout.decode() == f"{len(sent) - 2} records put, 2 refused\n"
        assert done.stderr.decode().splitlines() == [
            f"refused: stdin: record {len(sent) - 2} has no eventSource",
            f"refused: stdin: record {len(sent) - 1} is not a JSON object",
        ]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "file.json cannot be read: No such file or directory"),
            (b"[]", "file.json: it is not a log file of CloudTrail"),
            (b"\x1f\x8b", "file.json: it is gzip that breaks off."),
        ],
    )
    def test_files_that_are_none(self, content: bytes | None, said: str, tmp_path: Path) -> None:
        file = tmp_path / "file.json"
        if content is not None:
            file.write_bytes(content)
        done = CliRunner().invoke(main, ["cloudtrail", str(file)])
        assert done.exit_code == 1
        assert done.stderr.startswith("busbar: ")
        assert said in done.stderr

    def test_a_long_file_has_a_progress_bar(self, environment: dict[str, str], tmp_path: Path) -> None:
        file = tmp_path / "long.json"
        file.write_text(json.dumps({"Records": [records()[1] for _ in range(1000)]}))
        mine, theirs = os.openpty()
        done = subprocess.run(
            [sys.executable, "-m", "bus", "cloudtrail", str(file)], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=theirs, timeout=60, check=False,
        )  # fmt: skip
        os.close(theirs)
        shown = os.read(mine, 1 << 16)
        os.close(mine)
        assert (done.returncode, done.stdout) == (0, b"1000 records put\n")
        assert b"1000/1000" in shown


class TestClient:
    async def test_an_adapter_and_a_bus_that_is_killed(self, start_server: StartServer, aws: Any) -> None:
        server = start_server()
        tenant = Tenant(aws, at=server, account="000000000000")
        queue = everything_to(tenant)
        async with ServiceSource("aws.s3", endpoint=server.url) as s3:
            ids: list[str] = []
            for _ in range(3):
                putting = [asyncio.ensure_future(s3.put("Object Created", {"n": n})) for n in range(150)]
                await putting[0]
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                ids += await asyncio.gather(*putting)
        found = [event["id"] for event in bodies(await asyncio.to_thread(tenant.receive, queue, len(ids)))]
        assert found == ids, "in their order, and each once although answers were lost"
        assert tenant.drain(queue) == []

    async def test_refusals_and_best_effort(self, server: Server, aws: Any) -> None:
        async with ServiceSource("shop", endpoint=server.url) as shop:
            with pytest.raises(EventRefused, match="the source of a service begins with aws"):
                await shop.put("Object Created", {})
        number = next(_numbers)
        async with ServiceSource(f"aws.service{number}", endpoint=server.url) as service:
            tenant = Tenant(aws, at=server, account="000000000000")
            queue = everything_to(tenant, f"best-effort-{number}")
            assert service.send("Something", {"n": 1})
            await service.flush()
            (event,) = bodies(await asyncio.to_thread(tenant.receive, queue))
            assert (event["source"], service.dropped) == (f"aws.service{number}", 0)
