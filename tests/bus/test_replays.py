"""The course of a replay, step by step: what is put, what is written down when, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from bus.archives import Archive
from bus.archives.playback import ALONE, BESIDE_LIVE, BROKEN, COUNTED, PAGE_BYTES
from bus.archives.replay import Replay
from bus.archives.replays import KEPT_MS, KIND, Replays
from bus.arrival import Arrival
from bus.clock import ManualClock
from bus.errors import ApiError, StoreError, StoreUnavailable
from bus.scope import Call, Scope
from bus.store import Append, ConfChange, NewArchived, Store
from bus.store.sqlite import open_store
from bus.targets import Route
from rules.event import render_envelope
from tests.waiting import eventually

SCOPE = Scope("111111111111", "us-east-1")
CALL = Call(SCOPE)
ARCHIVE = Archive(7, *SCOPE, "a", "default", "mark", 0)
PAGE = BESIDE_LIVE.events
ROUTE = Route(5, SCOPE, "default", "r", "arn:r", {"Id": "t", "Arn": "http://127.0.0.1:9/"})


@dataclass
class Rule:
    name: str = "r"
    state: str = "ENABLED"
    routes: tuple[Route, ...] = (ROUTE,)


@dataclass
class Bench:
    """Replays of one archive, whose events go into a list; ``fault`` is raised, or False answered, instead of a put."""

    store: Store
    clock: ManualClock = field(default_factory=ManualClock)
    archives: list[Archive] = field(default_factory=lambda: [ARCHIVE])
    pages: list[list[Arrival]] = field(default_factory=list)
    fault: Callable[[], BaseException | bool | None] = lambda: None
    crowded: bool = False
    traffic: int = 0

    def replays(self) -> Replays:
        """As a process that starts makes them."""
        return Replays(
            self.store,
            self.clock,
            find_archive=lambda scope, name: next(iter(self.archives), None),
            has_bus=lambda scope, name: True,
            put=self.put,
            traffic=lambda: self.traffic,
            held_up=lambda routes: next(iter(routes), None) if self.crowded else None,
        )

    async def put(
        self, scope: Scope, bus: str, arrivals: Iterable[Arrival], *, choose: Callable[[list[Any]], list[Any]]
    ) -> bool:
        assert (scope, bus) == (SCOPE, "default")
        page = list(arrivals)
        await asyncio.sleep(0)
        fault = self.fault()
        if isinstance(fault, BaseException):
            raise fault
        if fault is False:
            return False
        choose([Rule()])
        self.pages.append(page)
        return True

    @property
    def put_ids(self) -> list[str]:
        return [arrival.event_id for page in self.pages for arrival in page]

    @property
    def put_times(self) -> list[str]:
        return [arrival.time for page in self.pages for arrival in page]

    async def fill(self, count: int, *, time: Callable[[int], int] = lambda n: n, detail: bytes = b"{}") -> None:
        batch = []
        for n in range(count):
            text = f"2026-01-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}Z"
            body = render_envelope(
                event_id="e",
                detail_type="t",
                source="s",
                account="1",
                time=text,
                region="r",
                resources=[],
                detail=detail,
            )
            batch.append(Append(1, "e", 0, body, archives=[NewArchived(7, time(n), 1)]))
        await self.store.append(batch)

    async def record(self) -> Replay:
        """What is on disk."""
        _, (entry,) = await self.store.conf_list(KIND)
        assert entry.value is not None
        return msgspec.json.decode(entry.value, type=Replay)


def request(name: str = "x", end: int = 1 << 30) -> dict[str, Any]:
    return {
        "ReplayName": name,
        "EventSourceArn": ARCHIVE.arn,
        "EventStartTime": 0,
        "EventEndTime": end,
        "Destination": {"Arn": ARCHIVE.bus_arn},
    }


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("bus.archives.playback.LIVE_FOR_S", 1e9)  # so that pages are small, however long a test takes
    clock = ManualClock()
    store = await open_store(":memory:", clock)
    yield Bench(store, clock)
    await store.close()


async def finish(replays: Replays, name: str = "x") -> dict[str, Any]:
    """The replay when it is over."""
    await eventually(lambda: not replays.active(), "the end")
    return await replays.describe_replay(CALL, {"ReplayName": name})


async def test_pages_are_small_and_in_order_of_time(bench: Bench) -> None:
    await bench.fill(3 * PAGE + 1, time=lambda n: 10_000 - n)
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    assert (await finish(replays))["State"] == "COMPLETED"
    assert [len(page) for page in bench.pages] == [PAGE, PAGE, PAGE, 1]
    assert bench.put_times == sorted(bench.put_times, reverse=True)
    assert {arrival.replay_name for page in bench.pages for arrival in page} == {"x"}
    record = await bench.record()
    assert (record.replayed, record.total) == (3 * PAGE + 1, 3 * PAGE + 1)


async def test_large_events_make_smaller_pages(bench: Bench) -> None:
    await bench.fill(4, detail=b'{"x":"%b"}' % (b"x" * (PAGE_BYTES // 2)))
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    await finish(replays)
    assert [len(page) for page in bench.pages] == [1, 1, 1, 1]


async def test_more_events_than_are_counted_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.archives.playback.COUNTED", 7)
    assert COUNTED > 7
    await bench.fill(25)
    replays = bench.replays()
    await replays.start_replay(CALL, request(end=22))
    await finish(replays)
    assert (await bench.record()).total == 22 == len(bench.put_ids)


async def test_what_is_written_down_was_put(bench: Bench) -> None:
    await bench.fill(5 * PAGE)
    seen: list[tuple[int, int]] = []
    conf_put = bench.store.conf_put

    async def watch(changes: Any) -> int:
        record = msgspec.json.decode(changes[0].value, type=Replay)
        seen.append((record.replayed, len(bench.put_ids)))
        return await conf_put(changes)

    bench.store.conf_put = watch  # type: ignore[method-assign]
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    await finish(replays)
    assert all(written <= put for written, put in seen)
    assert len({written for written, _ in seen}) > 4, "progress is written as it is made"


async def test_a_process_that_dies_anywhere_repeats_with_the_same_ids_and_skips_nothing(bench: Bench) -> None:
    await bench.fill(6 * PAGE)
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    await eventually(lambda: len(bench.pages) >= 3, "three pages")
    died = msgspec.structs.replace(await bench.record())
    await finish(replays)
    whole = bench.put_ids
    assert len(set(whole)) == 6 * PAGE

    # Another process finds the record as it was at that moment.
    bench.pages.clear()
    await bench.store.conf_put([ConfChange(KIND, died.key, msgspec.json.encode(died))])
    again = bench.replays()
    await again.start()
    assert (await finish(again))["State"] == "COMPLETED"
    assert bench.put_ids == whole[died.replayed :]
    assert 0 < died.replayed < 6 * PAGE


async def test_a_stop_writes_down_how_far_it_is(bench: Bench) -> None:
    await bench.fill(6 * PAGE)
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    await eventually(lambda: len(bench.pages) >= 2, "two pages")
    await replays.close()
    record = await bench.record()
    assert (record.state, record.replayed) == ("RUNNING", len(bench.put_ids))
    again = bench.replays()
    await again.start()
    await finish(again)
    assert len(bench.put_ids) == len(set(bench.put_ids)) == 6 * PAGE


async def test_a_disk_that_refuses_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.archives.playback.AGAIN_S", 0)
    await bench.fill(2 * PAGE)
    faults: list[BaseException | None] = [None, StoreUnavailable("full"), StoreUnavailable("full"), None]
    bench.fault = lambda: faults.pop(0) if faults else None
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    assert (await finish(replays))["State"] == "COMPLETED"
    assert len(bench.put_ids) == len(set(bench.put_ids)) == 2 * PAGE


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(False, "Event bus default does not exist."), (RuntimeError(), BROKEN), (StoreError("damaged"), BROKEN)],
)
async def test_what_ends_a_replay_before_its_time(bench: Bench, fault: BaseException | bool, reason: str) -> None:
    await bench.fill(2 * PAGE)
    bench.fault = lambda: fault if bench.pages else None
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    over = await finish(replays)
    assert (over["State"], over["StateReason"]) == ("FAILED", reason)
    assert (await bench.record()).replayed == PAGE
    await replays.start_replay(CALL, request("another"))


async def test_an_archive_that_was_made_anew_is_another(bench: Bench) -> None:
    await bench.fill(1)
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    bench.archives = [msgspec.structs.replace(ARCHIVE, number=8)]
    over = await finish(replays)
    assert (over["State"], over["StateReason"]) == ("FAILED", "Archive resource not found.")
    assert bench.pages == []


async def test_nothing_is_put_while_targets_do_not_keep_up(bench: Bench) -> None:
    await bench.fill(3 * PAGE)
    bench.crowded = True
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    await eventually(lambda: replays.summary()[0]["WaitingFor"], "the wait")
    assert len(bench.pages) == 1
    bench.crowded = False
    await finish(replays)
    assert len(bench.put_ids) == 3 * PAGE


async def test_a_cancellation_comes_before_the_end_of_the_work(bench: Bench) -> None:
    await bench.fill(3 * PAGE)
    bench.crowded = True
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    await eventually(lambda: replays.summary()[0]["WaitingFor"], "the wait")
    assert (await replays.cancel_replay(CALL, {"ReplayName": "x"}))["State"] == "CANCELLING"
    assert (await finish(replays))["State"] == "CANCELLED"
    record = await bench.record()
    assert (record.state, record.replayed) == ("CANCELLED", PAGE)


async def test_a_cancellation_at_the_very_start(bench: Bench) -> None:
    await bench.fill(1)
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    await replays.cancel_replay(CALL, {"ReplayName": "x"})
    assert (await finish(replays))["State"] == "CANCELLED"


async def test_a_replay_is_forgotten_ninety_days_after_its_end(bench: Bench) -> None:
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    await finish(replays)
    bench.clock.advance(KEPT_MS / 1000 - 1)
    await replays.forget_old()
    assert len((await replays.list_replays(CALL, {}))["Replays"]) == 1
    bench.clock.advance(1)
    await replays.forget_old()
    assert (await replays.list_replays(CALL, {}))["Replays"] == []
    assert await bench.store.conf_list(KIND) == (bench.store.allocate() - 1, [])
    await replays.start_replay(CALL, request())
    assert (await finish(replays))["State"] == "COMPLETED"


async def test_more_filters_than_a_bus_has_rules(bench: Bench) -> None:
    destination = {"Arn": ARCHIVE.bus_arn, "FilterArns": ["arn"] * 301}
    with pytest.raises(ApiError, match="LimitExceededException"):
        await bench.replays().start_replay(CALL, {**request(), "Destination": destination})


async def test_larger_pages_when_nothing_live_has_come_for_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.archives.playback.LIVE_FOR_S", 0)
    await bench.fill(2 * ALONE.events)
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    await finish(replays)
    assert [len(page) for page in bench.pages] == [ALONE.events, ALONE.events]


async def test_live_traffic_makes_pages_small_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.archives.playback.LIVE_FOR_S", 0)
    await bench.fill(ALONE.events + BESIDE_LIVE.events)

    def live() -> None:
        bench.traffic += 1
        monkeypatch.setattr("bus.archives.playback.LIVE_FOR_S", 1e9)

    bench.fault = live
    replays = bench.replays()
    await replays.start_replay(CALL, request())
    await finish(replays)
    assert [len(page) for page in bench.pages] == [ALONE.events, BESIDE_LIVE.events]


async def test_replays_take_turns(bench: Bench) -> None:
    await bench.fill(4 * PAGE)
    replays = bench.replays()
    await replays.start_replay(CALL, request("one"))
    await replays.start_replay(CALL, request("two"))
    await finish(replays, "two")
    names = [page[0].replay_name for page in bench.pages]
    assert names.count("one") == names.count("two") == 4
    assert names != sorted(names), "neither waits for the other's end"
