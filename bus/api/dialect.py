"""The two ways in which AWS's JSON services word an answer: plain, and with the second code of the query protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import orjson

from bus.errors import ApiError

Header = tuple[bytes, bytes]


class Answer(NamedTuple):
    """What goes out, apart from the headers that every answer has (request id, length)."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


class Dialect(Protocol):
    """How one service answers."""

    success: tuple[Header, ...]

    def refusal(self, error: ApiError) -> Answer:
        """The answer for an error that the client is to see."""
        ...

    def fault(self) -> Answer:
        """The answer when the service itself failed; says nothing about the cause."""
        ...

    def unknown(self, operation: str) -> ApiError:
        """The service has no such operation."""
        ...

    def absent(self, operation: str) -> ApiError:
        """AWS has the operation, this server has not."""
        ...


FAULTS = frozenset({"InternalException", "InternalFailure", "ServiceUnavailableException"})


class Plain:
    """AWS JSON with the code alone in ``__type``, and the connection closed after an error."""

    def __init__(self, json_version: str) -> None:
        content_type = (b"content-type", f"application/x-amz-json-{json_version}".encode())
        self.success: tuple[Header, ...] = (content_type,)
        self._failure = (content_type, (b"connection", b"close"))

    def refusal(self, error: ApiError) -> Answer:
        status = error.status or (500 if error.code in FAULTS else 400)
        return Answer(status, self._failure, _body(error.code, error.message))

    def fault(self) -> Answer:
        text = "Service encountered unexpected problem. Please try again."
        return self.refusal(ApiError("InternalException", text))

    def unknown(self, operation: str) -> ApiError:
        return ApiError("UnknownOperationException", f"There is no operation {operation!r}.")

    def absent(self, operation: str) -> ApiError:
        return ApiError("UnknownOperationException", f"{operation} is not available here.")


ACCESS_CODES: dict[str, tuple[str, int]] = {
    "AccessDeniedException": ("AccessDenied", 403),
    "IncompleteSignatureException": ("IncompleteSignature", 403),
    "InternalFailure": ("InternalFailure", 500),
    "InvalidSignatureException": ("SignatureDoesNotMatch", 403),
    "MissingAuthenticationTokenException": ("MissingAuthenticationToken", 403),
    "UnrecognizedClientException": ("InvalidClientTokenId", 403),
}
"""Query codes and statuses of the errors that the wire itself raises; a service's own table comes on top."""


class WithQueryCode:
    """AWS JSON of a service that once spoke the query protocol: a namespaced shape, and a code in a header.

    ``codes`` maps a shape's name to its query code and status; a shape that is missing keeps its name, with 400.
    """

    def __init__(self, json_version: str, namespace: str, codes: Mapping[str, tuple[str, int]]) -> None:
        self.success: tuple[Header, ...] = ((b"content-type", f"application/x-amz-json-{json_version}".encode()),)
        self._namespace = namespace
        self._codes = {**ACCESS_CODES, **codes}

    def refusal(self, error: ApiError) -> Answer:
        code, status = self._codes.get(error.code, (error.code, 400))
        status = error.status or status
        culprit = "Receiver" if status >= 500 else "Sender"
        headers = (*self.success, (b"x-amzn-query-error", f"{code};{culprit}".encode()))
        return Answer(status, headers, _body(f"{self._namespace}#{error.code}", error.message))

    def fault(self) -> Answer:
        return self.refusal(ApiError("InternalFailure", "We encountered an internal error. Please try again."))

    def unknown(self, operation: str) -> ApiError:
        return ApiError("InvalidAction", f"The action {operation} is not valid for this endpoint.")

    def absent(self, operation: str) -> ApiError:
        return ApiError("UnsupportedOperation", f"The operation {operation} is not supported.")


def _body(code: str, message: str) -> bytes:
    return orjson.dumps({"__type": code, "message": message})
