"""How far replays are: the operator's route that `busbar replay` draws its bar from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bus.api.operations import Row


@dataclass(frozen=True, slots=True)
class Progress:
    """``replays`` answers with every replay and its progress."""

    replays: Callable[[], list[dict[str, Any]]]

    def rows(self) -> Sequence[Row]:
        """For the operator's routes."""
        return (("GET", "/_bus/replays", self.list_replays),)

    async def list_replays(self, request: Request, body: bytes) -> Response:
        """Every replay, or the one whose ARN is ``arn``."""
        arn = request.query_params.get("arn")
        found = [replay for replay in self.replays() if arn in (None, replay["ReplayArn"])]
        return Response(orjson.dumps({"Replays": found}), media_type="application/json")
