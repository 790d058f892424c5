"""What operators ask of a running bus: health, metrics, rules with their counts, wires, dead letters, live events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from bus import __version__
from bus.api.request import Disconnected, read_body
from bus.api.request import Request as WireRequest
from bus.dead_letters import DeadLetters
from bus.errors import ApiError, StoreError, not_found, validation
from bus.metrics import Metrics, RuleCounts
from bus.scope import Call, Scope
from bus.watchers import Filter, Watchers
from bus.wires import Wires
from rules.errors import PatternError
from rules.pattern import Pattern

log = structlog.get_logger("operations")

HEARTBEAT_S = 15.0
MAX_BODY = 1 << 20
MAX_PAGE = 1000

Handler = Callable[[Request, bytes], Awaitable[Response]]

Row = tuple[str, str, Handler]
"""HTTP method, path, and what answers it once the request has been let in."""


@dataclass(frozen=True, slots=True)
class Operations:
    """The operator's side of the bus; ``admit`` lets a request in or raises ApiError, and says whose it is, if it is
    known."""

    metrics: Metrics
    wires: Wires
    watchers: Watchers
    dead_letters: DeadLetters
    admit: Callable[[WireRequest], Call | None]
    rules: Callable[[], list[dict[str, Any]]]
    find_queue: Callable[[str], Any]
    health: Callable[[], dict[str, Any]]
    more: Sequence[Row] = ()
    """Routes of other subsystems, served with the same access checks and the same form of errors."""
    longest: Mapping[str, int] = field(default_factory=dict)
    """Most bytes of a body, by path, where that is more than `MAX_BODY`."""

    def app(self) -> Starlette:
        """The routes, for the composition root to mount beside the wire."""
        rows: tuple[Row, ...] = (
            ("GET", "/_bus/health", self.show_health),
            ("GET", "/metrics", self.show_metrics),
            ("GET", "/_bus/rules", self.list_rules),
            ("GET", "/_bus/wires", self.list_wires),
            ("PUT", "/_bus/wires", self.put_wire),
            ("DELETE", "/_bus/wires", self.remove_wire),
            ("GET", "/_bus/dead-letters", self.list_dead_letters),
            ("POST", "/_bus/dead-letters/redrive", self.redrive),
            ("GET", "/_bus/tail", self.tail),
            *self.more,
        )
        guarded = ((path, self._guarded(handle, self.longest.get(path, MAX_BODY)), verb) for verb, path, handle in rows)
        routes = [Route(path, endpoint, methods=[verb]) for path, endpoint, verb in guarded]
        return Starlette(routes=routes, exception_handlers={HTTPException: _no_route})

    def _guarded(self, handle: Handler, longest: int) -> Callable[[Request], Awaitable[Response]]:
        """Access first, then the handler; every error in one form."""

        async def endpoint(request: Request) -> Response:
            try:
                body = await read_body(dict(request.scope["headers"]), request.receive, longest)
                request.state.call = self.admit(WireRequest.of(request.scope, body))
                return await handle(request, body)
            except ApiError as error:
                return _json({"error": error.code, "message": error.message}, error.status or 400)
            except StoreError as error:
                return _json({"error": "StoreUnavailable", "message": str(error)}, 503)
            except Disconnected:
                return Response(status_code=400)

        return endpoint

    async def show_health(self, request: Request, body: bytes) -> Response:
        """200 while the bus can keep what it accepts, 503 while the disk refuses; the rest only for who is known."""
        found = self.health()
        shown = {"version": __version__, **found} if request.state.call is not None else {"status": found["status"]}
        return _json(shown, 200 if found["status"] == "ok" else 503)

    async def show_metrics(self, request: Request, body: bytes) -> Response:
        return Response(self.metrics.expose(), media_type=CONTENT_TYPE_LATEST)

    async def list_rules(self, request: Request, body: bytes) -> Response:
        """Every rule with its targets and what it has done since the process started."""
        return _json({"Rules": [self._with_counts(rule) for rule in self.rules()]})

    def _with_counts(self, rule: dict[str, Any]) -> dict[str, Any]:
        key = (Scope(rule["Account"], rule["Region"]), rule["EventBusName"], rule["Name"])
        counts = self.metrics.rules.get(key) or RuleCounts()
        return {
            **rule,
            "MatchedEvents": counts.MatchedEvents,
            "Invocations": counts.Invocations,
            "FailedInvocations": counts.FailedInvocations,
        }

    async def list_wires(self, request: Request, body: bytes) -> Response:
        return _json({"Wires": [{"Arn": wire.pattern, "Url": wire.url} for wire in self.wires.list()]})

    async def put_wire(self, request: Request, body: bytes) -> Response:
        given = _members(body, "Arn", "Url")
        wire = await self.wires.put(given["Arn"], given["Url"])
        return _json({"Arn": wire.pattern, "Url": wire.url})

    async def remove_wire(self, request: Request, body: bytes) -> Response:
        pattern = request.query_params.get("arn") or _members(body, "Arn")["Arn"]
        if not await self.wires.remove(pattern):
            raise not_found(f"There is no wire for {pattern}; `busbar wire list` shows those there are.")
        return _json({})

    async def list_dead_letters(self, request: Request, body: bytes) -> Response:
        """One page of a queue's letters; ``after`` is the Number of the last one seen."""
        named = request.query_params.get("queue")
        if not named:
            raise validation("The query must have queue, the name or ARN of a queue.")
        queue = self._queue(named)
        after, limit = _number(request, "after", 0, 1 << 62), _number(request, "limit", 100, MAX_PAGE)
        return _json({"Letters": await self.dead_letters.page(queue, after=after, limit=limit)})

    async def redrive(self, request: Request, body: bytes) -> Response:
        """Send letters to the targets they failed to reach: those named in ``Ids``, or all of the queue."""
        given = _members(body, "Queue")
        ids = given.get("Ids")
        if ids is not None and not (isinstance(ids, list) and all(isinstance(each, str) for each in ids)):
            raise validation("Ids must be a list of message ids.")
        result = await self.dead_letters.redrive(self._queue(given["Queue"]), ids)
        kept = [{"MessageId": message_id, "Reason": reason} for message_id, reason in result.kept]
        return _json({"Redriven": result.sent, "Kept": kept})

    def _queue(self, arn: str) -> Any:
        queue = self.find_queue(arn)
        if queue is None:
            raise not_found(f"There is no queue {arn}; `aws sqs list-queues` shows those there are.")
        return queue

    async def tail(self, request: Request, body: bytes) -> Response:
        """Accepted events as they come, one JSON object a line."""
        parameters = request.query_params
        try:
            pattern = Pattern.parse(parameters["pattern"]) if "pattern" in parameters else None
        except PatternError as error:
            raise validation(f"Event pattern is not valid. Reason: {error.reason}") from None
        wanted = Filter(bus=parameters.get("bus"), account=parameters.get("account"), pattern=pattern)
        return StreamingResponse(self._lines(wanted), media_type="application/x-ndjson")

    async def _lines(self, wanted: Filter) -> AsyncIterator[bytes]:
        with self.watchers.watching(wanted) as watcher:
            yield b"{}\n"  # tells the client that from here on nothing is missed
            async for line in watcher.lines(heartbeat_s=HEARTBEAT_S):
                yield line


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


async def _no_route(request: Request, error: Exception) -> Response:
    """404 for another path, 405 for another method, which Starlette would tell as plain text."""
    assert isinstance(error, HTTPException)
    answer = {"error": "UnknownOperationException", "message": f"There is no {request.method} {request.url.path}."}
    return Response(orjson.dumps(answer), error.status_code, error.headers, "application/json")


def _members(body: bytes, *required: str) -> dict[str, Any]:
    """The JSON object of a request, with these members as non-empty strings."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise validation("The body is not JSON.") from None
    if not isinstance(given, dict):
        raise validation("The body must be a JSON object.")
    for name in required:
        if not isinstance(given.get(name), str) or not given[name]:
            raise validation(f"The body must have {name}, a string.")
    return given


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isdigit() or int(text) > most:
        raise validation(f"{name} must be a number from 0 to {most}.")
    return int(text)
