"""The errors of SQS: each shape's second code and status, and the few constructors that operations share."""

from __future__ import annotations

from collections.abc import Mapping

from bus.errors import ApiError

_PREFIX = "AWS.SimpleQueueService."

ERROR_CODES: Mapping[str, tuple[str, int]] = {
    "QueueDoesNotExist": (_PREFIX + "NonExistentQueue", 400),
    "QueueNameExists": ("QueueAlreadyExists", 400),
    "QueueDeletedRecently": (_PREFIX + "QueueDeletedRecently", 400),
    "PurgeQueueInProgress": (_PREFIX + "PurgeQueueInProgress", 403),
    "InvalidParameterValueException": ("InvalidParameterValue", 400),
    "MissingRequiredParameterException": ("MissingParameter", 400),
    "InvalidAttributeName": ("InvalidAttributeName", 400),
    "InvalidAttributeValue": ("InvalidAttributeValue", 400),
    "InvalidMessageContents": ("InvalidMessageContents", 400),
    "ReceiptHandleIsInvalid": ("ReceiptHandleIsInvalid", 400),
    "MessageNotInflight": (_PREFIX + "MessageNotInflight", 400),
    "OverLimit": ("OverLimit", 403),
    "BatchRequestTooLong": (_PREFIX + "BatchRequestTooLong", 400),
    "TooManyEntriesInBatchRequest": (_PREFIX + "TooManyEntriesInBatchRequest", 400),
    "EmptyBatchRequest": (_PREFIX + "EmptyBatchRequest", 400),
    "InvalidBatchEntryId": (_PREFIX + "InvalidBatchEntryId", 400),
    "BatchEntryIdsNotDistinct": (_PREFIX + "BatchEntryIdsNotDistinct", 400),
    "ResourceNotFoundException": ("ResourceNotFoundException", 404),
    "UnsupportedOperation": (_PREFIX + "UnsupportedOperation", 400),
    "AccessDeniedException": ("AccessDenied", 403),
    "RequestThrottled": ("RequestThrottled", 403),
    "InvalidAction": ("InvalidAction", 400),
    "SerializationException": ("SerializationException", 400),
}
"""Shape name to (the code that clients of the query protocol knew, HTTP status)."""


def code_of(error: ApiError) -> str:
    """The query code of an error, which a failed batch entry carries."""
    return ERROR_CODES[error.code][0]


def invalid(message: str) -> ApiError:
    """A parameter's value cannot be taken."""
    return ApiError("InvalidParameterValueException", message)


def invalid_value(value: object, parameter: str, reason: str) -> ApiError:
    """The same, in the words that name the value, the parameter and the reason."""
    return invalid(f"Value {value} for parameter {parameter} is invalid. Reason: {reason}")


def missing(parameter: str) -> ApiError:
    """A parameter has to be given."""
    return ApiError("MissingRequiredParameterException", f"The request must contain the parameter {parameter}.")


def no_queue() -> ApiError:
    """The queue is not there."""
    return ApiError("QueueDoesNotExist", "The specified queue does not exist.")


def integer(value: int | None, parameter: str, low: int, high: int, *, default: int) -> int:
    """An optional number of a request within its range."""
    if value is None:
        return default
    if not low <= value <= high:
        raise invalid_value(value, parameter, _RANGE.get(parameter, _AT_LEAST).format(low=low, high=high))
    return value


_AT_LEAST = "Must be >= {low} and <= {high}, if provided."
_RANGE = {
    "MaxNumberOfMessages": "Must be between {low} and {high}, if provided.",
    "MaxResults": "Must be between {low} and {high}, if provided.",
    "MaxNumberOfMessagesPerSecond": "Must be between {low} and {high}, if provided.",
    "DelaySeconds": "DelaySeconds must be >= {low} and <= {high}.",
}
