"""AWS JSON 1.0 and 1.1: one ASGI endpoint for every operation that names itself in X-Amz-Target.

The path is ignored, since clients of queues post to the queue's URL. A request passes these stages, each of which
can refuse it: method, size, target, content type, access, JSON, shape; then the capability answers.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson
import structlog

from bus.api import Method
from bus.api.dialect import Answer, Dialect, Plain, WithQueryCode
from bus.api.model import Operation, Service
from bus.api.request import Disconnected, Receive, Request, Scope, Send, parse_json, read_body
from bus.errors import ApiError, StoreUnavailable
from bus.scope import Call

log = structlog.get_logger(__name__)

CONTENT_TYPES = frozenset({b"application/x-amz-json-1.0", b"application/x-amz-json-1.1", b"application/json"})

MAY_WAIT = frozenset({"sqs:ReceiveMessage"})
"""Operations that may answer long after they were asked; they end when the client goes away."""


COUNTED = frozenset({"ValidationException", "AccessDeniedException"})
"""Refusals that an operation's metrics count although its method is never called."""


class Gate(Protocol):
    """Who decides whether a call may happen, and whose it is."""

    def admit_call(self, request: Request, *, service: str, action: str) -> Call:
        """The caller, or ApiError; ``service`` is the signing name, ``action`` reads like events:PutRule."""
        ...


Reply = Callable[[Answer, str], None]
"""Sends an answer with its request id."""


class ShortCut(NamedTuple):
    """A quicker way to answer most requests for an operation, with the same results.

    ``read`` decodes and checks a body in one go and answers None for all that takes the long way to judge. ``begin`` is
    ``method`` for one who does not wait: it calls back with what ``method`` would return or, after it has begun, raise;
    False when ``method`` would raise at once, and nothing has come of it.
    """

    read: Callable[[bytes], Any | None]
    method: Callable[[Call, Any], Coroutine[Any, Any, dict[str, Any]]]
    begin: Callable[[Call, Any, Callable[[dict[str, Any] | Exception], None]], bool]


class Route(NamedTuple):
    """Where an X-Amz-Target leads; ``method`` is None for an operation that no capability has."""

    operation: Operation
    method: Method | None
    service: Service
    dialect: Dialect
    short_cut: ShortCut | None


class Rpc:
    """The ASGI endpoint.

    ``capabilities`` are searched for every operation's method; the same operation on two of them is a ValueError. One
    with an attribute ``service`` is searched for that service's alone: both events and sqs have a RemovePermission.
    ``refused`` has what is called with the members (None before they are read) when an action is refused as a whole.
    ``short_cuts`` are by action. ``error_codes`` maps error shapes of services with query codes to (query code, HTTP
    status).
    """

    def __init__(
        self,
        services: Sequence[Service],
        capabilities: Sequence[object],
        *,
        access: Gate,
        max_body_bytes: int,
        error_codes: Mapping[str, tuple[str, int]],
        refused: Mapping[str, Callable[[Any], None]] | None = None,
        short_cuts: Mapping[str, ShortCut] | None = None,
    ) -> None:
        self._refused = refused or {}
        self._short_cuts = short_cuts or {}
        self._access = access
        self._max_body_bytes = max_body_bytes
        self._default: Dialect = Plain("1.1")
        self._dialects = {service.target_prefix.encode(): _dialect(service, error_codes) for service in services}
        self._routes = dict(self._make_routes(services, capabilities))

    def _make_routes(
        self, services: Sequence[Service], capabilities: Sequence[object]
    ) -> Iterable[tuple[bytes, Route]]:
        for service in services:
            prefix = service.target_prefix.encode()
            own = [each for each in capabilities if getattr(each, "service", service.name) == service.name]
            for operation in service:
                method, short_cut = find_method(operation, own), self._short_cuts.get(operation.action)
                route = Route(operation, method, service, self._dialects[prefix], short_cut)
                yield prefix + b"." + operation.name.encode(), route

    @property
    def offered(self) -> frozenset[str]:
        """The operations that some capability answers, as ``service:Operation``."""
        return frozenset(route.operation.action for route in self._routes.values() if route.method is not None)

    def methods(self) -> Iterator[tuple[Operation, Method]]:
        """Every operation that some capability answers, with the method that does."""
        return ((route.operation, route.method) for route in self._routes.values() if route.method is not None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        target = headers.get(b"x-amz-target", b"")
        route = self._routes.get(target)
        dialect = route.dialect if route is not None else self._dialect_of(target, headers)
        request_id = new_request_id()
        try:
            body = await self._answer(scope, headers, receive, route)
            answer = Answer(200, dialect.success, body)
        except ApiError as error:
            answer = dialect.refusal(error)
        except Disconnected:
            return
        except StoreUnavailable as error:
            log.error("store unavailable", operation=_label(route), request_id=request_id, reason=str(error))
            answer = dialect.fault()
        except Exception:
            log.exception("operation failed", operation=_label(route), request_id=request_id)
            answer = dialect.fault()
        await send_answer(send, answer, request_id)

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, route: Route | None) -> bytes:
        if scope["method"] != "POST":
            raise ApiError("UnknownOperationException", "Operations are sent with POST.", 404)
        body = await read_body(headers, receive, self._max_body_bytes)
        if route is None:
            raise self._no_route(headers)
        _demand_json(headers)
        request = Request.of(scope, body, headers)
        operation = route.operation
        members: Any = None
        try:
            call = self._access.admit_call(request, service=route.service.signing_name, action=operation.action)
            if route.method is None:
                raise route.dialect.absent(operation.name)
            read = None if route.short_cut is None else route.short_cut.read(body)
            if read is None:
                members = parse_json(body)
                operation.check(members)
        except ApiError as error:
            if error.code in COUNTED and operation.action in self._refused:
                self._refused[operation.action](members)
            raise
        if route.short_cut is not None and read is not None:
            return orjson.dumps(await route.short_cut.method(call, read))
        if operation.action in MAY_WAIT:
            result = await _while_connected(route.method(call, members), receive)
        else:
            result = await route.method(call, members)
        return b"" if operation.is_void else orjson.dumps(result or {})

    def may_take_short_cut(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a POST to ``/`` with these headers may be answered by `answer_soon`."""
        route = self._routes.get(headers.get(b"x-amz-target", b""))
        return route is not None and route.short_cut is not None and headers.get(b"content-type") in CONTENT_TYPES

    def answer_soon(
        self, headers: Mapping[bytes, bytes], pairs: Iterable[tuple[bytes, bytes]], body: bytes, reply: Reply
    ) -> bool:
        """Answer a POST to ``/`` that is wanted, by a short cut and without a task.

        False when it has to go the long way, as all that is refused; nothing has come of it then.
        """
        route = self._routes[headers[b"x-amz-target"]]
        short_cut, operation, dialect = route.short_cut, route.operation, route.dialect
        request = Request("POST", b"/", b"", headers, pairs, body)
        if short_cut is None or len(body) > self._max_body_bytes:
            return False
        try:
            call = self._access.admit_call(request, service=route.service.signing_name, action=operation.action)
        except ApiError:
            return False
        read = short_cut.read(body)

        def done(result: dict[str, Any] | Exception) -> None:
            request_id = new_request_id()
            if isinstance(result, Exception):
                log.error("operation failed", operation=operation.action, request_id=request_id, exc_info=result)
                reply(dialect.fault(), request_id)
            else:
                reply(Answer(200, dialect.success, orjson.dumps(result)), request_id)

        return read is not None and short_cut.begin(call, read, done)

    def _dialect_of(self, target: bytes, headers: Mapping[bytes, bytes]) -> Dialect:
        """How to word the refusal of a target that leads nowhere."""
        known = self._dialects.get(target.partition(b".")[0])
        if known is None and not target and _is_form(headers):
            known = next((d for d in self._dialects.values() if isinstance(d, WithQueryCode)), None)
        return known or self._default

    def _no_route(self, headers: Mapping[bytes, bytes]) -> ApiError:
        target = headers.get(b"x-amz-target", b"")
        prefix, _, name = target.decode("latin-1").partition(".")
        dialect = self._dialects.get(prefix.encode())
        if dialect is not None:
            return dialect.unknown(name)
        if not target and _is_form(headers):
            return ApiError("UnsupportedOperation", "The query protocol is not spoken here; use AWS JSON 1.0.")
        what = f"leads nowhere: {target.decode('latin-1')!r}" if target else "is missing"
        return ApiError("UnknownOperationException", f"The header X-Amz-Target {what}.")


async def _while_connected(method: Coroutine[Any, Any, Any], receive: Receive) -> Any:
    """The result of ``method``, cancelled as soon as nobody is there to be given it."""
    answering = asyncio.ensure_future(method)
    leaving = asyncio.ensure_future(receive())  # the body has been read: the next message says the client is gone
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise Disconnected
        return answering.result()
    finally:
        for each in (answering, leaving):
            each.cancel()


def _dialect(service: Service, error_codes: Mapping[str, tuple[str, int]]) -> Dialect:
    if service.query_errors:
        return WithQueryCode(service.json_version, f"com.amazonaws.{service.name}", error_codes)
    return Plain(service.json_version)


def find_method(operation: Operation, capabilities: Sequence[object]) -> Method | None:
    """The operation's method on the one capability that has it."""
    name = operation.method_name
    found: list[Method] = [getattr(each, name) for each in capabilities if hasattr(each, name)]
    if len(found) > 1:
        raise ValueError(f"{operation.name} is on several capabilities: {', '.join(map(repr, found))}")
    if not found:
        return None
    if not inspect.iscoroutinefunction(found[0]):
        raise TypeError(f"{found[0]!r} answers {operation.name} and must be a coroutine method")
    return found[0]


def _is_form(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded")


def _demand_json(headers: Mapping[bytes, bytes]) -> None:
    content_type = headers.get(b"content-type", b"")
    if content_type in CONTENT_TYPES:
        return
    if content_type.partition(b";")[0].strip().lower() not in CONTENT_TYPES:
        text = f"The content type {content_type.decode('latin-1')!r} is not one of AWS JSON."
        raise ApiError("UnknownOperationException", text)


def _label(route: Route | None) -> str | None:
    return None if route is None else route.operation.action


_random_bits = random.Random().getrandbits  # seeded by the system; a request's id is a name, not a secret


def new_request_id() -> str:
    """A random UUID, without the cost of making a UUID object."""
    text = _random_bits(128).to_bytes(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


async def send_answer(send: Send, answer: Answer, request_id: str) -> None:
    """Send an answer with the headers that all have."""
    headers = [
        (b"x-amzn-requestid", request_id.encode()),
        (b"content-length", b"%d" % len(answer.body)),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
