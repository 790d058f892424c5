"""Schedule rules in a whole bus whose clock the test moves; a queue takes what they send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bus.app import App, open_app
from bus.clock import ManualClock
from bus.config import Settings
from bus.errors import StoreUnavailable, StoreUnusable
from bus.scheduler import BATCH, PROGRESS, Scheduler, event_id
from bus.scope import Call, Scope
from bus.store import ConfChange
from tests.waiting import eventually

SCOPE = Scope("111111111111", "eu-west-1")
RULE_ARN = "arn:aws:events:eu-west-1:111111111111:rule/"
QUEUE = "arn:aws:sqs:eu-west-1:111111111111:"
NOON = int(datetime(2024, 3, 1, 12, 0, 0, tzinfo=UTC).timestamp() * 1000)
"""A Friday."""


class Bench:
    """A bus, its clock, and short ways to its operations."""

    def __init__(self, app: App, clock: ManualClock) -> None:
        self.app = app
        self.clock = clock

    async def call(self, operation: str, scope: Scope = SCOPE, /, **request: Any) -> Any:
        for capability in (self.app.ingest, self.app.catalog, self.app.queues):
            if hasattr(capability, operation):
                return await getattr(capability, operation)(Call(scope), request)
        raise AssertionError(f"no capability has {operation}")

    async def rule(self, name: str, schedule: str | None = None, *, queue: str | None = "q", **more: Any) -> None:
        """A rule and its target, a queue (made if need be)."""
        given = {"ScheduleExpression": schedule} if schedule is not None else {}
        await self.call("put_rule", Name=name, **given, **more)
        if queue is not None:
            await self.target(name, queue)

    async def target(self, rule: str, queue: str, **more: Any) -> None:
        await self.call("create_queue", QueueName=queue)
        await self.call("put_targets", Rule=rule, Targets=[{"Id": "t", "Arn": QUEUE + queue, **more}])

    async def at(self, time: str) -> None:
        """Set the clock (UTC, the day of `NOON` where there is no date) and let everything happen that is due."""
        moment = datetime.fromisoformat(time if "-" in time else f"2024-03-01T{time}").replace(tzinfo=UTC)
        self.clock.advance((int(moment.timestamp() * 1000) - self.clock.now_ms()) / 1000)
        await self.app.scheduler.settle()

    async def received(self, queue: str = "q") -> list[str]:
        """The bodies that the queue holds now; they are taken out."""
        url = (await self.call("get_queue_url", QueueName=queue))["QueueUrl"]
        found: list[str] = []
        while True:
            answer = await self.call("receive_message", QueueUrl=url, MaxNumberOfMessages=10)
            if not answer or not answer.get("Messages"):
                return found
            for message in answer["Messages"]:
                found.append(message["Body"])
                await self.call("delete_message", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    async def times(self, queue: str = "q") -> list[str]:
        return [json.loads(body)["time"].removeprefix("2024-03-01T") for body in await self.received(queue)]

    def due(self, name: str) -> str | None:
        instant = self.app.scheduler.next_due(f"111111111111/eu-west-1/default/{name}")
        return None if instant is None else datetime.fromtimestamp(instant / 1000, UTC).isoformat()[:19]

    @property
    def counts(self) -> tuple[int, int]:
        schedules = self.app.metrics.schedules
        return schedules.ScheduledEvents, schedules.MissedSchedules


Open = Callable[..., Awaitable[Bench]]


@asynccontextmanager
async def opened(data_dir: str, clock: ManualClock) -> AsyncIterator[Bench]:
    app = await open_app(Settings(data_dir=data_dir, stop_grace=0.1), clock)
    try:
        yield Bench(app, clock)
    finally:
        await app.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with opened(":memory:", ManualClock(NOON)) as bench:
        yield bench


class TestEvent:
    async def test_the_envelope(self, bench: Bench) -> None:
        await bench.rule("r", "cron(5 12 * * ? *)")
        await bench.at("12:05:07")
        (body,) = await bench.received()
        event = json.loads(body)
        assert body == (
            f'{{"version":"0","id":"{event["id"]}","detail-type":"Scheduled Event","source":"aws.events",'
            '"account":"111111111111","time":"2024-03-01T12:05:00Z","region":"eu-west-1",'
            f'"resources":["{RULE_ARN}r"],"detail":{{}}}}'
        )
        assert event["id"] == event_id(RULE_ARN + "r", NOON + 300_000)

    async def test_ids_differ_by_rule_and_instant(self) -> None:
        assert len({event_id(RULE_ARN + rule, NOON + later) for rule in "ab" for later in (0, 1, 60_000)}) == 6
        assert event_id(RULE_ARN, NOON)[14] == "7"

    async def test_input_of_the_target(self, bench: Bench) -> None:
        await bench.rule("r", "rate(1 minute)", queue=None)
        await bench.target("r", "q", InputTransformer={"InputPathsMap": {"t": "$.time"}, "InputTemplate": '"at <t>"'})
        await bench.rule("s", "rate(1 minute)", queue=None)
        await bench.target("s", "q2", Input='{"do":"it"}')
        await bench.at("12:01:00")
        assert await bench.received() == ['"at 2024-03-01T12:01:00Z"']
        assert await bench.received("q2") == ['{"do":"it"}']

    async def test_other_rules_get_the_same_event_and_its_own_gets_it_once(self, bench: Bench) -> None:
        pattern = '{"source":["aws.events"]}'
        await bench.rule("both", "rate(1 minute)", EventPattern=pattern, queue="own")
        await bench.rule("other", EventPattern=pattern, queue="others")
        await bench.rule("unlike", EventPattern='{"source":["shop"]}', queue="unlike")
        await bench.at("12:01:00")
        (own,), (others,) = await bench.received("own"), await bench.received("others")
        assert own == others
        assert await bench.received("unlike") == []

    async def test_a_rule_without_targets_makes_an_event_that_others_see(self, bench: Bench) -> None:
        await bench.rule("silent", "rate(1 minute)", queue=None)
        await bench.rule("other", EventPattern=json.dumps({"resources": [RULE_ARN + "silent"]}))
        await bench.at("12:01:00")
        assert await bench.times() == ["12:01:00Z"]

    async def test_events_that_are_put_match_the_pattern_of_a_rule_and_never_its_schedule(self, bench: Bench) -> None:
        await bench.rule("timed", "rate(1 minute)", queue="timed")
        await bench.rule("both", "rate(1 hour)", EventPattern='{"source":["shop"]}', queue="both")
        entry = {"Source": "shop", "DetailType": "Scheduled Event", "Detail": "{}"}
        await bench.call("put_events", Entries=[entry])
        await bench.app.scheduler.settle()
        assert await bench.received("timed") == []
        assert [json.loads(body)["source"] for body in await bench.received("both")] == ["shop"]

    async def test_scopes_have_schedules_of_their_own(self, bench: Bench) -> None:
        other = Scope("222222222222", "eu-west-1")
        await bench.rule("r", "rate(1 minute)")
        await bench.call("put_rule", other, Name="r", ScheduleExpression="rate(2 minutes)")
        await bench.call("put_rule", other, Name="see", EventPattern='{"source":["aws.events"]}')
        await bench.at("12:02:00")
        assert await bench.times() == ["12:02:00Z"]
        assert bench.counts == (2, 1)
        assert bench.app.metrics.rules[(other, "default", "see")].MatchedEvents == 1


class TestTaking:
    """What changes of a rule do to its schedule."""

    async def test_a_rate_begins_with_its_interval(self, bench: Bench) -> None:
        await bench.rule("r", "rate(5 minutes)")
        await bench.at("12:04:59")
        assert await bench.times() == []
        await bench.at("12:05:00")
        await bench.at("12:10:00")
        assert await bench.times() == ["12:05:00Z", "12:10:00Z"]

    async def test_a_rule_put_again_as_it_is_keeps_its_pace(self, bench: Bench) -> None:
        await bench.rule("r", "rate(5 minutes)")
        await bench.at("12:03:00")
        await bench.rule("r", "rate(5 minutes)", Description="the same schedule", queue=None)
        await bench.call("enable_rule", Name="r")
        assert bench.due("r") == "2024-03-01T12:05:00"

    async def test_another_expression_begins_anew(self, bench: Bench) -> None:
        await bench.rule("r", "rate(5 minutes)")
        await bench.at("12:03:00")
        await bench.rule("r", "rate(6 minutes)", queue=None)
        assert bench.due("r") == "2024-03-01T12:09:00"
        await bench.at("12:05:00")
        assert await bench.times() == []

    async def test_a_disabled_rule_is_silent_and_begins_anew(self, bench: Bench) -> None:
        await bench.rule("r", "rate(5 minutes)")
        await bench.at("12:03:00")
        await bench.call("disable_rule", Name="r")
        assert bench.due("r") is None
        await bench.at("12:30:00")
        assert await bench.times() == []
        await bench.call("enable_rule", Name="r")
        assert bench.due("r") == "2024-03-01T12:35:00"
        await bench.at("12:35:00")
        assert await bench.times() == ["12:35:00Z"]

    async def test_a_rule_made_disabled_does_not_fire(self, bench: Bench) -> None:
        await bench.rule("r", "cron(* * * * ? *)", State="DISABLED")
        await bench.at("12:10:00")
        assert (bench.due("r"), await bench.times()) == (None, [])

    async def test_without_its_schedule_a_rule_is_silent(self, bench: Bench) -> None:
        await bench.rule("r", "rate(5 minutes)")
        await bench.rule("r", "", EventPattern='{"source":["shop"]}', queue=None)
        await bench.at("12:10:00")
        assert (bench.due("r"), await bench.times()) == (None, [])

    async def test_a_deleted_rule_is_silent(self, bench: Bench) -> None:
        await bench.rule("r", "rate(5 minutes)", queue=None)
        await bench.call("delete_rule", Name="r")
        await bench.rule("see", EventPattern='{"source":["aws.events"]}')
        await bench.at("12:10:00")
        assert (bench.due("r"), await bench.times()) == (None, [])

    async def test_targets_are_those_of_the_moment(self, bench: Bench) -> None:
        await bench.rule("r", "rate(1 minute)")
        await bench.at("12:01:00")
        await bench.target("r", "q2")
        await bench.at("12:02:00")
        assert (await bench.times(), await bench.times("q2")) == (["12:01:00Z"], ["12:02:00Z"])

    async def test_an_instant_that_is_past_when_the_rule_is_made_is_past(self, bench: Bench) -> None:
        await bench.rule("r", "cron(0 12 * * ? *)")
        assert bench.due("r") == "2024-03-02T12:00:00"

    async def test_what_is_never_due_never_fires(self, bench: Bench) -> None:
        for name, schedule in (
            ("a", "cron(0 0 31 FEB ? *)"),
            ("b", "cron(0 0 * * ? 1970)"),
            ("c", "rate(2147483647 days)"),
        ):
            await bench.rule(name, schedule)
            assert bench.due(name) is None
        await bench.at("2034-01-01T00:00:00")
        assert await bench.times() == []

    async def test_the_next_instant_is_shown(self, bench: Bench) -> None:
        await bench.rule("r", "rate(5 minutes)", queue=None)
        await bench.rule("s", EventPattern='{"source":["shop"]}', queue=None)
        shown = bench.app.catalog.rules_summary(bench.app.scheduler.next_due)
        assert [rule.get("NextDue") for rule in shown] == ["2024-03-01T12:05:00Z", None]

    async def test_more_rules_than_fire_together(self, bench: Bench) -> None:
        for number in range(BATCH + 20):
            await bench.rule(f"r{number}", "cron(1 12 * * ? *)", queue=None)
        await bench.rule("see", EventPattern='{"source":["aws.events"]}')
        await bench.at("12:01:00")
        assert bench.counts == (BATCH + 20, 0)
        assert len(await bench.times()) == BATCH + 20


class TestClock:
    async def test_a_late_look_fires_the_latest_and_counts_the_others(self, bench: Bench) -> None:
        await bench.rule("r", "rate(1 minute)")
        await bench.rule("s", "cron(0/10 * * * ? *)", queue="s")
        await bench.at("12:45:30")
        assert (await bench.times(), await bench.times("s")) == (["12:45:00Z"], ["12:40:00Z"])
        assert bench.counts == (2, 44 + 3)
        await bench.at("12:46:00")
        assert await bench.times() == ["12:46:00Z"]

    async def test_years_asleep_are_over_at_once(self, bench: Bench) -> None:
        await bench.rule("r", "cron(* * ? * MON *)")
        await bench.at("2031-01-01T00:00:00")
        assert await bench.times() == ["2030-12-30T23:59:00Z"]
        assert bench.counts == (1, 1000)

    async def test_a_clock_turned_back_fires_nothing_twice(self, bench: Bench) -> None:
        await bench.rule("r", "cron(0/5 * * * ? *)")
        await bench.at("12:05:00")
        await bench.at("12:02:00")
        await bench.at("12:05:30")
        assert await bench.times() == ["12:05:00Z"]
        await bench.at("12:10:00")
        assert await bench.times() == ["12:10:00Z"]

    async def test_a_clock_turned_back_a_little_leaves_a_rate_its_pace(self, bench: Bench) -> None:
        await bench.rule("r", "rate(10 minutes)")
        await bench.at("12:10:00")
        await bench.at("12:01:00")
        assert bench.due("r") == "2024-03-01T12:20:00"

    async def test_a_clock_turned_back_far_does_not_stop_a_rate(self, bench: Bench) -> None:
        await bench.rule("r", "rate(1 minute)")
        await bench.at("12:01:00")
        assert await bench.times() == ["12:01:00Z"]
        await bench.at("11:00:20")
        assert bench.due("r") == "2024-03-01T11:01:20"
        for time in ("11:01:20", "11:02:20"):
            await bench.at(time)
            assert await bench.times() == [f"{time}Z"]

    async def test_a_clock_put_right_by_years_does_not_stop_cron(self, bench: Bench) -> None:
        await bench.rule("r", "cron(0 9 * * ? *)")
        await bench.at("2034-03-05T09:00:00")
        assert await bench.times() == ["2034-03-05T09:00:00Z"]
        await bench.at("13:00:00")
        assert bench.due("r") == "2024-03-02T09:00:00"
        await bench.at("2024-03-02T09:00:00")
        assert await bench.times() == ["2024-03-02T09:00:00Z"]


class TestRestart:
    async def test_nothing_is_lost_or_repeated(self, tmp_path: Path) -> None:
        clock = ManualClock(NOON)
        async with opened(str(tmp_path), clock) as bench:
            await bench.rule("r", "rate(5 minutes)")
            await bench.at("12:05:00")
        async with opened(str(tmp_path), clock) as bench:
            await bench.app.scheduler.settle()
            assert bench.due("r") == "2024-03-01T12:10:00"
            await bench.at("12:10:00")
            assert await bench.times() == ["12:05:00Z", "12:10:00Z"]

    async def test_after_a_time_down_the_latest_is_fired_once(self, tmp_path: Path) -> None:
        clock = ManualClock(NOON)
        async with opened(str(tmp_path), clock) as bench:
            await bench.rule("r", "rate(5 minutes)")
        clock.advance(3600 + 120)
        async with opened(str(tmp_path), clock) as bench:
            await bench.app.scheduler.settle()
            assert await bench.times() == ["13:00:00Z"]
            assert bench.counts == (1, 11)
            assert bench.due("r") == "2024-03-01T13:05:00"

    async def test_dying_between_event_and_note_repeats_the_event_with_its_id(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = ManualClock(NOON)
        async with AsyncExitStack() as stack:
            bench = await stack.enter_async_context(opened(str(tmp_path), clock))
            await bench.rule("r", "rate(5 minutes)")

            async def die(self: Scheduler, keys: list[str]) -> None:
                """The process ends here: nothing is written down."""

            with monkeypatch.context() as patched:
                patched.setattr(Scheduler, "_write_down", die)
                await bench.at("12:05:00")
        async with opened(str(tmp_path), clock) as bench:
            await bench.app.scheduler.settle()
            first, second = await bench.received()
            assert first == second
            assert json.loads(first)["time"] == "2024-03-01T12:05:00Z"
            await bench.at("12:05:30")
            assert await bench.received() == []

    async def test_a_new_start_of_the_clock_survives(self, tmp_path: Path) -> None:
        clock = ManualClock(NOON)
        async with opened(str(tmp_path), clock) as bench:
            await bench.rule("r", "rate(1 minute)")
            await bench.at("12:01:00")
            await bench.at("11:00:20")
            await bench.at("11:01:20")
        async with opened(str(tmp_path), clock) as bench:
            assert bench.due("r") == "2024-03-01T11:02:20"

    async def test_a_clock_put_right_while_it_was_down_does_not_stop_a_rule(self, tmp_path: Path) -> None:
        clock = ManualClock(NOON)
        async with opened(str(tmp_path), clock) as bench:
            await bench.rule("r", "rate(1 minute)")
            await bench.rule("s", "cron(0 9 * * ? *)")
        clock.advance(-30 * 86_400)
        async with opened(str(tmp_path), clock) as bench:
            assert (bench.due("r"), bench.due("s")) == ("2024-01-31T12:01:00", "2024-02-01T09:00:00")

    async def test_notes_of_rules_that_are_gone_are_removed(self, tmp_path: Path) -> None:
        clock = ManualClock(NOON)
        async with opened(str(tmp_path), clock) as bench:
            for name in ("a", "b", "c"):
                await bench.rule(name, "rate(1 minute)", queue=None)
            await bench.at("12:01:00")
            await bench.call("delete_rule", Name="a")
            await bench.at("12:02:00")
            assert await noted(bench) == ["b", "c"]
            await bench.call("delete_rule", Name="b")
        async with opened(str(tmp_path), clock) as bench:
            await bench.at("12:03:00")
            assert await noted(bench) == ["c"]

    async def test_a_rule_made_anew_does_not_take_up_the_notes_of_the_old_one(self, tmp_path: Path) -> None:
        clock = ManualClock(NOON)
        async with opened(str(tmp_path), clock) as bench:
            await bench.rule("r", "rate(10 minutes)", queue=None)
            await bench.at("12:10:00")
            await bench.call("delete_rule", Name="r")
            clock.advance(60)
            await bench.rule("r", "rate(10 minutes)", queue=None)
        async with opened(str(tmp_path), clock) as bench:
            assert bench.due("r") == "2024-03-01T12:21:00"

    async def test_an_expression_of_another_version_is_told(self, tmp_path: Path) -> None:
        clock = ManualClock(NOON)
        async with opened(str(tmp_path), clock) as bench:
            await bench.rule("r", "rate(1 minute)", queue=None)
            (entry,) = [each for each in (await bench.app.store.conf_list("rule"))[1] if each.value is not None]
            assert entry.value is not None
            value = entry.value.replace(b"rate(1 minute)", b"rate(1 moment)")
            await bench.app.store.conf_put([ConfChange("rule", entry.key, value)])
        with pytest.raises(StoreUnusable, match="start the version that wrote it"):
            await open_app(Settings(data_dir=str(tmp_path)), clock)


class TestRefusedByTheDisk:
    async def test_it_is_tried_again_and_fires_once(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        await bench.rule("r", "rate(1 minute)")

        async def refuse(*_: object, **__: object) -> Any:
            raise StoreUnavailable("disk full")

        with monkeypatch.context() as patched:
            patched.setattr(bench.app.store, "append", refuse)
            await bench.at("12:01:00")
            await bench.at("12:01:01")
            await bench.at("12:02:01")
        assert bench.counts == (0, 0)
        await bench.at("12:02:02")
        assert await bench.times() == ["12:02:00Z"]
        assert bench.counts == (1, 1)

    async def test_an_event_whose_note_is_refused_is_not_fired_again(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await bench.rule("r", "rate(1 minute)")

        async def refuse(*_: object, **__: object) -> Any:
            raise StoreUnavailable("disk full")

        with monkeypatch.context() as patched:
            patched.setattr(bench.app.store, "conf_put", refuse)
            await bench.at("12:01:00")
            await bench.at("12:01:30")
        await bench.at("12:02:00")
        assert await bench.times() == ["12:01:00Z", "12:02:00Z"]

    async def test_one_rule_that_breaks_does_not_hold_up_the_others(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await bench.rule("bad", "rate(1 minute)", queue="bad")
        await bench.rule("good", "rate(1 minute)", queue="good")
        plain = bench.app.scheduler._put

        async def put(scope: Scope, bus: str, arrivals: Any, **rest: Any) -> bool:
            if any(arrival.resources[0].endswith("/bad") for arrival in arrivals):
                raise RuntimeError("a fault of ours")
            return await plain(scope, bus, arrivals, **rest)

        monkeypatch.setattr(bench.app.scheduler, "_put", put)
        await bench.at("12:01:00")
        assert (await bench.times("good"), await bench.times("bad")) == (["12:01:00Z"], [])
        monkeypatch.setattr(bench.app.scheduler, "_put", plain)
        await bench.at("12:01:01")
        assert await bench.times("bad") == ["12:01:00Z"]


class TestWhileItFires:
    """The disk takes its time over an event; meanwhile something happens."""

    @pytest.fixture
    async def gate(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
        gate, plain = asyncio.Event(), bench.app.scheduler._put

        async def put(*given: Any, **rest: Any) -> bool:
            await gate.wait()
            return await plain(*given, **rest)

        monkeypatch.setattr(bench.app.scheduler, "_put", put)
        await bench.rule("r", "rate(5 minutes)")
        bench.clock.advance(300)
        bench.app.scheduler.look()
        return gate

    async def after(self, bench: Bench, gate: asyncio.Event) -> list[str]:
        gate.set()
        await bench.app.scheduler.settle()
        return await bench.times()

    async def test_the_rule_is_disabled(self, bench: Bench, gate: asyncio.Event) -> None:
        await bench.call("disable_rule", Name="r")
        assert await self.after(bench, gate) == ["12:05:00Z"]
        assert (bench.due("r"), await noted(bench)) == (None, [])
        await bench.at("12:10:00")
        assert await bench.times() == []

    async def test_the_rule_gets_another_expression(self, bench: Bench, gate: asyncio.Event) -> None:
        await bench.rule("r", "rate(7 minutes)", queue=None)
        assert await self.after(bench, gate) == ["12:05:00Z"]
        assert bench.due("r") == "2024-03-01T12:12:00"
        await bench.at("12:12:00")
        assert await bench.times() == ["12:12:00Z"]

    async def test_the_clock_is_turned_back_and_comes_again(self, bench: Bench, gate: asyncio.Event) -> None:
        bench.clock.advance(-60)
        bench.app.scheduler.look()
        bench.clock.advance(61)
        bench.app.scheduler.look()
        assert await self.after(bench, gate) == ["12:05:00Z"]
        assert (bench.counts, bench.due("r")) == ((1, 0), "2024-03-01T12:10:00")

    async def test_the_next_instant_comes(self, bench: Bench, gate: asyncio.Event) -> None:
        bench.clock.advance(300)
        bench.app.scheduler.look()
        assert await self.after(bench, gate) == ["12:05:00Z", "12:10:00Z"]

    async def test_a_rule_made_meanwhile_is_not_held_up_for_good(self, bench: Bench, gate: asyncio.Event) -> None:
        await bench.rule("s", "rate(1 minute)", queue="s")
        bench.clock.advance(60)
        bench.app.scheduler.look()
        assert await self.after(bench, gate) == ["12:05:00Z"]
        assert await bench.times("s") == ["12:06:00Z"]

    async def test_the_bus_stops(self, bench: Bench, gate: asyncio.Event) -> None:
        stopping = asyncio.create_task(bench.app.scheduler.stop())
        await eventually(lambda: bench.app.scheduler._table._stopped)
        assert not stopping.done()
        gate.set()
        await stopping
        assert (await bench.times(), await noted(bench)) == (["12:05:00Z"], ["r"])


async def noted(bench: Bench) -> list[str]:
    """The rules whose progress is on disk."""
    _, entries = await bench.app.store.conf_list(PROGRESS)
    return [entry.key.rpartition("/")[2] for entry in entries if entry.value is not None]
