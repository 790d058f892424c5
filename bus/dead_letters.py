"""Dead letters as operators handle them: looked at without being received, and sent again to their target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from bus.accepted import Accepted, Luggage, pack
from bus.clock import Clock, IdSource
from bus.store import Append, Store
from bus.targets import Route

PAGE = 100
LEASE_MS = 2 * 3600 * 1000


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

    async def browse(self, queue: Any, *, after: int, limit: int) -> Sequence[Letter]: ...
    async def remove(self, queue: Any, numbers: Sequence[int]) -> int: ...


class Dispatcher(Protocol):
    """See `bus.dispatch.Dispatch`."""

    def plan(self, event: Accepted, routes: Iterable[Route]) -> Any: ...
    def accepted(self, event: Accepted, plan: Any, appended: Any) -> None: ...


@dataclass(slots=True)
class Redriven:
    """What a redrive came to: how many letters are on their way again, and why others stay (id, reason)."""

    sent: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)


class DeadLetters:
    """List, show and redrive.

    ``route`` finds the current route for a (rule ARN, target ARN); it answers with a sentence when
    there is none. ``bus_number`` names a route's bus in the store.
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

    async def page(self, queue: Any, *, after: int, limit: int) -> list[dict[str, Any]]:
        """Letters in order of arrival, beginning behind number ``after``."""
        return [_shown(letter) for letter in await self._queues.browse(queue, after=after, limit=limit)]

    async def redrive(self, queue: Any, ids: Sequence[str] | None = None) -> Redriven:
        """Send letters (all, or those with these message ids) to the target they failed to reach.

        A letter leaves the queue only once its new delivery is on disk. Its body goes out as it is:
        it already is what the target was to receive.
        """
        wanted = None if ids is None else set(ids)
        result = Redriven()
        after = 0
        while letters := await self._queues.browse(queue, after=after, limit=PAGE):
            after = letters[-1].number
            for letter in letters:
                if wanted is None:
                    await self._redrive_one(queue, letter, result)
                elif letter.message_id in wanted:
                    wanted.discard(letter.message_id)
                    await self._redrive_one(queue, letter, result)
        result.kept.extend((message_id, "it is not in the queue") for message_id in sorted(wanted or ()))
        return result

    async def _redrive_one(self, queue: Any, letter: Letter, result: Redriven) -> None:
        rule, target = letter.attributes.get("RULE_ARN"), letter.attributes.get("TARGET_ARN")
        if rule is None or target is None:
            result.kept.append((letter.message_id, "it does not say which rule and target it comes from"))
            return
        route = self._route(rule, target)
        if isinstance(route, str):
            result.kept.append((letter.message_id, route))
            return
        await self._send(route, letter)
        await self._queues.remove(queue, [letter.number])
        result.sent += 1

    async def _send(self, route: Route, letter: Letter) -> None:
        now = self._clock.now_ms()
        body = letter.body.encode()
        luggage = Luggage(trace=letter.trace, rendered=True)
        event = Accepted(_event_id(body) or self._ids.new(), self._bus_number(route), now, body, luggage, pack(luggage))
        plan = self._dispatch.plan(event, [route])
        append = Append(event.bus, event.event_id, now, body, event.attrs, plan.deliveries, plan.messages)
        (stored,) = await self._store.append([append], lease_until=now + LEASE_MS)
        self._dispatch.accepted(event, plan, stored)


def _event_id(body: bytes) -> str | None:
    """The id of the event the letter holds, when it is a whole event."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    event_id = found.get("id") if isinstance(found, dict) else None
    return event_id if isinstance(event_id, str) and len(event_id) == 36 else None


def _shown(letter: Letter) -> dict[str, Any]:
    return {
        "MessageId": letter.message_id,
        "Number": letter.number,
        "Sent": letter.sent,
        "Receives": letter.receives,
        "Attributes": dict(letter.attributes),
        "Body": letter.body,
    }
