"""Global endpoints as operators see them: which region is active, and the switch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bus.api.operations import Row
from bus.endpoints import Endpoint, Endpoints
from bus.errors import validation


class Switch(msgspec.Struct, rename="pascal"):
    """What is put: the ARN or the id of an endpoint, and how its primary region is said to be."""

    endpoint: str
    primary: Literal["healthy", "failed-over"]


def endpoint_rows(endpoints: Endpoints) -> Sequence[Row]:
    """The routes under ``/_bus/endpoints``."""

    async def show(request: Request, body: bytes) -> Response:
        return JSONResponse({"Endpoints": [_shown(each) for each in endpoints.all()]})

    async def switch(request: Request, body: bytes) -> Response:
        """Say what Route 53's health check says on AWS; it holds for the very next PutEvents."""
        try:
            given = msgspec.json.decode(body, type=Switch)
        except msgspec.MsgspecError as error:
            raise validation(f"The body must name Endpoint, and Primary as healthy or failed-over: {error}") from None
        return JSONResponse(
            _shown(await endpoints.fail_over(given.endpoint, failed_over=given.primary == "failed-over"))
        )

    return (("GET", "/_bus/endpoints", show), ("PUT", "/_bus/endpoints", switch))


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "Account": endpoint.scope.account,
        "Name": endpoint.name,
        "Arn": endpoint.arn,
        "EndpointId": endpoint.endpoint_id,
        "EventBusName": endpoint.bus,
        "Primary": "failed-over" if endpoint.failed_over else "healthy",
        "PrimaryRegion": endpoint.primary.region,
        "SecondaryRegion": endpoint.secondary.region,
        "ActiveRegion": endpoint.active.region,
        "Replication": endpoint.given["ReplicationConfig"]["State"],
    }
