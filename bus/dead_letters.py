"""Dead letters as operators handle them: looked at without being received, and sent again to their target."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from weakref import WeakValueDictionary

import msgspec
import orjson

from bus.accepted import LEASE_MS, Accepted, Luggage, pack
from bus.arrival import open_envelope
from bus.clock import Clock, IdSource
from bus.store import Append, Store
from bus.targets import Route
from rules.arn import target_kind

PAGE = 100
PAGE_BYTES = 4 << 20
"""Bodies of one page, so that a queue of the largest letters is not in memory a thousand at a time."""

_EVENT_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LOOPS = frozenset({"THIRD_ACCOUNT_HOP_DETECTED", "THIRD_REGION_HOP_DETECTED"})


class Letter(Protocol):
    """A message in a queue, as the queues show it to operators."""

    @property
    def number(self) -> int: ...
    @property
    def message_id(self) -> str: ...
    @property
    def sent(self) -> int: ...
    @property
    def receives(self) -> int: ...
    @property
    def body(self) -> str: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...
    @property
    def trace(self) -> str | None: ...


class Queues(Protocol):
    """What is needed of the embedded queues."""

    async def browse(self, queue: Any, *, after: int, limit: int, max_bytes: int) -> Sequence[Letter]: ...
    async def last_number(self) -> int: ...
    async def remove(self, queue: Any, numbers: Sequence[int]) -> int: ...


class Dispatcher(Protocol):
    """See `bus.dispatch.Dispatch`."""

    def plan(self, event: Accepted, routes: Iterable[Route]) -> Any: ...
    def accepted(self, events: Sequence[tuple[Accepted, Any, Any]]) -> None: ...


@dataclass(slots=True)
class Redriven:
    """What a redrive came to: how many letters are on their way again, and why others stay (id, reason)."""

    sent: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)


class DeadLetters:
    """List, show and redrive.

    ``route`` finds the current route for a (rule or schedule ARN, target ARN); it answers with a sentence
    when there is none. ``bus_number`` names a route's bus in the store.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: IdSource,
        *,
        queues: Queues,
        dispatch: Dispatcher,
        route: Callable[[str, str], Route | str],
        bus_number: Callable[[Route], int],
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._queues = queues
        self._dispatch = dispatch
        self._route = route
        self._bus_number = bus_number
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def page(self, queue: Any, *, after: int, limit: int) -> list[dict[str, Any]]:
        """Letters in order of arrival, beginning behind number ``after``; none only when there are no more."""
        return [_shown(letter) for letter in await self._browse(queue, after, limit)]

    async def redrive(self, queue: Any, ids: Sequence[str] | None = None) -> Redriven:
        """Send letters (all, or those with these message ids) to the target they failed to reach.

        A letter leaves the queue only once its new delivery is on disk. Its body goes out as it is:
        it already is what the target was to receive. Letters that arrive meanwhile stay, among
        them those that die again. One redrive of a queue waits for another, so that no letter is
        sent by both.
        """
        async with self.alone(queue):
            return await self._redrive(queue, None if ids is None else set(ids))

    def alone(self, queue: Any) -> asyncio.Lock:
        """What a redrive of the queue holds while it lasts."""
        return self._locks.setdefault(queue.arn, asyncio.Lock())

    async def _redrive(self, queue: Any, wanted: set[str] | None) -> Redriven:
        result = Redriven()
        after, last = 0, await self._queues.last_number()
        while after < last and (letters := await self._browse(queue, after, PAGE)):
            after = letters[-1].number
            for letter in letters:
                if letter.number > last:
                    break
                if wanted is None:
                    await self._redrive_one(queue, letter, result)
                elif letter.message_id in wanted:
                    wanted.discard(letter.message_id)
                    await self._redrive_one(queue, letter, result)
        result.kept.extend((message_id, "it is not in the queue") for message_id in sorted(wanted or ()))
        return result

    async def _browse(self, queue: Any, after: int, limit: int) -> Sequence[Letter]:
        return await self._queues.browse(queue, after=after, limit=limit, max_bytes=PAGE_BYTES)

    async def _redrive_one(self, queue: Any, letter: Letter, result: Redriven) -> None:
        route = self._destination(letter)
        if isinstance(route, str):
            result.kept.append((letter.message_id, route))
            return
        await self._send(route, letter)
        await self._queues.remove(queue, [letter.number])
        result.sent += 1

    def _destination(self, letter: Letter) -> Route | str:
        """Where a letter goes, or a sentence that says why it stays."""
        rule = letter.attributes.get("RULE_ARN") or letter.attributes.get("SCHEDULE_ARN")
        target = letter.attributes.get("TARGET_ARN")
        if rule is None or target is None:
            return "it does not say which rule or schedule and which target it comes from"
        if letter.attributes.get("ERROR_CODE") in _LOOPS:
            return "the event went in a loop from bus to bus, and would do so again"
        route = self._route(rule, target)
        if not isinstance(route, str) and _takes_events(route) and not _is_event(letter.body):
            return "its target is an event bus, and its body is not an event"
        return route

    async def _send(self, route: Route, letter: Letter) -> None:
        now = self._clock.now_ms()
        body = letter.body.encode()
        luggage = Luggage(trace=letter.trace, rendered=True, scheduled=_scheduled(letter))
        event = Accepted(_event_id(body) or self._ids.new(), self._bus_number(route), now, body, luggage, pack(luggage))
        plan = self._dispatch.plan(event, [route])
        append = Append(event.bus, event.event_id, now, body, event.attrs, plan.deliveries, plan.messages)
        (stored,) = await self._store.append([append], lease_until=now + LEASE_MS)
        self._dispatch.accepted([(event, plan, stored)])


def _takes_events(route: Route) -> bool:
    """Whether what the route delivers are whole events; what a schedule sends to a bus is a detail."""
    return bool(route.bus) and target_kind(route.arn) == "event_bus"


def _scheduled(letter: Letter) -> int | None:
    """The nominal instant (ms) of the invocation that a schedule's letter comes from."""
    try:
        instant = datetime.strptime(letter.attributes.get("SCHEDULED_TIME", ""), "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return None
    return int(instant.replace(tzinfo=UTC).timestamp()) * 1000


def _event_id(body: bytes) -> str | None:
    """The id of the event the letter holds, when it is a whole event."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    event_id = found.get("id") if isinstance(found, dict) else None
    return event_id if isinstance(event_id, str) and _EVENT_ID.fullmatch(event_id) else None


def _is_event(body: str) -> bool:
    """Whether another bus could take it."""
    try:
        open_envelope(body.encode())
    except msgspec.MsgspecError:
        return False
    return True


def _shown(letter: Letter) -> dict[str, Any]:
    return {
        "MessageId": letter.message_id,
        "Number": letter.number,
        "Sent": letter.sent,
        "Receives": letter.receives,
        "Attributes": dict(letter.attributes),
        "Body": letter.body,
    }
