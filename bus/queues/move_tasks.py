"""Message move tasks: a dead-letter queue's messages are sent again, to where they came from or somewhere else.

Theory of operation. A task is a record in the configuration and a coroutine that moves messages in steps of one
transaction each. It moves the messages that the source held when the task was started and no later ones (`ceiling`
is the youngest message's number at that time), so a message that fails again at once does not keep it busy for ever.
A message in flight is moved when it becomes visible again; meanwhile the task waits at the queue like a receiver.

The record is written when the task starts and ends and at a stop. A task found running in the records of an earlier
process is taken up again: what it has not moved is still in the source, so the outcome is right in any case; only the
count of messages moved may lag by what was moved since the record was last written.
"""

from __future__ import annotations

import asyncio
import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import apsw
import msgspec
import orjson
import structlog

from bus.clock import IdSource
from bus.errors import ApiError, StoreUnavailable
from bus.queues.errors import integer, invalid, missing
from bus.queues.queue import Queue
from bus.queues.reception import Reception
from bus.scope import Scope
from bus.store import ConfChange, message_moves, message_upkeep, messages
from bus.store.message_moves import Destination, Moved
from bus.store.messages import BUDGET, Candidate
from rules.arn import ArnError, parse

log = structlog.get_logger(__name__)

KIND = "queue-move-task"
KEPT = 10
"""Tasks of one source whose records are kept."""
LONGEST_MS = 36 * 3600 * 1000
RETRY_MS = 1000
LOOK_MS = 60_000
"""How long a task waits at most before it looks again, whatever it was told to wait for."""
WRITE_EVERY = 1000
"""Messages moved after which the record is written again."""


class Task(msgspec.Struct):
    """The record of a task; ``rate`` is messages per second, ``started`` an instant (ms)."""

    id: str
    source: str
    started: int
    ceiling: int
    to_move: int
    destination: str | None = None
    rate: int | None = None
    status: str = "RUNNING"
    moved: int = 0
    failure: str | None = None

    @property
    def active(self) -> bool:
        return self.status in ("RUNNING", "CANCELLING")

    @property
    def handle(self) -> str:
        return b64encode(orjson.dumps({"taskId": self.id, "sourceArn": self.source})).decode()

    def shown(self) -> dict[str, Any]:
        """As ListMessageMoveTasks answers it."""
        members = {
            "TaskHandle": self.handle if self.status == "RUNNING" else None,
            "Status": self.status,
            "SourceArn": self.source,
            "DestinationArn": self.destination,
            "MaxNumberOfMessagesPerSecond": self.rate,
            "ApproximateNumberOfMessagesMoved": self.moved,
            "ApproximateNumberOfMessagesToMove": self.to_move,
            "FailureReason": self.failure,
            "StartedTimestamp": self.started,
        }
        return {name: value for name, value in members.items() if value is not None}


class MoveTasks:
    """The tasks of all queues, newest last."""

    def __init__(self, reception: Reception, ids: IdSource) -> None:
        self._reception = reception
        self._store = reception.store
        self._clock = reception.clock
        self._agenda = reception.agenda
        self._registry = reception.registry
        self._ids = ids
        self._tasks: dict[str, list[Task]] = {}
        self._pokes: dict[str, asyncio.Event] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def load(self) -> None:
        """Read all records and take up what was running."""
        _, entries = await self._store.conf_list(KIND)
        tasks = [msgspec.json.decode(entry.value, type=Task) for entry in entries if entry.value is not None]
        for task in sorted(tasks, key=lambda task: task.id):
            self._tasks.setdefault(task.source, []).append(task)
            if task.active:
                self._run(task)

    # -- operations

    async def start(self, request: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
        source = self._queue(request, "SourceArn", scope)
        if source is None or not self._registry.sources(source):
            raise invalid("Source queue must be configured as a Dead Letter Queue.")
        destination = self._queue(request, "DestinationArn", scope)
        if destination is not None and destination.fifo != source.fifo:
            raise invalid("The source and destination queues must both be standard queues or both be FIFO queues.")
        if destination is source:
            raise invalid("Source queue arn and destination queue arn cannot be the same.")
        rate = request.get("MaxNumberOfMessagesPerSecond")
        integer(rate, "MaxNumberOfMessagesPerSecond", 1, 500, default=1)
        async with self._registry.lock:
            if any(task.active for task in self._tasks.get(source.arn, ())):
                raise invalid(_ALREADY_RUNNING)
            task = await self._new(source, destination, rate)
        self._run(task)
        return {"TaskHandle": task.handle}

    async def _new(self, source: Queue, destination: Queue | None, rate: int | None) -> Task:
        now = self._clock.now_ms()

        def look(connection: apsw.Connection) -> tuple[int, int]:
            counts = message_upkeep.count(connection, source.source(now), now)
            return message_upkeep.last_number(connection), sum(counts)

        ceiling, to_move = await self._store.transact(look)
        arn = destination.arn if destination else None
        task = Task(self._ids.new(), source.arn, now, ceiling, to_move, arn, rate)
        tasks = self._tasks.get(source.arn, [])
        await self._store.conf_put([self._written(task), *(self._erased(old) for old in tasks[: 1 - KEPT])])
        self._tasks[source.arn] = [*tasks[1 - KEPT :], task]
        return task

    def show(self, request: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
        source = self._queue(request, "SourceArn", scope)
        limit = integer(request.get("MaxResults"), "MaxResults", 1, 10, default=1)
        tasks = self._tasks.get(source.arn, []) if source else []
        return {"Results": [task.shown() for task in reversed(tasks[-limit:])]}

    async def cancel(self, request: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
        task_id, source = _read_handle(request.get("TaskHandle"))
        self._queue({"SourceArn": source}, "SourceArn", scope)
        task = next((task for task in self._tasks.get(source, ()) if task.id == task_id), None)
        if task is None or task.status != "RUNNING":
            raise ApiError("ResourceNotFoundException", "Task does not exist.")
        await self._store.conf_put([self._written(msgspec.structs.replace(task, status="CANCELLING"))])
        # It may have come to its end meanwhile; then that is what is written last.
        if task.status == "RUNNING":
            task.status = "CANCELLING"
            self._poke(task)
        return {"ApproximateNumberOfMessagesMoved": task.moved}

    def _queue(self, request: Mapping[str, Any], parameter: str, scope: Scope) -> Queue | None:
        """The queue of an ARN in the request, None only for an optional one that is not given."""
        arn = request.get(parameter)
        if arn is None and parameter == "DestinationArn":
            return None
        if not arn:
            raise missing(parameter)
        try:
            parse(arn)
        except ArnError:
            form = "arn:<partition>:<service>:<region>:<account-id>:<resource-id>"
            raise invalid(f"You must use this format to specify the {parameter}: {form}") from None
        queue = self._registry.find(arn)
        if queue is None or queue.scope != scope:
            text = f"The resource that you specified for the {parameter} parameter doesn't exist."
            raise ApiError("ResourceNotFoundException", text)
        return queue

    # -- life

    async def forget(self, source: Queue) -> None:
        """The source is gone, and its tasks with it."""
        tasks = self._tasks.pop(source.arn, [])
        for task in tasks:
            task.status = "CANCELLED"
            self._poke(task)
        if tasks:
            await self._store.conf_put([self._erased(task) for task in tasks])

    async def close(self) -> None:
        """Let running tasks finish the step they are at and write down how far they are."""
        self._stopping = True
        for poke in self._pokes.values():
            poke.set()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def _written(self, task: Task) -> ConfChange:
        return ConfChange(KIND, task.id, msgspec.json.encode(task))

    def _erased(self, task: Task) -> ConfChange:
        return ConfChange(KIND, task.id, None)

    # -- moving

    def _run(self, task: Task) -> None:
        self._pokes[task.id] = asyncio.Event()
        worker = self._reception.spawn(self._work(task))
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def _work(self, task: Task) -> None:
        poke = self._pokes[task.id]
        try:
            while self._is_on(task):
                source = self._registry.find(task.source)
                if source is None:
                    return
                await self._try_step(task, source, poke)
            if task.status == "CANCELLING":
                task.status = "CANCELLED"
            if task in self._tasks.get(task.source, ()):
                await self._store.conf_put([self._written(task)])
        finally:
            del self._pokes[task.id]

    async def _try_step(self, task: Task, source: Queue, poke: asyncio.Event) -> None:
        """One step; what nobody foresaw fails the task, since a task without a worker would run for ever."""
        try:
            await self._step(task, source, poke)
        except Exception:
            log.exception("a message move task failed", source=task.source)
            self._fail(task, "InternalError")

    def _poke(self, task: Task) -> None:
        """Wake the task's worker, if it has one."""
        poke = self._pokes.get(task.id)
        if poke is not None:
            poke.set()

    def _is_on(self, task: Task) -> bool:
        return task.status == "RUNNING" and not self._stopping

    async def _step(self, task: Task, source: Queue, poke: asyncio.Event) -> None:
        line = self._reception.line(source)
        line.watchers.add(poke)
        try:
            poke.clear()
            step = await self._store.transact(lambda connection: self._move(connection, task, source))
            before, task.moved = task.moved, task.moved + step.moved
            self._reception.arrived(step.queues)
            if step.homeless:
                self._fail(task, "AWS.SimpleQueueService.NonExistentQueue" if task.destination else _NO_SOURCE)
            elif not step.left:
                task.status = "COMPLETED"
            elif self._clock.now_ms() - task.started > LONGEST_MS:
                self._fail(task, "TimedOut")
            else:
                await self._pause(task, source, poke, step)
            if task.active and before // WRITE_EVERY != task.moved // WRITE_EVERY:
                await self._store.conf_put([self._written(task)])
        except StoreUnavailable:
            await self._wait(poke, self._clock.now_ms() + RETRY_MS)
        finally:
            line.watchers.discard(poke)

    def _fail(self, task: Task, reason: str) -> None:
        if task.status == "RUNNING":
            task.status, task.failure = "FAILED", reason

    def _move(self, connection: apsw.Connection, task: Task, source: Queue) -> Moved:
        now = self._clock.now_ms()

        def destination(candidate: Candidate) -> Destination | None:
            arn = task.destination or candidate.origin
            queue = self._registry.find(arn) if arn else None
            return None if queue is None else queue.destination(now)

        return message_moves.move(
            connection,
            source.source(now),
            now=now,
            ceiling=task.ceiling,
            limit=min(task.rate or BUDGET, BUDGET),
            destination=destination,
            new_id=self._ids.new,
        )

    async def _pause(self, task: Task, source: Queue, poke: asyncio.Event, step: Moved) -> None:
        now = self._clock.now_ms()
        if step.seen == 0:
            instant = await self._store.transact(lambda c: messages.next_visible(c, source.source(now), now))
            await self._wait(poke, now + LOOK_MS if instant is None else min(instant, now + LOOK_MS))
        elif task.rate is not None:
            # A second's worth may take several steps.
            until = now + 1000 * step.seen // task.rate
            while self._is_on(task) and self._clock.now_ms() < until:
                await self._wait(poke, until)

    async def _wait(self, poke: asyncio.Event, until: int) -> None:
        if self._stopping:
            return
        alarm = self._agenda.at(until, poke.set)
        try:
            await poke.wait()
            poke.clear()
        finally:
            alarm.cancel()


_ALREADY_RUNNING = (
    "There is already a task running. Only one active task is allowed for a source queue arn at a given time."
)
_NO_SOURCE = "CouldNotDetermineMessageSource"


def _read_handle(text: str | None) -> tuple[str, str]:
    if not text:
        raise missing("TaskHandle")
    try:
        document = orjson.loads(b64decode(text, validate=True))
        return str(document["taskId"]), str(document["sourceArn"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise invalid("Value for parameter TaskHandle is invalid.") from None
