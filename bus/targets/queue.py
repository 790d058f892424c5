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
from bus.permissions.principals import sender_name
from bus.store import NewMessage
from bus.targets import Delivered, Delivery, Failed, Outcome, Route, Slot, Target

ERROR_MESSAGE_LENGTH = 1024
"""Longest ERROR_MESSAGE of a dead letter, so that what a target said cannot make the letter too large to keep."""

Queue = TypeVar("Queue")
QueueIn = TypeVar("QueueIn", contravariant=True)

NO_QUEUE = "AWS.SimpleQueueService.NonExistentQueue"

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

    ``slot`` says where messages for a queue go that need no look of their own, None where each does.
    ``refuses`` says why a queue takes nothing from a rule (its ARN, and the target's role); None when it does. What
    names a queue that is not among them goes to ``elsewhere``, where there is such a target.
    """

    def __init__(
        self,
        find: Callable[[str], Queue | None],
        message: MakeMessage[Queue],
        *,
        slot: Callable[[Queue], Slot | None] = lambda queue: None,
        refuses: Callable[[Queue, str, str | None], str | None] = lambda queue, rule_arn, role: None,
        elsewhere: Target | None = None,
    ) -> None:
        self._find = find
        self._message = message
        self._slot = slot
        self._refuses = refuses
        self._elsewhere = elsewhere

    def slot(self, route: Route) -> Slot | None:
        target = route.target
        if not route.bus or target.get("SqsParameters"):
            return None
        try:
            queue = self._find(route.arn)
            if queue is None or self._refuses(queue, route.rule_arn, target.get("RoleArn")) is not None:
                return None
            return self._slot(queue)
        except Exception:  # meets whoever looks at each event, who tells what came of it
            return None

    def deliver_now(self, delivery: Delivery) -> Outcome:
        arn = delivery.route.arn
        fifo = delivery.route.target.get("SqsParameters")
        group = fifo.get("MessageGroupId") if fifo else None
        # The bus has written it; the input of a schedule, which has no bus, is any text.
        json = delivery.body is delivery.event and delivery.route.bus != ""
        try:
            queue = self._find(arn)
            if queue is None:
                return no_queue()
            self._demand(queue, arn, delivery.route.rule_arn, delivery.route.target.get("RoleArn"))
            body = delivery.body.decode()
            return Delivered((self._message(queue, body, trace=delivery.trace, group=group, json=json),))
        except ApiError as error:
            return refusal(error)
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
        queue = self._find(queue_arn)
        if queue is None:
            raise ApiError("QueueDoesNotExist", f"There is no queue {queue_arn}.")
        if "RULE_ARN" in attributes:
            self._demand(queue, queue_arn, attributes["RULE_ARN"], None)
        return self._message(queue, takeable(body), attributes=presentable(attributes), trace=trace)

    def _demand(self, queue: Queue, queue_arn: str, rule_arn: str, role: str | None) -> None:
        """Raise unless the queue takes messages from the rule."""
        reason = self._refuses(queue, rule_arn, role)
        if reason is not None:
            who = sender_name(rule_arn, role)
            text = f"User: {who} is not authorized to perform: sqs:sendmessage on resource: {queue_arn} {reason}"
            raise ApiError("AccessDenied", text, 403)


def no_queue() -> Failed:
    """The queue is not there; the text is AWS's."""
    return Failed(
        "NO_RESOURCE",
        "The specified queue does not exist or you do not have access to it." + _service_error(400, NO_QUEUE),
        cause=NO_QUEUE,
    )


def refusal(error: ApiError) -> Failed:
    """What the queue's own answer means for the delivery."""
    if error.code in _ABSENT:
        return no_queue()
    if error.code in _DENIED:
        return Failed("NO_PERMISSIONS", error.message + _service_error(403, "AccessDenied"), cause="AccessDenied")
    message = error.message + _service_error(error.status or 400, error.code)
    return Failed("INVALID_PARAMETER", message, cause=error.code)


def _service_error(status: int, code: str) -> str:
    """How AWS ends the error that a service answered."""
    return f" (Service: AmazonSQS; Status Code: {status}; Error Code: {code}; Request ID: {uuid4()}; Proxy: null)"


_ABSENT = {"QueueDoesNotExist", NO_QUEUE}
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
