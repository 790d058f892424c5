"""Embedded queues that speak the SQS API: durable, standard and FIFO.

`Queues` is the capability: each public method that is named after an operation of SQS takes the request's members as
the service model has them and answers the response's members, None where there are none. The nouns beside it do the
work:

* `queue` and `registry`: what a queue is, and which there are; `attributes` and `policy`: what can be set on one.
* `message` and `sending`: what a message must be and how it is shown; `batch`: several at a time; `receipt`: handles.
* `reception`: who waits and who gets what; `agenda`: when something becomes due.
* `move_tasks`: sending dead letters again; `browsing`: looking at messages; `upkeep`: what removes the expired.

All statements are in `bus.store.messages`; no backlog is ever in memory.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from bisect import bisect_right
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import apsw
import msgspec
import structlog

from bus.clock import Clock, IdSource
from bus.config import Settings
from bus.errors import ApiError
from bus.permissions.principals import Principals
from bus.queues import attributes, batch, message, policy, receipt
from bus.queues.agenda import Agenda
from bus.queues.browsing import AHEAD, Browsing
from bus.queues.errors import ERROR_CODES, integer, invalid_value, missing, no_queue
from bus.queues.message import Letter
from bus.queues.move_tasks import MoveTasks
from bus.queues.queue import Queue, Record, arn_in_url, arn_of, check_name
from bus.queues.reception import Reception, Waiter
from bus.queues.registry import Registry
from bus.queues.sending import Sending
from bus.queues.upkeep import Upkeep
from bus.scope import Call, Scope
from bus.store import NewMessage, Store, message_rows, message_upkeep, messages
from bus.store.message_upkeep import Counts
from bus.targets import Slot

__all__ = ["ERROR_CODES", "Letter", "Queue", "Queues"]

PURGE_INTERVAL_MS = 60_000
MAX_RESULTS = 1000
DELAY_CHUNK = 500
"""Messages whose delay changes in one transaction, which bounds how long it holds up the event loop."""

Request = Mapping[str, Any]
Answer = dict[str, Any]
Result = TypeVar("Result")

log = structlog.get_logger(__name__)


class Queues:
    """The queues of all scopes. ``recreate_wait``: seconds before the name of a deleted queue may be used again.

    ``principals`` says who callers and rules are to the queues' policies.
    """

    service = "sqs"

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: IdSource,
        *,
        recreate_wait: float = 0.0,
        principals: Principals | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._principals = principals or Principals(Settings(), clock)
        self._ids = ids
        self._recreate_wait_ms = int(recreate_wait * 1000)
        self._deleted: dict[str, int] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._agenda = Agenda(clock)
        self._registry = Registry(store)
        self._reception = Reception(store, clock, self._agenda, self._registry, self._spawn)
        self._upkeep = Upkeep(store, clock, self._agenda, self._registry, self._reception)
        self._tasks = MoveTasks(self._reception, ids)
        self._browsing = Browsing(store, clock)

    async def load(self) -> None:
        """Read queues and move tasks from the store and take up the work that is left."""
        await self._registry.load()
        await self._upkeep.start()
        await self._tasks.load()

    async def close(self) -> None:
        """Answer everyone who waits, stop what runs in the background and write down how far it is."""
        self._agenda.clear()
        self.hang_up()
        await self._tasks.close()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def hang_up(self) -> None:
        """Answer every receiver that waits, and let none wait any more, so that a stop need not wait for them."""
        self._reception.hang_up()

    def tick(self) -> None:
        """Look at the clock now; tests that move a clock of their own call this."""
        self._agenda.run_due()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work on queues failed", exc_info=error)

    # --- for targets, dead letters and operators ----------------------------------------------------------------------

    def find(self, arn: str) -> Queue | None:
        """The queue of an ARN."""
        return self._registry.find(arn)

    def refuses(self, queue: Queue, rule_arn: str, role: str | None) -> str | None:
        """Why a queue takes no messages from a rule, as the end of AWS's sentence; None when it does.

        A queue without a policy takes what comes. ``role`` is the target's; within its own account it is taken to
        have every permission, so that only a denial counts.
        """
        if queue.policy is None:
            return None
        request = self._principals.delivering(rule_arn, role, "sqs:sendmessage", queue.arn)
        verdict = queue.policy.judge(request)
        if verdict.denied:
            return "with an explicit deny in a resource-based policy"
        if verdict.allowed or request.principal.account == queue.scope.account:
            return None
        return "because no resource-based policy allows the sqs:sendmessage action"

    def message(
        self,
        queue: Queue,
        body: str,
        *,
        attributes: Mapping[str, str] | None = None,
        trace: str | None = None,
        group: str | None = None,
        json: bool = False,
    ) -> NewMessage:
        """A message as SendMessage would make it, ``attributes`` all Strings; raises what SendMessage raises.

        ``json`` says that the body is JSON text, which in ASCII holds nothing that a message must not.
        """
        # Once per delivered event: nothing here is done for a feature that the message does not use.
        if not body:
            raise missing("MessageBody")
        size = len(body) if json and body.isascii() else message.byte_length(body)
        attrs = None
        if attributes or trace:
            given = message.given_strings(attributes or {})
            size += message.size_of(given)
            attrs = message.packed(given, trace, None)
        if size > queue.max_bytes:
            raise message.too_long(queue.max_bytes)
        if group is not None or queue.fifo:
            message.check_ids(queue, group, None)
        now, message_id = self._clock.now_ms(), self._ids.new()
        if not queue.fifo:
            return NewMessage(queue.number, message_id, now + queue.delay_ms, now, body, attrs, group)
        return message.for_fifo(queue, body, now, message_id, attrs=attrs, group=group)

    def slot(self, queue: Queue) -> Slot | None:
        """Where messages made of whole events go; None for a FIFO queue, which looks at each."""
        now = self._clock.now_ms()
        if queue.fifo:
            return None
        return Slot(queue.number, message_rows.beginning(queue.number, now + queue.delay_ms, now), queue.max_bytes)

    def arrived(self, numbers: Iterable[int]) -> None:
        """Messages were committed to the queues with these numbers."""
        self._reception.arrived(numbers)

    async def browse(self, queue: Queue, *, after: int = 0, limit: int = 100, max_bytes: int = 4 << 20) -> list[Letter]:
        """Messages numbered above ``after``, in order of arrival, without receiving them.

        They are fewer than ``limit`` when their bodies exceed ``max_bytes``, but none only when there are no more.
        """
        return await self._browsing.page(queue, after=after, limit=limit, max_bytes=max_bytes)

    async def last_number(self) -> int:
        """The number of the youngest message there ever was, in any queue."""
        return await self._store.transact(message_upkeep.last_number)

    async def remove(self, queue: Queue, numbers: Collection[int]) -> int:
        """Delete messages by number; how many were there."""
        removed = await self._store.transact(lambda c: message_upkeep.remove(c, queue.number, numbers))
        self._reception.kick(queue)
        return removed

    async def counts(self, queue: Queue) -> Counts:
        """How many messages are visible, in flight and delayed."""
        now = self._clock.now_ms()
        return await self._store.transact(lambda c: message_upkeep.count(c, queue.source(now), now))

    def queues(self) -> list[Queue]:
        """Every queue of every scope."""
        return list(self._registry)

    # --- queues -------------------------------------------------------------------------------------------------------

    async def create_queue(self, call: Call, request: Request) -> Answer:
        name = request.get("QueueName") or ""
        given = request.get("Attributes") or {}
        check_name(name, fifo=given.get("FifoQueue") == "true")
        fifo = name.endswith(".fifo")
        checked = attributes.checked(given, fifo=fifo, creating=True)
        async with self._registry.lock:
            queue = self._registry.find(arn_of(name, call.scope))
            if queue is None:
                queue = await self._create(call.scope, name, checked, request.get("tags") or {})
            elif (other := attributes.difference(queue.record.attributes, checked, fifo=fifo)) is not None:
                text = f"A queue already exists with the same name and a different value for attribute {other}"
                raise ApiError("QueueNameExists", text)
        return {"QueueUrl": queue.url(call.host)}

    async def _create(self, scope: Scope, name: str, checked: Mapping[str, str], tags: Mapping[str, str]) -> Queue:
        now = self._clock.now_ms()
        self._check_recreation(arn_of(name, scope), now)
        stored = attributes.applied({}, checked)
        number = self._store.allocate()
        queue = Queue(scope, name, Record(number, number, now, now, attributes=stored, tags=dict(tags)))
        self._check_redrive(queue, checked, must_exist=False)
        await self._registry.create(queue)
        return queue

    def _check_recreation(self, arn: str, now: int) -> None:
        self._deleted = {name: at for name, at in self._deleted.items() if now < at + self._recreate_wait_ms}
        if arn in self._deleted:
            seconds = self._recreate_wait_ms // 1000
            text = f"You must wait {seconds} seconds after deleting a queue before you can create another with the "
            raise ApiError("QueueDeletedRecently", text + "same name.")

    def _check_redrive(self, queue: Queue, checked: Mapping[str, str], *, must_exist: bool) -> None:
        text = checked.get("RedrivePolicy")
        if not text or queue.redrive is None:
            return
        target = self._registry.find(queue.redrive.arn)
        if target is None and must_exist:
            raise invalid_value(text, "RedrivePolicy", "Dead letter target does not exist.")
        if target is not None and target.fifo != queue.fifo:
            raise invalid_value(text, "RedrivePolicy", "Dead-letter queue must be same type of queue as the source.")
        if target is not None and not target.takes_dead_letters_of(queue):
            reason = (
                "The dead-letter queue is in another account or region, or its RedriveAllowPolicy does not permit it."
            )
            raise invalid_value(text, "RedrivePolicy", reason)

    async def get_queue_url(self, call: Call, request: Request) -> Answer:
        name = request.get("QueueName") or ""
        if not name:
            raise missing("QueueName")
        account = request.get("QueueOwnerAWSAccountId") or call.scope.account
        queue = self._reach(call, arn_of(name, Scope(account, call.scope.region)), "GetQueueUrl")
        return {"QueueUrl": queue.url(call.host)}

    async def list_queues(self, call: Call, request: Request) -> Answer:
        prefix = request.get("QueueNamePrefix") or ""
        found = [queue for queue in self._registry.of(call.scope) if queue.name.startswith(prefix)]
        return _page(found, request, call.host, "QueueUrls")

    async def get_queue_attributes(self, call: Call, request: Request) -> Answer:
        queue = self._queue(call, request, "GetQueueAttributes")
        names = set(request.get("AttributeNames") or ())
        for name in names:
            if name not in attributes.READABLE:
                raise attributes.unknown(name)
        if "All" in names:
            names = set(attributes.READABLE)
        found = queue.attributes()
        if names & set(attributes.COUNTS):
            found.update(zip(attributes.COUNTS, map(str, await self.counts(queue)), strict=True))
        values = {name: value for name, value in found.items() if name in names and value is not None}
        return {"Attributes": values} if values else {}

    async def set_queue_attributes(self, call: Call, request: Request) -> None:
        queue = self._queue(call, request)
        given = request.get("Attributes")
        if given is None:
            raise missing("Attributes")
        checked = attributes.checked(given, fifo=queue.fifo, creating=False)
        async with self._registry.lock:
            stored = attributes.applied(queue.record.attributes, checked)
            as_wanted = Queue(queue.scope, queue.name, msgspec.structs.replace(queue.record, attributes=stored))
            self._check_redrive(as_wanted, checked, must_exist=True)
            delay_ms = queue.delay_ms
            await self._change(queue, attributes=stored, modified=self._clock.now_ms())
        if queue.fifo and queue.delay_ms != delay_ms:
            await self._delay_waiting(queue)
        self._reception.kick(queue)

    async def _delay_waiting(self, queue: Queue) -> None:
        """Give what waits in a queue the delay that the queue has now, a little at a time."""
        after = 0
        while numbers := await self._store.transact(partial(self._waiting, queue=queue, after=after)):
            after = numbers[-1]
            for start in range(0, len(numbers), DELAY_CHUNK):
                chunk = numbers[start : start + DELAY_CHUNK]
                await self._store.transact(partial(self._delay, queue=queue, numbers=chunk))

    def _waiting(self, connection: apsw.Connection, queue: Queue, after: int) -> list[int]:
        return message_upkeep.numbers(connection, queue.source(self._clock.now_ms()), after=after, limit=AHEAD)

    def _delay(self, connection: apsw.Connection, queue: Queue, numbers: list[int]) -> None:
        message_upkeep.delay_waiting(connection, queue.number, numbers, queue.delay_ms)

    async def _change(self, queue: Queue, **changes: Any) -> None:
        if queue.gone:
            raise no_queue()
        await self._registry.change(queue, msgspec.structs.replace(queue.record, **changes))

    async def delete_queue(self, call: Call, request: Request) -> None:
        async with self._registry.lock:
            queue = self._queue(call, request)
            await self._registry.delete(queue)
        if self._recreate_wait_ms:
            self._deleted[queue.arn] = self._clock.now_ms()
        self._reception.drop(queue)
        self._upkeep.abandon(queue.number)
        await self._tasks.forget(queue)

    async def purge_queue(self, call: Call, request: Request) -> None:
        # The queue goes on under a new number, so that a purge is one small write however much there is to remove.
        async with self._registry.lock:
            queue = self._queue(call, request, "PurgeQueue")
            now, old = self._clock.now_ms(), queue.number
            if now < queue.record.purged + PURGE_INTERVAL_MS:
                text = f"Only one PurgeQueue operation on {queue.name} is allowed every 60 seconds."
                raise ApiError("PurgeQueueInProgress", text)
            await self._change(queue, number=self._store.allocate(), purged=now)
        self._upkeep.abandon(old)
        self._reception.kick(queue)

    # --- tags and permissions -----------------------------------------------------------------------------------------

    async def tag_queue(self, call: Call, request: Request) -> None:
        async with self._registry.lock:
            queue = self._queue(call, request)
            await self._change(queue, tags={**queue.record.tags, **(request.get("Tags") or {})})

    async def untag_queue(self, call: Call, request: Request) -> None:
        gone = set(request.get("TagKeys") or ())
        async with self._registry.lock:
            queue = self._queue(call, request)
            await self._change(queue, tags={k: v for k, v in queue.record.tags.items() if k not in gone})

    async def list_queue_tags(self, call: Call, request: Request) -> Answer:
        tags = self._queue(call, request).record.tags
        return {"Tags": dict(tags)} if tags else {}

    async def add_permission(self, call: Call, request: Request) -> None:
        async with self._registry.lock:
            queue = self._queue(call, request)
            text = policy.with_permission(
                queue.record.attributes.get("Policy"),
                arn=queue.arn,
                label=request.get("Label") or "",
                accounts=request.get("AWSAccountIds") or (),
                actions=request.get("Actions") or (),
            )
            await self._set_policy(queue, text)

    async def remove_permission(self, call: Call, request: Request) -> None:
        async with self._registry.lock:
            queue = self._queue(call, request)
            label = request.get("Label") or ""
            await self._set_policy(queue, policy.without_permission(queue.record.attributes.get("Policy"), label))

    async def _set_policy(self, queue: Queue, text: str) -> None:
        stored = attributes.applied(queue.record.attributes, {"Policy": text})
        await self._change(queue, attributes=stored, modified=self._clock.now_ms())

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send_message(self, call: Call, request: Request) -> Answer:
        queue = self._queue(call, request, "SendMessage")
        send = self._sending(call, queue).checked(request)
        stored = await self._store.transact(lambda c: messages.insert(c, [send.new]))
        self._reception.arrived({queue.number})
        return send.answered(stored[0])

    async def send_message_batch(self, call: Call, request: Request) -> Answer:
        queue = self._queue(call, request, "SendMessage")
        entries = batch.check_entries(request.get("Entries"), "SendMessageBatchRequestEntry")
        sends, refused = self._sending(call, queue).checked_batch(entries)
        new = [send.new for _, send in sends]
        stored = await self._store.transact(lambda c: messages.insert(c, new)) if new else []
        self._reception.arrived({queue.number})
        successful = [{"Id": entry["Id"], **send.answered(m)} for (entry, send), m in zip(sends, stored, strict=True)]
        return batch.answer(successful, refused)

    def _sending(self, call: Call, queue: Queue) -> Sending:
        return Sending(queue, self._clock.now_ms(), self._ids.new, trace=call.trace, access_key=call.access_key)

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def receive_message(self, call: Call, request: Request) -> Answer:
        queue = self._queue(call, request, "ReceiveMessage")
        limit = integer(request.get("MaxNumberOfMessages"), "MaxNumberOfMessages", 1, 10, default=1)
        wait = integer(request.get("WaitTimeSeconds"), "WaitTimeSeconds", 0, 20, default=queue.wait)
        visibility = receipt.visibility(request, queue)
        attempt = request.get("ReceiveRequestAttemptId")
        message.check_id(attempt, "ReceiveRequestAttemptId")
        asked = message.wanted(request)
        deadline = self._clock.now_ms() + wait * 1000
        waiter = Waiter(limit, visibility, deadline, attempt if queue.fifo else None)
        rows = await self._reception.line(queue).receive(waiter)
        return {"Messages": [message.shown(queue, row, asked) for row in rows]} if rows else {}

    async def delete_message(self, call: Call, request: Request) -> None:
        queue = self._queue(call, request, "DeleteMessage")
        await self._use(queue, lambda c, now: receipt.delete(c, queue, request, now))

    async def delete_message_batch(self, call: Call, request: Request) -> Answer:
        queue = self._queue(call, request, "DeleteMessage")
        entries = batch.check_entries(request.get("Entries"), "DeleteMessageBatchRequestEntry")
        return await self._use(
            queue, lambda c, now: batch.each(entries, lambda entry: receipt.delete(c, queue, entry, now))
        )

    async def change_message_visibility(self, call: Call, request: Request) -> None:
        queue = self._queue(call, request, "ChangeMessageVisibility")
        if request.get("VisibilityTimeout") is None:
            raise missing("VisibilityTimeout")
        await self._use(queue, lambda c, now: receipt.change_visibility(c, queue, request, now))

    async def change_message_visibility_batch(self, call: Call, request: Request) -> Answer:
        queue = self._queue(call, request, "ChangeMessageVisibility")
        entries = batch.check_entries(request.get("Entries"), "ChangeMessageVisibilityBatchRequestEntry")
        return await self._use(
            queue, lambda c, now: batch.each(entries, lambda entry: receipt.change_visibility(c, queue, entry, now))
        )

    async def _use(self, queue: Queue, work: Callable[[apsw.Connection, int], Result]) -> Result:
        """Use receipts; what that sets free, others may have."""

        # A refusal is a result: raised inside, it would undo the transaction for everyone who shares it.
        def attempt(connection: apsw.Connection) -> Result | ApiError:
            try:
                return work(connection, self._clock.now_ms())
            except ApiError as refusal:
                return refusal

        result = await self._store.transact(attempt)
        if isinstance(result, ApiError):
            raise result
        self._reception.kick(queue)
        return result

    # --- dead letters -------------------------------------------------------------------------------------------------

    async def list_dead_letter_source_queues(self, call: Call, request: Request) -> Answer:
        queue = self._queue(call, request, "ListDeadLetterSourceQueues")
        return {"queueUrls": [], **_page(self._registry.sources(queue), request, call.host, "queueUrls")}

    async def start_message_move_task(self, call: Call, request: Request) -> Answer:
        return await self._tasks.start(request, call.scope)

    async def list_message_move_tasks(self, call: Call, request: Request) -> Answer:
        return self._tasks.show(request, call.scope)

    async def cancel_message_move_task(self, call: Call, request: Request) -> Answer:
        return await self._tasks.cancel(request, call.scope)

    # --- which queue --------------------------------------------------------------------------------------------------

    def _queue(self, call: Call, request: Request, action: str = "") -> Queue:
        return self._reach(call, arn_in_url(request.get("QueueUrl") or "", call.scope), action)

    def _reach(self, call: Call, arn: str, action: str) -> Queue:
        """The queue of an ARN if the caller may do ``action`` to it; without an action, only its account may."""
        queue = self._registry.find(arn)
        if queue is None:
            raise no_queue()
        if not self._may(call, queue, action):
            raise ApiError("AccessDeniedException", f"Access to the resource {queue.url(call.host)} is denied.")
        return queue

    def _may(self, call: Call, queue: Queue, action: str) -> bool:
        """The queue's own account may do all that its policy does not deny, others what it allows them."""
        own = queue.scope.account == call.account
        if queue.policy is None or action not in policy.SHARED or (own and not queue.policy.can_deny):
            return own
        verdict = queue.policy.judge(self._principals.caller(call, f"sqs:{action}", [queue.arn], {}))
        return verdict.allowed or (own and not verdict.denied)


def _page(found: Sequence[Queue], request: Request, host: str, member: str) -> Answer:
    """One page of queues by name. The token is the last name given; it is sent only to who asks for pages."""
    limit = integer(request.get("MaxResults"), "MaxResults", 1, MAX_RESULTS, default=MAX_RESULTS)
    start = bisect_right(found, _token_name(request.get("NextToken")), key=lambda queue: queue.name)
    page = found[start : start + limit]
    answer: Answer = {member: [queue.url(host) for queue in page]} if page else {}
    if request.get("MaxResults") is not None and start + limit < len(found):
        answer["NextToken"] = urlsafe_b64encode(page[-1].name.encode()).decode()
    return answer


def _token_name(token: str | None) -> str:
    with suppress(Base64Error, ValueError):
        return b64decode(token or "", altchars=b"-_", validate=True).decode()
    raise invalid_value(token, "NextToken", "It is not the token of an earlier answer.")
