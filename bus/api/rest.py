"""REST-JSON: one ASGI endpoint for the operations that a service tells apart by HTTP method and path.

The service model says where each member of a request travels: in a label of the path (``/schedules/{Name}``), in the
query string, in a header, or in the JSON body. A `Binding` gathers them into the one object that an operation's check
and its method look at, so that capabilities cannot tell which wire a request came by. A request passes these stages,
each of which can refuse it: route, size, content type, access, JSON, shape; then the capability answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

import orjson
import structlog
from botocore.model import OperationModel, Shape  # type: ignore[import-untyped]

from bus.api import Method
from bus.api.dialect import ACCESS_CODES, Answer, Header
from bus.api.model import Operation, Service
from bus.api.request import Disconnected, Receive, Request, Scope, Send, parse_json, read_body
from bus.api.rpc import Gate, find_method, new_request_id, send_answer
from bus.errors import ApiError, StoreUnavailable

log = structlog.get_logger(__name__)

MAX_PARAMETERS = 1000
"""Parameters of a query string; no operation has a use for as many."""

JSON = (b"content-type", b"application/json")
FAULT = "InternalServerException"
FAULT_TEXT = "Unexpected error encountered while processing the request."

_LABEL = re.compile(r"\{(\w+)\}")
_WHOLE = re.compile(r"-?[0-9]{1,18}")


class Binding:
    """Where the members of one operation's request are to be found.

    ``segments`` are those of the path, None where a label stands; ``labels`` names the members of the latter in order.
    """

    def __init__(self, model: OperationModel) -> None:
        self.http_method: str = model.http["method"]
        path = model.http["requestUri"].partition("?")[0].strip("/").split("/")
        members: Mapping[str, Shape] = {} if model.input_shape is None else model.input_shape.members
        places = {name: (shape.serialization.get("location", "body"), _wire_name(name, shape), shape)
                  for name, shape in members.items()}  # fmt: skip
        in_path = {wire: name for name, (place, wire, _) in places.items() if place == "uri"}
        self.segments = tuple(None if _LABEL.fullmatch(part) else part for part in path)
        self.labels = tuple(in_path[found[1]] for part in path if (found := _LABEL.fullmatch(part)))
        self._query = {wire: (name, shape) for name, (place, wire, shape) in places.items() if place == "querystring"}
        self._headers = {
            wire.lower().encode(): (name, shape) for name, (place, wire, shape) in places.items() if place == "header"
        }
        self._body = {wire: name for name, (place, wire, _) in places.items() if place == "body"}

    def gather(self, request: Request, labels: Iterable[str]) -> Any:
        """The request's members as one object; ApiError (SerializationException) where a part is not readable."""
        body = parse_json(request.body)
        if not isinstance(body, dict):
            return body  # the check of the shape says what is wrong with it
        members = {name: body[wire] for wire, name in self._body.items() if wire in body}
        members.update(zip(self.labels, labels, strict=True))
        for wire, texts in _parameters(request.query).items():
            if wire in self._query:
                name, shape = self._query[wire]
                members[name] = _value(shape, texts)
        for wire_header, (name, shape) in self._headers.items():
            if wire_header in request.headers:
                members[name] = _value(shape, [request.headers[wire_header].decode("latin-1")])
        return members


def _wire_name(name: str, shape: Shape) -> str:
    found: str = shape.serialization.get("name", name)
    return found


def _parameters(query: bytes) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError:  # UnicodeDecodeError is one
        raise _unreadable(f"The query string is not UTF-8 with at most {MAX_PARAMETERS} parameters.") from None
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _value(shape: Shape, texts: Sequence[str]) -> Any:
    """Texts of a query string or header as the JSON value that the shape wants; what is none stays as it is."""
    if shape.type_name == "list":
        return [_SCALARS.get(shape.member.type_name, str)(text) for text in texts]
    return _SCALARS.get(shape.type_name, str)(texts[0])


def _number(text: str) -> Any:
    return int(text) if _WHOLE.fullmatch(text) else text


def _flag(text: str) -> Any:
    return {"true": True, "false": False}.get(text, text)


_SCALARS: Mapping[str, Callable[[str], Any]] = {"integer": _number, "long": _number, "boolean": _flag}


def _unreadable(text: str) -> ApiError:
    return ApiError("SerializationException", text)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a method and path lead; ``method`` is None for an operation that no capability has."""

    operation: Operation
    binding: Binding
    method: Method | None


class Found(NamedTuple):
    """A route and what its labels hold."""

    route: Route
    labels: Sequence[str]


class Rest:
    """The ASGI endpoint of one service; ``capabilities`` are searched for every operation's method."""

    def __init__(self, service: Service, capabilities: Sequence[object], *, access: Gate, max_body_bytes: int) -> None:
        self._service = service
        self._access = access
        self._max_body_bytes = max_body_bytes
        self._statuses = {**{code: status for code, (_, status) in ACCESS_CODES.items()}, **service.statuses}
        self._routes = [
            Route(operation, Binding(operation.model), find_method(operation, capabilities)) for operation in service
        ]
        firsts = {route.binding.segments[0] for route in self._routes}
        self.prefixes = tuple(sorted(f"/{first}" for first in firsts if first))
        """How the paths of the service begin."""

    @property
    def offered(self) -> frozenset[str]:
        """The operations that some capability answers, as ``service:Operation``."""
        return frozenset(operation.action for operation, _ in self.methods())

    def methods(self) -> Iterator[tuple[Operation, Method]]:
        """Every operation that some capability answers, with the method that does."""
        return ((route.operation, route.method) for route in self._routes if route.method is not None)

    def serves(self, scope: Scope) -> bool:
        """Whether a request is for this service: its path is one of its own, and it names no AWS JSON operation."""
        first = scope["path"].split("/", 2)[1:2]
        return bool(first) and f"/{first[0]}" in self.prefixes and b"x-amz-target" not in dict(scope["headers"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = new_request_id()
        label: str | None = None
        try:
            found = self._find(scope)
            label = found.route.operation.action
            answer = Answer(200, (JSON,), await self._answer(scope, receive, found))
        except ApiError as error:
            answer = self._refusal(error)
        except Disconnected:
            return
        except StoreUnavailable as error:
            log.error("store unavailable", operation=label, request_id=request_id, reason=str(error))
            answer = self._refusal(ApiError(FAULT, FAULT_TEXT, 500))
        except Exception:
            log.exception("operation failed", operation=label, request_id=request_id)
            answer = self._refusal(ApiError(FAULT, FAULT_TEXT, 500))
        await send_answer(send, answer, request_id)

    def _find(self, scope: Scope) -> Found:
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        try:
            parts = [unquote_to_bytes(part).decode() for part in raw.split(b"/")[1:]]
        except UnicodeDecodeError:
            raise _unreadable("The path is not UTF-8.") from None
        for route in self._routes:
            if route.binding.http_method == scope["method"]:
                labels = _labels(route.binding.segments, parts)
                if labels is not None:
                    return Found(route, labels)
        shown = raw[:200].decode("latin-1")
        raise ApiError("UnknownOperationException", f"No operation is at {scope['method']} {shown}.", 404)

    async def _answer(self, scope: Scope, receive: Receive, found: Found) -> bytes:
        headers = dict(scope["headers"])
        body = await read_body(headers, receive, self._max_body_bytes)
        if body:
            _demand_json(headers)
        request = Request.of(scope, body, headers)
        route, operation = found.route, found.route.operation
        call = self._access.admit_call(request, service=self._service.signing_name, action=operation.action)
        if route.method is None:
            raise ApiError("UnknownOperationException", f"{operation.name} is not available here.", 404)
        members = route.binding.gather(request, found.labels)
        operation.check(members)
        result = await route.method(call, members)
        return orjson.dumps(result or {})

    def _refusal(self, error: ApiError) -> Answer:
        status = error.status or self._statuses.get(error.code, 400)
        headers: tuple[Header, ...] = (JSON, (b"x-amzn-errortype", error.code.encode()))
        return Answer(status, headers, orjson.dumps({"Message": error.message}))


def _labels(segments: Sequence[str | None], parts: Sequence[str]) -> list[str] | None:
    """What stands in the path's labels; None when the path is another one."""
    if len(parts) != len(segments) or not all(parts):
        return None
    if any(segment is not None and segment != part for segment, part in zip(segments, parts, strict=True)):
        return None
    return [part for segment, part in zip(segments, parts, strict=True) if segment is None]


def _demand_json(headers: Mapping[bytes, bytes]) -> None:
    content_type = headers.get(b"content-type", b"")
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        shown = content_type[:200].decode("latin-1")
        raise ApiError("UnsupportedMediaTypeException", f"The content type {shown!r} is not application/json.", 415)
