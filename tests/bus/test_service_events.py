"""Events of services: what an entry may be, and the two ways of being put."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from bus.arrival import Arrival
from bus.clock import IdSource, ManualClock
from bus.errors import StoreUnavailable
from bus.metrics import Metrics
from bus.origins.service_events import ServiceEvents
from bus.scope import Scope
from tests.waiting import eventually

SCOPE, OTHER = Scope("111122223333", "eu-west-1"), Scope("444455556666", "us-east-1")
EVENT = {"source": "aws.s3", "detail-type": "Object Created", "detail": {"size": 1}}


class Bench:
    def __init__(self, *, most_waiting: int = 10, most_bytes: int = 1 << 20) -> None:
        clock = ManualClock()
        self.metrics = Metrics()
        self.put_on: list[tuple[Scope, str, list[Arrival], list[str | None]]] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.services = ServiceEvents(
            clock, IdSource(clock), metrics=self.metrics, put=self.put, max_bytes=1000, most_waiting=most_waiting,
            most_bytes=most_bytes,
        )  # fmt: skip

    async def put(
        self, scope: Scope, bus_name: str, arrivals: Iterable[Arrival], *, keys: Iterable[str | None]
    ) -> bool:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.put_on.append((scope, bus_name, list(arrivals), list(keys)))
        return True

    async def durable(self, *entries: Any) -> list[dict[str, Any]]:
        return await self.services.durable(SCOPE, [msgspec.Raw(text(entry)) for entry in entries])

    def best_effort(self, *entries: Any, scope: Scope = SCOPE) -> int:
        return self.services.best_effort(scope, [msgspec.Raw(text(entry)) for entry in entries])[1]

    @property
    def arrivals(self) -> list[Arrival]:
        return [arrival for _, _, arrivals, _ in self.put_on for arrival in arrivals]


def text(entry: Any) -> bytes:
    return entry if isinstance(entry, bytes) else json.dumps(entry).encode()


async def test_what_is_left_out_is_filled_in() -> None:
    bench = Bench()
    (result,) = await bench.durable(EVENT)
    ((scope, bus, (arrival,), keys),) = bench.put_on
    assert (scope, bus, keys) == (SCOPE, "default", [None])
    assert arrival.fields() == {
        "version": "0", "id": result["EventId"], "detail-type": "Object Created", "source": "aws.s3",
        "account": "111122223333", "time": "2023-11-14T22:13:20Z", "region": "eu-west-1", "resources": [],
    }  # fmt: skip


async def test_what_is_given_is_kept() -> None:
    bench = Bench()
    given = {
        "version": "0", "id": "put-1", "account": "444455556666", "time": "2026-03-02T10:00:00.5+01:00",
        "region": "us-east-1", "resources": ["arn:aws:s3:::orders"],
    }  # fmt: skip
    assert await bench.durable({**EVENT, **given}) == [{"EventId": "put-1"}]
    ((_, _, (arrival,), keys),) = bench.put_on
    assert keys == ["service aws.s3 put-1"]
    expected = {**given, "time": "2026-03-02T09:00:00Z", "source": "aws.s3", "detail-type": "Object Created"}
    assert arrival.fields() == expected


@pytest.mark.parametrize(
    "detail",
    [b'{ "n": 1.50, "big": 12345678901234567890123 }', b'"{ \\"n\\": 1.50, \\"big\\": 12345678901234567890123 }"'],
)
async def test_a_detail_may_be_given_as_text_and_stays_to_the_digit(detail: bytes) -> None:
    bench = Bench()
    await bench.durable(b'{"source":"aws.s3","detail-type":"t","detail":%b}' % detail)
    assert bench.arrivals[0].compact_detail() == b'{"n":1.50,"big":12345678901234567890123}'


@pytest.mark.parametrize(
    ("entry", "code", "message"),
    [
        (7, "InvalidArgument", "The entry is not an event. Reason: Expected `object`, got `int`."),
        (b'"\xff"', "InvalidArgument", "The entry is not an event. Reason: "),
        (b'{"source":"\xff","detail-type":"t","detail":{}}', "InvalidArgument", "The entry is not an event. Reason: "),
        (
            b'{"source":"aws.s3","detail-type":"t","detail":{"a":"\xff"}}',
            "InvalidArgument",
            "Parameter detail is not valid. Reason: it is not text in UTF-8.",
        ),
        (
            b'{"source":"aws.s3","detail-type":"t","detail":"\xff"}',
            "InvalidArgument",
            "Parameter detail is not valid. Reason: it is not text in UTF-8.",
        ),
        ({**EVENT, "detailType": "x"}, "InvalidArgument", "The entry is not an event. Reason: Object contains unknown"),
        ({"source": "aws.s3", "detail": {}}, "InvalidArgument", "The entry is not an event. Reason: Object missing"),
        ({**EVENT, "source": 7}, "InvalidArgument", "The entry is not an event. Reason: Expected `str`, got `int`"),
        ({**EVENT, "source": ""}, "InvalidArgument", "Parameter Source is not valid. Reason: Source is a required"),
        ({**EVENT, "detail-type": ""}, "InvalidArgument", "Parameter DetailType is not valid. Reason: DetailType is"),
        ({**EVENT, "detail": []}, "MalformedDetail", "Detail is malformed."),
        ({**EVENT, "detail": "x"}, "MalformedDetail", "Detail is malformed."),
        ({**EVENT, "source": "shop"}, "InvalidArgument", "Parameter source is not valid. Reason: the source of a"),
        (
            {**EVENT, "source": "aws.partner/a/b"},
            "InvalidArgument",
            "Parameter source is not valid. Reason: the source",
        ),
        ({**EVENT, "id": 'a"b'}, "InvalidArgument", "Parameter id is not valid. Reason: it does not have the form"),
        ({**EVENT, "id": ""}, "InvalidArgument", "Parameter id is not valid. Reason: it does not have the form"),
        ({**EVENT, "account": "1"}, "InvalidArgument", "Parameter account is not valid. Reason: it does not have the"),
        ({**EVENT, "region": "US East"}, "InvalidArgument", "Parameter region is not valid. Reason: it does not have"),
        ({**EVENT, "time": "noon"}, "InvalidArgument", "Parameter time is not valid. Reason: 'noon' is not a time"),
        ({**EVENT, "detail": {"a": "x" * 1000}}, "InvalidArgument", "Parameter detail is not valid. Reason: the event"),
    ],
)
async def test_an_entry_that_is_no_event_fails_alone(entry: Any, code: str, message: str) -> None:
    bench = Bench()
    first, bad, last = await bench.durable(EVENT, entry, EVENT)
    assert bad["ErrorCode"] == code
    assert bad["ErrorMessage"].startswith(message)
    assert [arrival.event_id for arrival in bench.arrivals] == [first["EventId"], last["EventId"]]
    counts = bench.metrics.services
    assert (counts.ServiceEventsEntriesCount, counts.ServiceEventsFailedEntriesCount) == (3, 1)


async def test_durable_events_that_cannot_be_stored_are_not_answered_for() -> None:
    bench = Bench()
    bench.error = StoreUnavailable("full")
    with pytest.raises(StoreUnavailable):
        await bench.durable(EVENT)


async def test_best_effort_is_answered_before_anything_is_put() -> None:
    bench = Bench()
    bench.gate.clear()
    bench.services.start()
    assert bench.best_effort(EVENT, EVENT) == 0
    assert bench.put_on == []
    bench.gate.set()
    await eventually(lambda: len(bench.arrivals) == 2, "both events")
    await bench.services.close()


async def test_what_does_not_fit_the_buffer_is_dropped_and_counted() -> None:
    bench = Bench(most_waiting=3)
    assert bench.best_effort(*[EVENT] * 5) == 2
    assert bench.metrics.services.ServiceEventsDropped == 2
    bench.services.start()
    await eventually(lambda: len(bench.arrivals) == 3, "what did fit")
    assert bench.best_effort(EVENT) == 0, "there is room again"
    await bench.services.close()
    assert len(bench.arrivals) == 4


async def test_the_buffer_is_bounded_in_bytes_too() -> None:
    bench = Bench(most_bytes=250)
    large = {**EVENT, "detail": {"a": "x" * 100}}
    assert bench.best_effort(large, large) == 1
    assert bench.best_effort(EVENT) == 0, "a small one still fits"
    bench.services.start()
    await eventually(lambda: len(bench.arrivals) == 2, "both")
    await eventually(lambda: bench.best_effort(large) == 0, "room for a large one")
    await bench.services.close()


async def test_best_effort_that_the_disk_refuses_is_dropped_and_counted() -> None:
    bench = Bench()
    bench.services.start()
    for error in (StoreUnavailable("full"), RuntimeError("a fault")):
        bench.error = error
        dropped = bench.metrics.services.ServiceEventsDropped
        bench.best_effort(EVENT, EVENT)
        await eventually(lambda before=dropped: bench.metrics.services.ServiceEventsDropped == before + 2, "the count")
    bench.error = None
    bench.best_effort(EVENT)
    await eventually(lambda: len(bench.arrivals) == 1, "the one after")
    await bench.services.close()


async def test_scopes_are_kept_apart_in_order() -> None:
    bench = Bench()
    for scope in (SCOPE, SCOPE, OTHER, SCOPE):
        bench.best_effort(EVENT, scope=scope)
    bench.services.start()
    await bench.services.close()
    assert [(scope, len(arrivals)) for scope, _, arrivals, _ in bench.put_on] == [(SCOPE, 2), (OTHER, 1), (SCOPE, 1)]
    assert bench.best_effort(EVENT) == 1, "a bus that stops takes nothing more"
