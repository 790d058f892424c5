"""Schedules in a whole bus whose clock moves only when told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bus.app import App, open_app
from bus.clock import ManualClock
from bus.config import Settings
from bus.errors import ApiError, StoreUnavailable
from bus.quotas import Quotas
from bus.schedules import Schedules
from bus.schedules.groups import AT_ONCE, Groups
from bus.schedules.registry import Registry
from bus.schedules.targets import TargetChecks
from bus.scope import Call, Scope
from bus.store import Append
from bus.store.sqlite import open_store
from tests.waiting import eventually

SCOPE = Scope("000000000000", "us-east-1")
QUEUE = "arn:aws:sqs:us-east-1:000000000000:dead-letters"
URL = "http://127.0.0.1/000000000000/dead-letters"
ROLE = "arn:aws:iam::000000000000:role/r"
START = int(datetime(2024, 6, 3, 12, tzinfo=UTC).timestamp()) * 1000
INPUT = "<aws.scheduler.scheduled-time> <aws.scheduler.attempt-number> <aws.scheduler.execution-id>"


class Rig:
    """A bus on a data directory, its clock, and one caller."""

    def __init__(self, directory: str) -> None:
        self.clock = ManualClock(START)
        self.directory = directory
        self.app: App = None  # type: ignore[assignment]

    async def open(self) -> None:
        self.app = await open_app(Settings(data_dir=self.directory), self.clock)
        self.methods = {operation.name: (operation, method) for operation, method in self.app.scheduler_api.methods()}

    async def reopen(self) -> None:
        """Leave the bus as it is on disk, and open it again."""
        await self.app.close()
        await self.open()

    async def call(self, name: str, **members: Any) -> dict[str, Any]:
        operation, method = self.methods[name]
        operation.check(members)
        return await method(Call(SCOPE), members) or {}

    async def create(self, expression: str, *, name: str = "s", operation: str = "CreateSchedule", **rest: Any) -> str:
        target = {"Arn": QUEUE, "RoleArn": ROLE, "Input": INPUT, **rest.pop("Target", {})}
        members = {"FlexibleTimeWindow": {"Mode": "OFF"}, **rest}
        answer = await self.call(operation, Name=name, ScheduleExpression=expression, Target=target, **members)
        return str(answer["ScheduleArn"])

    async def after(self, seconds: float) -> list[str]:
        """What has come to the queue once that time has passed, in order."""
        self.clock.advance(seconds)
        self.tick()
        await self.settled()
        return await self.received()

    def tick(self) -> None:
        self.app.firing.look()
        self.app.dispatch.tick()

    async def settled(self) -> None:
        """Everything that was due is on disk: a commit of our own comes after theirs."""
        for _ in range(6):
            await self.app.store.transact(lambda cursor: None)

    async def received(self) -> list[str]:
        request = {"QueueUrl": URL, "MaxNumberOfMessages": 10, "VisibilityTimeout": 43200}
        found: list[str] = []
        while messages := (await self.app.queues.receive_message(Call(SCOPE), request)).get("Messages"):
            found += [message["Body"] for message in messages]
        return found

    async def exists(self, name: str = "s") -> bool:
        return name in [each["Name"] for each in (await self.call("ListSchedules"))["Schedules"]]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(str(tmp_path / "data"))
    await made.open()
    yield made
    await made.app.close()


def times(bodies: list[str]) -> list[str]:
    return [body.split()[0] for body in bodies]


class TestFiring:
    async def test_a_rate_begins_at_once_and_goes_on(self, rig: Rig) -> None:
        await rig.create("rate(5 minutes)")
        assert times(await rig.after(0)) == ["2024-06-03T12:00:00Z"]
        assert await rig.after(299) == []
        assert times(await rig.after(1)) == ["2024-06-03T12:05:00Z"]
        assert times(await rig.after(300)) == ["2024-06-03T12:10:00Z"]

    async def test_each_invocation_has_an_id_of_its_own(self, rig: Rig) -> None:
        await rig.create("rate(1 minute)")
        bodies = [(await rig.after(60 * bool(n)))[0].split() for n in range(3)]
        assert {attempt for _, attempt, _ in bodies} == {"1"}
        assert len({execution for _, _, execution in bodies}) == 3

    async def test_a_start_is_the_first_of_a_rate(self, rig: Rig) -> None:
        await rig.create("rate(1 hour)", StartDate=(START + 90_000) / 1000)
        assert await rig.after(89) == []
        assert times(await rig.after(1)) == ["2024-06-03T12:01:30Z"]

    async def test_a_time_zone(self, rig: Rig) -> None:
        await rig.create("cron(30 14 * * ? *)", ScheduleExpressionTimezone="Europe/Berlin")
        assert times(await rig.after(1800)) == ["2024-06-03T12:30:00Z"]

    async def test_one_that_is_disabled_does_not_fire_nor_catch_up(self, rig: Rig) -> None:
        await rig.create("rate(1 hour)", State="DISABLED")
        assert await rig.after(7300) == []
        await rig.create("rate(1 hour)", State="ENABLED", operation="UpdateSchedule")
        assert await rig.after(0) == []
        assert times(await rig.after(3500)) == ["2024-06-03T15:00:00Z"]

    async def test_deleted_before_its_time(self, rig: Rig) -> None:
        await rig.create("at(2024-06-03T12:01:00)")
        await rig.call("DeleteSchedule", Name="s")
        assert await rig.after(120) == []

    async def test_a_name_used_again_is_another_schedule(self, rig: Rig) -> None:
        await rig.create("at(2024-06-03T12:01:00)")
        (first,) = await rig.after(60)
        await rig.call("DeleteSchedule", Name="s")
        await rig.create("at(2024-06-03T12:01:00)")
        (second,) = await rig.after(0)
        assert first.split()[2] != second.split()[2]

    async def test_an_instant_of_the_last_minute_is_not_too_late(self, rig: Rig) -> None:
        await rig.create("at(2024-06-03T11:59:10)", name="just")
        await rig.create("at(2024-06-03T11:58:50)", name="gone")
        assert times(await rig.after(0)) == ["2024-06-03T11:59:10Z"]
        assert await rig.exists("gone")

    async def test_many_at_one_instant(self, rig: Rig) -> None:
        for n in range(250):
            await rig.create("at(2024-06-03T12:01:00)", name=f"s{n}", Target={"Input": f"{n}"})
        found = await rig.after(60)
        assert sorted(map(int, found)) == list(range(250))

    async def test_a_flexible_window(self, rig: Rig) -> None:
        window = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 10}
        for n in range(50):
            await rig.create("at(2024-06-03T12:01:00)", name=f"s{n}", FlexibleTimeWindow=window)
        assert await rig.after(59) == []
        early = await rig.after(300)
        late = await rig.after(301)
        assert len(early) + len(late) == 50
        assert early
        assert late
        assert set(times(early + late)) == {"2024-06-03T12:01:00Z"}


class TestEnding:
    async def test_a_one_time_schedule_stays_by_default(self, rig: Rig) -> None:
        await rig.create("at(2024-06-03T12:01:00)")
        assert len(await rig.after(60)) == 1
        assert await rig.after(3600) == []
        assert await rig.exists()

    async def test_it_goes_after_its_invocation_when_told(self, rig: Rig) -> None:
        await rig.create("at(2024-06-03T12:01:00)", ActionAfterCompletion="DELETE")
        assert await rig.exists()
        assert len(await rig.after(60)) == 1
        assert not await rig.exists()
        await rig.reopen()
        assert not await rig.exists()

    async def test_a_recurring_one_goes_with_the_last_before_its_end(self, rig: Rig) -> None:
        end = (START + 7_300_000) / 1000
        await rig.create("rate(1 hour)", EndDate=end, ActionAfterCompletion="DELETE")
        for hours in (0, 1, 1):
            assert await rig.exists()
            assert len(await rig.after(3600 * hours)) == 1
        assert not await rig.exists()

    async def test_the_invocation_of_one_that_is_gone_is_still_retried(self, rig: Rig) -> None:
        target = {"Arn": "http://127.0.0.1:9/", "DeadLetterConfig": {"Arn": QUEUE},
                  "RetryPolicy": {"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 3600}}  # fmt: skip
        await rig.create("at(2024-06-03T12:01:00)", ActionAfterCompletion="DELETE", Target=target)
        await rig.after(60)
        await eventually(lambda: rig.app.dispatch.waiting() == 0, "the end of the first attempt")
        assert not await rig.exists()
        await rig.reopen()
        rig.clock.advance(7200)
        rig.tick()
        bodies: list[str] = []
        while not bodies:
            await rig.settled()
            bodies = await rig.received()
        assert times(bodies) == ["2024-06-03T12:01:00Z"]


class TestUpdating:
    async def test_what_does_not_change_when_leaves_the_rhythm_alone(self, rig: Rig) -> None:
        await rig.create("rate(1 hour)")
        await rig.after(1800)
        await rig.create("rate(1 hour)", operation="UpdateSchedule", Target={"Input": "new"})
        assert await rig.after(0) == []
        assert await rig.after(1800) == ["new"]

    async def test_another_rate_counts_from_now(self, rig: Rig) -> None:
        await rig.create("rate(1 hour)")
        await rig.after(600)
        await rig.create("rate(2 hours)", operation="UpdateSchedule")
        assert times(await rig.after(0)) == ["2024-06-03T12:10:00Z"]
        assert times(await rig.after(7200)) == ["2024-06-03T14:10:00Z"]

    async def test_a_one_time_schedule_is_put_off(self, rig: Rig) -> None:
        await rig.create("at(2024-06-03T12:01:00)")
        await rig.create("at(2024-06-03T13:00:00)", operation="UpdateSchedule")
        assert await rig.after(120) == []
        assert times(await rig.after(3480)) == ["2024-06-03T13:00:00Z"]

    async def test_the_same_token_changes_nothing_twice(self, rig: Rig) -> None:
        await rig.create("rate(1 hour)")
        await rig.create("rate(2 hours)", operation="UpdateSchedule", ClientToken="t")
        first = (await rig.call("GetSchedule", Name="s"))["LastModificationDate"]
        rig.clock.advance(10)
        await rig.create("rate(2 hours)", operation="UpdateSchedule", ClientToken="t")
        assert (await rig.call("GetSchedule", Name="s"))["LastModificationDate"] == first
        await rig.create("rate(2 hours)", operation="UpdateSchedule", ClientToken="u")
        assert (await rig.call("GetSchedule", Name="s"))["LastModificationDate"] == first + 10

    async def test_a_start_of_long_ago_may_stay(self, rig: Rig) -> None:
        start = START / 1000
        await rig.create("rate(1 hour)", StartDate=start)
        rig.clock.advance(86_400)
        await rig.create("rate(1 hour)", StartDate=start, Description="d", operation="UpdateSchedule")
        with pytest.raises(ApiError, match="cannot be earlier than 5 minutes ago"):
            await rig.create("rate(1 hour)", StartDate=start + 1, operation="UpdateSchedule")


class TestRestarting:
    async def test_what_fired_does_not_fire_again(self, rig: Rig) -> None:
        await rig.create("rate(1 hour)")
        assert len(await rig.after(0)) == 1
        await rig.reopen()
        assert await rig.after(3599) == []
        assert times(await rig.after(1)) == ["2024-06-03T13:00:00Z"]

    async def test_of_all_that_was_missed_the_latest_fires_once(self, rig: Rig) -> None:
        await rig.create("cron(0 * * * ? *)")
        await rig.create("at(2024-06-03T13:30:00)", name="once")
        await rig.app.close()
        rig.clock.advance(48 * 3600 + 5)
        await rig.open()
        assert sorted(times(await rig.after(0))) == ["2024-06-03T13:30:00Z", "2024-06-05T12:00:00Z"]
        assert times(await rig.after(3600)) == ["2024-06-05T13:00:00Z"]

    async def test_everything_is_as_it_was(self, rig: Rig) -> None:
        await rig.call("CreateScheduleGroup", Name="g", Tags=[{"Key": "k", "Value": "v"}])
        window = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 3}
        await rig.create("rate(1 hour)", GroupName="g", Description="d", FlexibleTimeWindow=window)
        before = await rig.call("GetSchedule", Name="s", GroupName="g"), await rig.call("GetScheduleGroup", Name="g")
        await rig.reopen()
        after = await rig.call("GetSchedule", Name="s", GroupName="g"), await rig.call("GetScheduleGroup", Name="g")
        assert before == after
        tags = await rig.call("ListTagsForResource", ResourceArn=after[1]["Arn"])
        assert tags == {"Tags": [{"Key": "k", "Value": "v"}]}

    async def test_an_invocation_whose_note_was_lost_is_not_taken_twice(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await rig.create("at(2024-06-03T12:01:00)")
        store = rig.app.store
        put = store.conf_put

        async def refuse(changes: Any) -> int:
            raise StoreUnavailable("full")

        monkeypatch.setattr(store, "conf_put", refuse)
        first = await rig.after(60)
        assert len(first) == 1
        monkeypatch.setattr(store, "conf_put", put)
        await rig.reopen()
        assert await rig.after(0) == []
        assert await rig.after(3600) == []

    async def test_when_the_disk_refuses_it_is_tried_again(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        await rig.create("at(2024-06-03T12:01:00)")
        store = rig.app.store
        append = store.append

        async def refuse(batch: list[Append], *, lease_until: int = 0) -> Any:
            raise StoreUnavailable("full")

        monkeypatch.setattr(store, "append", refuse)
        assert await rig.after(60) == []
        monkeypatch.setattr(store, "append", append)
        assert len(await rig.after(2)) == 1

    async def test_one_that_breaks_off_holds_up_no_other(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("a", "bad", "c"):
            await rig.create("at(2024-06-03T12:01:00)", name=name, Target={"Input": name})
        plan = rig.app.dispatch.plan

        def breaks(event: Any, routes: Any) -> Any:
            if event.body == b"bad":
                raise RuntimeError("a fault of ours")
            return plan(event, routes)

        monkeypatch.setattr(rig.app.dispatch, "plan", breaks)
        assert sorted(await rig.after(60)) == ["a", "c"]
        monkeypatch.setattr(rig.app.dispatch, "plan", plan)
        assert await rig.after(60) == ["bad"]

    async def test_routes_that_nobody_uses_are_forgotten(self, rig: Rig) -> None:
        await rig.create("rate(1 hour)")
        await rig.create("rate(1 hour)", operation="UpdateSchedule", Target={"Input": "new"})
        registry = Registry(rig.app.store)
        await registry.load()
        assert await registry.forget_routes(set()) == 1
        assert await registry.forget_routes(set()) == 0
        await rig.reopen()
        assert (await rig.call("GetSchedule", Name="s"))["Target"]["Input"] == "new"


class TestGroups:
    async def test_a_large_group_goes_bit_by_bit(self, rig: Rig) -> None:
        await rig.call("CreateScheduleGroup", Name="g")
        for n in range(AT_ONCE + 10):
            await rig.create("rate(1 hour)", name=f"s{n}", GroupName="g", State="DISABLED")
        await rig.call("DeleteScheduleGroup", Name="g")
        assert (await rig.call("GetScheduleGroup", Name="g"))["State"] == "DELETING"
        with pytest.raises(ApiError, match="Schedule group g is being deleted"):
            await rig.create("rate(1 hour)", name="more", GroupName="g")
        with pytest.raises(ApiError, match="Schedule group g already exists"):
            await rig.call("CreateScheduleGroup", Name="g")
        await rig.reopen()  # goes on where it was
        await rig.settled()
        with pytest.raises(ApiError, match="Schedule group g does not exist"):
            await rig.call("GetScheduleGroup", Name="g")
        assert (await rig.call("ListSchedules"))["Schedules"] == []

    async def test_a_deletion_that_the_disk_interrupts_goes_on(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        await rig.call("CreateScheduleGroup", Name="g")
        await rig.create("rate(1 hour)", GroupName="g", State="DISABLED")
        store = rig.app.store
        put, refused = store.conf_put, []

        async def refuse_removals(changes: Any) -> int:
            if not refused and changes[0].value is None:
                refused.append(changes)
                raise StoreUnavailable("full")
            return await put(changes)

        monkeypatch.setattr(store, "conf_put", refuse_removals)
        await rig.call("DeleteScheduleGroup", Name="g")
        assert refused
        while len((await rig.call("ListScheduleGroups"))["ScheduleGroups"]) > 1:
            await store.transact(lambda cursor: None)
        assert (await rig.call("ListSchedules"))["Schedules"] == []

    async def test_the_default_group_can_have_tags(self, rig: Rig) -> None:
        arn = "arn:aws:scheduler:us-east-1:000000000000:schedule-group/default"
        await rig.call("TagResource", ResourceArn=arn, Tags=[{"Key": "k", "Value": "v"}])
        await rig.reopen()
        assert await rig.call("ListTagsForResource", ResourceArn=arn) == {"Tags": [{"Key": "k", "Value": "v"}]}
        group = await rig.call("GetScheduleGroup", Name="default")
        assert group == {"Arn": arn, "Name": "default", "State": "ACTIVE"}

    async def test_too_many_tags(self, rig: Rig) -> None:
        tags = [{"Key": f"k{n}", "Value": "v"} for n in range(51)]
        with pytest.raises(ApiError, match="at most 50 tags"):
            await rig.call("CreateScheduleGroup", Name="g", Tags=tags)


class TestQuotas:
    async def test_more_than_an_account_may_have(self) -> None:
        clock = ManualClock(START)
        store = await open_store(":memory:", clock)
        registry = Registry(store)
        quotas = Quotas(schedules=1, schedule_groups=2)
        checks = TargetChecks(check_url=lambda url: None, action_of=lambda service, api: None)
        schedules = Schedules(store, clock, registry, targets=checks, quotas=quotas)
        groups = Groups(clock, registry, quotas=quotas)
        call, target = Call(SCOPE), {"Arn": QUEUE, "RoleArn": ROLE}
        request = {"ScheduleExpression": "rate(1 hour)", "FlexibleTimeWindow": {"Mode": "OFF"}, "Target": target}
        await schedules.create_schedule(call, {"Name": "a", **request})
        await groups.create_schedule_group(call, {"Name": "a"})
        attempts: list[Callable[[], Any]] = [
            lambda: schedules.create_schedule(call, {"Name": "b", **request}),
            lambda: groups.create_schedule_group(call, {"Name": "b"}),
        ]
        for attempt in attempts:
            with pytest.raises(ApiError) as failed:
                await attempt()
            assert failed.value.code == "ServiceQuotaExceededException"
        await store.close()


class TestRaces:
    async def test_an_update_while_it_fires_is_not_lost(self, rig: Rig) -> None:
        """The one-time schedule deletes itself after its invocation, but by then it has been given another time."""
        await rig.create("at(2024-06-03T12:01:00)", ActionAfterCompletion="DELETE")
        rig.clock.advance(60)
        rig.tick()
        update = asyncio.ensure_future(
            rig.create("at(2024-06-03T13:00:00)", ActionAfterCompletion="DELETE", operation="UpdateSchedule")
        )
        await update
        await rig.settled()
        assert await rig.exists()
        found = await rig.after(3600)
        assert times(found)[-1] == "2024-06-03T13:00:00Z"
        assert not await rig.exists()


async def test_the_event_that_is_put_on_a_bus(rig: Rig) -> None:
    app = rig.app
    pattern = json.dumps({"source": ["nightly"]})
    await app.catalog.put_rule(Call(SCOPE), {"Name": "r", "EventPattern": pattern})
    await app.catalog.put_targets(Call(SCOPE), {"Rule": "r", "Targets": [{"Id": "q", "Arn": QUEUE}]})
    parameters = {"Source": "nightly", "DetailType": "$.kind"}
    target = {
        "Arn": "arn:aws:events:us-east-1:000000000000:event-bus/default",
        "EventBridgeParameters": parameters,
        "Input": '{"kind": "Close", "attempt": <aws.scheduler.attempt-number>}',
    }
    with pytest.raises(ApiError, match="JSON syntax error"):
        await rig.create("rate(1 hour)", Target=target)
    target["Input"] = '{"kind": "Close", "attempt": "<aws.scheduler.attempt-number>"}'
    arn = await rig.create("rate(1 hour)", Target=target)
    bodies: list[str] = []
    rig.tick()
    while not bodies:
        await rig.settled()
        bodies = await rig.received()
    event = json.loads(bodies[0])
    assert event["detail"] == {"kind": "Close", "attempt": "1"}
    assert (event["detail-type"], event["resources"], event["time"]) == ("Close", [arn], "2024-06-03T12:00:00Z")
