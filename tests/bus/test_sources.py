"""`ServiceSource` against a bus that is steered: retries, order, lost answers, and what is dropped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from tenacity import wait_fixed

from bus.clock import ManualClock
from bus.sources import BATCH, BATCH_BYTES, BusAway, EventRefused, ServiceSource, SourceError
from tests.waiting import eventually

Answer = Callable[[dict[str, Any]], web.Response]


class FakeBus:
    """Remembers every request, and answers what it is told to."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.answers: list[Answer] = []
        self.open = asyncio.Event()
        self.open.set()
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(request.headers)
        await self.open.wait()
        return (self.answers.pop(0) if self.answers else accept)(body)

    def ids(self, place: int) -> list[str]:
        return [entry["id"] for entry in self.requests[place]["Entries"]]

    @property
    def numbers(self) -> list[int]:
        return [entry["detail"]["n"] for request in self.requests for entry in request["Entries"]]


def accept(body: dict[str, Any]) -> web.Response:
    results = [{"EventId": entry["id"]} for entry in body["Entries"]]
    return web.json_response({"FailedEntryCount": 0, "Entries": results})


def status(number: int, **members: Any) -> Answer:
    return lambda body: web.Response(status=number, text=json.dumps(members))


@pytest.fixture
async def bus() -> AsyncIterator[FakeBus]:
    made = FakeBus()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/_bus/service-events", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    made.open.set()
    await runner.cleanup()


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


def source(bus: FakeBus, *, sleep: Callable[[float], Awaitable[None]] = no_sleep, **options: Any) -> ServiceSource:
    return ServiceSource("aws.s3", endpoint=bus.url, sleep=sleep, wait=wait_fixed(1), **options)


async def test_a_durable_event_is_answered_with_its_id(bus: FakeBus) -> None:
    async with source(bus) as s3:
        given = await s3.put(
            "Object Created", {"n": 1}, resources=["arn:r"], time="2026-03-02T09:00:00Z", account="111122223333",
            region="eu-west-1",
        )  # fmt: skip
        assert await s3.put("Object Created", {"n": 2}, event_id="mine") == "mine"
    assert bus.requests[0] == {
        "Delivery": "durable",
        "Entries": [
            {
                "id": given, "source": "aws.s3", "detail-type": "Object Created", "detail": {"n": 1},
                "resources": ["arn:r"], "time": "2026-03-02T09:00:00Z", "account": "111122223333",
                "region": "eu-west-1",
            }
        ],
    }  # fmt: skip
    assert bus.headers[0]["Authorization"].startswith("AWS4-HMAC-SHA256 ")


async def test_a_token_takes_the_place_of_a_signature(bus: FakeBus) -> None:
    async with source(bus, token="t") as s3:
        await s3.put("t", {"n": 1})
    assert bus.headers[0]["Authorization"] == "Bearer t"


@pytest.mark.parametrize("trouble", [status(503), status(500), status(429), status(200), lambda body: web.Response()])
async def test_trouble_is_tried_again_with_the_same_ids(bus: FakeBus, trouble: Answer) -> None:
    bus.answers = [trouble, trouble]
    async with source(bus) as s3:
        given = await s3.put("t", {"n": 1})
    assert [bus.ids(place) for place in range(3)] == [[given]] * 3


async def test_a_bus_that_comes_back_gets_what_waited_in_order(bus: FakeBus) -> None:
    bus.answers = [status(503)] * 5
    async with source(bus) as s3:
        await asyncio.gather(*(s3.put("t", {"n": n}) for n in range(BATCH + 50)))
        while bus.requests[0] == bus.requests[1]:
            bus.requests.pop(0)  # the same again
    assert bus.numbers == list(range(BATCH + 50))


async def test_requests_stay_short(bus: FakeBus) -> None:
    bus.open.clear()
    text = "x" * (BATCH_BYTES // 3)
    async with source(bus) as s3:
        putting = [asyncio.ensure_future(s3.put("t", {"n": n, "text": text})) for n in range(5)]
        await eventually(lambda: bus.requests, "the first request")
        bus.open.set()
        await asyncio.gather(*putting)
    assert bus.numbers == list(range(5))
    assert all(len(json.dumps(request)) < BATCH_BYTES + 1000 for request in bus.requests)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(403, error="AccessDeniedException", message="No."), "AccessDeniedException: No."),
        (status(404), "404: no reason given"),
    ],
)
async def test_a_refusal_is_final(bus: FakeBus, answer: Answer, said: str) -> None:
    bus.answers = [answer]
    async with source(bus) as s3:
        with pytest.raises(EventRefused) as refused:
            await s3.put("t", {"n": 1})
        assert str(refused.value) == said
        await s3.put("t", {"n": 2})
    assert bus.numbers == [1, 2]


async def test_one_event_is_refused_and_the_others_are_not(bus: FakeBus) -> None:
    def second_is_bad(body: dict[str, Any]) -> web.Response:
        results: list[dict[str, str]] = [{"EventId": entry["id"]} for entry in body["Entries"]]
        results[1] = {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}
        return web.json_response({"Entries": results})

    bus.answers = [second_is_bad]
    async with source(bus) as s3:
        putting = (s3.put("t", {"n": n}, event_id=f"e{n}") for n in range(3))
        first, second, third = await asyncio.gather(*putting, return_exceptions=True)
    assert (first, third) == ("e0", "e2")
    assert isinstance(second, EventRefused)
    assert str(second) == "MalformedDetail: Detail is malformed."


async def test_after_a_day_the_bus_is_away(bus: FakeBus) -> None:
    clock = ManualClock()
    bus.answers = [status(503)] * 1000

    async def hour(seconds: float) -> None:
        clock.advance(3600)

    async with source(bus, sleep=hour, clock=lambda: clock.now_ms() / 1000) as s3:
        with pytest.raises(BusAway, match=r"answered 503, for 86400 s"):
            await s3.put("t", {"n": 1})
        assert len(bus.requests) == 25, "every hour, and at once"
        bus.answers = []
        await s3.put("t", {"n": 2})


async def test_each_event_has_its_own_day(bus: FakeBus) -> None:
    clock = ManualClock()
    bus.answers = [status(503)] * 26

    async def hour(seconds: float) -> None:
        clock.advance(3600)
        await asyncio.sleep(0)

    bus.open.clear()
    async with source(bus, sleep=hour, clock=lambda: clock.now_ms() / 1000) as s3:
        first = asyncio.ensure_future(s3.put("t", {"n": 0}))
        await eventually(lambda: bus.requests, "the first request")
        bus.open.set()
        await eventually(lambda: len(bus.requests) > 3, "some retries")
        second = asyncio.ensure_future(s3.put("t", {"n": 1}))
        with pytest.raises(BusAway):
            await first
        await second


async def test_no_bus_at_all() -> None:
    clock = ManualClock()

    async def hours(seconds: float) -> None:
        clock.advance(12 * 3600)

    nowhere = ServiceSource(
        "aws.s3", endpoint="http://127.0.0.1:1", sleep=hours, wait=wait_fixed(1), clock=lambda: clock.now_ms() / 1000
    )
    async with nowhere:
        with pytest.raises(BusAway, match=r"^http://127.0.0.1:1 could not be reached \(Client\w+\), for 86400 s$"):
            await nowhere.put("t", {})


async def test_a_fault_is_told_and_keeps_nobody_behind_it_waiting(bus: FakeBus) -> None:
    bus.answers = [lambda body: web.json_response({"Entries": []})]  # fewer results than events
    async with source(bus) as s3:
        with pytest.raises(SourceError, match="sending ended with ValueError"):
            await s3.put("t", {"n": 1})
        await s3.put("t", {"n": 2})


async def test_best_effort_never_waits_and_drops_what_has_no_room(bus: FakeBus) -> None:
    bus.open.clear()
    async with source(bus, most_waiting=2) as s3:
        assert [s3.send("t", {"n": n}) for n in range(4)] == [True, True, False, False]
        assert s3.dropped == 2
        bus.open.set()
        await s3.flush()
    assert bus.numbers == [0, 1]
    assert bus.requests[0]["Delivery"] == "best-effort"


async def test_best_effort_is_sent_once(bus: FakeBus) -> None:
    bus.answers = [
        status(503),
        status(403),
        lambda body: web.json_response({"DroppedEntryCount": 1, "Entries": [{"EventId": "x"}]}, status=202),
        lambda body: web.json_response({"Entries": [{"ErrorCode": "x", "ErrorMessage": "y"}]}, status=202),
    ]
    async with source(bus) as s3:
        for n in range(5):
            assert s3.send("t", {"n": n})
            await s3.flush()
            assert s3.dropped == min(n + 1, 4)
    assert bus.numbers == [0, 1, 2, 3, 4]


async def test_a_bus_that_is_down_keeps_no_best_effort_event_back() -> None:
    async with ServiceSource("aws.s3", endpoint="http://127.0.0.1:1") as s3:
        assert s3.send("t", {})
        await s3.flush()
        assert s3.dropped == 1


async def test_putters_wait_for_room_and_hear_of_the_end(bus: FakeBus) -> None:
    bus.open.clear()
    s3 = source(bus, most_waiting=1)
    await s3.__aenter__()
    putting = [asyncio.ensure_future(s3.put("t", {"n": n})) for n in range(5)]
    assert s3.send("t", {"n": 9})
    await eventually(lambda: len(bus.requests) == 2, "one request of each kind")
    await s3.close(grace=0)
    assert s3.dropped == 1
    results = await asyncio.gather(*putting, return_exceptions=True)
    assert [str(result) for result in results] == ["the source was closed"] * 5
    with pytest.raises(SourceError, match="not open"):
        await s3.put("t", {})
    with pytest.raises(SourceError, match="not open"):
        s3.send("t", {})
    await s3.close()


@pytest.mark.parametrize("detail", [{"n": float("nan")}, {"n": object()}, {"n": "\ud800"}])
async def test_what_is_no_json_is_told_at_once(bus: FakeBus, detail: dict[str, Any]) -> None:
    async with source(bus) as s3:
        with pytest.raises((ValueError, TypeError)):
            await s3.put("t", detail)
    assert bus.requests == []
