"""Turns, and lanes that wait for theirs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bus.accepted import Accepted
from bus.clock import IdSource, ManualClock
from bus.dispatch import Dispatch
from bus.dispatch.lane import Lane
from bus.dispatch.turns import GOOD_FOR, Turns
from bus.metrics import Metrics, RuleCounts
from bus.scope import Scope
from bus.store import Append, Lease
from bus.store.sqlite import SqliteStore, open_store
from bus.targets import Delivered, Delivery, Outcome, Route
from tests.waiting import eventually

SCOPE = Scope("000000000000", "us-east-1")


def route(number: int) -> Route:
    target = {"Id": f"t{number}", "Arn": "http://127.0.0.1:9/"}
    return Route(number, SCOPE, "default", f"rule-{number}", f"arn:rule-{number}", target)


# --- turns -----------------------------------------------------------------------------------------------------------


def test_turns_lie_an_equal_distance_apart() -> None:
    turns = Turns(4)
    assert [turns.reserve(100.0) for _ in range(5)] == [100.0, 100.25, 100.5, 100.75, 101.0]


def test_time_that_nobody_used_is_not_made_up_for() -> None:
    turns = Turns(4)
    turns.reserve(100.0)
    assert [turns.reserve(200.0) for _ in range(3)] == [200.0, 200.25, 200.5]


def test_no_second_has_more_turns_than_the_rate() -> None:
    turns = Turns(7)
    taken = [turns.reserve(now / 10) for now in range(1000) for _ in range(2)]
    assert all(later - earlier >= 1 - 1e-9 for earlier, later in zip(taken, taken[7:], strict=False))


def test_without_a_rate_every_instant_is_one() -> None:
    turns = Turns()
    assert [turns.reserve(5.0) for _ in range(3)] == [5.0] * 3


def test_a_new_rate_holds_from_now_on() -> None:
    turns = Turns(1)
    for _ in range(100):
        turns.reserve(10.0)
    turns.change(10)
    assert [turns.reserve(11.0) for _ in range(2)] == [11.0, 11.1]


# --- lanes -----------------------------------------------------------------------------------------------------------


def lane_with(turns: Turns, *, ready: int) -> Lane:
    lane = Lane(route(1), window=8, counts=RuleCounts(), turns=turns)
    for number in range(ready):
        lane.put(Lease(number, 1, 1, 0, 1 << 60, 1 << 60, "id", 0, b"{}", None))
    return lane


def test_a_lane_reserves_no_turn_that_it_has_no_use_for() -> None:
    turns = Turns(1)
    assert lane_with(turns, ready=1).take_turn(100.0)
    assert turns.reserve(100.0) == 101.0, "one turn was taken, and no other was reserved"


def test_lanes_of_one_destination_take_turns() -> None:
    turns = Turns(1)
    lanes = [lane_with(turns, ready=100) for _ in range(3)]
    order = [
        number
        for now in range(100, 112)
        for number, lane in enumerate(lanes)
        if lane.comes_up(now) and lane.take_turn(now)
    ]
    assert order == [0, *[0, 1, 2] * 4][:12]


def test_a_turn_is_not_good_for_ever() -> None:
    turns = Turns(1)
    lanes = [lane_with(turns, ready=100) for _ in range(3)]
    for lane in lanes:
        lane.take_turn(100.0)
    late = 105.0 + GOOD_FOR
    assert [lane.take_turn(late) for lane in lanes] == [True, False, False]


# --- the dispatcher --------------------------------------------------------------------------------------------------


class Target:
    def __init__(self) -> None:
        self.attempts: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def deliver(self, delivery: Delivery) -> Outcome:
        self.attempts.append(delivery.route.rule)
        await self.gate.wait()
        return Delivered()

    async def close(self) -> None: ...


class Given:
    """Turns that come when the test says so: each reservation is for the far future until it is `granted`."""

    FAR = 1e9
    limited = True

    def __init__(self) -> None:
        self.free = 0
        self.asked = 0

    def reserve(self, now: float) -> float:
        self.asked += 1
        if self.free:
            self.free -= 1
            return now
        return now + self.FAR


class Bench:
    def __init__(self, store: SqliteStore, turns: Any, *, routes: int = 1) -> None:
        self.store = store
        self.clock = ManualClock()
        self.ids = IdSource(self.clock)
        self.metrics = Metrics()
        self.target = Target()
        self.routes = {number: route(number) for number in range(1, routes + 1)}
        self.dispatch = Dispatch(
            store, self.clock, metrics=self.metrics, route=self.routes.get, target=lambda each: self.target,
            dead_letter=lambda *given: pytest.fail("nothing dies here"), max_in_flight=8, turns=lambda each: turns,
        )  # fmt: skip

    async def put(self, *numbers: int) -> None:
        now = self.clock.now_ms()
        event = Accepted(self.ids.new(), 1, now, b"{}")
        plan = self.dispatch.plan(event, [self.routes[number] for number in numbers])
        append = Append(1, event.event_id, now, b"{}", None, plan.deliveries, plan.messages)
        (stored,) = await self.store.append([append], lease_until=now + 7_200_000)
        self.dispatch.accepted([(event, plan, stored)])

    def waits(self, number: int = 1) -> bool:
        """Whether the lane has deliveries, none under way, and a timer for its turn."""
        lane = self.dispatch._lanes[number]
        return bool(lane.ready) and not lane.running and lane.timer is not None

    def grant(self, number: int = 1) -> None:
        """The reserved turn comes."""
        self.dispatch._lanes[number].turn = asyncio.get_running_loop().time()
        self.dispatch.tick()

    def rows(self) -> list[Any]:
        return self.store._connection.execute("SELECT attempts FROM delivery").fetchall()


@pytest.fixture
async def store() -> Any:
    opened = await open_store(":memory:", ManualClock())
    yield opened
    await opened.close()


async def test_what_is_above_the_rate_waits_without_attempt_or_failure(store: SqliteStore) -> None:
    turns = Given()
    turns.free = 1
    bench = Bench(store, turns)
    for _ in range(20):
        await bench.put(1)
    await eventually(lambda: bench.waits() and len(bench.rows()) == 19)
    assert len(bench.target.attempts) == 1
    assert turns.asked == 2, "one turn was taken, one is reserved; nobody asks again and again"
    counts = bench.metrics.rule(SCOPE, "default", "rule-1")
    assert (counts.InvocationAttempts, counts.RetryInvocationAttempts, counts.FailedInvocations) == (1, 0, 0)
    assert set(bench.rows()) == {(0,)}
    for made in range(2, 21):
        bench.grant()
        await eventually(lambda made=made: len(bench.rows()) == 20 - made)
        assert len(bench.target.attempts) == made
    counts = bench.metrics.rule(SCOPE, "default", "rule-1")
    assert (counts.InvocationAttempts, counts.SuccessfulInvocationAttempts) == (20, 20)


async def test_a_slow_answer_does_not_hold_up_the_next_turn(store: SqliteStore) -> None:
    turns = Given()
    turns.free = 1
    bench = Bench(store, turns)
    bench.target.gate.clear()
    for _ in range(3):
        await bench.put(1)
    for made in (1, 2, 3):
        await eventually(lambda made=made: len(bench.target.attempts) == made)
        assert bench.dispatch._lanes[1].running == made
        if made < 3:
            bench.grant()
    bench.target.gate.set()
    await eventually(lambda: not bench.rows())


async def test_looking_does_not_wear_a_turn_out(store: SqliteStore) -> None:
    turns = Given()
    bench = Bench(store, turns)
    await bench.put(1)
    await eventually(bench.waits)
    for _ in range(50):
        bench.dispatch.tick()
        await asyncio.sleep(0)
    assert (turns.asked, bench.target.attempts) == (1, [])


@pytest.mark.parametrize("ended", ["turn", "pause"])
async def test_a_timer_that_is_set_anew_forgets_nothing_that_ended_meanwhile(store: SqliteStore, ended: str) -> None:
    bench = Bench(store, Given())
    await bench.put(1)
    await eventually(bench.waits)
    lane, now = bench.dispatch._lanes[1], asyncio.get_running_loop().time()
    lane.turn = now if ended == "turn" else None
    lane.turns = lane.turns if ended == "turn" else None
    lane.pace.resume_at = now
    bench.dispatch._set_timer(lane, bench.clock.now_ms())  # as a settlement does
    await eventually(lambda: not bench.rows(), "the delivery is made without anybody looking")


async def test_a_turn_nobody_is_left_to_use_is_given_up(store: SqliteStore) -> None:
    turns = Given()
    bench = Bench(store, turns)
    await bench.put(1)
    await eventually(bench.waits)
    lane = bench.dispatch._lanes[1]
    lane.take()
    bench.dispatch.tick()
    assert lane.turn is None


async def test_routes_to_one_destination_share_its_rate(store: SqliteStore) -> None:
    bench = Bench(store, Turns(300), routes=2)
    for _ in range(10):
        await bench.put(1, 2)
    await eventually(lambda: not bench.rows())
    assert sorted(bench.target.attempts) == ["rule-1"] * 10 + ["rule-2"] * 10
    first_half = bench.target.attempts[:10]
    assert {first_half.count("rule-1"), first_half.count("rule-2")} <= {4, 5, 6}, "neither is passed over"


async def test_without_a_rate_the_whole_window_is_used(store: SqliteStore) -> None:
    bench = Bench(store, Turns())
    bench.target.gate.clear()
    for _ in range(20):
        await bench.put(1)
    await eventually(lambda: len(bench.target.attempts) == 8, "eight attempts are under way at once")
    bench.target.gate.set()
    await eventually(lambda: not bench.rows())


async def test_a_rate_that_is_taken_away_holds_nobody_up(store: SqliteStore) -> None:
    turns = Turns(1)
    bench = Bench(store, turns)
    for _ in range(20):
        await bench.put(1)
    await eventually(bench.waits)
    turns.change(None)
    bench.grant()
    await eventually(lambda: not bench.rows())


async def test_other_targets_know_nothing_of_turns(store: SqliteStore) -> None:
    bench = Bench(store, None)
    for _ in range(20):
        await bench.put(1)
    await eventually(lambda: not bench.rows())
    assert len(bench.target.attempts) == 20
