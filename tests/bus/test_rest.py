"""The REST-JSON wire driven as an ASGI application, with a capability that only remembers what it was asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.api.access import Access
from bus.api.model import load_scheduler
from bus.api.rest import Rest
from bus.clock import ManualClock
from bus.config import Settings
from bus.errors import ApiError, StoreUnavailable
from bus.scope import Call, Scope

SERVICE = load_scheduler()
LIMIT = 2000
GROUP = "arn:aws:scheduler:us-east-1:000000000000:schedule-group/a.b"


class Remembers:
    """Answers some operations; what it is told to raise, it raises."""

    def __init__(self) -> None:
        self.calls: list[tuple[Call, dict[str, Any]]] = []
        self.error: Exception | None = None

    async def answer(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((call, request))
        if self.error is not None:
            raise self.error
        return {"ScheduleArn": "é"}

    async def create_schedule(self, call: Call, request: dict[str, Any]) -> dict[str, Any] | None:
        return await self.answer(call, request)

    async def get_schedule(self, call: Call, request: dict[str, Any]) -> dict[str, Any] | None:
        return await self.answer(call, request)

    async def list_schedules(self, call: Call, request: dict[str, Any]) -> dict[str, Any] | None:
        return await self.answer(call, request)

    async def untag_resource(self, call: Call, request: dict[str, Any]) -> dict[str, Any] | None:
        self.calls.append((call, request))
        return None


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return self.headers["x-amzn-errortype"]

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["Message"])


class Wire:
    def __init__(self, **settings: Any) -> None:
        self.asked = Remembers()
        access = Access(Settings(**settings), clock=ManualClock())
        self.rest = Rest(SERVICE, [self.asked], access=access, max_body_bytes=LIMIT)

    async def request(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        path, _, query = target.partition("?")
        given = {"host": "127.0.0.1", **({"content-type": "application/json"} if body else {}), **(headers or {})}
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": query.encode("latin-1"),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.rest(scope, receive, send)
        start, content = sent
        return Answer(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, content["body"])

    @property
    def members(self) -> dict[str, Any]:
        """Those of the latest call."""
        return self.asked.calls[-1][1]


@pytest.fixture
def wire() -> Wire:
    return Wire()


CREATE = b'{"ScheduleExpression":"x","FlexibleTimeWindow":{"Mode":"OFF"},"Target":{"Arn":"a","RoleArn":"%s"}}' % (
    b"arn:aws:iam::000000000000:role/r"
)


async def test_members_of_path_and_body_come_together(wire: Wire) -> None:
    answer = await wire.request("POST", "/schedules/a-b", CREATE)
    assert (answer.status, answer.body) == (200, '{"ScheduleArn":"é"}'.encode())
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.headers["x-amzn-requestid"]) == 36
    assert wire.members["Name"] == "a-b"
    assert wire.members["Target"]["Arn"] == "a"


async def test_what_belongs_in_the_path_is_not_read_from_the_body(wire: Wire) -> None:
    await wire.request("POST", "/schedules/a", CREATE[:-1] + b',"Name":"b","clientToken":"t"}')
    assert wire.members["Name"] == "a"
    assert "clientToken" not in wire.members


async def test_query_members_have_their_types(wire: Wire) -> None:
    await wire.request("GET", "/schedules?ScheduleGroup=g&MaxResults=7&State=ENABLED&unknown=1")
    assert wire.members == {"GroupName": "g", "MaxResults": 7, "State": "ENABLED"}
    await wire.request("GET", "/schedules/a?groupName=g")
    assert wire.members == {"Name": "a", "GroupName": "g"}


async def test_lists_and_escapes(wire: Wire) -> None:
    escaped = GROUP.replace(":", "%3A").replace("/", "%2F")
    answer = await wire.request("DELETE", f"/tags/{escaped}?TagKeys=a%20b&TagKeys=c+d&TagKeys=%C3%BC")
    assert (answer.status, answer.body) == (200, b"{}")
    assert wire.members == {"ResourceArn": GROUP, "TagKeys": ["a b", "c d", "ü"]}


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/schedules/a/b"),
        ("GET", "/schedules/"),
        ("PATCH", "/schedules/a"),
        ("PUT", "/schedule-groups/a"),
        ("GET", "/schedulesx"),
        ("POST", "/schedules"),
        ("GET", "/tags"),
    ],
)
async def test_a_path_that_leads_nowhere(wire: Wire, method: str, target: str) -> None:
    answer = await wire.request(method, target)
    assert (answer.status, answer.code) == (404, "UnknownOperationException")
    assert answer.message == f"No operation is at {method} {target}."


@pytest.mark.parametrize(
    ("method", "target", "body", "code", "message"),
    [
        ("GET", "/schedules/%FF", b"", "SerializationException", "The path is not UTF-8."),
        ("GET", "/schedules?State=%FF", b"", "SerializationException",
         "The query string is not UTF-8 with at most 1000 parameters."),
        ("GET", "/schedules?" + "a=1&" * 1001, b"", "SerializationException",
         "The query string is not UTF-8 with at most 1000 parameters."),
        ("GET", "/schedules?MaxResults=many", b"", "SerializationException",
         "STRING_VALUE can not be converted to an Integer"),
        ("GET", "/schedules?MaxResults=", b"", "SerializationException",
         "STRING_VALUE can not be converted to an Integer"),
        ("POST", "/schedules/a", b"{", "SerializationException", None),
        ("POST", "/schedules/a", b'{"Description":"\xff"}', "SerializationException", None),
        ("POST", "/schedules/a", b"[]", "SerializationException", "Start of list found where not expected."),
        ("POST", "/schedules/a", b"7", "SerializationException", "Expected structure or null"),
        ("POST", "/schedules/a", b"null", "SerializationException", "Expected structure or null"),
        ("POST", "/schedules/a", b"", "ValidationException", None),
    ],
)  # fmt: skip
async def test_what_cannot_be_read(
    wire: Wire, method: str, target: str, body: bytes, code: str, message: str | None
) -> None:
    answer = await wire.request(method, target, body)
    assert (answer.status, answer.code) == (400, code)
    assert message is None or answer.message == message
    assert wire.asked.calls == []


async def test_a_body_that_is_not_json_by_its_type(wire: Wire) -> None:
    answer = await wire.request("POST", "/schedules/a", CREATE, {"content-type": "text/plain"})
    assert (answer.status, answer.code) == (415, "UnsupportedMediaTypeException")


async def test_a_body_that_is_too_large(wire: Wire) -> None:
    answer = await wire.request("POST", "/schedules/a", b" " * (LIMIT + 1))
    assert (answer.status, answer.code) == (413, "RequestEntityTooLargeException")


async def test_an_operation_that_nobody_answers(wire: Wire) -> None:
    answer = await wire.request("GET", "/schedule-groups")
    assert (answer.status, answer.code) == (404, "UnknownOperationException")
    assert answer.message == "ListScheduleGroups is not available here."
    assert "scheduler:ListScheduleGroups" not in wire.rest.offered
    assert "scheduler:GetSchedule" in wire.rest.offered


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ApiError("ConflictException", "no"), 409, "ConflictException"),
        (ApiError("ResourceNotFoundException", "no"), 404, "ResourceNotFoundException"),
        (ApiError("ServiceQuotaExceededException", "no"), 402, "ServiceQuotaExceededException"),
        (ApiError("ThrottlingException", "no"), 429, "ThrottlingException"),
        (ApiError("ValidationException", "no"), 400, "ValidationException"),
        (ApiError("AccessDeniedException", "no"), 403, "AccessDeniedException"),
    ],
)
async def test_errors_have_the_status_of_the_model(wire: Wire, error: ApiError, status: int, code: str) -> None:
    wire.asked.error = error
    answer = await wire.request("GET", "/schedules/a")
    assert (answer.status, answer.code, answer.message) == (status, code, "no")


@pytest.mark.parametrize("error", [StoreUnavailable("full"), RuntimeError("secret")])
async def test_a_fault_says_nothing_about_its_cause(wire: Wire, error: Exception) -> None:
    wire.asked.error = error
    answer = await wire.request("GET", "/schedules/a")
    assert (answer.status, answer.code) == (500, "InternalServerException")
    assert answer.message == "Unexpected error encountered while processing the request."


async def test_account_and_region_come_from_the_signature(wire: Wire) -> None:
    credential = "AWS4-HMAC-SHA256 Credential=123456789012/20260101/eu-west-1/scheduler/aws4_request, Signature=x"
    await wire.request("GET", "/schedules/a", headers={"authorization": credential})
    assert wire.asked.calls[0][0].scope == Scope("123456789012", "eu-west-1")


async def test_pages_of_other_servers_may_not_call(wire: Wire) -> None:
    answer = await wire.request("DELETE", f"/tags/{GROUP.replace('/', '%2F')}", headers={"origin": "http://evil.test"})
    assert (answer.status, answer.code) == (403, "AccessDeniedException")
    answer = await wire.request("GET", "/schedules/a", headers={"host": "evil.test"})
    assert (answer.status, answer.code) == (403, "AccessDeniedException")
    assert wire.asked.calls == []


@pytest.mark.parametrize(
    ("path", "headers", "ours"),
    [
        ("/schedules", {}, True),
        ("/schedules/a", {}, True),
        ("/schedule-groups/a", {}, True),
        ("/tags/x", {}, True),
        ("/schedulesx", {}, False),
        ("/", {}, False),
        ("/000000000000/tags", {}, False),
        ("/schedules/a", {"x-amz-target": "AmazonSQS.SendMessage"}, False),
    ],
)
def test_which_requests_are_for_the_service(wire: Wire, path: str, headers: dict[str, str], ours: bool) -> None:
    scope = {"path": path, "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
    assert wire.rest.serves(scope) is ours


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]),
    st.sampled_from(["schedules", "schedule-groups", "tags", "x"]),
    st.text(st.characters(codec="utf-8", exclude_characters="?/"), max_size=20),
    st.binary(max_size=40),
    st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["Name", "Target", "Tags", "FlexibleTimeWindow", "StartDate"]), inner)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    ),
)
async def test_whatever_comes_is_answered(method: str, first: str, name: str, query: bytes, body: bytes) -> None:
    path = f"/{first}/{quote(name)}" if name else f"/{first}"
    answer = await Wire().request(method, f"{path}?{query.decode('latin-1').replace('?', '')}", body)
    assert answer.status in (200, 400, 404), answer
    json.loads(answer.body)
