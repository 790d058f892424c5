"""Queues as targets and as dead-letter queues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from bus.errors import ApiError
from bus.queues.message import byte_length
from bus.scope import Scope
from bus.store import NewMessage
from bus.targets import Delivered, Delivery, Failed, Outcome, Route
from bus.targets.queue import ERROR_MESSAGE_LENGTH, QueueTarget

ARN = "arn:aws:sqs:us-east-1:123456789012:orders"


@dataclass
class Queues:
    """One queue, number 7, that remembers what was asked of it."""

    refusal: ApiError | None = None
    asked: dict[str, Any] | None = None

    def find(self, arn: str) -> int | None:
        return 7 if arn == ARN else None

    def message(
        self,
        queue: int,
        body: str,
        *,
        attributes: Mapping[str, str] | None = None,
        trace: str | None = None,
        group: str | None = None,
        json: bool = False,
    ) -> NewMessage:
        if self.refusal is not None:
            raise self.refusal
        self.asked = {"attributes": attributes, "trace": trace, "group": group}
        return NewMessage(queue, "m", 0, 0, body)

    def target(self) -> QueueTarget[int]:
        return QueueTarget(self.find, self.message)


def delivery(arn: str = ARN, body: bytes = '"Žofie"'.encode(), **members: Any) -> Delivery:
    route = Route(1, Scope("123456789012", "us-east-1"), "default", "r", "arn:rule", {"Id": "q", "Arn": arn, **members})
    return Delivery(route, "i", body, b"{}", 1, 0, "Root=1")


def test_the_message_rides_with_the_outcome() -> None:
    queues = Queues()
    assert queues.target().deliver_now(delivery()) == Delivered(messages=(NewMessage(7, "m", 0, 0, '"Žofie"'),))
    assert queues.asked == {"attributes": None, "trace": "Root=1", "group": None}


def test_the_group_of_a_fifo_queue_comes_from_the_target() -> None:
    queues = Queues()
    queues.target().deliver_now(delivery(SqsParameters={"MessageGroupId": "g"}))
    assert queues.asked is not None
    assert queues.asked["group"] == "g"


def test_an_absent_queue() -> None:
    outcome = Queues().target().deliver_now(delivery(ARN + "2"))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("NO_RESOURCE", False)
    assert outcome.message.startswith(
        "The specified queue does not exist or you do not have access to it. (Service: AmazonSQS; Status Code: 400; "
        "Error Code: AWS.SimpleQueueService.NonExistentQueue; Request ID: "
    )
    assert outcome.message.endswith("; Proxy: null)")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("InvalidMessageContents", "INVALID_PARAMETER"),
        ("InvalidParameterValue", "INVALID_PARAMETER"),
        ("MissingParameter", "INVALID_PARAMETER"),
        ("AccessDenied", "NO_PERMISSIONS"),
        ("QueueDoesNotExist", "NO_RESOURCE"),
    ],
)
def test_what_a_queue_refuses_is_final(code: str, expected: str) -> None:
    outcome = Queues(ApiError(code, "Not so.", 400)).target().deliver_now(delivery())
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == (expected, False)


async def test_a_queue_that_is_not_here_can_be_elsewhere() -> None:
    class Elsewhere:
        seen: list[str]

        def __init__(self) -> None:
            self.seen = []

        async def deliver(self, delivery: Delivery) -> Outcome:
            self.seen.append(delivery.route.arn)
            return Delivered()

        async def close(self) -> None: ...

    queues, elsewhere = Queues(), Elsewhere()
    target = QueueTarget(queues.find, queues.message, elsewhere=elsewhere)
    assert await target.deliver(delivery(ARN + "2")) == Delivered()
    assert isinstance(await target.deliver(delivery(body=b"\xff")), Failed)
    await target.deliver(delivery())
    assert elsewhere.seen == [ARN + "2"]
    assert isinstance(target.deliver_now(delivery(ARN + "2")), Failed)


def test_a_body_that_is_not_utf_8() -> None:
    outcome = Queues().target().deliver_now(delivery(body=b"\xff"))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("INVALID_PARAMETER", False)


def test_a_dead_letter() -> None:
    queues = Queues()
    letter = queues.target().dead_letter(ARN, b"body", {"ERROR_CODE": "TIMEOUT", "RULE_ARN": "arn"}, "Root=1")
    assert letter == NewMessage(7, "m", 0, 0, "body")
    assert queues.asked == {
        "attributes": {"ERROR_CODE": "TIMEOUT", "RULE_ARN": "arn"},
        "trace": "Root=1",
        "group": None,
    }


def test_what_a_target_said_cannot_spoil_the_dead_letter() -> None:
    queues = Queues()
    queues.target().dead_letter(ARN, b"\xff", {"ERROR_MESSAGE": "a\x00b\nc" + "x" * 5000, "ERROR_CODE": "C"}, None)
    assert queues.asked is not None
    message = queues.asked["attributes"]["ERROR_MESSAGE"]
    assert message.startswith("a b c")
    assert len(message) == ERROR_MESSAGE_LENGTH
    queues.target().dead_letter(ARN, b"", {"ERROR_MESSAGE": ""}, None)
    assert queues.asked["attributes"]["ERROR_MESSAGE"]


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{"a":"\x00\x1b"}\t\r\n', '{"a":"  "}\t\r\n'),
        ("\ufffe\uffff\ufffd\U0001f600".encode(), "  \ufffd\U0001f600"),
        (b"", " "),
    ],
)
def test_a_body_that_a_queue_would_refuse_is_kept_as_far_as_it_can_be(body: bytes, kept: str) -> None:
    letter = Queues().target().dead_letter(ARN, body, {"ERROR_CODE": "INVALID_JSON"}, None)
    assert letter.body == kept
    assert byte_length(kept) == len(kept.encode())


def test_a_dead_letter_queue_that_is_absent_or_refuses_says_so() -> None:
    with pytest.raises(ApiError) as absent:
        Queues().target().dead_letter(ARN + "2", b"", {}, None)
    assert absent.value.code == "QueueDoesNotExist"
    with pytest.raises(ApiError):
        Queues(ApiError("InvalidMessageContents", "x")).target().dead_letter(ARN, b"", {}, None)
