"""Deliveries that fail: which are tried again, when, where they end, and whom they hold up."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.conftest import Server
from tests.e2e.sink import Post, Reply, Sink
from tests.e2e.tenant import Tenant, letter, to_dead_letters
from tests.e2e.wire import request, rule_metrics, until

pytestmark = pytest.mark.xdist_group("e2e_retries")

HOUR_MS = 3_600_000


def waiting(server: Server, owner: Tenant) -> list[Any]:
    """The deliveries of an account that the store holds, as another process sees it: attempts, delay, last error."""
    query = "SELECT attempts, due - ts, error FROM delivery JOIN event USING (seq) WHERE instr(body, ?) ORDER BY seq"
    with closing(sqlite3.connect(f"file:{server.data_dir / 'bus.sqlite3'}?mode=ro", uri=True)) as database:
        return database.execute(query, (f'"account":"{owner.account}"'.encode(),)).fetchall()


@pytest.fixture
def dead_url() -> Iterator[str]:
    """Where nobody listens: a port that is taken by a socket which does not accept."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


def lay_wire(server: Server, arn: str, url: str) -> None:
    answer = request(server.url, "PUT", "/_bus/wires", body=json.dumps({"Arn": arn, "Url": url}).encode())
    assert answer.status == 200, answer.body


class TestEnds:
    def test_a_failing_webhook_is_tried_again_and_then_dead_lettered(self, tenant: Tenant, sink: Sink) -> None:
        letters = tenant.queue("letters")
        sink.answer = lambda post: Reply(503)
        rule = tenant.rule("failing", {"Id": "hook", "Arn": sink.url, **to_dead_letters(letters, retries=2)})

        event_id = tenant.put("failing", {"n": 1})

        (message,) = tenant.receive(letters)
        posts = sink.wait_for(3)
        assert len(sink.received) == 3
        assert {post.headers["webhook-id"] for post in posts} == {posts[0].headers["webhook-id"]}
        assert {post.body for post in posts} == {message["Body"].encode()}
        assert json.loads(message["Body"])["id"] == event_id
        assert letter(message) == {
            "RULE_ARN": rule,
            "TARGET_ARN": sink.url,
            "ERROR_CODE": "ERROR_FROM_TARGET",
            "ERROR_MESSAGE": f"{sink.url[:-1]} answered with HTTP status 503.",
            "EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts",
            "RETRY_ATTEMPTS": "2",
        }
        assert all(each["DataType"] == "String" for each in message["MessageAttributes"].values())

    @pytest.mark.parametrize(
        ("status", "code"), [(429, "THROTTLING"), (500, "ERROR_FROM_TARGET"), (401, "SDK_CLIENT_ERROR")]
    )
    def test_a_status_that_may_pass_counts_its_retries(
        self, status: int, code: str, tenant: Tenant, sink: Sink
    ) -> None:
        letters = tenant.queue("letters")
        sink.answer = lambda post: Reply(status)
        tenant.rule("passing", {"Id": "hook", "Arn": sink.url, **to_dead_letters(letters, retries=0)})

        tenant.put("passing")

        said = letter(tenant.receive(letters)[0])
        assert (said["ERROR_CODE"], said["RETRY_ATTEMPTS"]) == (code, "0")
        assert said["EXHAUSTED_RETRY_CONDITION"] == "MaximumRetryAttempts"

    @pytest.mark.parametrize("status", [400, 403, 404, 410, 413, 422])
    def test_a_final_status_goes_straight_to_the_dead_letter_queue(
        self, status: int, tenant: Tenant, sink: Sink
    ) -> None:
        letters = tenant.queue("letters")
        sink.answer = lambda post: Reply(status)
        tenant.rule("final", {"Id": "hook", "Arn": sink.url, **to_dead_letters(letters)})

        tenant.put("final")

        said = letter(tenant.receive(letters)[0])
        assert said["ERROR_CODE"] == "SDK_CLIENT_ERROR"
        assert said["ERROR_MESSAGE"] == f"{sink.url[:-1]} answered with HTTP status {status}."
        assert said.keys() == {"RULE_ARN", "TARGET_ARN", "ERROR_CODE", "ERROR_MESSAGE"}
        assert len(sink.received) == 1

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_a_redirect_is_not_followed(self, status: int, tenant: Tenant, sink: Sink) -> None:
        letters = tenant.queue("letters")
        sink.answer = lambda post: Reply(status, (("location", sink.url + "elsewhere"),))
        tenant.rule("moved", {"Id": "hook", "Arn": sink.url + "here", **to_dead_letters(letters)})

        tenant.put("moved")

        assert letter(tenant.receive(letters)[0])["ERROR_CODE"] == "SDK_CLIENT_ERROR"
        assert [post.path for post in sink.received] == ["/here"]

    def test_nobody_there(self, tenant: Tenant, dead_url: str) -> None:
        letters = tenant.queue("letters")
        tenant.rule("gone", {"Id": "hook", "Arn": dead_url, **to_dead_letters(letters, retries=1)})

        tenant.put("gone")

        said = letter(tenant.receive(letters)[0])
        assert said["ERROR_CODE"] == "CONNECTION_FAILURE"
        assert dead_url[:-1] in said["ERROR_MESSAGE"]
        assert said["RETRY_ATTEMPTS"] == "1"

    def test_a_name_that_does_not_resolve(self, tenant: Tenant) -> None:
        letters = tenant.queue("letters")
        url = "http://no-such-host.invalid/"
        tenant.rule("unresolved", {"Id": "hook", "Arn": url, **to_dead_letters(letters, retries=0)})

        tenant.put("unresolved")

        assert letter(tenant.receive(letters)[0])["ERROR_CODE"] == "CONNECTION_FAILURE"

    def test_a_dead_letter_queue_that_is_not_there_ends_the_delivery_all_the_same(
        self, tenant: Tenant, sink: Sink, server: Server
    ) -> None:
        sink.answer = lambda post: Reply(404)
        absent = {"DeadLetterConfig": {"Arn": tenant.arn("sqs", "absent")}}
        tenant.rule("dropped", {"Id": "hook", "Arn": sink.url, **absent})

        tenant.put_many("dropped", 100)

        def counts() -> bool:
            return rule_metrics(server.url, tenant.account, "dropped").get("InvocationsFailedToBeSentToDlq") == 100

        until(counts, "the drop of 100 deliveries")
        assert len(sink.received) == 100


class TestTiming:
    def test_retry_after_is_kept_in_the_store(self, tenant: Tenant, sink: Sink, server: Server) -> None:
        sink.answer = lambda post: Reply(503, (("retry-after", "3600"),))
        tenant.rule("later", {"Id": "hook", "Arn": sink.url})

        tenant.put("later")
        sink.wait_for(1)
        until(lambda: waiting(server, tenant)[0][0] == 1, "the retry in the store")

        ((attempts, delay, error),) = waiting(server, tenant)
        assert attempts == 1
        assert HOUR_MS <= delay < 2 * HOUR_MS
        assert error == f"ERROR_FROM_TARGET\t{sink.url[:-1]} answered with HTTP status 503."
        server.kill()
        server.start()
        assert waiting(server, tenant) == [(attempts, delay, error)]
        assert len(sink.received) == 1

    def test_the_second_attempt_waits_as_long_as_it_was_asked_to(self, tenant: Tenant, sink: Sink) -> None:
        def answer(post: Post) -> Reply:
            return Reply(429, (("Retry-After", "2"),)) if not sink.received else Reply()

        sink.answer = answer
        tenant.rule("asked", {"Id": "hook", "Arn": sink.url})

        tenant.put("asked")

        first, second = (int(post.headers["webhook-timestamp"]) for post in sink.wait_for(2))
        assert second - first >= 2

    def test_a_negative_retry_after_ends_it(self, tenant: Tenant, sink: Sink) -> None:
        letters = tenant.queue("letters")
        sink.answer = lambda post: Reply(503, (("retry-after", "-1"),))
        tenant.rule("enough", {"Id": "hook", "Arn": sink.url, **to_dead_letters(letters)})

        tenant.put("enough")

        assert letter(tenant.receive(letters)[0])["ERROR_CODE"] == "ERROR_FROM_TARGET"
        assert len(sink.received) == 1

    def test_a_target_that_comes_back_gets_what_it_missed(self, tenant: Tenant, sink: Sink, server: Server) -> None:
        tenant.rule("back", {"Id": "hook", "Arn": sink.url})
        sink.shut()
        ids = set(tenant.put_many("back", 300))
        until(lambda: rule_metrics(server.url, tenant.account, "back").get("InvocationAttempts"), "an attempt")

        sink.open()

        sink.wait_for_events(ids)
        assert sink.events == ids


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits for no webhook for long."""
    made = Server(tmp_path_factory.mktemp("impatient"), {"webhook_timeout": 0.3, "max_in_flight": 4}, {})
    yield made
    made.stop()


class TestSlowAndLarge:
    @pytest.fixture
    def owner(self, impatient: Server, aws: Any) -> Tenant:
        return Tenant(aws, at=impatient)

    def test_a_webhook_that_never_answers_times_out(self, owner: Tenant, sink: Sink) -> None:
        letters = owner.queue("letters")
        sink.answer = lambda post: Reply(silent=True)
        owner.rule("silent", {"Id": "hook", "Arn": sink.url, **to_dead_letters(letters, retries=1)})

        ids = set(owner.put_many("silent", 6))

        messages = owner.receive(letters, 6)
        said = letter(messages[0])
        assert {json.loads(each["Body"])["id"] for each in messages} == ids
        assert said["ERROR_CODE"] == "TIMEOUT"
        assert said["ERROR_MESSAGE"] == f"{sink.url[:-1]} did not answer in time."
        assert said["RETRY_ATTEMPTS"] == "1"

    def test_an_answer_of_50_megabytes_counts_by_its_status(self, owner: Tenant, sink: Sink, impatient: Server) -> None:
        letters = owner.queue("letters")
        sink.answer = lambda post: Reply(200 if post.path == "/good" else 404, megabytes=50)
        owner.rule("large", {"Id": "good", "Arn": sink.url + "good"})
        owner.rule("worse", {"Id": "bad", "Arn": sink.url + "bad", **to_dead_letters(letters)})

        owner.put_many("large", 3)
        owner.put("worse")

        def delivered() -> bool:
            counts = rule_metrics(impatient.url, owner.account, "large")
            return counts.get("SuccessfulInvocationAttempts") == 3

        until(delivered, "three deliveries")
        assert letter(owner.receive(letters)[0])["ERROR_MESSAGE"].endswith("answered with HTTP status 404.")
        assert len(sink.received) == 4


class TestOthers:
    def test_a_dead_target_with_thousands_waiting_does_not_hold_up_a_healthy_one(
        self, tenant: Tenant, sink: Sink, server: Server, dead_url: str
    ) -> None:
        tenant.rule("dead", {"Id": "hook", "Arn": dead_url})
        tenant.rule("healthy", {"Id": "hook", "Arn": sink.url})
        tenant.put_many("dead", 3000)

        expected = set(tenant.put_many("healthy", 500))

        sink.wait_for_events(expected)
        assert sink.events == expected
        assert len(waiting(server, tenant)) >= 3000, "nothing for the dead one was given up"
        counts = rule_metrics(server.url, tenant.account, "dead")
        assert "SuccessfulInvocationAttempts" not in counts
        assert "FailedInvocations" not in counts

    def test_two_targets_of_one_rule_fail_and_succeed_apart(self, tenant: Tenant, sink: Sink, dead_url: str) -> None:
        tenant.rule("apart", {"Id": "dead", "Arn": dead_url}, {"Id": "live", "Arn": sink.url})

        expected = set(tenant.put_many("apart", 400))

        sink.wait_for_events(expected)
        assert sink.events == expected

    def test_a_wire_takes_over_what_waits_for_a_dead_endpoint(
        self, start_server: Any, aws: Any, sink: Sink, dead_url: str
    ) -> None:
        server: Server = start_server(aws_endpoint_url=dead_url)
        owner = Tenant(aws, at=server)
        function = owner.arn("lambda", "function:late")
        owner.rule("late", {"Id": "fn", "Arn": function})
        ids = set(owner.put_many("late", 20))
        until(lambda: rule_metrics(server.url, owner.account, "late").get("InvocationAttempts"), "an attempt")
        assert len(waiting(server, owner)) == 20

        lay_wire(server, function, sink.url)

        sink.wait_for_events(ids)
        until(lambda: not waiting(server, owner), "the settlement of all")

    def test_a_nearer_wire_takes_over_from_a_dead_one(
        self, tenant: Tenant, sink: Sink, server: Server, dead_url: str
    ) -> None:
        function = tenant.arn("lambda", "function:near")
        lay_wire(server, function.replace("near", "*"), dead_url)
        tenant.rule("near", {"Id": "fn", "Arn": function})
        event_id = tenant.put("near")
        until(lambda: rule_metrics(server.url, tenant.account, "near").get("InvocationAttempts"), "an attempt")

        lay_wire(server, function, sink.url)

        assert sink.next().event["id"] == event_id
