"""Receipts: their handles, opaque to clients and enough for us to tell a wrong one from an old one; and their use."""

from __future__ import annotations

import binascii
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple

import apsw

from bus.errors import ApiError
from bus.queues.errors import integer, invalid_value, missing
from bus.queues.queue import Queue
from bus.store import messages
from bus.store.messages import Held

MAX_VISIBILITY = 43_200
"""Seconds, both of one timeout and of a receive however often it is extended."""


class Receipt(NamedTuple):
    """One receive of one message: the message's number and id, and how often it had then been received."""

    number: int
    message_id: str
    receives: int


def handle(queue: Queue, receipt: Receipt) -> str:
    """The receipt as a client gets it; ``uid`` survives a purge, so that old handles stay valid."""
    text = f"{queue.record.uid}:{receipt.number}:{receipt.receives}:{receipt.message_id}"
    return urlsafe_b64encode(text.encode()).decode()


def read(queue: Queue, text: str) -> Receipt:
    """The receipt in a handle; ReceiptHandleIsInvalid when it is none of this queue's."""
    if not text:
        raise missing("ReceiptHandle")
    try:
        uid, number, receives, message_id = b64decode(text, altchars=b"-_", validate=True).decode().split(":")
        receipt = Receipt(int(number), message_id, int(receives))
        if int(uid) == queue.record.uid and 0 <= receipt.number < 1 << 63:
            return receipt
    except (binascii.Error, ValueError):
        pass
    raise ApiError("ReceiptHandleIsInvalid", f'The input receipt handle "{text}" is not a valid receipt handle.')


def delete(connection: apsw.Connection, queue: Queue, given: Mapping[str, Any], now: int) -> None:
    """Delete the message of a receipt. A standard queue takes any receipt of it, a FIFO queue only one that holds."""
    text = given.get("ReceiptHandle") or ""
    used = read(queue, text)
    held = _held(connection, queue, used, now)
    if held is None:
        return
    if queue.fifo and not _holds(held, used, now):
        raise _expired(text)
    messages.delete(connection, used.number)


def change_visibility(connection: apsw.Connection, queue: Queue, given: Mapping[str, Any], now: int) -> None:
    """Make the message of a receipt visible so many seconds from now."""
    seconds = visibility(given, queue)
    text = given.get("ReceiptHandle") or ""
    used = read(queue, text)
    held = _held(connection, queue, used, now)
    if held is None:
        reason = "Message does not exist or is not available for visibility timeout change."
        raise invalid_value(text, "ReceiptHandle", reason)
    if not _holds(held, used, now):
        if queue.fifo:
            raise _expired(text)
        return
    if now + seconds * 1000 > held.received + MAX_VISIBILITY * 1000:
        reason = f"Total VisibilityTimeout for the message is beyond the limit [{MAX_VISIBILITY} seconds]"
        raise invalid_value(seconds, "VisibilityTimeout", reason)
    messages.set_visible(connection, used.number, now + seconds * 1000)


def visibility(given: Mapping[str, Any], queue: Queue) -> int:
    """The VisibilityTimeout of a request, or else the queue's."""
    return integer(given.get("VisibilityTimeout"), "VisibilityTimeout", 0, MAX_VISIBILITY, default=queue.visibility)


def _held(connection: apsw.Connection, queue: Queue, used: Receipt, now: int) -> Held | None:
    """The message of a receipt, None when it is gone or expired."""
    held = messages.held(connection, queue.number, used.number, used.message_id)
    return None if held is None or held.sent <= now - queue.retention_ms else held


def _holds(held: Held, used: Receipt, now: int) -> bool:
    """Whether the receipt is the latest, and the message still in flight."""
    return held.receives == used.receives and held.visible > now


def _expired(text: str) -> ApiError:
    return invalid_value(text, "ReceiptHandle", "The receipt handle has expired.")
