from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from bus.clock import ManualClock
from bus.timetable import LONGEST_TIMER_S, Timetable
from tests.waiting import eventually

START = 1_700_000_000_000


@dataclass
class Bench:
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))
    came: list[list[str]] = field(default_factory=list)
    turned_back: int = 0

    def __post_init__(self) -> None:
        self.table = Timetable(self.clock, due=self.came.append, turned_back=self._turn_back)

    def _turn_back(self) -> None:
        self.turned_back += 1

    def after(self, seconds: float) -> list[list[str]]:
        """What came due when the clock was moved and looked at."""
        self.came.clear()
        self.clock.advance(seconds)
        self.table.look()
        return list(self.came)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_keys_come_in_order_and_once(bench: Bench) -> None:
    bench.table.set("b", START + 2000)
    bench.table.set("a", START + 1000)
    bench.table.set("c", START + 9000)
    assert bench.after(0.5) == []
    assert bench.after(1.5) == [["a", "b"]]
    assert bench.after(1) == []
    assert bench.after(100) == [["c"]]


async def test_a_key_that_is_set_again_counts_as_it_was_set_last(bench: Bench) -> None:
    bench.table.set("later", START + 1000)
    bench.table.set("later", START + 5000)
    bench.table.set("sooner", START + 5000)
    bench.table.set("sooner", START + 1000)
    bench.table.set("never", START + 1000)
    bench.table.set("never", None)
    assert bench.after(1) == [["sooner"]]
    assert bench.after(4) == [["later"]]
    assert len(bench.table) == 0


async def test_keys_that_are_set_again_and_again_do_not_fill_the_memory(bench: Bench) -> None:
    for number in range(10_000):
        bench.table.set("x", START + 10**9 + number)
    assert len(bench.table._heap) < 100
    bench.table.set("x", START + 1000)
    assert bench.after(1) == [["x"]]


async def test_a_clock_turned_back_is_noticed_once(bench: Bench) -> None:
    bench.table.set("x", START + 1000)
    assert bench.after(-50) == []
    assert bench.turned_back == 1
    assert bench.after(50.5) == []
    assert bench.after(0.5) == [["x"]]
    assert bench.turned_back == 1


async def test_the_timer_is_set_for_the_first_and_never_longer_than_half_a_minute(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    plain = loop.call_later

    def call_later(delay: float, *rest: object) -> asyncio.TimerHandle:
        delays.append(delay)
        return plain(delay, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_later", call_later)
    bench.table.set("far", START + 86_400_000)
    bench.table.set("near", START + 1500)
    bench.table.set("farther", START + 2 * 86_400_000)
    assert delays == [LONGEST_TIMER_S, 1.5]


async def test_the_timer_looks(bench: Bench) -> None:
    bench.table.set("x", START + 5)
    bench.clock.advance(0.005)
    await eventually(lambda: bench.came == [["x"]])


async def test_nothing_comes_after_the_stop(bench: Bench) -> None:
    bench.table.set("x", START)
    bench.table.stop()
    assert bench.after(1) == []
