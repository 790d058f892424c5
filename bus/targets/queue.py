"""SQS queues of this process, as targets and as dead-letter queues.

Nothing is sent here: the outcome carries the message, and whoever settles the delivery stores both in one transaction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar
from uuid import uuid4

import structlog

from bus.errors import ApiError
from bus.store import NewMessage
from bus.targets import Delivered, Delivery, Failed, Outcome, Target

ERROR_MESSAGE_LENGTH = 1024
"""Longest ERROR_MESSAGE of a dead letter, so that what a target said cannot make the letter too large to keep."""

Queue = TypeVar("Queue")
QueueIn = TypeVar("QueueIn", contravariant=True)

log = structlog.get_logger(__name__)


class MakeMessage(Protocol[QueueIn]):
    """Makes a message as SendMessage would; ApiError when the queue refuses it.

    ``attributes`` are all Strings; ``json`` says that the body is JSON text.
    """

    def __call__(
        self,
        queue: QueueIn,
        body: str,
        *,
        attributes: Mapping[str, str] | None = None,
        trace: str | None = None,
        group: str | None = None,
        json: bool = False,
    ) -> NewMessage: ...


class QueueTarget(Generic[Queue]):
    """Delivers to embedded queues: ``find`` looks one up by ARN, ``message`` makes what is stored.

    What names a queue that is not among them goes to ``elsewhere``, where there is such a target.
    """

    def __init__(
        self, find: Callable[[str], Queue | None], message: MakeMessage[Queue], *, elsewhere: Target | None = None
    ) -> None:
        self._find = find
        self._message = message
        self._elsewhere = elsewhere

    def deliver_now(self, delivery: Delivery) -> Outcome:
        arn = delivery.route.arn
        fifo = delivery.route.target.get("SqsParameters")
        group = fifo.get("MessageGroupId") if fifo else None
        json = delivery.body is delivery.event  # the bus has written it
        try:
            queue = self._find(arn)
            if queue is None:
                return no_queue()
            body = delivery.body.decode()
            return Delivered((self._message(queue, body, trace=delivery.trace, group=group, json=json),))
        except ApiError as error:
            return refusal(error, arn)
        except UnicodeDecodeError:
            return Failed("INVALID_PARAMETER", "The input is not UTF-8.")
        except Exception as error:
            log.exception("a message could not be made", queue=arn)
            return Failed("INTERNAL_ERROR", f"Sending ended with {type(error).__name__}.", retry=True)

    async def deliver(self, delivery: Delivery) -> Outcome:
        outcome = self.deliver_now(delivery)
        if self._elsewhere is not None and isinstance(outcome, Failed) and outcome.code == "NO_RESOURCE":
            return await self._elsewhere.deliver(delivery)
        return outcome

    async def close(self) -> None:
        """Nothing is held."""

    def dead_letter(self, queue_arn: str, body: bytes, attributes: Mapping[str, str], trace: str | None) -> NewMessage:
        """The message that lays ``body`` in a dead-letter queue; ApiError when there is none or it refuses."""
        return self._make(queue_arn, takeable(body), attributes=presentable(attributes), trace=trace)

    def _make(
        self,
        queue_arn: str,
        body: str,
        *,
        attributes: Mapping[str, str] | None = None,
        trace: str | None = None,
        group: str | None = None,
    ) -> NewMessage:
        queue = self._find(queue_arn)
        if queue is None:
            raise ApiError("QueueDoesNotExist", f"There is no queue {queue_arn}.")
        return self._message(queue, body, attributes=attributes, trace=trace, group=group)


def no_queue() -> Failed:
    """The queue is not there; the text is AWS's."""
    return Failed(
        "NO_RESOURCE",
        "The specified queue does not exist or you do not have access to it. (Service: AmazonSQS; Status Code: 400; "
        f"Error Code: AWS.SimpleQueueService.NonExistentQueue; Request ID: {uuid4()}; Proxy: null)",
    )


def refusal(error: ApiError, queue_arn: str) -> Failed:
    """What the queue's own answer means for the delivery."""
    if error.code in _ABSENT:
        return no_queue()
    if error.code in _DENIED:
        return Failed(
            "NO_PERMISSIONS",
            f"User: events.amazonaws.com is not authorized to perform: sqs:sendmessage on resource: {queue_arn} "
            "because no resource-based policy allows the sqs:sendmessage action (Service: AmazonSQS; Status Code: 403; "
            f"Error Code: AccessDenied; Request ID: {uuid4()}; Proxy: null)",
        )
    return Failed(
        "INVALID_PARAMETER",
        f"{error.message} (Service: AmazonSQS; Status Code: {error.status or 400}; Error Code: {error.code}; "
        f"Request ID: {uuid4()}; Proxy: null)",
    )


_ABSENT = {"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"}
_DENIED = {"AccessDenied", "AccessDeniedException"}


_NOT_TAKEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def takeable(body: bytes) -> str:
    """A body as a queue takes it: a space stands for each character that it refuses, and for a body that is empty."""
    return _NOT_TAKEN.sub(" ", body.decode(errors="replace")) or " "


def presentable(attributes: Mapping[str, str]) -> dict[str, str]:
    """A queue takes no control characters and no empty value, and what a target said may hold either."""
    presentable = {name: "".join(c if c.isprintable() else " " for c in value) for name, value in attributes.items()}
    if "ERROR_MESSAGE" in presentable:
        presentable["ERROR_MESSAGE"] = presentable["ERROR_MESSAGE"][:ERROR_MESSAGE_LENGTH] or "No message."
    return presentable
