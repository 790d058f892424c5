"""The wire driven as an ASGI application, with capabilities that only remember what they were asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from bus.api.access import Access
from bus.api.model import load_events, load_queues
from bus.api.rpc import Rpc
from bus.clock import ManualClock
from bus.config import Settings
from bus.errors import ApiError, StoreUnavailable, not_found
from bus.scope import Call, Scope

SERVICES = [load_events(), load_queues()]
ERROR_CODES = {
    "QueueDoesNotExist": ("AWS.SimpleQueueService.NonExistentQueue", 400),
    "MissingRequiredParameterException": ("MissingParameter", 400),
    "OverLimit": ("OverLimit", 403),
    "UnsupportedOperation": ("AWS.SimpleQueueService.UnsupportedOperation", 400),
}
LIMIT = 2000


class Events:
    """Answers a few operations; what it is told to raise, it raises."""

    def __init__(self) -> None:
        self.calls: list[tuple[Call, dict[str, Any]]] = []
        self.error: Exception | None = None

    async def put_events(self, call: Call, request: dict[str, Any]) -> dict[str, Any] | None:
        self.calls.append((call, request))
        if self.error is not None:
            raise self.error
        return {"FailedEntryCount": 0, "Entries": [{"EventId": "é"}]}

    async def delete_rule(self, call: Call, request: dict[str, Any]) -> dict[str, Any] | None:
        return None

    async def tag_resource(self, call: Call, request: dict[str, Any]) -> dict[str, Any] | None:
        return None

    async def list_event_buses(self, call: Call, request: dict[str, Any]) -> dict[str, Any] | None:
        self.calls.append((call, request))
        return {"EventBuses": [object()]} if request.get("NamePrefix") else {"EventBuses": []}


class Queues:
    def __init__(self) -> None:
        self.error: Exception | None = None

    async def receive_message(self, call: Call, request: dict[str, Any]) -> dict[str, Any] | None:
        if self.error is not None:
            raise self.error
        return None

    async def purge_queue(self, call: Call, request: dict[str, Any]) -> dict[str, Any] | None:
        return {}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> tuple[str, str]:
        document = json.loads(self.body)
        assert list(document) == ["__type", "message"]
        return document["__type"], document["message"]


class Wire:
    """A server without a socket."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.events, self.queues = Events(), Queues()
        access = Access(settings or Settings(), clock=ManualClock())
        self.rpc = Rpc(
            SERVICES,
            [self.events, self.queues],
            access=access,
            max_body_bytes=LIMIT,
            error_codes=ERROR_CODES,
        )

    async def send(
        self,
        target: str | None,
        body: bytes | list[bytes] = b"{}",
        *,
        headers: dict[str, str] | None = None,
        method: str = "POST",
        path: str = "/",
        disconnect: bool = False,
    ) -> Reply | None:
        chunks = body if isinstance(body, list) else [body]
        self.unread = [
            {"type": "http.request", "body": chunk, "more_body": disconnect or number < len(chunks)}
            for number, chunk in enumerate(chunks, 1)
        ] + [{"type": "http.disconnect"}] * disconnect
        sent: list[Any] = []

        async def receive() -> Any:
            return self.unread.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        named = {"host": "127.0.0.1:4010", "content-type": "application/x-amz-json-1.1", **(headers or {})}
        if target is not None:
            named["x-amz-target"] = target
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        }
        await self.rpc(scope, receive, send)
        return _reply(sent)

    async def call(self, target: str | None, body: bytes | list[bytes] = b"{}", **more: Any) -> Reply:
        reply = await self.send(target, body, **more)
        assert reply is not None
        return reply


def _reply(sent: Sequence[Any]) -> Reply | None:
    if not sent:
        return None
    start, end = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    assert len(headers) == len(start["headers"])
    assert int(headers.pop("content-length")) == len(end["body"])
    assert len(headers.pop("x-amzn-requestid")) == 36
    return Reply(start["status"], headers, end["body"])


ENTRY = b'{"Entries":[{"Source":"s","DetailType":"t","Detail":"{}"}]}'


async def test_an_operation_is_answered_in_compact_json() -> None:
    reply = await Wire().call("AWSEvents.PutEvents", ENTRY)
    assert reply == Reply(
        200,
        {"content-type": "application/x-amz-json-1.1"},
        '{"FailedEntryCount":0,"Entries":[{"EventId":"é"}]}'.encode(),
    )


async def test_void_operations_have_an_empty_body_and_empty_structures_do_not() -> None:
    wire = Wire()
    assert (await wire.call("AWSEvents.DeleteRule", b'{"Name":"r"}')).body == b""
    assert (await wire.call("AWSEvents.TagResource", b'{"ResourceARN":"arn","Tags":[]}')).body == b"{}"
    assert (await wire.call("AmazonSQS.PurgeQueue", b'{"QueueUrl":"q"}')).body == b""
    assert (await wire.call("AmazonSQS.ReceiveMessage", b'{"QueueUrl":"q"}')).body == b"{}"


async def test_queues_speak_version_1_0_on_any_path() -> None:
    reply = await Wire().call("AmazonSQS.ReceiveMessage", b'{"QueueUrl":"q"}', path="/000000000000/dead-letters")
    assert (reply.status, reply.headers) == (200, {"content-type": "application/x-amz-json-1.0"})


async def test_the_body_may_come_in_pieces_or_not_at_all() -> None:
    wire = Wire()
    assert (await wire.call("AWSEvents.PutEvents", [ENTRY[:10], b"", ENTRY[10:]])).status == 200
    assert (await wire.call("AWSEvents.ListEventBuses", b"")).body == b'{"EventBuses":[]}'
    assert [request for _, request in wire.events.calls] == [json.loads(ENTRY), {}]


async def test_the_call_says_who_and_where() -> None:
    wire = Wire()
    headers = {
        "host": "localhost:4010",
        "authorization": "AWS4-HMAC-SHA256 Credential=123456789012/20231114/eu-west-1/events/aws4_request, "
        "SignedHeaders=host, Signature=0",
        "x-amzn-trace-id": "Root=1-2-3",
    }
    await wire.call("AWSEvents.PutEvents", ENTRY, headers=headers)
    assert wire.events.calls[0][0] == Call(
        Scope("123456789012", "eu-west-1"), "localhost:4010", "Root=1-2-3", "123456789012"
    )


async def test_an_error_of_a_capability_is_shown_and_closes_the_connection() -> None:
    wire = Wire()
    wire.events.error = not_found("Rule r does not exist.")
    reply = await wire.call("AWSEvents.PutEvents", ENTRY)
    assert reply == Reply(
        400,
        {"content-type": "application/x-amz-json-1.1", "connection": "close"},
        b'{"__type":"ResourceNotFoundException","message":"Rule r does not exist."}',
    )


@pytest.mark.parametrize(
    ("error", "status", "query_error"),
    [
        (ApiError("QueueDoesNotExist", "m"), 400, "AWS.SimpleQueueService.NonExistentQueue;Sender"),
        (ApiError("OverLimit", "m"), 403, "OverLimit;Sender"),
        (ApiError("InvalidIdFormat", "m"), 400, "InvalidIdFormat;Sender"),
        (ApiError("InvalidIdFormat", "m", 404), 404, "InvalidIdFormat;Sender"),
    ],
)
async def test_an_error_of_a_queue_has_both_codes(error: ApiError, status: int, query_error: str) -> None:
    wire = Wire()
    wire.queues.error = error
    reply = await wire.call("AmazonSQS.ReceiveMessage", b'{"QueueUrl":"q"}')
    assert reply.status == status
    assert reply.headers == {"content-type": "application/x-amz-json-1.0", "x-amzn-query-error": query_error}
    assert reply.error == (f"com.amazonaws.sqs#{error.code}", "m")


UNEXPECTED = ("InternalException", "Service encountered unexpected problem. Please try again.")


async def test_an_unexpected_error_is_logged_and_not_shown() -> None:
    wire = Wire()
    wire.events.error = KeyError("a secret")
    with structlog.testing.capture_logs() as logs:
        reply = await wire.call("AWSEvents.PutEvents", ENTRY)
    assert (reply.status, reply.error) == (500, UNEXPECTED)
    assert [(log["event"], log["operation"], log["log_level"]) for log in logs] == [
        ("operation failed", "events:PutEvents", "error")
    ]


async def test_a_result_that_is_no_json_is_the_servers_fault() -> None:
    reply = await Wire().call("AWSEvents.ListEventBuses", b'{"NamePrefix":"x"}')
    assert (reply.status, reply.error) == (500, UNEXPECTED)


async def test_a_store_that_is_not_available_is_the_services_fault() -> None:
    wire = Wire()
    wire.events.error = wire.queues.error = StoreUnavailable("database or disk is full")
    with structlog.testing.capture_logs() as logs:
        reply = await wire.call("AWSEvents.PutEvents", ENTRY)
        queue_reply = await wire.call("AmazonSQS.ReceiveMessage", b'{"QueueUrl":"q"}')
    assert (reply.status, reply.error) == (500, UNEXPECTED)
    assert (queue_reply.status, queue_reply.headers["x-amzn-query-error"]) == (500, "InternalFailure;Receiver")
    assert [log["reason"] for log in logs] == ["database or disk is full"] * 2


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (None, "UnknownOperationException"),
        ("", "UnknownOperationException"),
        ("PutEvents", "UnknownOperationException"),
        ("AWSEvents", "UnknownOperationException"),
        ("AWSEvents.", "UnknownOperationException"),
        ("AWSEvents.FooBar", "UnknownOperationException"),
        ("awsevents.PutEvents", "UnknownOperationException"),
        ("Kinesis_20131202.PutRecord", "UnknownOperationException"),
        ("AWSEvents.DescribeEndpoint", "UnknownOperationException"),
        ("AmazonSQS.AddPermission", "com.amazonaws.sqs#UnsupportedOperation"),
        ("AmazonSQS.FooBar", "com.amazonaws.sqs#InvalidAction"),
    ],
)
async def test_a_target_that_leads_nowhere(target: str | None, code: str) -> None:
    reply = await Wire().call(target, b'{"Name":"n","QueueUrl":"q"}')
    assert (reply.status, reply.error[0]) == (400, code)


async def test_an_unknown_action_of_queues_has_awss_text() -> None:
    reply = await Wire().call("AmazonSQS.FooBar")
    assert reply.error[1] == "The action FooBar is not valid for this endpoint."
    assert reply.headers["x-amzn-query-error"] == "InvalidAction;Sender"


async def test_the_query_protocol_is_answered_in_words() -> None:
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    reply = await Wire().call(None, b"Action=ListQueues", headers=headers)
    assert reply.error[0] == "com.amazonaws.sqs#UnsupportedOperation"
    assert reply.headers["x-amzn-query-error"] == "AWS.SimpleQueueService.UnsupportedOperation;Sender"


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"Entries":[}', b"\xff\xfe", b'{"a":"\xc3"}', b'{"a":NaN}', b'"\\ud800"', b"[" * 1999, b"{} {}"],
)
async def test_a_body_that_is_not_json(body: bytes) -> None:
    wire = Wire()
    reply = await wire.call("AWSEvents.PutEvents", body)
    assert (reply.status, reply.error[0]) == (400, "SerializationException")
    queue_reply = await wire.call("AmazonSQS.ReceiveMessage", body)
    assert (queue_reply.status, queue_reply.error[0]) == (400, "com.amazonaws.sqs#SerializationException")
    assert not wire.events.calls


@pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"1", b"true"])
async def test_a_body_that_is_not_an_object(body: bytes) -> None:
    reply = await Wire().call("AWSEvents.PutEvents", body)
    assert (reply.status, reply.error[0]) == (400, "SerializationException")


async def test_a_request_that_breaks_the_model_does_not_reach_the_capability() -> None:
    wire = Wire()
    reply = await wire.call("AWSEvents.PutEvents", b'{"Entries":[]}')
    assert reply.status == 400
    assert reply.error == (
        "ValidationException",
        "1 validation error detected: Value '[]' at 'entries' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1",
    )
    missing = await wire.call("AmazonSQS.ReceiveMessage")
    assert missing.headers["x-amzn-query-error"] == "MissingParameter;Sender"
    assert not wire.events.calls


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-amz-json", "application/cbor"])
async def test_another_content_type_is_refused(content_type: str) -> None:
    reply = await Wire().call("AWSEvents.PutEvents", ENTRY, headers={"content-type": content_type})
    assert (reply.status, reply.error[0]) == (400, "UnknownOperationException")


@pytest.mark.parametrize(
    "content_type", ["application/x-amz-json-1.0", "Application/X-Amz-Json-1.1; charset=utf-8", "application/json"]
)
async def test_any_version_of_json_is_taken(content_type: str) -> None:
    assert (await Wire().call("AWSEvents.PutEvents", ENTRY, headers={"content-type": content_type})).status == 200


async def test_a_large_body_is_refused_from_its_declared_length() -> None:
    wire = Wire()
    reply = await wire.call("AWSEvents.PutEvents", b"x", headers={"content-length": str(LIMIT + 1)})
    assert (reply.status, reply.error[0]) == (413, "RequestEntityTooLargeException")
    assert len(wire.unread) == 1, "nothing of it was read"


async def test_a_large_body_without_declared_length_is_refused_while_it_is_read() -> None:
    wire = Wire()
    reply = await wire.call("AWSEvents.PutEvents", [b"x" * 1000] * 5)
    assert (reply.status, reply.error[0]) == (413, "RequestEntityTooLargeException")
    assert len(wire.unread) == 2, "the rest was not read"


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    body = ENTRY + b" " * (LIMIT - len(ENTRY))
    assert (await Wire().call("AWSEvents.PutEvents", body, headers={"content-length": str(LIMIT)})).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
async def test_another_method_gets_awss_error_and_no_cors_answer(method: str) -> None:
    headers = {"origin": "http://127.0.0.1:4010", "access-control-request-method": "POST"}
    reply = await Wire().call("AWSEvents.PutEvents", ENTRY, method=method, headers=headers)
    assert (reply.status, reply.error[0]) == (404, "UnknownOperationException")
    assert not any(name.startswith("access-control") for name in reply.headers)


async def test_a_client_that_leaves_early_gets_no_answer() -> None:
    wire = Wire()
    assert await wire.send("AWSEvents.PutEvents", ENTRY[:9], disconnect=True) is None
    assert not wire.events.calls


async def test_who_may_not_call_is_told_before_the_body_is_looked_at() -> None:
    wire = Wire()
    reply = await wire.call("AWSEvents.PutEvents", b"{", headers={"host": "evil.example"})
    assert (reply.status, reply.error[0]) == (403, "AccessDeniedException")


def make(*capabilities: object) -> Rpc:
    access = Access(Settings(), clock=ManualClock())
    return Rpc(SERVICES, capabilities, access=access, max_body_bytes=LIMIT, error_codes={})


def test_the_wire_finds_operations_by_name() -> None:
    offered = make(Events(), Queues()).offered
    assert offered == {
        "events:PutEvents",
        "events:DeleteRule",
        "events:TagResource",
        "events:ListEventBuses",
        "sqs:ReceiveMessage",
        "sqs:PurgeQueue",
    }


def test_an_operation_on_two_capabilities_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="is on several capabilities"):
        make(Events(), Events())


def test_an_operation_that_cannot_be_awaited_is_a_mistake() -> None:
    class Blocking:
        def put_events(self, call: Call, request: dict[str, Any]) -> None: ...

    with pytest.raises(TypeError, match="must be a coroutine method"):
        make(Blocking())
