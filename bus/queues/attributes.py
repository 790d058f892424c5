"""The attributes of a queue: what may be set, to which values, and what each comes to.

A queue keeps only what was set on it, as text in the form in which it is given back; everything else is a default.
The table is the single place where names, ranges and defaults stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bus.errors import ApiError
from bus.queues.errors import invalid, invalid_value

Normal = Callable[[str, str], str]
"""(name, value as given) to the value as kept; raises ApiError."""


def _bad_value(name: str) -> ApiError:
    return ApiError("InvalidAttributeValue", f"Invalid value for the parameter {name}.")


def _number(low: int, high: int) -> Normal:
    def normal(name: str, value: str) -> str:
        if not re.fullmatch(r"[0-9]{1,10}", value) or not low <= int(value) <= high:
            raise _bad_value(name)
        return str(int(value))

    return normal


def _one_of(*allowed: str) -> Normal:
    def normal(name: str, value: str) -> str:
        if value not in allowed:
            raise _bad_value(name)
        return value

    return normal


def _text(name: str, value: str) -> str:
    return value


def _object(name: str, value: str) -> dict[str, Any]:
    try:
        document = orjson.loads(value)
    except ValueError:
        raise _bad_value(name) from None
    if not isinstance(document, dict):
        raise _bad_value(name)
    return document


def _policy(name: str, value: str) -> str:
    _object(name, value)
    return value


def _redrive_policy(name: str, value: str) -> str:
    document = _object(name, value)
    unknown = document.keys() - {"deadLetterTargetArn", "maxReceiveCount"}
    if unknown:
        raise invalid_value(value, name, f"Unknown member {sorted(unknown)[0]}.")
    if not isinstance(document.get("deadLetterTargetArn"), str):
        raise invalid("The required parameter 'deadLetterTargetArn' is missing")
    times = document.get("maxReceiveCount", DEFAULT_MAX_RECEIVES)
    if type(times) not in (int, str) or not re.fullmatch(r"[0-9]{1,4}", str(times)) or not 1 <= int(times) <= 1000:
        reason = f"Invalid value for maxReceiveCount: {times}, valid values are from 1 to 1000 both inclusive."
        raise invalid_value(value, name, reason)
    return orjson.dumps({"deadLetterTargetArn": document["deadLetterTargetArn"], "maxReceiveCount": times}).decode()


def _redrive_allow_policy(name: str, value: str) -> str:
    document = _object(name, value)
    sources = document.get("sourceQueueArns")
    if document.keys() - {"redrivePermission", "sourceQueueArns"}:
        raise invalid_value(value, name, "Only redrivePermission and sourceQueueArns are known.")
    permission = document.get("redrivePermission", "allowAll")
    if permission not in ("allowAll", "denyAll", "byQueue"):
        raise invalid_value(value, name, "redrivePermission must be allowAll, denyAll or byQueue.")
    if (permission == "byQueue") != (sources is not None):
        raise invalid_value(value, name, "sourceQueueArns goes with redrivePermission byQueue, and only with it.")
    if sources is not None and not _is_arns(sources):
        raise invalid_value(value, name, "sourceQueueArns must be a list of 1 to 10 queue ARNs.")
    return orjson.dumps(document).decode()


def _is_arns(value: object) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 10 and all(isinstance(arn, str) for arn in value)


DEFAULT_MAX_RECEIVES = 10


@dataclass(frozen=True, slots=True)
class Attribute:
    """One settable attribute. ``default`` is None where there is none; ``removable`` ones are taken away by ``""``."""

    normal: Normal
    default: str | None = None
    fifo_only: bool = False
    removable: bool = False


ATTRIBUTES: Mapping[str, Attribute] = {
    "DelaySeconds": Attribute(_number(0, 900), "0"),
    "MaximumMessageSize": Attribute(_number(1024, 1_048_576), "1048576"),
    "MessageRetentionPeriod": Attribute(_number(60, 1_209_600), "345600"),
    "ReceiveMessageWaitTimeSeconds": Attribute(_number(0, 20), "0"),
    "VisibilityTimeout": Attribute(_number(0, 43_200), "30"),
    "Policy": Attribute(_policy, removable=True),
    "RedrivePolicy": Attribute(_redrive_policy, removable=True),
    "RedriveAllowPolicy": Attribute(_redrive_allow_policy, removable=True),
    "FifoQueue": Attribute(_one_of("true"), fifo_only=True),
    "ContentBasedDeduplication": Attribute(_one_of("true", "false"), "false", fifo_only=True),
    "DeduplicationScope": Attribute(_one_of("queue", "messageGroup"), "queue", fifo_only=True),
    "FifoThroughputLimit": Attribute(_one_of("perQueue", "perMessageGroupId"), "perQueue", fifo_only=True),
    "SqsManagedSseEnabled": Attribute(_one_of("true", "false"), "true"),
    "KmsMasterKeyId": Attribute(_text, removable=True),
    "KmsDataKeyReusePeriodSeconds": Attribute(_number(60, 86_400)),
}

COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
READ_ONLY = (*COUNTS, "CreatedTimestamp", "LastModifiedTimestamp", "QueueArn")
READABLE = frozenset(ATTRIBUTES) | frozenset(READ_ONLY) | {"All"}
DEFAULT_KMS_REUSE = "300"


def unknown(name: str) -> ApiError:
    """There is no such attribute, or not on this queue."""
    return ApiError("InvalidAttributeName", f"Unknown Attribute {name}.")


def checked(given: Mapping[str, str], *, fifo: bool, creating: bool) -> dict[str, str]:
    """The attributes of a request in the form in which they are kept; ``""`` stands for "remove"."""
    if given.get("KmsMasterKeyId") and given.get("SqsManagedSseEnabled") == "true":
        raise ApiError("InvalidAttributeName", _ONE_ENCRYPTION)
    return {name: _checked(name, value, fifo=fifo, creating=creating) for name, value in given.items()}


_ONE_ENCRYPTION = (
    "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE."
)


def _checked(name: str, value: str, *, fifo: bool, creating: bool) -> str:
    attribute = ATTRIBUTES.get(name)
    if attribute is None:
        raise unknown(name)
    if attribute.fifo_only and not fifo:
        raise _not_on_standard(name)
    if name == "FifoQueue" and value != "true" and not creating:
        reason = "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported."
        raise ApiError("InvalidAttributeValue", reason)
    if value == "" and attribute.removable:
        return ""
    return attribute.normal(name, value)


def _not_on_standard(name: str) -> ApiError:
    if name in ("DeduplicationScope", "FifoThroughputLimit"):
        text = f"You can specify the {name} only when FifoQueue is set to true."
        return ApiError("InvalidAttributeName", text)
    return unknown(name)


def applied(current: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """What is set after ``changes``; a key of one's own ends encryption by SQS, and the other way round."""
    new = {name: value for name, value in {**current, **changes}.items() if value != ""}
    if changes.get("KmsMasterKeyId"):
        new["SqsManagedSseEnabled"] = "false"
    elif changes.get("SqsManagedSseEnabled") == "true":
        new.pop("KmsMasterKeyId", None)
    if new.get("FifoThroughputLimit") == "perMessageGroupId" and new.get("DeduplicationScope") != "messageGroup":
        reason = "perMessageGroupId requires the DeduplicationScope messageGroup."
        raise ApiError(
            "InvalidAttributeValue", f"Invalid value for the parameter FifoThroughputLimit. Reason: {reason}"
        )
    return new


def value_of(stored: Mapping[str, str], name: str, *, fifo: bool) -> str | None:
    """The value an attribute has on a queue, set or by default; None where it has none."""
    value = stored.get(name)
    if value is not None:
        return value
    if name == "KmsDataKeyReusePeriodSeconds":
        return DEFAULT_KMS_REUSE if "KmsMasterKeyId" in stored else None
    attribute = ATTRIBUTES[name]
    return attribute.default if fifo or not attribute.fifo_only else None


def difference(stored: Mapping[str, str], given: Mapping[str, str], *, fifo: bool) -> str | None:
    """The first attribute given that has another value on the queue; None when all agree."""
    for name, value in given.items():
        if (value_of(stored, name, fifo=fifo) or "") != value:
            return name
    return None
