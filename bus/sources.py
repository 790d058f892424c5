"""The client for services of your own: how an adapter puts ``aws.*`` events on the default bus of a running bus.

    async with ServiceSource("aws.s3", endpoint="http://127.0.0.1:4010") as s3:
        event_id = await s3.put("Object Created", {"bucket": {"name": "orders"}})     # durable
        s3.send("Object Access Tier Changed", {"bucket": {"name": "orders"}})         # best effort

Theory of operation. Durable events wait in a queue, and one task sends them, some at a time, in the order of `put`.
While the bus is away or has no room on its disk, that task tries the same ones again, for 24 hours counted from when
each was put, and those behind wait, so that the order stays. Every event bears an id from the start: when an answer is
lost and the event is sent again within five minutes (`bus.store.DEDUP_WINDOW_MS`), the bus knows it and does nothing.
Later than that it may be delivered twice.

Best-effort events have a short queue and a task of their own. They are sent once; what finds no room, or no bus, is
dropped and counted.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self
from uuid import uuid4

import aiohttp
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_base, wait_random_exponential

from bus.client import DEFAULT_ENDPOINT, DEFAULT_REGION, Client

log = structlog.get_logger("sources")

PATH = "/_bus/service-events"
RETRY_FOR_S = 86_400.0
"""How long a durable event is tried, as AWS services do."""

ANSWER_S = 30.0
BATCH = 100
BATCH_BYTES = 512 << 10
"""Of one request, unless a single event is longer."""

LONGEST_WAIT_S = 30.0
CLOSED = "the source was closed"
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


class SourceError(Exception):
    """A durable event was not put; the message says why."""


class EventRefused(SourceError):
    """The bus does not take the event, and never will: it is not in order, or the caller may not put it."""


class BusAway(SourceError):
    """The bus could not be reached, or could not store anything, for as long as was agreed."""


class _Unanswered(Exception):
    """An attempt that may go better another time."""


@dataclass(slots=True)
class _Waiting:
    """An event with its text as it is sent; ``done`` is what `put` waits for."""

    event_id: str
    text: bytes
    born: float
    done: asyncio.Future[str] | None = None


class Answered(NamedTuple):
    """What the bus made of a request: a result for each event, and how many of them it dropped."""

    results: list[dict[str, Any]]
    dropped: int


Lane = asyncio.Queue[_Waiting]
"""Events of one kind of delivery."""

Send = Callable[[list[_Waiting]], Awaitable[None]]


class ServiceSource:
    """Puts events of one service, named by its ``source`` (``aws.s3``).

    ``endpoint`` is where the bus is. Requests are signed with the AWS credentials of the environment, for ``region``,
    or bear ``token``; account and region decide on whose default bus the events go. ``most_waiting`` bounds the
    durable events and, apart from them, the best-effort events that wait in this process. ``wait``, ``sleep`` and
    ``clock`` are for tests.
    """

    def __init__(
        self,
        source: str,
        *,
        endpoint: str = DEFAULT_ENDPOINT,
        region: str = DEFAULT_REGION,
        token: str | None = None,
        most_waiting: int = 1000,
        retry_for_s: float = RETRY_FOR_S,
        wait: wait_base | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.dropped = 0
        """Best-effort events that were not put, as far as this side knows."""
        self._client = Client(endpoint.rstrip("/"), region, token)
        self._retry_for_s = retry_for_s
        self._wait = wait or wait_random_exponential(multiplier=0.2, max=LONGEST_WAIT_S)
        self._sleep = sleep
        self._clock = clock
        self._durable: Lane = asyncio.Queue(most_waiting)
        self._best_effort: Lane = asyncio.Queue(most_waiting)
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S))
        lanes = ((self._durable, self._send_durable), (self._best_effort, self._send_once))
        self._tasks = [asyncio.create_task(_run(lane, send)) for lane, send in lanes]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- what an adapter calls

    async def put(
        self,
        detail_type: str,
        detail: Mapping[str, Any],
        *,
        resources: Sequence[str] = (),
        time: str | None = None,
        account: str | None = None,
        region: str | None = None,
        event_id: str | None = None,
    ) -> str:
        """Put a durable event; its id, once it is on the disk of the bus.

        ``time`` is in ISO 8601; ``account`` and ``region`` are those the event tells of, where they are not the
        caller's. ``event_id`` (1 to 64 characters) is one that the adapter knows the event by, so that it can put it
        again after a crash of its own. Waits while there is no room for another event. Raises `EventRefused` or
        `BusAway`, and at once ValueError or TypeError when the detail is no JSON.
        """
        self._demand_open()
        waiting = self._event(detail_type, detail, resources, time, account, region, event_id)
        waiting.done = asyncio.get_running_loop().create_future()
        await self._durable.put(waiting)
        if self._session is None:  # closed while there was no room
            self._leave_durable()
        return await asyncio.shield(waiting.done)

    def send(
        self,
        detail_type: str,
        detail: Mapping[str, Any],
        *,
        resources: Sequence[str] = (),
        time: str | None = None,
        account: str | None = None,
        region: str | None = None,
        event_id: str | None = None,
    ) -> bool:
        """Send a best-effort event some time soon; never waits, and says False when it dropped the event at once."""
        self._demand_open()
        waiting = self._event(detail_type, detail, resources, time, account, region, event_id)
        try:
            self._best_effort.put_nowait(waiting)
        except asyncio.QueueFull:
            self.dropped += 1
            return False
        return True

    async def flush(self) -> None:
        """Wait until everything given so far has been sent, dropped or refused."""
        await self._durable.join()
        await self._best_effort.join()

    async def close(self, *, grace: float = 5.0) -> None:
        """Give what waits ``grace`` seconds to be sent; who waits for a durable event that was not gets `BusAway`."""
        if self._session is None:
            return
        try:
            async with asyncio.timeout(grace):
                await self.flush()
        except TimeoutError:
            log.warning("closed with events that were not put", source=self.source)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        session, self._session = self._session, None
        await session.close()
        self._leave_durable()
        self.dropped += len(_drain(self._best_effort))

    # -- inside

    def _leave_durable(self) -> None:
        """Tell who waits; each one taken out lets another in who waited for room, and comes here in its turn."""
        for each in _drain(self._durable):
            _fail(each, BusAway(CLOSED))

    def _demand_open(self) -> None:
        if self._session is None:
            raise SourceError("the source is not open: use it as an async context manager")

    def _event(
        self,
        detail_type: str,
        detail: Mapping[str, Any],
        resources: Sequence[str],
        time: str | None,
        account: str | None,
        region: str | None,
        event_id: str | None,
    ) -> _Waiting:
        given = event_id or str(uuid4())
        event = {
            "id": given,
            "source": self.source,
            "detail-type": detail_type,
            "detail": detail,
            "resources": list(resources),
            "time": time,
            "account": account,
            "region": region,
        }
        members = {name: value for name, value in event.items() if value is not None}
        # As bytes now, so that whoever gives what is no JSON in UTF-8 hears of it, and not those in the same request.
        text = json.dumps(members, allow_nan=False, ensure_ascii=False).encode()
        return _Waiting(given, text, self._clock())

    async def _send_durable(self, batch: list[_Waiting]) -> None:
        """Try until the bus has answered for each event, or has been away for too long for it."""
        while batch:
            try:
                answered: Answered = await self._retrying(batch[0].born)(self._post, "durable", batch)
            except _Unanswered as error:
                late = [each for each in batch if self._is_late(each.born)]
                batch = batch[len(late) :]
                for each in late:
                    _fail(each, BusAway(f"{error}, for {self._retry_for_s:g} s"))
            except EventRefused as error:
                for each in batch:
                    _fail(each, error)
                return
            else:
                for each, result in zip(batch, answered.results, strict=True):
                    _settle(each, result)
                return

    def _retrying(self, oldest: float) -> AsyncRetrying:
        return AsyncRetrying(
            sleep=self._sleep,
            stop=lambda state: self._is_late(oldest),
            wait=self._wait,
            retry=retry_if_exception_type(_Unanswered),
            before_sleep=self._tell,
            reraise=True,
        )

    def _is_late(self, born: float) -> bool:
        return self._clock() - born >= self._retry_for_s

    async def _send_once(self, batch: list[_Waiting]) -> None:
        try:
            answered = await self._post("best-effort", batch)
        except (_Unanswered, EventRefused) as error:
            self.dropped += len(batch)
            log.warning("best-effort events dropped", source=self.source, events=len(batch), reason=str(error))
        except asyncio.CancelledError:
            self.dropped += len(batch)
            raise
        else:
            self.dropped += answered.dropped + sum("ErrorCode" in result for result in answered.results)

    async def _post(self, delivery: str, batch: list[_Waiting]) -> Answered:
        """One request; raises _Unanswered or EventRefused."""
        assert self._session is not None
        body = b'{"Delivery":"%b","Entries":[%b]}' % (delivery.encode(), b",".join(each.text for each in batch))
        headers = self._client.headers("POST", PATH, body)
        try:
            async with self._session.post(self._client.endpoint + PATH, data=body, headers=headers) as response:
                status, text = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _Unanswered(f"{self._client.endpoint} could not be reached ({type(error).__name__})") from error
        answer = _parse(text)
        if status in RETRIED or (status < 400 and "Entries" not in answer):
            raise _Unanswered(f"{self._client.endpoint} answered {status}")
        if status >= 400:
            raise EventRefused(f"{answer.get('error', status)}: {answer.get('message', 'no reason given')}")
        return Answered(answer["Entries"], answer.get("DroppedEntryCount", 0))

    def _tell(self, state: RetryCallState) -> None:
        """Of an outage, its beginning is worth a line."""
        if state.attempt_number == 1:
            reason = str(state.outcome.exception()) if state.outcome is not None else None
            log.warning("durable events wait", source=self.source, reason=reason)


async def _run(lane: Lane, send: Send) -> None:
    """Send what comes, in the order in which it came, as many together as fit one request."""
    ahead: _Waiting | None = None
    batch: list[_Waiting] = []
    try:
        while True:
            batch = [ahead or await lane.get()]
            ahead = _fill(lane, batch)
            try:
                await send(batch)
            except Exception as error:  # a fault must not leave those behind waiting for ever
                log.exception("events could not be sent", events=len(batch))
                for each in batch:
                    _fail(each, SourceError(f"sending ended with {type(error).__name__}: {error}"))
            for _ in batch:
                lane.task_done()
    finally:
        for each in [*batch, *([ahead] if ahead else ())]:
            _fail(each, BusAway(CLOSED))


def _fill(lane: Lane, batch: list[_Waiting]) -> _Waiting | None:
    """Add what waits to a batch; the event that found no room in it."""
    size = len(batch[0].text)
    while len(batch) < BATCH and not lane.empty():
        each = lane.get_nowait()
        size += len(each.text)
        if size > BATCH_BYTES:
            return each
        batch.append(each)
    return None


def _drain(lane: Lane) -> list[_Waiting]:
    return [lane.get_nowait() for _ in range(lane.qsize())]


def _settle(waiting: _Waiting, result: Mapping[str, Any]) -> None:
    if "ErrorCode" in result:
        _fail(waiting, EventRefused(f"{result['ErrorCode']}: {result['ErrorMessage']}"))
    elif waiting.done is not None and not waiting.done.done():
        waiting.done.set_result(waiting.event_id)


def _fail(waiting: _Waiting, error: SourceError) -> None:
    if waiting.done is not None and not waiting.done.done():
        waiting.done.set_exception(error)
        waiting.done.exception()  # whoever put it may have gone away


def _parse(text: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
