"""Queues: waiting, fairness, clients that go away, restarts, and what targets and operators use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.session import get_session

from bus import queues
from bus.clock import ManualClock
from bus.errors import ApiError, StoreUnavailable
from bus.queues import ERROR_CODES, Queues, browsing, reception
from bus.queues.agenda import Agenda
from bus.scope import Call, Scope
from bus.store import Append, message_moves, message_upkeep, messages
from tests.bus.queue_rig import SCOPE, Rig, rig, turns

DEADLINE = 10.0


@pytest.fixture
async def on() -> AsyncIterator[Rig]:
    async with rig() as made:
        yield made


async def started(on: Rig, url: str, limit: int = 1, **more: object) -> asyncio.Task[list[str]]:
    """A receive that has got as far as it can; it fails when nothing ends it."""
    task = asyncio.create_task(asyncio.wait_for(on.bodies(url, limit, **{"WaitTimeSeconds": 20, **more}), DEADLINE))
    await turns()
    return task


def redrive(on: Rig, after: int = 10) -> str:
    return json.dumps({"deadLetterTargetArn": on.queue("dlq").arn, "maxReceiveCount": after})


def test_every_operation_is_there() -> None:
    model = get_session().get_service_model("sqs")
    missing = [name for name in model.operation_names if not hasattr(Queues, xform_name(name))]
    assert missing == []


def test_codes_agree_with_the_service_model() -> None:
    model = get_session().get_service_model("sqs")
    for shape in model.error_shapes:
        known = ERROR_CODES.get(shape.name)
        if known is not None:
            assert known[0] == shape.metadata.get("error", {}).get("code", known[0]), shape.name


# --- waiting ----------------------------------------------------------------------------------------------------------


async def test_wait_ends_with_nothing_at_its_deadline(on: Rig) -> None:
    url = await on.create("q")
    waiting = await started(on, url, WaitTimeSeconds=5)
    await on.wait(4.9)
    assert not waiting.done()
    await on.wait(0.1)
    assert await waiting == []


async def test_a_wait_ends_although_the_clock_was_set_back(on: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(delay: float, call: Callable[..., None], *given: Any) -> asyncio.TimerHandle:
        timers.append((delay, lambda: call(*given)))
        return asyncio.TimerHandle(loop.time() + delay, call, given, loop)

    url = await on.create("q")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "call_later", call_later)
        waiting = asyncio.create_task(on.bodies(url, WaitTimeSeconds=5))
        await turns()
    await on.wait(-3600)
    assert not waiting.done()
    for delay, call in timers:
        if delay <= 5:
            call()
    await turns()
    assert waiting.done()
    assert await waiting == []


async def test_the_agenda_goes_on_after_something_on_it_failed() -> None:
    clock = ManualClock()
    agenda, done = Agenda(clock), asyncio.Event()

    def fail() -> None:
        raise ValueError("unforeseen")

    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: failures.append(str(told["exception"])))
    agenda.at(clock.now_ms(), fail)
    agenda.at(clock.now_ms(), done.set)
    await asyncio.wait_for(done.wait(), DEADLINE)
    assert failures == ["unforeseen"]


async def test_wait_of_the_queue_is_the_default(on: Rig) -> None:
    url = await on.create("q", ReceiveMessageWaitTimeSeconds="3")
    waiting = await started(on, url, WaitTimeSeconds=None)
    await on.wait(2)
    assert not waiting.done()
    await on.wait(1)
    assert await waiting == []


async def test_send_wakes(on: Rig) -> None:
    url = await on.create("q")
    waiting = await started(on, url)
    await on.send(url, "x")
    assert await waiting == ["x"]


async def test_delivery_committed_by_the_store_wakes(on: Rig) -> None:
    url = await on.create("q")
    waiting = await started(on, url)
    new = on.queues.message(on.queue("q"), '{"a":1}')
    await on.store.append([Append(1, "e", 0, b"{}", messages=[new])])
    assert await waiting == ['{"a":1}']


async def test_end_of_a_delay_wakes(on: Rig) -> None:
    url = await on.create("q")
    await on.send(url, "x", DelaySeconds=7)
    waiting = await started(on, url)
    await on.wait(7)
    assert await waiting == ["x"]


async def test_delay_that_begins_during_the_wait_wakes(on: Rig) -> None:
    url = await on.create("q")
    waiting = await started(on, url)
    await on.send(url, "x", DelaySeconds=7)
    await turns()
    await on.wait(7)
    assert await waiting == ["x"]


async def test_end_of_visibility_wakes(on: Rig) -> None:
    url = await on.create("q", VisibilityTimeout="5")
    await on.send(url, "x")
    assert await on.bodies(url) == ["x"]
    waiting = await started(on, url)
    await on.wait(5)
    assert await waiting == ["x"]


async def test_change_to_zero_wakes(on: Rig) -> None:
    url = await on.create("q")
    await on.send(url, "x")
    [message] = await on.receive(url)
    waiting = await started(on, url)
    await on.do("ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    assert await waiting == ["x"]


async def test_change_to_a_shorter_time_moves_the_alarm(on: Rig) -> None:
    url = await on.create("q")
    await on.send(url, "x")
    [message] = await on.receive(url)
    waiting = await started(on, url)
    await on.do("ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=3)
    await turns()
    await on.wait(3)
    assert await waiting == ["x"]


async def test_unlocked_group_wakes(on: Rig) -> None:
    url = await on.create("f.fifo", ContentBasedDeduplication="true")
    for body in ("1", "2"):
        await on.send(url, body, MessageGroupId="g")
    [message] = await on.receive(url, 1)
    waiting = await started(on, url)
    assert not waiting.done()
    await on.do("DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert await waiting == ["2"]


async def test_expiry_of_a_message_in_flight_unlocks_its_group(on: Rig) -> None:
    url = await on.create(
        "f.fifo", ContentBasedDeduplication="true", MessageRetentionPeriod="60", VisibilityTimeout="43200"
    )
    await on.send(url, "1", MessageGroupId="g")
    assert await on.bodies(url) == ["1"]
    await on.wait(55)
    await on.send(url, "2", MessageGroupId="g")
    waiting = await started(on, url)
    await on.wait(10)
    assert await waiting == ["2"]


async def test_move_task_wakes(on: Rig) -> None:
    dead = await on.create("dlq")
    await on.create("q", RedrivePolicy=redrive(on))
    url = await on.create("p")
    await on.send(dead, "x")
    waiting = await started(on, url)
    await on.do("StartMessageMoveTask", SourceArn=on.queue("dlq").arn, DestinationArn=on.queue("p").arn)
    assert await waiting == ["x"]


async def test_dead_letter_wakes(on: Rig) -> None:
    dead = await on.create("dlq")
    policy = redrive(on, 1)
    url = await on.create("q", RedrivePolicy=policy, VisibilityTimeout="0")
    await on.send(url, "x")
    await on.bodies(url)
    waiting = await started(on, dead)
    assert await on.bodies(url) == []
    assert await waiting == ["x"]


async def test_deletion_of_the_queue_ends_the_wait(on: Rig) -> None:
    url = await on.create("q")
    waiting = await started(on, url)
    await on.do("DeleteQueue", QueueUrl=url)
    assert await waiting == []


async def test_hanging_up_ends_every_wait(on: Rig) -> None:
    url = await on.create("q")
    waiting = await started(on, url)
    on.queues.hang_up()
    assert await waiting == []
    assert await (await started(on, url)) == []
    await on.send(url, "x")
    assert await (await started(on, url)) == ["x"]


async def test_waiters_are_served_in_order_of_arrival(on: Rig) -> None:
    url = await on.create("q")
    waiting = []
    for _ in range(5):
        waiting.append(await started(on, url, limit=2))
    for body in "abc":
        await on.send(url, body)
        await turns()
    assert [task.done() for task in waiting] == [True, True, True, False, False]
    assert [await task for task in waiting[:3]] == [["a"], ["b"], ["c"]]
    entries = [{"Id": body, "MessageBody": body} for body in "defg"]
    await on.do("SendMessageBatch", QueueUrl=url, Entries=entries)
    assert [await task for task in waiting[3:]] == [["d", "e"], ["f", "g"]]


async def test_idle_waiters_ask_the_store_nothing(on: Rig) -> None:
    url = await on.create("q")
    waiting = [await started(on, url) for _ in range(10)]
    commits = on.store.journal.commits
    await turns(200)
    assert on.store.journal.commits == commits
    await on.wait(20)
    assert [await task for task in waiting] == [[]] * 10


# --- clients that go away ---------------------------------------------------------------------------------------------


async def test_waiter_that_left_gets_nothing(on: Rig) -> None:
    url = await on.create("q")
    gone = await started(on, url)
    gone.cancel()
    await turns()
    await on.send(url, "x")
    assert await on.counts(url) == (1, 0, 0)
    [message] = await on.receive(url)
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


@pytest.mark.parametrize("steps", range(12))
async def test_wherever_a_receive_is_cut_off_the_message_was_not_received(on: Rig, steps: int) -> None:
    url = await on.create("q")
    await on.send(url, "x")
    cut = asyncio.create_task(on.bodies(url))
    await turns(steps)
    if not cut.cancel():
        assert await cut == ["x"]
        return
    await turns()
    assert cut.cancelled()
    assert await on.counts(url) == (1, 0, 0)
    [message] = await on.receive(url)
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert message["Attributes"]["ApproximateFirstReceiveTimestamp"] == str(on.clock.now_ms())


@pytest.mark.parametrize("steps", range(12))
async def test_what_a_lost_waiter_was_given_goes_to_the_next(on: Rig, steps: int) -> None:
    url = await on.create("q")
    first, second = await started(on, url), await started(on, url)
    sent = asyncio.create_task(on.send(url, "x"))
    while not first.cancel() or (await on.counts(url))[0]:
        await asyncio.sleep(0)
        if first.done():
            break
    await sent
    assert await second == ["x"]


# --- a disk that refuses ----------------------------------------------------------------------------------------------


async def test_receive_says_that_the_store_is_unavailable_and_recovers(
    on: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await on.create("q")
    await on.send(url, "x")

    async def refuse(work: object) -> None:
        raise StoreUnavailable("full")

    with monkeypatch.context() as patch:
        patch.setattr(on.store, "transact", refuse)
        for more in ({}, {"WaitTimeSeconds": 20}):
            with pytest.raises(StoreUnavailable):
                await asyncio.wait_for(on.receive(url, **more), DEADLINE)
        with pytest.raises(StoreUnavailable):
            await on.send(url, "y")
    assert await on.bodies(url) == ["x"]


async def test_move_task_goes_on_when_the_store_is_back(on: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = await on.create("dlq")
    await on.create("q", RedrivePolicy=redrive(on))
    await on.send(dead, "x", DelaySeconds=5)
    arns = {"SourceArn": on.queue("dlq").arn, "DestinationArn": on.queue("q").arn}
    await on.do("StartMessageMoveTask", **arns)
    await turns()

    async def refuse(work: object) -> None:
        raise StoreUnavailable("full")

    with monkeypatch.context() as patch:
        patch.setattr(on.store, "transact", refuse)
        await on.wait(5)
    await on.wait(1)
    assert await on.bodies("q") == ["x"]


async def test_a_bad_receipt_leaves_the_shared_transaction_alone(on: Rig) -> None:
    url = await on.create("f.fifo", ContentBasedDeduplication="true", VisibilityTimeout="1")
    await on.send(url, "x", MessageGroupId="g")
    [message] = await on.receive(url)
    await on.wait(2)
    runs = []
    beside = on.store.transact(lambda connection: runs.append(1))
    expired = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    answers = await asyncio.gather(
        beside,
        on.do("DeleteMessage", **expired),
        on.do("ChangeMessageVisibility", **expired, VisibilityTimeout=1),
        on.do("DeleteMessage", QueueUrl=url, ReceiptHandle="wrong"),
        return_exceptions=True,
    )
    assert [answer.code for answer in answers if isinstance(answer, ApiError)] == [
        "InvalidParameterValueException",
        "InvalidParameterValueException",
        "ReceiptHandleIsInvalid",
    ]
    assert len(runs) == 1


async def test_work_that_the_store_runs_twice_gives_one_result(on: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    # The store rolls a whole transaction back when one item of it fails, and runs the others again one by one.
    url = await on.create("f.fifo", ContentBasedDeduplication="true")
    transact, ran = on.store.transact, []

    def fail(connection: object) -> None:
        raise ValueError("of another request")

    async def beside_a_failure(work: Callable[[Any], Any]) -> Any:
        def counted(connection: Any) -> Any:
            ran.append(work)
            return work(connection)

        result = asyncio.ensure_future(transact(counted))
        await turns(1)
        with pytest.raises(ValueError, match="another"):
            await transact(fail)
        return await result

    monkeypatch.setattr(on.store, "transact", beside_a_failure)
    sent = [await on.send(url, body, MessageGroupId="g") for body in ("x", "x", "y")]
    assert [message["MessageId"] for message in sent[:2]] == [sent[0]["MessageId"]] * 2
    received = await on.receive(url)
    assert [message["Body"] for message in received] == ["x", "y"]
    assert [message["Attributes"]["ApproximateReceiveCount"] for message in received] == ["1", "1"]
    assert len(ran) > len(set(map(id, ran)))


# --- restarts ---------------------------------------------------------------------------------------------------------


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()
    async with rig(str(tmp_path), clock) as on:
        url = await on.create("f.fifo", VisibilityTimeout="60")
        await on.do("TagQueue", QueueUrl=url, Tags={"a": "1"})
        for body in ("1", "2"):
            await on.send(url, body, MessageGroupId="g", MessageDeduplicationId=body)
        [message] = await on.receive(url, 1)
    async with rig(str(tmp_path), clock) as on:
        assert await on.do("ListQueueTags", QueueUrl=url) == {"Tags": {"a": "1"}}
        assert await on.bodies(url) == []
        duplicate = await on.send(url, "again", MessageGroupId="g", MessageDeduplicationId="1")
        assert duplicate["MessageId"] == message["MessageId"]
        await on.do("DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        assert await on.bodies(url) == ["2"]


async def test_move_task_is_taken_up_again(tmp_path: Path) -> None:
    clock = ManualClock()
    async with rig(str(tmp_path), clock) as on:
        dead = await on.create("dlq")
        await on.create("q", RedrivePolicy=redrive(on))
        for body in "abc":
            await on.send(dead, body)
        arns = {"SourceArn": on.queue("dlq").arn, "DestinationArn": on.queue("q").arn}
        await on.do("StartMessageMoveTask", MaxNumberOfMessagesPerSecond=1, **arns)
        await turns()
    async with rig(str(tmp_path), clock) as on:
        await turns()
        for _ in range(3):
            await on.wait(1)
        [task] = (await on.do("ListMessageMoveTasks", SourceArn=arns["SourceArn"]))["Results"]
        assert (task["Status"], task["ApproximateNumberOfMessagesMoved"]) == ("COMPLETED", 3)
        assert await on.bodies("q") == ["a", "b", "c"]


async def test_move_task_stopped_at_full_speed_has_counted_right(tmp_path: Path) -> None:
    clock = ManualClock()
    async with rig(str(tmp_path), clock) as on:
        dead = await on.create("dlq")
        await on.create("q", RedrivePolicy=redrive(on))
        for first in range(0, 500, 10):
            entries = [{"Id": str(n), "MessageBody": str(first + n)} for n in range(10)]
            await on.do("SendMessageBatch", QueueUrl=dead, Entries=entries)
        arns = {"SourceArn": on.queue("dlq").arn, "DestinationArn": on.queue("q").arn}
        await on.do("StartMessageMoveTask", **arns)
        await turns(2)
    async with rig(str(tmp_path), clock) as on:
        moved = (await on.counts("q"))[0]
        assert 0 < moved < 500
        [task] = (await on.do("ListMessageMoveTasks", SourceArn=arns["SourceArn"]))["Results"]
        assert (task["Status"], task["ApproximateNumberOfMessagesMoved"]) == ("RUNNING", moved)
        await turns(100)
        [task] = (await on.do("ListMessageMoveTasks", SourceArn=arns["SourceArn"]))["Results"]
        assert (task["Status"], task["ApproximateNumberOfMessagesMoved"]) == ("COMPLETED", 500)
        assert await on.counts("q") == (500, 0, 0)


async def test_a_move_task_that_meets_the_unforeseen_fails(on: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = await on.create("dlq")
    await on.create("q", RedrivePolicy=redrive(on))
    await on.send(dead, "x")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unforeseen")

    with monkeypatch.context() as patch:
        patch.setattr(message_moves, "move", fail)
        await on.do("StartMessageMoveTask", SourceArn=on.queue("dlq").arn)
        await turns()
    [task] = (await on.do("ListMessageMoveTasks", SourceArn=on.queue("dlq").arn))["Results"]
    assert (task["Status"], task["FailureReason"]) == ("FAILED", "InternalError")
    await on.do("StartMessageMoveTask", SourceArn=on.queue("dlq").arn, DestinationArn=on.queue("q").arn)
    await turns()
    assert await on.bodies("q") == ["x"]


async def test_cancelled_move_task_stays_cancelled(tmp_path: Path) -> None:
    async with rig(str(tmp_path)) as on:
        dead = await on.create("dlq")
        await on.create("q", RedrivePolicy=redrive(on))
        await on.send(dead, "x", DelaySeconds=900)
        arns = {"SourceArn": on.queue("dlq").arn, "DestinationArn": on.queue("q").arn}
        handle = (await on.do("StartMessageMoveTask", **arns))["TaskHandle"]
        await on.do("CancelMessageMoveTask", TaskHandle=handle)
    async with rig(str(tmp_path)) as on:
        await turns()
        [task] = (await on.do("ListMessageMoveTasks", SourceArn=arns["SourceArn"]))["Results"]
        assert task["Status"] == "CANCELLED"


async def test_messages_of_deleted_and_purged_queues_are_removed(tmp_path: Path) -> None:
    async with rig(str(tmp_path)) as on:
        for name in ("q", "p", "kept"):
            await on.send(await on.create(name), "x")
        await on.do("DeleteQueue", QueueUrl="q")
        await on.do("PurgeQueue", QueueUrl="p")
        await turns()
        assert await on.store.transact(message_upkeep.queues) == {on.queue("kept").number}
        # What a stop left behind is found by the next start.
        await on.store.transact(lambda c: c.execute("UPDATE message SET queue=999999").fetchall())
    async with rig(str(tmp_path)) as on:
        await on.wait(10)
        assert await on.store.transact(message_upkeep.queues) == set()


async def test_expired_messages_are_removed_without_being_asked_for(on: Rig) -> None:
    url = await on.create("q", MessageRetentionPeriod="60", VisibilityTimeout="43200")
    for number in range(450):
        await on.send(url, str(number), DelaySeconds=number % 3)
    await on.wait(2)
    await on.receive(url)
    await on.wait(70)
    await turns(100)
    assert await on.store.transact(message_upkeep.queues) == set()


async def test_deduplication_memory_is_trimmed(on: Rig) -> None:
    url = await on.create("f.fifo", ContentBasedDeduplication="true")
    for number in range(250):
        await on.send(url, str(number), MessageGroupId="g")
    await on.wait(301)
    await turns(50)
    left = await on.store.transact(lambda c: c.execute("SELECT count(*) FROM message_dedup").fetchall())
    assert left == [(0,)]


async def test_dead_letters_move_in_bounded_passes(on: Rig) -> None:
    dead = await on.create("dlq")
    policy = redrive(on, 1)
    url = await on.create("q", RedrivePolicy=policy, VisibilityTimeout="5")
    for number in range(messages.BUDGET + 20):
        await on.send(url, str(number))
    while await on.bodies(url):
        pass
    await on.wait(5)
    await on.send(url, "good")
    assert await on.bodies(url) == ["good"]
    assert await on.counts(dead) == (messages.BUDGET + 20, 0, 0)


async def test_in_flight_limit(on: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "MAX_IN_FLIGHT", 3)
    url, fifo = await on.create("q"), await on.create("f.fifo", ContentBasedDeduplication="true")
    for body in "abcd":
        await on.send(url, body)
        await on.send(fifo, body, MessageGroupId=body)
    received = await on.receive(url, 3)
    assert await on.bodies(fifo, 3) == ["a", "b", "c"]
    with pytest.raises(ApiError, match="OverLimit"):
        await on.receive(url, 1)
    assert await on.bodies(fifo, 1) == []
    await on.do("DeleteMessage", QueueUrl=url, ReceiptHandle=received[0]["ReceiptHandle"])
    assert await on.bodies(url, 1) == ["d"]


# --- callers ----------------------------------------------------------------------------------------------------------


async def test_scopes_do_not_see_each_other(on: Rig) -> None:
    await on.create("q")
    on.call = Call(Scope(SCOPE.account, "eu-west-1"), host="localhost:4010")
    with pytest.raises(ApiError, match="QueueDoesNotExist"):
        await on.do("GetQueueUrl", QueueName="q")
    assert await on.do("ListQueues") == {}


async def test_another_account_needs_a_permission(on: Rig) -> None:
    url = await on.create("q")
    other = Call(Scope("111111111111", SCOPE.region), host="localhost:4010")
    owner, on.call = on.call, other
    with pytest.raises(ApiError, match="AccessDenied"):
        await on.send(url, "x")
    on.call = owner
    await on.do("AddPermission", QueueUrl=url, Label="L", AWSAccountIds=["111111111111"], Actions=["SendMessage"])
    on.call = other
    assert (await on.send(url, "x"))["MessageId"]
    for operation in ("ReceiveMessage", "DeleteQueue"):
        with pytest.raises(ApiError, match="AccessDenied"):
            await on.do(operation, QueueUrl=url)


async def test_trace_and_sender_come_from_the_request(on: Rig) -> None:
    url = await on.create("q")
    on.call = Call(SCOPE, host="localhost:4010", trace="Root=1", access_key="AKIA")
    await on.send(url, "x")
    own = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=2"}}
    await on.send(url, "y", MessageSystemAttributes=own)
    first, second = await on.receive(url)
    assert first["Attributes"]["AWSTraceHeader"] == "Root=1"
    assert second["Attributes"]["AWSTraceHeader"] == "Root=2"
    assert first["Attributes"]["SenderId"].startswith("AIDA")
    on.call = Call(SCOPE, host="localhost:4010", access_key="OTHER")
    await on.send(url, "z")
    [third] = await on.receive(url)
    assert third["Attributes"]["SenderId"] != first["Attributes"]["SenderId"]


# --- targets and operators --------------------------------------------------------------------------------------------


async def test_message_is_what_send_would_make(on: Rig) -> None:
    url = await on.create("q", DelaySeconds="5")
    queue = on.queue("q")
    new = on.queues.message(queue, "x", attributes={"RULE_ARN": "r"}, trace="Root=1", group="g")
    await on.store.append([Append(1, "e", 0, b"{}", messages=[new])])
    await on.wait(5)
    [message] = await on.receive(url, MessageAttributeNames=["All"])
    assert message["MessageAttributes"] == {"RULE_ARN": {"DataType": "String", "StringValue": "r"}}
    assert message["Attributes"]["AWSTraceHeader"] == "Root=1"
    assert message["Attributes"]["MessageGroupId"] == "g"


async def test_message_refuses_what_send_refuses(on: Rig) -> None:
    await on.create("q", MaximumMessageSize="1024")
    await on.create("f.fifo")
    small, fifo = on.queue("q"), on.queue("f.fifo")
    with pytest.raises(ApiError, match="shorter than 1024"):
        on.queues.message(small, "x" * 1025)
    with pytest.raises(ApiError, match="InvalidMessageContents"):
        on.queues.message(small, "\x00")
    with pytest.raises(ApiError, match="MessageBody"):
        on.queues.message(small, "")
    with pytest.raises(ApiError, match="ContentBasedDeduplication"):
        on.queues.message(fifo, "x", group="g")
    with pytest.raises(ApiError, match="MessageGroupId"):
        on.queues.message(fifo, "x")


async def test_fifo_deliveries_are_deduplicated_by_content(on: Rig) -> None:
    url = await on.create("f.fifo", ContentBasedDeduplication="true")
    queue = on.queue("f.fifo")
    new = [on.queues.message(queue, body, group="g") for body in ("x", "x", "y")]
    await on.store.append([Append(1, "e", 0, b"{}", messages=new)])
    assert await on.bodies(url) == ["x", "y"]


async def test_find(on: Rig) -> None:
    await on.create("q")
    queue = on.queues.find("arn:aws:sqs:us-east-1:000000000000:q")
    assert queue is not None
    assert queue.name == "q"
    assert on.queues.find("arn:aws:sqs:us-east-1:000000000000:other") is None


async def test_browse_and_remove(on: Rig) -> None:
    url, other = await on.create("q"), await on.create("other")
    for body in "abcde":
        await on.send(url, body)
        await on.send(other, "o" + body)
    queue = on.queue("q")
    first = await on.queues.browse(queue, after=0, limit=3)
    rest = await on.queues.browse(queue, after=first[-1].number, limit=3)
    assert [message.body for message in first + rest] == list("abcde")
    assert await on.counts(url) == (5, 0, 0)
    numbers = [message.number for message in first]
    assert await on.queues.remove(on.queue("other"), numbers) == 0
    assert await on.queues.remove(queue, numbers) == 3
    assert await on.bodies(url) == ["d", "e"]


async def test_concurrent_creations_make_one_queue(on: Rig) -> None:
    answers = await asyncio.gather(*(on.do("CreateQueue", QueueName="q") for _ in range(5)))
    assert len({answer["QueueUrl"] for answer in answers}) == 1
    assert len(on.queues.queues()) == 1
    assert len((await on.store.conf_list("queue"))[1]) == 1


# --- browsing ---------------------------------------------------------------------------------------------------------


async def test_pages_take_their_numbers_from_one_pass(on: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    url, other = await on.create("q"), await on.create("other")
    for number in range(7):
        await on.send(url, str(number))
        await on.send(other, "other")
    passes = []
    numbers = message_upkeep.numbers
    monkeypatch.setattr(message_upkeep, "numbers", lambda *a, **k: passes.append(1) or numbers(*a, **k))
    seen: list[str] = []
    after = 0
    while page := await on.queues.browse(on.queue("q"), after=after, limit=2):
        after = page[-1].number
        seen += [letter.body for letter in page]
        if len(seen) == 2:
            await on.queues.remove(on.queue("q"), [after + 2, after + 4])  # the whole next page
        if len(seen) == 4:
            await on.send(url, "late")
    assert seen == ["0", "1", "4", "5", "6", "late"]
    assert len(passes) == 3, "one for what was there, one for what came, one that finds nothing"


async def test_pages_end_at_a_number_of_bytes(on: Rig) -> None:
    url = await on.create("q")
    for letter in "abc":
        await on.send(url, letter * 600)
    queue = on.queue("q")
    assert [m.body[0] for m in await on.queues.browse(queue, max_bytes=1500)] == ["a", "b"]
    assert [m.body[0] for m in await on.queues.browse(queue, max_bytes=1)] == ["a"]


async def test_numbers_are_found_a_limited_number_at_a_time(on: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsing, "AHEAD", 2)
    url = await on.create("q")
    for number in range(5):
        await on.send(url, str(number))
    first = await on.queues.browse(on.queue("q"), limit=10)
    rest = await on.queues.browse(on.queue("q"), after=first[-1].number, limit=10)
    assert [m.body for m in (*first, *rest)] == ["0", "1", "2", "3"]


async def test_a_new_delay_reaches_all_that_wait_in_a_fifo_queue(on: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "DELAY_CHUNK", 2)
    monkeypatch.setattr(queues, "AHEAD", 3)
    url = await on.create("f.fifo", ContentBasedDeduplication="true", DelaySeconds="60")
    for number in range(8):
        await on.send(url, str(number), MessageGroupId="g")
    await on.do("SetQueueAttributes", QueueUrl=url, Attributes={"DelaySeconds": "0"})
    assert await on.bodies(url) == [str(number) for number in range(8)]
