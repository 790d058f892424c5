"""The operator's routes of a whole bus."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from bus.app import open_app
from bus.config import Settings

KEY = {"access_key": "AKID", "secret": "s", "account": "111111111111"}
TOKEN = "a token"


@asynccontextmanager
async def running(**settings: Any) -> Any:
    app = await open_app(Settings(data_dir=":memory:", **settings))
    try:
        yield app
    finally:
        await app.close()


async def get(app: Any, path: str, query: str = "", **headers: str) -> tuple[int, Any]:
    """Status and body of a GET."""
    answer: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        answer.append(message)

    named = {"host": "127.0.0.1", **headers}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": raw, "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    return answer[0]["status"], orjson.loads(b"".join(part.get("body", b"") for part in answer[1:]))


async def test_health_tells_probes_no_more_than_the_status(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps([KEY]))
    file.chmod(0o600)
    async with running(credentials=str(file), token=TOKEN) as app:
        assert await get(app, "/_bus/health") == (200, {"status": "ok"})
        assert await get(app, "/_bus/health", authorization="Bearer wrong") == (200, {"status": "ok"})
        status, whole = await get(app, "/_bus/health", authorization=f"Bearer {TOKEN}")
        assert (status, whole["status"]) == (200, "ok")
        assert whole.keys() > {"version", "deliveries_in_memory", "wal_bytes"}


async def test_where_everyone_may_act_health_is_told_to_everyone() -> None:
    async with running() as app:
        _, whole = await get(app, "/_bus/health")
        assert "version" in whole


@pytest.mark.parametrize("queue", ["arn:x", "arn:", "arn:aws:sqs"])
async def test_a_queue_that_is_no_arn_is_a_mistake_of_the_caller(queue: str) -> None:
    async with running() as app:
        status, answer = await get(app, "/_bus/dead-letters", f"queue={queue}")
    assert (status, answer["error"]) == (400, "ValidationException")
    assert queue in answer["message"]


@pytest.mark.parametrize("query", ["", "queue=", "limit=1"])
async def test_letters_of_no_queue_at_all_are_a_mistake_of_the_caller(query: str) -> None:
    async with running() as app:
        status, answer = await get(app, "/_bus/dead-letters", query)
    said = "The query must have queue, the name or ARN of a queue."
    assert (status, answer) == (400, {"error": "ValidationException", "message": said})


@pytest.mark.parametrize(("path", "status"), [("/_bus/rulez", 404), ("/_bus/service-events", 405)])
async def test_what_is_no_route_is_told_like_every_error(path: str, status: int) -> None:
    async with running() as app:
        answered = await get(app, path)
    assert answered == (status, {"error": "UnknownOperationException", "message": f"There is no GET {path}."})


async def test_letters_of_the_first_queue() -> None:
    async with running() as app:
        assert await get(app, "/_bus/dead-letters", "queue=dead-letters") == (200, {"Letters": []})
