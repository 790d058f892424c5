"""The HTTP request that brings an event to an API destination: what each of its parts is made of.

A pure function from the destination, the target's HttpParameters, the connection's parameters, the event and the body
to the bytes of a request. Where several sources give the same header, query parameter or member of the body, the
connection's goes before the target's, and the target's before the endpoint's own.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import quote, unquote

from bus.connections.parameters import API_KEY, BASIC, BLOCKS, INVOCATION, Parameters, entries
from bus.https_endpoint import read_endpoint
from bus.targets.http_client import Origin
from rules import exact
from rules.header import header_value, is_token
from rules.paths import MISSING, Path, PathError

USER_AGENT = "Amazon/EventBridge/ApiDestinations"
CONTENT_TYPE = "application/json; charset=utf-8"
BODILESS = frozenset({"GET", "HEAD"})
"""Methods whose requests carry no body: much of what stands between here and there refuses one."""

FIXED = (
    ("User-Agent", USER_AGENT),
    ("Accept-Encoding", "gzip,deflate"),
    ("Range", "bytes=0-1048575"),
    ("Connection", "close"),
)

STRIPPED = frozenset(
    name.lower()
    for name in (
        "A-IM", "Accept-Charset", "Accept-Datetime", "Accept-Encoding", "Cache-Control", "Connection",
        "Content-Encoding", "Content-Length", "Content-MD5", "Date", "Expect", "Forwarded", "From", "Host",
        "HTTP2-Settings", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since",
        "Max-Forwards", "Origin", "Pragma", "Proxy-Authorization", "Range", "Referer", "TE", "Trailer",
        "Transfer-Encoding", "User-Agent", "Upgrade", "Via", "Warning",
    )
)  # fmt: skip
"""Headers that neither a target nor a connection can set."""


class InvocationError(ValueError):
    """No request can be made of it, now or later; the message holds no value of the event or of a connection."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """A request, ready to be sent; ``place`` names the other side without path and query, which may hold secrets."""

    origin: Origin
    request: bytes = field(repr=False)
    place: str


def invocation(
    endpoint: str,
    method: str,
    *,
    target: Parameters,
    connection: Parameters,
    token: str | None,
    event: bytes,
    body: bytes,
    trace: str | None = None,
) -> Invocation:
    """The request; ``target`` are HttpParameters, ``connection`` AuthParameters. Raises `InvocationError`."""
    url = read_endpoint(endpoint)
    http, read = connection.get(INVOCATION), _Event(event).value
    path = _path(url.raw_path, [read(text) for text in target.get("PathParameterValues") or ()])
    given = [(key, read(text)) for key, text in (target.get("QueryStringParameters") or {}).items()]
    query = _query(url.raw_query_string, given, list(entries(http, "QueryStringParameters")))
    headers = _headers(
        [(key, read(text)) for key, text in (target.get("HeaderParameters") or {}).items()],
        entries(http, "HeaderParameters"),
        credentials(connection, token),
    )
    if trace is not None:
        headers["x-amzn-trace-id"] = ("X-Amzn-Trace-Id", trace)
    sent = None if method in BODILESS else _body(body, dict(entries(http, "BodyParameters")))
    return Invocation(
        origin=Origin(url.scheme == "https", url.raw_host or "", url.port or 0),
        request=_request(method, path + query, url.host_port_subcomponent or "", headers.values(), sent),
        place=str(url.origin()),
    )


def credentials(connection: Parameters, token: str | None) -> list[tuple[str, str]]:
    """The header that proves who calls."""
    if token is not None:
        return [("Authorization", f"Bearer {token}")]
    if BLOCKS[BASIC] in connection:
        block = connection[BLOCKS[BASIC]]
        pair = f"{block['Username']}:{block['Password']}".encode()
        return [("Authorization", f"Basic {base64.b64encode(pair).decode()}")]
    if BLOCKS[API_KEY] in connection:
        block = connection[BLOCKS[API_KEY]]
        return [(block["ApiKeyName"].strip(), block["ApiKeyValue"])]
    return []


# --- parts -----------------------------------------------------------------------------------------------------------


class _Event:
    """The event as it came, parsed when a parameter first asks for something in it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    @cached_property
    def _parsed(self) -> Any:
        return exact.load(self._body)

    def value(self, text: str) -> str:
        """A parameter's value: of the form ``$.path`` it is read from the event, and empty where that has none."""
        if not text.startswith("$."):
            return text
        try:
            found = _path_of(text).find(self._parsed)
        except (PathError, ValueError):
            return text
        if found is None or found is MISSING:
            return ""
        return str(found) if isinstance(found, str) else exact.dump(found).decode("utf-8", "replace")


_path_of = lru_cache(1024)(Path.parse)


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="replace")


def _path(path: str, values: list[str]) -> str:
    """Each ``*`` replaced by the next value; asterisks without one stay."""
    remaining = iter(values)

    def fill(asterisk: re.Match[str]) -> str:
        value = next(remaining, None)
        return "*" if value is None else _quoted(value)

    filled = re.sub(r"\*", fill, path)
    if filled != path and any(segment in (".", "..") for segment in filled.split("/")):
        raise InvocationError("A path parameter must not make a path lead upwards.")
    return filled


def _query(own: str, target: list[tuple[str, str]], connection: list[tuple[str, str]]) -> str:
    given = dict(connection)
    given |= {key: value for key, value in target if key not in given}
    pairs = [pair for pair in own.split("&") if pair and unquote(pair.partition("=")[0]) not in given]
    pairs += [f"{_quoted(key)}={_quoted(value)}" for key, value in given.items()]
    return "?" + "&".join(pairs) if pairs else ""


def _headers(*sources: Iterable[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Headers by name in lower case; later sources go before earlier ones."""
    headers: dict[str, tuple[str, str]] = {}
    for source in sources:
        for name, value in source:
            if not is_token(name):
                raise InvocationError("A header parameter has a name that no header can have.")
            if name.lower() not in STRIPPED:
                headers[name.lower()] = (name, header_value(value))
    return headers


def _body(body: bytes, parameters: Mapping[str, str]) -> bytes:
    """The body with the connection's parameters as members, where it is a JSON object."""
    if not parameters:
        return body
    try:
        value: Any = exact.load(body)
    except ValueError:
        return body
    return exact.dump({**value, **parameters}) if isinstance(value, dict) else body


def _request(method: str, target: str, host: str, headers: Iterable[tuple[str, str]], body: bytes | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in FIXED)]
    given = list(headers)
    lines += [f"{name}: {value}" for name, value in given]
    if body is not None:
        if not any(name.lower() == "content-type" for name, _ in given):
            lines.append(f"Content-Type: {CONTENT_TYPE}")
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace") + (body or b"")
