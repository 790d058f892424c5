"""One HTTP request as the wire looks at it, complete with its body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, NamedTuple

import orjson

from bus.errors import ApiError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Request(NamedTuple):
    """``path`` and ``query`` are as sent, still percent-encoded; ``headers`` has the last of headers with one name."""

    method: str
    path: bytes
    query: bytes
    headers: Mapping[bytes, bytes]
    all_headers: Iterable[tuple[bytes, bytes]]
    body: bytes

    @classmethod
    def of(cls, scope: Scope, body: bytes, headers: Mapping[bytes, bytes] | None = None) -> Request:
        """The request of an ASGI scope whose body has been read; ``headers``, if at hand, is dict(scope["headers"])."""
        raw_path = scope.get("raw_path") or scope["path"].encode()
        pairs = scope["headers"]
        named = dict(pairs) if headers is None else headers
        return cls(scope["method"], raw_path, scope["query_string"], named, pairs, body)


class Disconnected(Exception):
    """The client went away before its request was complete; there is no one to answer."""


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The whole body, refused as soon as it is known to be longer than ``limit`` bytes."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    total = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        total += len(chunk)
        if total > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


def _too_large(limit: int) -> ApiError:
    text = f"The request body is larger than {limit} bytes."
    return ApiError("RequestEntityTooLargeException", text, 413)


def parse_json(body: bytes) -> Any:
    """The JSON of a body; an operation without members may be called with none."""
    if not body:
        return {}
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ApiError("SerializationException", f"The body is not JSON in UTF-8: {error.msg} ({where})") from None
