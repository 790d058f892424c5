"""The routes by which services and log files come in: ``/_bus/service-events`` and ``/_bus/cloudtrail``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response

from bus.api.operations import Row
from bus.errors import ApiError, validation
from bus.origins.cloudtrail import CloudTrail, is_packed
from bus.origins.service_events import ServiceEvents

MOST_ENTRIES = 1000
DURABLE, BEST_EFFORT = "durable", "best-effort"
DELIVERIES = (DURABLE, BEST_EFFORT)


class Posted(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request; each entry is looked at by itself."""

    Entries: list[msgspec.Raw]
    Delivery: str = DURABLE


_read = msgspec.json.Decoder(Posted).decode


class SourceRoutes:
    """The handlers; ``request.state.call`` says whose the events are."""

    def __init__(self, services: ServiceEvents, cloudtrail: CloudTrail) -> None:
        self._services = services
        self._cloudtrail = cloudtrail

    @property
    def rows(self) -> Sequence[Row]:
        return (
            ("POST", "/_bus/service-events", self.put_service_events),
            ("POST", "/_bus/cloudtrail", self.put_records),
        )

    async def put_service_events(self, request: Request, body: bytes) -> Response:
        """Results in the order of the entries: 200 when durable ones are on disk, 202 at once for best-effort ones."""
        posted = _posted(body)
        scope = request.state.call.scope
        if posted.Delivery == BEST_EFFORT:
            results, dropped = self._services.best_effort(scope, posted.Entries)
            return _answer(results, 202, DroppedEntryCount=dropped)
        return _answer(await self._services.durable(scope, posted.Entries), 200)

    async def put_records(self, request: Request, body: bytes) -> Response:
        """How many records of a log file were put, and which were not and why."""
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            raise ApiError("UnsupportedMediaType", f"The content encoding {encoding!r} is not gzip.", 415)
        if encoding == "gzip" and not is_packed(body):
            raise validation("The body is not gzip, although its content encoding says so.")
        loaded = await self._cloudtrail.load(request.state.call.scope, body)
        reasons = [{"Index": each.place, "Reason": each.reason} for each in loaded.reasons]
        return _json({"Accepted": loaded.accepted, "Refused": loaded.refused, "Reasons": reasons})


def _posted(body: bytes) -> Posted:
    try:
        posted = _read(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise validation(f"The body is not a request to put service events: {error}.") from None
    if posted.Delivery not in DELIVERIES:
        raise validation(f"Delivery must be one of {', '.join(DELIVERIES)}.")
    if not 1 <= len(posted.Entries) <= MOST_ENTRIES:
        raise validation(f"Entries must have from 1 to {MOST_ENTRIES} elements.")
    return posted


def _answer(results: list[dict[str, Any]], status: int, **more: int) -> Response:
    failed = sum("ErrorCode" in result for result in results)
    return _json({"FailedEntryCount": failed, **more, "Entries": results}, status)


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
