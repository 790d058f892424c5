"""The dispatcher, with a clock that moves when told and targets that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bus.accepted import Accepted, Luggage, pack
from bus.clock import IdSource, ManualClock
from bus.dispatch import Dispatch
from bus.dispatch.pace import PATIENCE
from bus.errors import ApiError, StoreUnavailable
from bus.metrics import Metrics
from bus.scope import Scope
from bus.store import Append, Done, NewMessage
from bus.store.sqlite import SqliteStore, open_store
from bus.targets import Delivered, Delivery, Failed, Outcome, Route
from rules import paths
from tests.waiting import eventually

SCOPE = Scope("000000000000", "us-east-1")
RULE_ARN = "arn:aws:events:us-east-1:000000000000:rule/orders"
DLQ = "arn:aws:sqs:us-east-1:000000000000:dead-letters"
UNREACHABLE = Failed("CONNECTION_FAILURE", "refused", retry=True)
REFUSED = Failed("SDK_CLIENT_ERROR", "404", retry=False)


def route(number: int, **members: Any) -> Route:
    target = {"Id": f"t{number}", "Arn": f"http://127.0.0.1:9/{number}", **members}
    return Route(number, SCOPE, "default", "orders", RULE_ARN, target)


@dataclass
class FakeTarget:
    """Answers each attempt with what ``answer`` says, and remembers them all."""

    answer: Callable[[Delivery], Outcome] = lambda delivery: Delivered()
    attempts: list[Delivery] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def deliver(self, delivery: Delivery) -> Outcome:
        self.attempts.append(delivery)
        if self.gate is not None:
            await self.gate.wait()
        return self.answer(delivery)

    async def close(self) -> None: ...


class ImmediateFake(FakeTarget):
    def deliver_now(self, delivery: Delivery) -> Outcome:
        return self.answer(delivery)


class Bench:
    """A dispatcher over a real store, with its routes, targets and dead letters in the open."""

    def __init__(self, store: SqliteStore, clock: ManualClock, *routes: Route, window: int = 8) -> None:
        self.store = store
        self.clock = clock
        self.ids = IdSource(clock)
        self.routes = {each.number: each for each in routes}
        self.targets: dict[int, FakeTarget] = {each.number: FakeTarget() for each in routes}
        self.letters: list[tuple[str, bytes, dict[str, str], str | None]] = []
        self.letter_refusal: ApiError | None = None
        self.metrics = Metrics()
        self.dispatch = Dispatch(
            store,
            clock,
            metrics=self.metrics,
            route=self.routes.get,
            target=lambda each: self.targets[each.number],
            dead_letter=self._dead_letter,
            max_in_flight=window,
            jitter=lambda: 1.0,
        )

    def _dead_letter(self, arn: str, body: bytes, attributes: Any, trace: str | None) -> NewMessage:
        if self.letter_refusal is not None:
            raise self.letter_refusal
        self.letters.append((arn, body, dict(attributes), trace))
        now = self.clock.now_ms()
        return NewMessage(77, self.ids.new(), now, now, body.decode())

    async def put(self, *numbers: int, body: bytes = b'{"id":"x","detail":{}}', luggage: Luggage | None = None) -> None:
        now = self.clock.now_ms()
        luggage = luggage or Luggage()
        event = Accepted(self.ids.new(), 1, now, body, luggage, pack(luggage))
        plan = self.dispatch.plan(event, [self.routes[number] for number in numbers])
        append = Append(1, event.event_id, now, body, event.attrs, plan.deliveries, plan.messages)
        (stored,) = await self.store.append([append], lease_until=now + 7_200_000)
        self.dispatch.accepted([(event, plan, stored)])

    async def settled(self) -> bool:
        return not await self.store.backlog()

    async def until_settled(self) -> None:
        await eventually(lambda: not self.rows("delivery"), "every delivery is settled")

    def rows(self, table: str) -> list[Any]:
        return self.store._connection.execute(f"SELECT * FROM {table}").fetchall()

    def retries(self, attempts: int) -> bool:
        """Whether every delivery that waits is in the store with so many attempts made."""
        found = self.store._connection.execute("SELECT attempts FROM delivery").fetchall()
        return bool(found) and all(row == (attempts,) for row in found)

    async def later(self, seconds: float) -> None:
        """Let time pass, and everything that it makes due happen."""
        self.clock.advance(seconds)
        self.dispatch.tick()


@pytest.fixture
async def store() -> Any:
    opened = await open_store(":memory:", ManualClock())
    yield opened
    await opened.close()


async def test_a_delivery_leaves_nothing_behind(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1))
    await bench.put(1)
    await bench.until_settled()
    assert [each.attempt for each in bench.targets[1].attempts] == [1]
    assert bench.rows("event") == []
    counts = bench.metrics.rule(SCOPE, "default", "orders")
    assert (counts.Invocations, counts.InvocationAttempts, counts.SuccessfulInvocationAttempts) == (1, 1, 1)
    assert counts.FailedInvocations == 0


async def test_an_event_stays_until_its_last_delivery(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1), route(2))
    bench.targets[2].gate = asyncio.Event()
    await bench.put(1, 2)
    await eventually(lambda: len(bench.rows("delivery")) == 1)
    assert len(bench.rows("event")) == 1
    bench.targets[2].gate.set()
    await bench.until_settled()
    assert bench.rows("event") == []


async def test_a_retry_waits_for_its_instant(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1))
    target = bench.targets[1]
    target.answer = lambda delivery: UNREACHABLE if delivery.attempt == 1 else Delivered()
    await bench.put(1)
    await eventually(lambda: bench.retries(1), "the retry is settled")
    bench.dispatch.tick()
    assert len(target.attempts) == 1, "not a moment earlier"
    await bench.later(1.001)
    await bench.until_settled()
    assert [each.attempt for each in target.attempts] == [1, 2]
    assert bench.metrics.rule(SCOPE, "default", "orders").RetryInvocationAttempts == 1


async def test_retry_after_is_honoured(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1))
    target = bench.targets[1]
    asked = Failed("THROTTLING", "429", retry=True, retry_after=600.0)
    target.answer = lambda delivery: asked if delivery.attempt == 1 else Delivered()
    await bench.put(1)
    await eventually(lambda: bench.retries(1))
    ((due,),) = store._connection.execute("SELECT due FROM delivery").fetchall()
    assert due == bench.clock.now_ms() + 600_000


async def test_attempts_run_out(store: SqliteStore) -> None:
    policy = {"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 3600}
    bench = Bench(store, ManualClock(), route(1, RetryPolicy=policy, DeadLetterConfig={"Arn": DLQ}))
    bench.targets[1].answer = lambda delivery: UNREACHABLE
    await bench.put(1, body=b'{"n":1}', luggage=Luggage(trace="Root=1-0-0"))
    for attempt in (1, 2):
        await eventually(lambda made=attempt: bench.retries(made))
        await bench.later(300)
    await bench.until_settled()
    assert bench.letters == [
        (
            DLQ,
            b'{"n":1}',
            {
                "RULE_ARN": RULE_ARN,
                "TARGET_ARN": "http://127.0.0.1:9/1",
                "ERROR_CODE": "CONNECTION_FAILURE",
                "ERROR_MESSAGE": "refused",
                "EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts",
                "RETRY_ATTEMPTS": "2",
            },
            "Root=1-0-0",
        )
    ]
    assert len(bench.rows("message")) == 1, "the letter is stored with the settlement"
    counts = bench.metrics.rule(SCOPE, "default", "orders")
    assert (counts.FailedInvocations, counts.InvocationsSentToDlq, counts.InvocationAttempts) == (1, 1, 3)


async def test_the_default_policy_ends_after_185_retries(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1, DeadLetterConfig={"Arn": DLQ}))
    bench.targets[1].answer = lambda delivery: UNREACHABLE
    await bench.put(1)
    for attempt in range(1, 186):
        await eventually(lambda made=attempt: bench.retries(made))
        bench.dispatch._lanes[1].pace.succeeded()  # the target's own pause is not what is tested
        await bench.later(301)
    await bench.until_settled()
    ((_, _, attributes, _),) = bench.letters
    assert attributes["EXHAUSTED_RETRY_CONDITION"] == "MaximumRetryAttempts"
    assert attributes["RETRY_ATTEMPTS"] == "185"
    assert len(bench.targets[1].attempts) == 186


async def test_age_ends_a_delivery_even_while_its_target_is_paused(store: SqliteStore) -> None:
    policy = {"MaximumEventAgeInSeconds": 60}
    bench = Bench(store, ManualClock(), route(1, RetryPolicy=policy, DeadLetterConfig={"Arn": DLQ}))
    bench.targets[1].answer = lambda delivery: UNREACHABLE
    for _ in range(50):
        await bench.put(1)
    lane = bench.dispatch._lanes[1]
    await eventually(lambda: lane.pace.resume_at > 0 and not lane.running, "the target is taken for dead")
    attempts = len(bench.targets[1].attempts)
    assert attempts < 50
    await bench.later(61)
    await bench.until_settled()
    assert len(bench.targets[1].attempts) == attempts
    assert len(bench.letters) == 50
    conditions = {attributes["EXHAUSTED_RETRY_CONDITION"] for _, _, attributes, _ in bench.letters}
    assert conditions == {"MaximumEventAgeInSeconds"}


async def test_a_retry_due_in_23_hours_survives_restarts(tmp_path: Path) -> None:
    clock = ManualClock()
    asked = Failed("THROTTLING", "429", retry=True, retry_after=23 * 3600.0)
    first = Bench(await open_store(str(tmp_path), clock), clock, route(1))
    first.targets[1].answer = lambda delivery: asked
    await first.put(1)
    await eventually(lambda: first.retries(1))
    await first.dispatch.stop(1)
    await first.store.close()

    clock.advance(12 * 3600)
    second = Bench(await open_store(str(tmp_path), clock), clock, route(1))
    await second.dispatch.start()
    await eventually(lambda: second.dispatch._aging.round is None)
    assert second.targets[1].attempts == []
    await second.dispatch.stop(1)
    await second.store.close()

    clock.advance(11 * 3600)
    third = Bench(await open_store(str(tmp_path), clock), clock, route(1))
    await third.dispatch.start()
    await third.until_settled()
    assert [each.attempt for each in third.targets[1].attempts] == [2]
    await third.dispatch.stop(1)
    await third.store.close()


async def test_the_24_hours_end_across_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()
    dead = route(1, DeadLetterConfig={"Arn": DLQ})
    first = Bench(await open_store(str(tmp_path), clock), clock, dead)
    first.targets[1].answer = lambda delivery: UNREACHABLE
    await first.put(1)
    await eventually(lambda: first.retries(1))
    await first.dispatch.stop(1)
    await first.store.close()

    clock.advance(86_400)
    second = Bench(await open_store(str(tmp_path), clock), clock, dead)
    await second.dispatch.start()
    await second.until_settled()
    ((_, _, attributes, _),) = second.letters
    assert attributes["EXHAUSTED_RETRY_CONDITION"] == "MaximumEventAgeInSeconds"
    assert (attributes["ERROR_CODE"], attributes["ERROR_MESSAGE"]) == ("CONNECTION_FAILURE", "refused")
    assert attributes["RETRY_ATTEMPTS"] == "0"
    assert second.targets[1].attempts == []
    await second.dispatch.stop(1)
    await second.store.close()


async def test_a_final_failure_is_dead_lettered_at_once(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1, DeadLetterConfig={"Arn": DLQ}))
    bench.targets[1].answer = lambda delivery: REFUSED
    await bench.put(1)
    await bench.until_settled()
    ((_, _, attributes, _),) = bench.letters
    assert set(attributes) == {"RULE_ARN", "TARGET_ARN", "ERROR_CODE", "ERROR_MESSAGE"}


async def test_without_a_dead_letter_queue_the_drop_is_counted(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1))
    bench.targets[1].answer = lambda delivery: REFUSED
    await bench.put(1)
    await bench.until_settled()
    assert bench.metrics.rule(SCOPE, "default", "orders").InvocationsFailedToBeSentToDlq == 1
    assert bench.rows("event") == []


async def test_a_dead_letter_queue_that_refuses_is_counted(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1, DeadLetterConfig={"Arn": DLQ}))
    bench.targets[1].answer = lambda delivery: REFUSED
    bench.letter_refusal = ApiError("QueueDoesNotExist", "gone")
    await bench.put(1)
    await bench.until_settled()
    counts = bench.metrics.rule(SCOPE, "default", "orders")
    assert (counts.InvocationsSentToDlq, counts.InvocationsFailedToBeSentToDlq) == (0, 1)


async def test_text_that_is_not_json_is_dead_lettered_as_it_is(store: SqliteStore) -> None:
    transformer = {"InputPathsMap": {"v": "$.detail.v"}, "InputTemplate": '{"object":"<v>"}'}
    bench = Bench(store, ManualClock(), route(1, InputTransformer=transformer, DeadLetterConfig={"Arn": DLQ}))
    await bench.put(1, body=b'{"detail":{"v":{"a":"b"}}}')
    await bench.until_settled()
    ((_, body, attributes, _),) = bench.letters
    assert (attributes["ERROR_CODE"], attributes["ERROR_MESSAGE"]) == ("INVALID_JSON", "Invalid input for target.")
    assert body == b'{"object":"{"a":"b"}"}'
    assert bench.targets[1].attempts == []


async def test_the_paths_of_a_target_compile_once_for_all_events(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    compile_path = paths.Path.parse
    monkeypatch.setattr(paths.Path, "parse", lambda text: compiled.append(text) or compile_path(text))
    transformer = {"InputPathsMap": {"v": "$.detail.v"}, "InputTemplate": '{"v":<v>}'}
    bench = Bench(store, ManualClock(), route(1, InputTransformer=transformer))
    for number in range(20):
        await bench.put(1, body=b'{"detail":{"v":%d}}' % number)
    await bench.until_settled()
    assert [each.body for each in bench.targets[1].attempts] == [b'{"v":%d}' % number for number in range(20)]
    assert compiled == ["$.detail.v"]


async def test_a_redriven_body_is_not_transformed_again(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1, Input='{"fixed":true}'))
    await bench.put(1, body=b'"as it was"', luggage=Luggage(rendered=True))
    await bench.until_settled()
    assert [each.body for each in bench.targets[1].attempts] == [b'"as it was"']


async def test_memory_does_not_grow_with_the_backlog(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1), window=4)
    gate = bench.targets[1].gate = asyncio.Event()
    for _ in range(2000):
        await bench.put(1)
    lane = bench.dispatch._lanes[1]
    assert len(lane.ready) + lane.running <= lane.room + 4
    gate.set()
    await bench.until_settled()
    assert len(bench.targets[1].attempts) == 2000
    assert len({each.event_id for each in bench.targets[1].attempts}) == 2000


async def test_a_dead_target_does_not_hold_up_a_healthy_one(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1), route(2))
    bench.targets[1].answer = lambda delivery: UNREACHABLE
    for _ in range(500):
        await bench.put(1, 2)
    await eventually(lambda: len(bench.targets[2].attempts) == 500)
    assert len(bench.targets[1].attempts) < 100, "a dead target is probed, not pressed"


async def test_the_window_bounds_what_is_under_way(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1), window=3)
    gate = bench.targets[1].gate = asyncio.Event()
    for _ in range(10):
        await bench.put(1)
    await eventually(lambda: len(bench.targets[1].attempts) == 3)
    assert bench.dispatch._lanes[1].running == 3
    gate.set()
    await bench.until_settled()


async def test_stopping_lets_attempts_finish(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1), window=1)
    gate = bench.targets[1].gate = asyncio.Event()
    await bench.put(1)
    await bench.put(1)
    await eventually(lambda: len(bench.targets[1].attempts) == 1)
    stopping = asyncio.ensure_future(bench.dispatch.stop(10))
    await asyncio.sleep(0)
    gate.set()
    await stopping
    assert len(bench.targets[1].attempts) == 1, "nothing new was begun"
    assert len(bench.rows("delivery")) == 1, "the other stays in the store"


async def test_stopping_does_not_wait_for_a_target_that_hangs(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1))
    bench.targets[1].gate = asyncio.Event()
    await bench.put(1)
    await eventually(lambda: len(bench.targets[1].attempts) == 1)
    await bench.dispatch.stop(0.01)
    assert len(bench.rows("delivery")) == 1


async def test_a_settlement_the_disk_refuses_is_offered_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.dispatch.settling.AGAIN_S", 0.0)
    bench = Bench(store, ManualClock(), route(1))
    real, refusals = store.settle, [StoreUnavailable("full"), StoreUnavailable("full")]

    async def settle(outcomes: Any) -> list[bool]:
        if refusals:
            raise refusals.pop()
        return await real(outcomes)

    monkeypatch.setattr(store, "settle", settle)
    await bench.put(1)
    await bench.until_settled()
    assert refusals == []
    assert len(bench.targets[1].attempts) == 1


async def test_an_outcome_that_cannot_be_stored_takes_no_others_with_it(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), *(route(number, DeadLetterConfig={"Arn": DLQ}) for number in range(1, 7)))
    real = store.settle

    async def settle(outcomes: Any) -> list[bool]:
        if any(type(outcome) is Done and outcome.route == 1 for outcome in outcomes):
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed")
        return await real(outcomes)

    store.settle = settle  # type: ignore[method-assign]
    for number in range(1, 7):
        await bench.put(number)
    await eventually(lambda: len(bench.rows("delivery")) == 1 and bench.retries(1), "the others are settled")
    store.settle = real  # type: ignore[method-assign]
    await bench.later(61)
    await bench.until_settled()


async def test_odd_text_in_a_failure_is_stored_all_the_same(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1))
    odd = Failed("ERROR_FROM_TARGET", "\ud800" * 5000, retry=True)
    bench.targets[1].answer = lambda delivery: odd
    await bench.put(1)
    await eventually(lambda: bench.retries(1))


async def test_an_event_that_comes_during_a_pause_is_attempted_after_it(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1, RetryPolicy={"MaximumRetryAttempts": 0}))
    target = bench.targets[1]
    target.answer = lambda delivery: UNREACHABLE
    for _ in range(PATIENCE):
        await bench.put(1)
    await bench.until_settled()
    lane = bench.dispatch._lanes[1]
    assert lane.pace.resume_at > asyncio.get_running_loop().time()
    target.answer = lambda delivery: Delivered()
    await bench.put(1)
    await bench.until_settled()
    assert len(target.attempts) == PATIENCE + 1


async def test_a_claim_that_fails_is_made_again(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.dispatch.CLAIM_AGAIN_MS", 0)
    bench = Bench(store, ManualClock(), route(1))
    gate = bench.targets[1].gate = asyncio.Event()
    for _ in range(300):
        await bench.put(1)
    real, refusals = store.claim, [StoreUnavailable("EIO"), StoreUnavailable("EIO")]

    async def claim(*arguments: Any, **named: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await real(*arguments, **named)

    monkeypatch.setattr(store, "claim", claim)
    gate.set()
    await bench.until_settled()
    assert refusals == []


async def test_looking_for_old_deliveries_survives_a_read_error(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.dispatch.aging.LONGEST_S", 0.0)
    monkeypatch.setattr("bus.dispatch.aging.SOONEST_S", 0.0)
    bench = Bench(store, ManualClock(), route(1, DeadLetterConfig={"Arn": DLQ}))
    bench.targets[1].answer = lambda delivery: Failed("THROTTLING", "429", retry=True, retry_after=80_000.0)
    await bench.put(1)
    await eventually(lambda: bench.retries(1))
    real, refusals = store.claim_expired, [StoreUnavailable("EIO")]

    async def claim_expired(**named: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await real(**named)

    monkeypatch.setattr(store, "claim_expired", claim_expired)
    bench.clock.advance(86_401)
    bench.dispatch.tick()
    await bench.until_settled()
    assert refusals == []
    assert len(bench.letters) == 1
    await bench.dispatch.stop(0)


async def test_a_backlog_is_worked_off_by_the_whole_window(tmp_path: Path) -> None:
    clock = ManualClock()
    first = Bench(await open_store(str(tmp_path), clock), clock, route(1))
    first.targets[1].answer = lambda delivery: UNREACHABLE
    for _ in range(40):
        await first.put(1)
    await first.dispatch.stop(1)
    await first.store.close()
    clock.advance(5)
    second = Bench(await open_store(str(tmp_path), clock), clock, route(1), window=8)
    gate = second.targets[1].gate = asyncio.Event()
    await second.dispatch.start()
    await eventually(lambda: len(second.targets[1].attempts) == 8, "eight attempts are under way at once")
    gate.set()
    await second.until_settled()
    await second.dispatch.stop(1)
    await second.store.close()


async def test_while_nothing_can_be_settled_little_is_attempted(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.dispatch.settling.AGAIN_S", 0.0)
    monkeypatch.setattr("bus.dispatch.settling.LIMIT", 20)
    bench = Bench(store, ManualClock(), route(1), route(2))
    real, full = store.settle, [True]

    async def settle(outcomes: Any) -> list[bool]:
        if full:
            raise StoreUnavailable("full")
        return await real(outcomes)

    monkeypatch.setattr(store, "settle", settle)
    for _ in range(300):
        await bench.put(1)
    await eventually(lambda: bench.dispatch._settling.full and not bench.dispatch._lanes[1].running)
    assert len(bench.targets[1].attempts) < 40
    await bench.put(2)
    full.clear()
    await bench.until_settled()
    assert len(bench.targets[1].attempts) == 300
    assert len(bench.targets[2].attempts) == 1


async def test_lanes_of_forgotten_routes_are_let_go(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1), route(2))
    gate = bench.targets[2].gate = asyncio.Event()
    await bench.put(1, 2)
    await eventually(lambda: len(bench.rows("delivery")) == 1 and not bench.dispatch._lanes[1].running)
    kept = dict(bench.routes)
    bench.routes.clear()
    bench.dispatch.forget_lanes()
    assert set(bench.dispatch._lanes) == {2}, "what has a delivery in hand stays"
    bench.routes.update(kept)
    gate.set()
    await bench.until_settled()


async def test_an_immediate_target_needs_no_delivery(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1))
    now = bench.clock.now_ms()
    message = NewMessage(5, "m", now, now, "body")
    bench.targets[1] = ImmediateFake(answer=lambda delivery: Delivered((message,)))
    await bench.put(1)
    assert bench.rows("delivery") == []
    assert bench.rows("event") == []
    assert len(bench.rows("message")) == 1
    assert bench.metrics.rule(SCOPE, "default", "orders").Invocations == 1


async def test_what_an_immediate_target_refuses_becomes_a_delivery(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1, DeadLetterConfig={"Arn": DLQ}))
    bench.targets[1] = ImmediateFake(answer=lambda delivery: REFUSED)
    await bench.put(1)
    await bench.until_settled()
    assert len(bench.letters) == 1


async def test_an_attempt_that_raises_does_not_lose_the_delivery(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1))

    def answer(delivery: Delivery) -> Outcome:
        if delivery.attempt == 1:
            raise RuntimeError("a target broke its contract")
        return Delivered()

    bench.targets[1].answer = answer
    await bench.put(1)
    await eventually(lambda: bench.retries(1))
    await bench.later(301)
    await bench.until_settled()
    assert [each.attempt for each in bench.targets[1].attempts] == [1, 2]


async def test_a_fault_of_our_own_does_not_strand_the_delivery(store: SqliteStore) -> None:
    bench = Bench(store, ManualClock(), route(1))
    await bench.put(1)
    lane = bench.dispatch._lanes[1]
    broken = [RuntimeError("rendering broke")]
    real = lane.pace.succeeded

    def succeeded() -> None:
        if broken:
            raise broken.pop()
        real()

    lane.pace = PaceThat(lane.pace, succeeded)  # type: ignore[assignment]
    await eventually(lambda: bench.retries(1))
    await bench.later(61)
    await bench.until_settled()
    assert [each.attempt for each in bench.targets[1].attempts] == [1, 2]


class PaceThat:
    """A pace whose `succeeded` is replaced."""

    def __init__(self, pace: Any, succeeded: Callable[[], None]) -> None:
        self._pace = pace
        self.succeeded = succeeded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pace, name)
