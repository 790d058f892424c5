"""A disk that is full: simulated by a limit on how long a file the running server may write."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Server
from tests.e2e.sink import Reply, Sink
from tests.e2e.tenant import Tenant, to_dead_letters
from tests.e2e.wire import request, until

pytestmark = pytest.mark.xdist_group("e2e_disk_full")

REFUSAL = {
    "ErrorCode": "InternalFailure",
    "ErrorMessage": "Service encountered unexpected problem. Please try again.",
}


@contextmanager
def full_disk(server: Server) -> Iterator[None]:
    """The server can write no file at all."""
    pid = server.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # a test may have killed it meanwhile
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def put(owner: Tenant, *sources: str) -> list[Any]:
    entries = [{"Source": source, "DetailType": "T", "Detail": json.dumps({"s": source})} for source in sources]
    answer = owner.events.put_events(Entries=entries)
    assert answer["FailedEntryCount"] == sum("ErrorCode" in entry for entry in answer["Entries"])
    entries = answer["Entries"]
    return list(entries)


def health(server: Server) -> int:
    return request(server.url, path="/_bus/health").status


def until_all_ended(server: Server) -> None:
    """Every attempt has ended, whether or not what came of it could be written down."""
    until(lambda: b'"deliveries_in_memory":0,' in request(server.url, path="/_bus/health").body, "the end of attempts")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose log is on no disk."""
    directory = tmp_path_factory.mktemp("quiet")
    (directory / "stderr").symlink_to(os.devnull)
    made = Server(directory, {}, {})
    yield made
    made.stop()


@pytest.fixture
def owner(server: Server, aws: Any) -> Tenant:
    return Tenant(aws, at=server)


def test_entries_are_refused_while_it_lasts_and_nothing_accepted_is_lost(
    server: Server, owner: Tenant, sink: Sink
) -> None:
    owner.rule("wanted", {"Id": "hook", "Arn": sink.url})
    sink.shut()
    accepted = set(owner.put_many("wanted", 50))
    assert health(server) == 200

    with full_disk(server):
        refused = [put(owner, "wanted", "nobody", "wanted") for _ in range(5)]
        full = health(server)
    accepted |= {entry["EventId"] for entry in put(owner, "wanted")}

    for first, nobody, last in refused:
        assert first == last == REFUSAL
        assert "EventId" in nobody, "an event that no rule wants needs no room"
    assert full == 503
    assert health(server) == 200
    sink.open()
    accepted |= {entry["EventId"] for entry in put(owner, "wanted")}
    sink.wait_for_events(accepted)
    assert sink.events == accepted


def test_the_disk_is_found_to_be_free_again_without_anyone_putting(server: Server, owner: Tenant, sink: Sink) -> None:
    owner.rule("wanted", {"Id": "hook", "Arn": sink.url})
    with full_disk(server):
        assert put(owner, "wanted") == [REFUSAL]
        assert health(server) == 503

    until(lambda: health(server) == 200, "good health")


def test_a_queue_as_target_refuses_and_recovers(server: Server, owner: Tenant) -> None:
    queue = owner.queue("copies")
    owner.rule("queued", {"Id": "q", "Arn": queue.arn})
    (before,) = put(owner, "queued")

    with full_disk(server):
        assert put(owner, "queued", "queued") == [REFUSAL, REFUSAL]
        with pytest.raises(ClientError):
            owner.sqs.send_message(QueueUrl=queue.url, MessageBody="refused")
    until(lambda: health(server) == 200, "good health")
    (after,) = put(owner, "queued")

    found = [json.loads(message["Body"])["id"] for message in owner.drain(queue)]
    assert found == [before["EventId"], after["EventId"]]


def test_configuration_is_refused_and_stays_as_it_was(server: Server, owner: Tenant) -> None:
    owner.rule("kept")
    changes: list[tuple[Any, dict[str, str]]] = [
        (owner.events.put_rule, {"Name": "new", "EventPattern": '{"source":["new"]}'}),
        (owner.events.disable_rule, {"Name": "kept"}),
        (owner.events.create_event_bus, {"Name": "new"}),
        (owner.sqs.create_queue, {"QueueName": "new"}),
    ]

    with full_disk(server):
        for change, members in changes:
            with pytest.raises(ClientError) as failed:
                change(**members)
            assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
        assert owner.events.describe_rule(Name="kept")["State"] == "ENABLED"
    until(lambda: health(server) == 200, "good health")
    server.restart()

    assert [rule["Name"] for rule in owner.events.list_rules()["Rules"]] == ["kept"]
    assert owner.events.describe_rule(Name="kept")["State"] == "ENABLED"
    assert [bus["Name"] for bus in owner.events.list_event_buses()["EventBuses"]] == ["default"]
    assert "QueueUrls" not in owner.sqs.list_queues()


def test_deliveries_under_way_are_settled_when_there_is_room_again(server: Server, owner: Tenant, sink: Sink) -> None:
    letters = owner.queue("letters")
    sink.answer = lambda post: Reply(410 if post.path == "/bad" else 200)
    owner.rule("good", {"Id": "hook", "Arn": sink.url + "good"}, pattern={"source": ["both"]})
    owner.rule("bad", {"Id": "hook", "Arn": sink.url + "bad", **to_dead_letters(letters)}, pattern={"source": ["both"]})
    sink.hold()
    ids = set(owner.put_many("both", 30))
    sink.wait_for(60)

    with full_disk(server):
        assert put(owner, "both") == [REFUSAL]
        sink.release()
        until_all_ended(server)
    until(lambda: health(server) == 200, "good health")

    sink.wait_until(lambda: {post.event["id"] for post in sink.received if post.path == "/good"} == ids, "the good")
    assert {json.loads(message["Body"])["id"] for message in owner.receive(letters, 30)} == ids


def test_a_kill_while_it_lasts_loses_nothing(server: Server, owner: Tenant, sink: Sink) -> None:
    owner.rule("wanted", {"Id": "hook", "Arn": sink.url})
    sink.shut()
    accepted = set(owner.put_many("wanted", 20))

    with full_disk(server):
        assert put(owner, "wanted") == [REFUSAL]
        server.kill()
    server.start()

    sink.open()
    sink.wait_for_events(accepted)
    assert sink.events == accepted


def test_a_log_on_the_same_disk_changes_nothing(start_server: Any, aws: Any, sink: Sink) -> None:
    """What cannot be logged is lost, and nothing else: `busbar serve 2>log` is how many will run it."""
    server: Server = start_server()
    owner = Tenant(aws, at=server)
    letters = owner.queue("letters")
    sink.answer = lambda post: Reply(410)
    owner.rule("wanted", {"Id": "hook", "Arn": sink.url, **to_dead_letters(letters)})
    sink.hold()
    accepted = set(owner.put_many("wanted", 20))
    sink.wait_for(20)

    with full_disk(server):
        assert put(owner, "wanted", "nobody")[0] == REFUSAL
        sink.release()
        until_all_ended(server)
    until(lambda: health(server) == 200, "good health")

    assert {json.loads(message["Body"])["id"] for message in owner.receive(letters, 20)} == accepted
