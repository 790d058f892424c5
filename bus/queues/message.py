"""A message on its way in (checks, size, digest, what is stored) and on its way out (what a receiver asked for)."""

from __future__ import annotations

import binascii
import re
from base64 import b32encode, b64decode
from collections.abc import Callable, Mapping, Sequence
from hashlib import md5, sha256
from typing import Any, NamedTuple

import orjson

from bus.errors import ApiError
from bus.queues import receipt
from bus.queues.attributes import READABLE, unknown
from bus.queues.errors import integer, invalid, invalid_value, missing
from bus.queues.queue import DEDUP_WINDOW_MS, Queue
from bus.store import NewMessage
from bus.store.message_upkeep import Browsed
from bus.store.messages import Received, dedup_name

MAX_ATTRIBUTES = 10
MAX_DELAY = 900
TRACE_HEADER = "AWSTraceHeader"

Attributes = Mapping[str, Sequence[str]]
"""Name to (data type, value); a binary value is base64 text."""


# --- checks -----------------------------------------------------------------------------------------------------------

_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\r")
_NOT_CHARACTERS = (b"\xef\xbf\xbe", b"\xef\xbf\xbf")


def byte_length(text: str) -> int:
    """Bytes of a text in UTF-8; InvalidMessageContents for characters that no message can hold."""
    if text.isascii() and text.isprintable():
        return len(text)  # what nearly every message is, for a third of the price
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise _bad_characters() from None
    if len(raw.translate(None, _CONTROLS)) != len(raw):
        raise _bad_characters()
    if not text.isascii() and any(code in raw for code in _NOT_CHARACTERS):
        raise _bad_characters()
    return len(raw)


def _bad_characters() -> ApiError:
    return ApiError(
        "InvalidMessageContents",
        "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | "
        "#x10000 to #x10FFFF",
    )


def too_long(limit: int, *, in_batch: bool = False) -> ApiError:
    """The message does not fit the queue; a batch has words of its own for it."""
    verb = "cannot be validated" if in_batch else "are invalid"
    return invalid(f"One or more parameters {verb}. Reason: Message must be shorter than {limit} bytes.")


_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_TYPE = re.compile(r"(String|Number|Binary)(\..{1,248})?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_MAX_DIGITS = 38


def given_attributes(given: Mapping[str, Mapping[str, Any]] | None) -> dict[str, list[str]]:
    """The MessageAttributes of a request, checked."""
    if not given:
        return {}
    if len(given) > MAX_ATTRIBUTES:
        raise invalid(f"Number of message attributes [{len(given)}] exceeds the allowed maximum [{MAX_ATTRIBUTES}].")
    return {name: _attribute(name, value) for name, value in given.items()}


def given_strings(given: Mapping[str, str]) -> dict[str, list[str]]:
    """Attributes that are all Strings, checked."""
    return given_attributes({name: {"DataType": "String", "StringValue": value} for name, value in given.items()})


def _attribute(name: str, given: Mapping[str, Any]) -> list[str]:
    _check_name(name)
    if given.get("StringListValues") or given.get("BinaryListValues"):
        raise invalid("Message attribute list values in SendMessage operation are not supported.")
    data_type = given.get("DataType") or ""
    kind = _TYPE.fullmatch(data_type)
    if kind is None:
        raise invalid(
            "Type for parameter MessageAttributes.Attribute_name.DataType must be prefixed with the String, Binary, or "
            "Number data type."
        )
    value = given.get("BinaryValue" if kind[1] == "Binary" else "StringValue") or ""
    if not value:
        raise invalid(f"Message (user) attribute '{name}' must contain a non-empty value of type '{kind[1]}'.")
    if kind[1] == "Number" and not _is_number(value):
        raise invalid(f"Can't cast the value of message (user) attribute '{name}' to a number.")
    if kind[1] == "Binary":
        _check_base64(name, value)
    else:
        byte_length(value)
    return [data_type, value]


def _check_name(name: str) -> None:
    if len(name) > 256:
        raise invalid("Message (user) attribute names must be shorter than 256 Bytes")
    if not _NAME.fullmatch(name):
        raise invalid(
            "Message (user) attribute names can only include alphanumeric characters, hyphens, underscores and periods."
        )
    if name.lower().startswith(("aws.", "amazon.")) or name.startswith(".") or name.endswith("."):
        raise invalid(
            "You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. These strings are reserved for "
            "internal use. Additionally, they cannot start or end with '.'."
        )


def _is_number(text: str) -> bool:
    if not _NUMBER.fullmatch(text):
        return False
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("+-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if len(digits.rstrip("0")) > _MAX_DIGITS:
        return False
    # Where the first significant digit stands decides the magnitude: -10^128 to 10^126.
    magnitude = len(digits) - len(fraction) + int(exponent or 0) if digits else 0
    power = digits.rstrip("0") == "1"
    limit = 128 if text.startswith("-") else 126
    return magnitude <= limit or (power and magnitude == limit + 1)


def _check_base64(name: str, value: str) -> None:
    try:
        b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"Message (user) attribute '{name}' must contain a value in base64.") from None


def given_trace(given: Mapping[str, Mapping[str, Any]] | None) -> str | None:
    """The trace header among the MessageSystemAttributes of a request, which can hold nothing else."""
    trace = None
    for name, value in (given or {}).items():
        if name != TRACE_HEADER:
            raise invalid(f"Message system attribute name '{name}' is invalid.")
        if value.get("DataType") != "String" or not value.get("StringValue"):
            raise invalid(f"Message (system) attribute '{name}' must contain a non-empty value of type 'String'.")
        trace = str(value["StringValue"])
        byte_length(trace)
    return trace


def size_of(attributes: Attributes) -> int:
    """Bytes that attributes add to a message: names, types and values."""
    return sum(
        len(name) + len(data_type.encode()) + len(_value_bytes(data_type, value))
        for name, (data_type, value) in attributes.items()
    )


def _value_bytes(data_type: str, value: str) -> bytes:
    return b64decode(value) if data_type.startswith("Binary") else value.encode()


def digest(attributes: Attributes) -> str:
    """MD5 over the attributes in order of name, as SDKs compute it to compare."""
    parts = []
    for name in sorted(attributes):
        data_type, value = attributes[name]
        binary = data_type.startswith("Binary")
        parts += [_measured(name.encode()), _measured(data_type.encode()), b"\x02" if binary else b"\x01"]
        parts.append(_measured(_value_bytes(data_type, value)))
    return md5(b"".join(parts), usedforsecurity=False).hexdigest()


def _measured(raw: bytes) -> bytes:
    return len(raw).to_bytes(4, "big") + raw


def body_digest(body: str) -> str:
    """MD5 of a body."""
    return md5(body.encode(), usedforsecurity=False).hexdigest()


def digests(body: str, attributes: Attributes, trace: str | None) -> dict[str, Any]:
    """The digests that the answer to a send carries."""
    found = {"MD5OfMessageBody": body_digest(body)}
    if attributes:
        found["MD5OfMessageAttributes"] = digest(attributes)
    if trace:
        found["MD5OfMessageSystemAttributes"] = digest({TRACE_HEADER: ("String", trace)})
    return found


# --- what is stored ---------------------------------------------------------------------------------------------------

_ID = re.compile(r"[!-~]{1,128}")


def check_id(value: str | None, parameter: str) -> None:
    """Raise for a group, deduplication or attempt id outside the grammar of all three."""
    if value is not None and not _ID.fullmatch(value):
        reason = f"{parameter} can only include alphanumeric and punctuation characters. 1 to 128 in length."
        raise invalid_value(value, parameter, reason)


def check_fifo_ids(queue: Queue, group: str | None, dedup_id: str | None) -> None:
    """What a FIFO queue needs of a message to place it."""
    if group is None:
        raise missing("MessageGroupId")
    if dedup_id is None and not queue.content_dedup:
        raise invalid(
            "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided "
            "explicitly"
        )


def check_ids(queue: Queue, group: str | None, dedup_id: str | None) -> None:
    """Whether the ids of a message are well-formed and right for the kind of queue."""
    check_id(group, "MessageGroupId")
    if queue.fifo:
        check_fifo_ids(queue, group, dedup_id)
        check_id(dedup_id, "MessageDeduplicationId")
    elif dedup_id is not None:
        reason = "The request includes a parameter that is not valid for this queue type."
        raise invalid_value(dedup_id, "MessageDeduplicationId", reason)


def delay_of(queue: Queue, seconds: int | None) -> int:
    """Milliseconds for which a new message is delayed; a message of a FIFO queue has no delay of its own."""
    integer(seconds, "DelaySeconds", 0, MAX_DELAY, default=0)
    if seconds is None or (queue.fifo and seconds == 0):
        return queue.delay_ms
    if queue.fifo:
        reason = "The request include parameter that is not valid for this queue type."
        raise invalid_value(seconds, "DelaySeconds", reason)
    return seconds * 1000


def name_in_memory(queue: Queue, body: str, group: str | None, dedup_id: str | None) -> str:
    """A message's name in its FIFO queue's deduplication memory."""
    own = dedup_id if dedup_id is not None else sha256(body.encode()).hexdigest()
    return dedup_name(own, group if queue.by_group else None)


def packed(attributes: Attributes, trace: str | None, sender: str | None) -> bytes | None:
    """What travels beside the body, in the form in which it is stored."""
    members = (("a", attributes), ("t", trace), ("s", sender))
    held = {name: value for name, value in members if value}
    return orjson.dumps(held) if held else None


def for_fifo(
    queue: Queue,
    body: str,
    now: int,
    message_id: str,
    *,
    attrs: bytes | None,
    group: str | None,
    dedup_id: str | None = None,
) -> NewMessage:
    """A checked message for a FIFO queue as the store takes it."""
    name = name_in_memory(queue, body, group, dedup_id)
    visible, since = now + queue.delay_ms, now - DEDUP_WINDOW_MS
    return NewMessage(queue.number, message_id, visible, now, body, attrs, group, name, since)


def sequence_number(number: int) -> str:
    """20 digits that rise with the order of arrival."""
    return f"1{number:019d}"


def sender_of(identity: str) -> str:
    """An opaque user id that is always the same for an access key or account."""
    return "AIDA" + b32encode(sha256(identity.encode()).digest()).decode()[:17]


# --- what a receiver asked for ----------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """The system attributes and message attributes that a receive asked for."""

    system: frozenset[str]
    names: tuple[str, ...]

    def takes(self, name: str) -> bool:
        """Whether the message attribute was asked for, by its name or by a beginning."""
        return any(
            wanted in ("All", "*", ".*", name) or (wanted.endswith(".*") and name.startswith(wanted[:-2]))
            for wanted in self.names
        )


class _Out(NamedTuple):
    """A received message with its stored attributes unpacked."""

    queue: Queue
    row: Received
    beside: Mapping[str, Any]


def _dedup_id(out: _Out) -> str | None:
    return out.row.dedup if out.queue.fifo else None


_SYSTEM: Mapping[str, Callable[[_Out], str | None]] = {
    "SenderId": lambda out: out.beside.get("s") or sender_of(out.queue.scope.account),
    "SentTimestamp": lambda out: str(out.row.sent),
    "ApproximateReceiveCount": lambda out: str(out.row.receives),
    "ApproximateFirstReceiveTimestamp": lambda out: str(out.row.first_received),
    "SequenceNumber": lambda out: sequence_number(out.row.number) if out.queue.fifo else None,
    "MessageDeduplicationId": _dedup_id,
    "MessageGroupId": lambda out: out.row.group,
    TRACE_HEADER: lambda out: out.beside.get("t"),
    "DeadLetterQueueSourceArn": lambda out: out.row.origin,
}


def wanted(request: Mapping[str, Any]) -> Wanted:
    """What a ReceiveMessage request asks for; InvalidAttributeName for a system attribute that does not exist."""
    names = [*(request.get("AttributeNames") or ()), *(request.get("MessageSystemAttributeNames") or ())]
    for name in names:
        if name not in _SYSTEM and name not in READABLE:
            raise unknown(name)
    system = frozenset(_SYSTEM) if "All" in names else frozenset(names) & frozenset(_SYSTEM)
    return Wanted(system, tuple(request.get("MessageAttributeNames") or ()))


def unpacked(attrs: bytes | None) -> Mapping[str, Any]:
    """What `packed` made: ``a`` the attributes, ``t`` the trace header, ``s`` the sender, each only when there."""
    beside: Mapping[str, Any] = orjson.loads(attrs) if attrs else {}
    return beside


def shown(queue: Queue, row: Received, asked: Wanted) -> dict[str, Any]:
    """A message as ReceiveMessage answers it."""
    out = _Out(queue, row, unpacked(row.attrs))
    answer: dict[str, Any] = {
        "MessageId": row.message_id,
        "ReceiptHandle": receipt.handle(queue, receipt.Receipt(row.number, row.message_id, row.receives)),
        "MD5OfBody": body_digest(row.body),
        "Body": row.body,
    }
    system = {name: value for name in _SYSTEM if name in asked.system and (value := _SYSTEM[name](out)) is not None}
    if system:
        answer["Attributes"] = system
    attributes: Attributes = {name: value for name, value in out.beside.get("a", {}).items() if asked.takes(name)}
    if attributes:
        answer["MD5OfMessageAttributes"] = digest(attributes)
        answer["MessageAttributes"] = {name: _as_given(*value) for name, value in attributes.items()}
    return answer


def _as_given(data_type: str, value: str) -> dict[str, str]:
    return {"BinaryValue" if data_type.startswith("Binary") else "StringValue": value, "DataType": data_type}


# --- what an operator sees --------------------------------------------------------------------------------------------


class Letter(NamedTuple):
    """A message as an operator sees it; ``attributes`` are its message attributes as texts."""

    number: int
    message_id: str
    sent: int
    receives: int
    body: str
    attributes: Mapping[str, str]
    trace: str | None


def letter(row: Browsed) -> Letter:
    """A browsed message with what travels beside its body unpacked."""
    beside = unpacked(row.attrs)
    attributes = {name: value for name, (_, value) in beside.get("a", {}).items()}
    return Letter(row.number, row.message_id, row.sent, row.receives, row.body, attributes, beside.get("t"))
