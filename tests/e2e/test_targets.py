"""What each kind of target receives, to the byte."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.e2e.sink import Reply, Sink
from tests.e2e.tenant import Tenant, letter, to_dead_letters
from tests.e2e.wire import request, rule_metrics, until

pytestmark = pytest.mark.xdist_group("e2e_targets")

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ROOT = "1-5759e988-bd862e3fe1be46a994272793"
TRACE = f"Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=1"
TIME = 1_700_000_000.987
ENTRY = {
    "Time": TIME,
    "Resources": ["arn:aws:s3:::bucket", "r2"],
    "DetailType": "Order Placed",
    "Detail": '{ "b" : 1.50, "a" : "caf\\u00e9 ☕", "n" : null, "list" : [ 1, {"x": "y"} ] }',
}
DETAIL = '{"b":1.50,"a":"café ☕","n":null,"list":[1,{"x":"y"}]}'
"""The detail of ENTRY as it is to be delivered."""


def envelope(tenant: Tenant, event_id: str, source: str) -> str:
    """The event of ENTRY as AWS writes it: this order of keys, whole seconds, nothing escaped without need."""
    return (
        f'{{"version":"0","id":"{event_id}","detail-type":"Order Placed","source":"{source}",'
        f'"account":"{tenant.account}","time":"2023-11-14T22:13:20Z","region":"us-east-1",'
        f'"resources":["arn:aws:s3:::bucket","r2"],"detail":{DETAIL}}}'
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The module's server: it signs webhook deliveries."""
    made = Server(tmp_path_factory.mktemp("signing"), {"webhook_secret": SECRET}, {})
    yield made
    made.stop()


INPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "input": ({"Input": '{ "fixed": true }'}, '{ "fixed": true }'),
    "input_path": ({"InputPath": "$.detail.list"}, '[1,{"x":"y"}]'),
    "input_path_of_a_text": ({"InputPath": "$.detail.a"}, '"café ☕"'),
    "input_path_that_is_missing": ({"InputPath": "$.detail.absent"}, "{}"),
    "transformer_to_json": (
        {
            "InputTransformer": {
                "InputPathsMap": {"b": "$.detail.b", "a": "$.detail.a", "n": "$.detail.n", "m": "$.detail.missing"},
                "InputTemplate": '{"rule":"<aws.events.rule-name>","b":<b>,"a":<a>,"n":<n>,"m":<m>,"s":"is <a>"}',
            }
        },
        '{"rule":"transformer_to_json","b":1.50,"a":"café ☕","n":null,"m":"","s":"is café ☕"}',
    ),
    "transformer_to_text": (
        {"InputTransformer": {"InputPathsMap": {"l": "$.detail.list"}, "InputTemplate": '"list <l>"'}},
        '"list [1,{x:y}]"',
    ),
}


class TestWebhook:
    def test_one_post_with_the_exact_envelope(self, tenant: Tenant, sink: Sink) -> None:
        tenant.rule("hook", {"Id": "hook", "Arn": sink.url + "orders?k=v"})

        event_id = tenant.put("hook", **ENTRY, TraceHeader=TRACE)

        post = sink.next()
        assert post.path == "/orders?k=v"
        assert post.body.decode() == envelope(tenant, event_id, "hook")
        assert post.headers["content-type"] == "application/json"
        assert post.headers["x-amzn-trace-id"] == TRACE
        assert int(post.headers["content-length"]) == len(post.body)

    def test_the_signature_is_that_of_standard_webhooks(self, tenant: Tenant, sink: Sink) -> None:
        tenant.rule("signed", {"Id": "hook", "Arn": sink.url})

        tenant.put("signed", {"ok": True})

        post = sink.next()
        signed = f"{post.headers['webhook-id']}.{post.headers['webhook-timestamp']}.".encode() + post.body
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        assert post.headers["webhook-signature"] == f"v1,{expected}"

    def test_the_id_is_the_same_on_every_attempt_and_another_for_another_target(
        self, tenant: Tenant, sink: Sink
    ) -> None:
        sink.answer = lambda post: Reply(200 if len(sink.received) >= 2 else 503)
        tenant.rule("twice", {"Id": "one", "Arn": sink.url + "one"})

        tenant.put("twice")
        first, second, third = sink.wait_for(3)
        tenant.rule("twice", {"Id": "two", "Arn": sink.url + "two"})
        tenant.put("twice")
        sink.wait_for(5)

        assert first.headers["webhook-id"] == second.headers["webhook-id"] == third.headers["webhook-id"]
        assert first.body == third.body
        assert len({post.headers["webhook-id"] for post in sink.received}) == 3

    @pytest.mark.parametrize("name", INPUTS)
    def test_the_body_that_the_input_mode_makes(self, name: str, tenant: Tenant, sink: Sink) -> None:
        members, body = INPUTS[name]
        tenant.rule(name, {"Id": "hook", "Arn": sink.url, **members})

        tenant.put(name, **ENTRY)

        assert sink.next().body.decode() == body

    def test_the_user_in_a_url_becomes_a_header(self, tenant: Tenant, sink: Sink) -> None:
        tenant.rule("user", {"Id": "hook", "Arn": sink.url.replace("//", "//shop:secret@")})

        tenant.put("user")

        assert sink.next().headers["authorization"] == "Basic " + base64.b64encode(b"shop:secret").decode()


class TestQueue:
    def test_a_standard_queue(self, tenant: Tenant) -> None:
        queue = tenant.queue("copies")
        tenant.rule("queued", {"Id": "copies", "Arn": queue.arn})

        event_id = tenant.put("queued", **ENTRY, TraceHeader=TRACE)

        (message,) = tenant.receive(queue)
        assert message["Body"] == envelope(tenant, event_id, "queued")
        assert message["Attributes"]["AWSTraceHeader"] == TRACE
        assert message["Attributes"]["SenderId"].startswith("AIDA")
        assert "MessageAttributes" not in message
        assert "MD5OfMessageAttributes" not in message

    def test_the_trace_header_of_the_request_is_carried_too_and_the_entry_wins(self, tenant: Tenant) -> None:
        queue = tenant.queue("traced")
        tenant.rule("traced", {"Id": "copies", "Arn": queue.arn})

        def add_header(params: Any, **_: Any) -> None:
            params["headers"]["X-Amzn-Trace-Id"] = f"Sampled=0;Root={ROOT}"

        tenant.events.meta.events.register("before-call.events.PutEvents", add_header)
        of_request = tenant.put("traced")
        of_entry = tenant.put("traced", TraceHeader="garbage")

        messages = {json.loads(each["Body"])["id"]: each["Attributes"] for each in tenant.receive(queue, 2)}
        assert messages[of_request]["AWSTraceHeader"] == f"Root={ROOT};Sampled=0"
        assert "AWSTraceHeader" not in messages[of_entry]

    def test_a_fifo_queue_gets_the_group_and_the_order_of_one_request(self, tenant: Tenant) -> None:
        queue = tenant.queue("orders.fifo", FifoQueue="true", ContentBasedDeduplication="true")
        tenant.rule("fifo", {"Id": "f", "Arn": queue.arn, "SqsParameters": {"MessageGroupId": "g1"}})

        ids = tenant.put_many("fifo", 10)

        messages = tenant.receive(queue, 10)
        assert [json.loads(each["Body"])["id"] for each in messages] == ids
        assert {each["Attributes"]["MessageGroupId"] for each in messages} == {"g1"}

    def test_a_queue_gets_what_the_input_mode_makes(self, tenant: Tenant) -> None:
        queue = tenant.queue("shaped")
        members, body = INPUTS["transformer_to_text"]
        tenant.rule("shaped", {"Id": "q", "Arn": queue.arn, **members})

        tenant.put("shaped", **ENTRY)

        assert tenant.receive(queue)[0]["Body"] == body

    def test_invalid_json_is_dead_lettered_as_it_came_out(self, tenant: Tenant) -> None:
        queue, letters = tenant.queue("never"), tenant.queue("letters")
        transformer = {"InputPathsMap": {"a": "$.detail.a"}, "InputTemplate": "<a>"}
        target = {"Id": "q", "Arn": queue.arn, "InputTransformer": transformer, **to_dead_letters(letters)}
        rule_arn = tenant.rule("invalid", target)

        tenant.put("invalid", **ENTRY, TraceHeader=TRACE)

        (message,) = tenant.receive(letters)
        assert message["Body"] == "café ☕"
        assert letter(message) == {
            "RULE_ARN": rule_arn,
            "TARGET_ARN": queue.arn,
            "ERROR_CODE": "INVALID_JSON",
            "ERROR_MESSAGE": "Invalid input for target.",
        }
        assert message["Attributes"]["AWSTraceHeader"] == TRACE

    def test_an_absent_queue_is_final(self, tenant: Tenant) -> None:
        letters = tenant.queue("letters")
        tenant.rule("absent", {"Id": "q", "Arn": tenant.arn("sqs", "absent"), **to_dead_letters(letters)})

        event_id = tenant.put("absent", **ENTRY)

        (message,) = tenant.receive(letters)
        said = letter(message)
        assert message["Body"] == envelope(tenant, event_id, "absent")
        assert said["ERROR_CODE"] == "NO_RESOURCE"
        assert re.fullmatch(
            r"The specified queue does not exist or you do not have access to it\. \(Service: AmazonSQS; "
            r"Status Code: 400; Error Code: AWS\.SimpleQueueService\.NonExistentQueue; Request ID: [0-9a-f-]{36}; "
            r"Proxy: null\)",
            said["ERROR_MESSAGE"],
        )
        assert "RETRY_ATTEMPTS" not in said
        assert "EXHAUSTED_RETRY_CONDITION" not in said


class TestEventBus:
    def test_the_same_region_gets_the_identical_envelope(self, tenant: Tenant) -> None:
        queue = tenant.queue("far")
        tenant.events.create_event_bus(Name="second")
        tenant.rule("hop", {"Id": "bus", "Arn": tenant.arn("events", "event-bus/second")})
        tenant.rule("hop", {"Id": "q", "Arn": queue.arn}, bus="second")

        event_id = tenant.put("hop", **ENTRY, TraceHeader=TRACE)

        (message,) = tenant.receive(queue)
        assert message["Body"] == envelope(tenant, event_id, "hop")
        assert message["Attributes"]["AWSTraceHeader"] == TRACE

    def test_a_second_hop_ends_in_the_dead_letter_queue(self, tenant: Tenant) -> None:
        letters = tenant.queue("letters")
        tenant.events.create_event_bus(Name="second")
        first, second = tenant.arn("events", "event-bus/default"), tenant.arn("events", "event-bus/second")
        tenant.rule("loop", {"Id": "bus", "Arn": second})
        back = tenant.rule("loop", {"Id": "bus", "Arn": first, **to_dead_letters(letters)}, bus="second")

        event_id = tenant.put("loop", **ENTRY, TraceHeader=TRACE)

        (message,) = tenant.receive(letters)
        assert message["Body"] == envelope(tenant, event_id, "loop")
        assert message["Attributes"]["AWSTraceHeader"] == TRACE
        assert letter(message) == {
            "RULE_ARN": back,
            "TARGET_ARN": first,
            "ERROR_CODE": "THIRD_ACCOUNT_HOP_DETECTED",
            "ERROR_MESSAGE": f"Event ingestion rejected for event {event_id} because an event can be sent to an event "
            "bus target only once. This event was previously delivered to an event bus target.",
        }

    def test_another_region_gives_a_new_id_and_time(self, tenant: Tenant) -> None:
        abroad = tenant.in_region("eu-west-1")
        queue = abroad.queue("abroad")
        tenant.rule("cross", {"Id": "bus", "Arn": abroad.arn("events", "event-bus/default")})
        abroad.rule("cross", {"Id": "q", "Arn": queue.arn})

        event_id = tenant.put("cross", **ENTRY)

        (message,) = abroad.receive(queue)
        arrived, sent = json.loads(message["Body"]), json.loads(envelope(tenant, event_id, "cross"))
        assert arrived["id"] != event_id
        assert arrived["time"] > sent["time"]
        assert list(arrived) == list(sent)
        assert {**arrived, "id": 0, "time": 0} == {**sent, "id": 0, "time": 0}
        assert DETAIL in message["Body"]

    def test_a_hop_of_each_kind_is_delivered(self, tenant: Tenant) -> None:
        abroad = tenant.in_region("eu-west-1")
        queue = abroad.queue("both")
        abroad.events.create_event_bus(Name="third")
        tenant.rule("both", {"Id": "bus", "Arn": abroad.arn("events", "event-bus/default")})
        abroad.rule("both", {"Id": "bus", "Arn": abroad.arn("events", "event-bus/third")})
        abroad.rule("both", {"Id": "q", "Arn": queue.arn}, bus="third")

        tenant.put("both", {"n": 1})

        assert json.loads(abroad.receive(queue)[0]["Body"])["detail"] == {"n": 1}


class TestLogGroup:
    def test_one_line_per_event_in_the_groups_file(self, tenant: Tenant, server: Server) -> None:
        tenant.rule("logged", {"Id": "log", "Arn": tenant.arn("logs", "log-group:/shop/orders")})

        event_id = tenant.put("logged", **ENTRY)

        line = _log_line(server, tenant, "logged", "+shop+orders")
        assert line["message"] == envelope(tenant, event_id, "logged")
        assert line["timestamp"] == int(TIME) * 1000
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", line["logStream"])

    def test_a_transformer_makes_message_and_timestamp(self, tenant: Tenant, server: Server) -> None:
        template = '{"timestamp":1700000001234,"message":"order <a>"}'
        transformer = {"InputPathsMap": {"a": "$.detail.a"}, "InputTemplate": template}
        arn = tenant.arn("logs", "log-group:shaped:*")
        tenant.rule("shaped", {"Id": "log", "Arn": arn, "InputTransformer": transformer})

        tenant.put("shaped", **ENTRY)

        line = _log_line(server, tenant, "shaped", "shaped")
        assert (line["message"], line["timestamp"]) == ("order café ☕", 1_700_000_001_234)


def _log_line(server: Server, tenant: Tenant, rule: str, file: str) -> Any:
    """The one line of a group's file, once its delivery is counted."""
    path = Path(server.data_dir) / "logs" / tenant.account / tenant.region / f"{file}.jsonl"
    until(lambda: rule_metrics(server.url, tenant.account, rule).get("SuccessfulInvocationAttempts"), "the delivery")
    (line,) = path.read_text(encoding="utf-8").splitlines()
    return json.loads(line)


class TestArns:
    def test_a_wired_function_gets_a_post(self, tenant: Tenant, sink: Sink, server: Server) -> None:
        function = tenant.arn("lambda", "function:orders")
        pattern = f"arn:aws:lambda:*:{tenant.account}:function:orders"
        laid = request(
            server.url, "PUT", "/_bus/wires", body=json.dumps({"Arn": pattern, "Url": sink.url + "fn"}).encode()
        )
        tenant.rule("wired", {"Id": "fn", "Arn": function})

        event_id = tenant.put("wired", **ENTRY, TraceHeader=TRACE)

        post = sink.next()
        assert laid.status == 200
        assert post.path == "/fn"
        assert post.body.decode() == envelope(tenant, event_id, "wired")
        assert post.headers["x-amzn-trace-id"] == TRACE
        assert tenant.events.list_targets_by_rule(Rule="wired")["Targets"] == [{"Id": "fn", "Arn": function}]

    def test_an_unwired_function_is_invoked_at_the_endpoint(
        self, tenant: Tenant, sink: Sink, start_server: Any, aws: Any
    ) -> None:
        owner = Tenant(aws, at=start_server(aws_endpoint_url=sink.url))
        sink.answer = lambda post: Reply(202)
        function = owner.arn("lambda", "function:orders")
        owner.rule("invoked", {"Id": "fn", "Arn": function})

        event_id = owner.put("invoked", **ENTRY, TraceHeader=TRACE)

        post = sink.next()
        assert post.path == f"/2015-03-31/functions/{function.replace(':', '%3A')}/invocations"
        assert post.body.decode() == envelope(owner, event_id, "invoked")
        assert post.headers["x-amz-invocation-type"] == "Event"
        assert post.headers["x-amzn-trace-id"] == TRACE
        signature = re.fullmatch(
            rf"AWS4-HMAC-SHA256 Credential={owner.account}/[0-9]{{8}}/us-east-1/lambda/aws4_request, "
            r"SignedHeaders=\S+, Signature=[0-9a-f]{64}",
            post.headers["authorization"],
        )
        assert signature, post.headers["authorization"]

    def test_a_function_with_neither_wire_nor_endpoint_says_what_to_do(self, tenant: Tenant) -> None:
        letters = tenant.queue("letters")
        function = tenant.arn("lambda", "function:nowhere")
        tenant.rule("nowhere", {"Id": "fn", "Arn": function, **to_dead_letters(letters)})

        tenant.put("nowhere")

        said = letter(tenant.receive(letters)[0])
        assert said["ERROR_CODE"] == "NO_RESOURCE"
        assert f"busbar wire '{function}'" in said["ERROR_MESSAGE"]


def test_one_event_reaches_every_target_of_every_rule_under_one_id(tenant: Tenant, sink: Sink) -> None:
    first, second = tenant.queue("one"), tenant.queue("two")
    pattern = {"source": ["all"]}
    tenant.rule("r1", {"Id": "q", "Arn": first.arn}, {"Id": "hook", "Arn": sink.url + "a"}, pattern=pattern)
    tenant.rule("r2", {"Id": "q", "Arn": second.arn}, {"Id": "hook", "Arn": sink.url + "b"}, pattern=pattern)

    event_id = tenant.put("all", {"n": 1})

    bodies = [each["Body"] for queue in (first, second) for each in tenant.receive(queue)]
    posts = sink.wait_for(2)
    assert {post.path for post in posts} == {"/a", "/b"}
    assert {json.loads(body)["id"] for body in bodies} | {post.event["id"] for post in posts} == {event_id}
    assert len({*bodies, *(post.body.decode() for post in posts)}) == 1


def test_the_time_defaults_to_now_in_whole_seconds_and_resources_to_none(tenant: Tenant, sink: Sink) -> None:
    tenant.rule("plain", {"Id": "hook", "Arn": sink.url})

    tenant.put("plain", {"n": 1})

    event = sink.next().event
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", event["time"])
    assert event["resources"] == []
