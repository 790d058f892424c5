"""The course of one replay: count the window, put page after page of it on the bus, end.

Theory of operation.

*Order and place.* The archive is read by (time, number), which is finer than the slices of a minute that AWS promises.
Each page is one `put`, all or nothing. The place behind it is written down together with the *next* page: in whatever
order the two reach the disk, what is written down has been put, so a crash repeats a page or two and skips nothing. A
repeated event bears the same id, because ids are made from the replay's mark and the event's number.

*Live traffic comes first.* Putting a page, and then delivering it, runs in the event loop that live events need. So
pages are small, and after each the replay rests for a multiple of the time it took, waiting included: the busier the
bus is, the slower the replay goes. While nobody else puts events it hardly rests at all. All replays of the process
take turns. And a page is only put when the targets of the one before keep up (``held_up``): a bounded number of a
replay's deliveries waits, however large the archive, and a replay whose target is down waits with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID, uuid5

import structlog

from bus.archives.archived import arrival_of
from bus.archives.replay import COMPLETED, FAILED, GOING_ON, RUNNING, STARTING, Replay
from bus.arrival import Arrival
from bus.errors import StoreUnavailable
from bus.scope import Scope
from bus.store import ArchivedEvent, Place, Store
from bus.targets import Route


@dataclass(frozen=True, slots=True)
class Step:
    """How many events are put at a time, and for how many times as long as that took the replay rests."""

    events: int
    rest: float


ALONE = Step(events=32, rest=0.25)
BESIDE_LIVE = Step(events=8, rest=12)
"""Delivering to a webhook costs about twice as much as putting, so that all in all a quarter of the time is used."""

LONGEST_REST_S = 0.1
"""On a machine that is overwhelmed, too, a replay comes to its end."""

LIVE_FOR_S = 1.0
"""How long after a live event a replay still takes care."""

PAGE_BYTES = 256 * 1024
COUNTED = 5000
"""Events counted at a time."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.005, 0.5
AGAIN_S = 1.0
MINUTE = 60
NO_ARCHIVE = "Archive resource not found."
BROKEN = "The replay ended unexpectedly."

log = structlog.get_logger("playback")


class Rule(Protocol):
    """What is needed of a rule that matches."""

    @property
    def routes(self) -> Iterable[Route]: ...


class Put(Protocol):
    """See `bus.ingest.Ingest.put`."""

    async def __call__(
        self, scope: Scope, bus_name: str, arrivals: Iterable[Arrival], *, choose: Callable[[list[Any]], list[Any]]
    ) -> bool: ...


@dataclass(frozen=True, slots=True)
class Stage:
    """What all replays have in common.

    ``held_up`` answers with the first of some routes whose target does not keep up; ``traffic`` is a number that grows
    with live traffic; ``turn`` is held by the replay that is at work; ``stopping`` is set when the process is to end.
    """

    store: Store
    put: Put
    held_up: Callable[[Iterable[Route]], Route | None]
    has_archive: Callable[[Replay], bool]
    traffic: Callable[[], int]
    turn: asyncio.Lock
    stopping: asyncio.Event


class Ended(Exception):
    """The replay is over: the state it ends in, and why."""

    def __init__(self, state: str, reason: str | None = None, **progress: Any) -> None:
        super().__init__(reason or state)
        self.changes: dict[str, Any] = {"state": state, "reason": reason, **progress}


class Playback:
    """One replay at work. ``replay`` is its record as of now; ``save`` changes some of the record's members."""

    def __init__(self, stage: Stage, replay: Callable[[], Replay], save: Callable[..., Awaitable[None]]) -> None:
        self._stage = stage
        self._replay = replay
        self._save = save
        record = replay()
        self._place = Place(record.start, 0) if record.place is None else Place(*record.place)
        self._replayed = record.replayed
        self._filters = frozenset(record.filters)
        self._fed: dict[int, Route] = {}
        self._traffic = -1
        self._live_until = 0.0
        self.waiting_for: Route | None = None
        """The target that the replay waits for."""

    async def run(self) -> dict[str, Any]:
        """Go on until the end, or until the process stops: what the record is to say then."""
        try:
            while self._is_on():
                await self._try_step()
        except Ended as end:
            return {**self._progress(), **end.changes}
        except Exception:
            log.exception("a replay failed", replay=self._replay().arn)
            return {**self._progress(), "state": FAILED, "reason": BROKEN}
        return self._progress()

    def _is_on(self) -> bool:
        return self._replay().state in GOING_ON and not self._stage.stopping.is_set()

    async def _try_step(self) -> None:
        try:
            await self._step()
        except StoreUnavailable as error:
            log.warning("a replay waits for the disk", replay=self._replay().arn, reason=str(error))
            await self._pause(AGAIN_S)

    async def _step(self) -> None:
        if not self._stage.has_archive(self._replay()):
            raise Ended(FAILED, NO_ARCHIVE)
        if self._replay().state == STARTING:
            await self._start()
        else:
            await self._wait_for_targets()
            await self._replay_page()

    # -- starting

    async def _start(self) -> None:
        """Count what there is to do."""
        replay, total = self._replay(), 0
        place: Place | None = self._place
        while place is not None and self._is_on():
            async with self._turn():
                counted, place = await self._stage.store.count_archive(
                    replay.archive_number, after=place, before=replay.end, limit=COUNTED
                )
            total += counted
        if self._is_on():
            await self._save(state=RUNNING, total=total)

    # -- pages

    async def _replay_page(self) -> None:
        number, end = self._replay().archive_number, self._replay().end
        async with self._turn():
            if not self._is_on():
                return  # it was cancelled while it waited
            page = await self._stage.store.read_archive(
                number, after=self._place, before=end, limit=self._pace().events, max_bytes=PAGE_BYTES
            )
            if page:
                await self._put(page)
        if not page:
            raise Ended(COMPLETED, last=await self._last_minute())

    async def _put(self, page: Sequence[ArchivedEvent]) -> None:
        replay = self._replay()
        self._fed = {}
        namespace = UUID(replay.mark)
        arrivals = [
            arrival_of(event.body, str(uuid5(namespace, str(event.place.number))), replay.name) for event in page
        ]
        put, saved = await asyncio.gather(
            self._stage.put(replay.scope, replay.bus, arrivals, choose=self._choose),
            self._save(**self._progress()),
            return_exceptions=True,
        )
        if isinstance(put, BaseException):
            raise put
        if not put:
            raise Ended(FAILED, f"Event bus {replay.bus} does not exist.")
        self._place = page[-1].place
        self._replayed += len(page)
        if isinstance(saved, BaseException):
            raise saved

    def _choose(self, rules: list[Rule]) -> list[Rule]:
        """The rules that receive a replayed event; whom they lead to is noted."""
        if self._filters:
            rules = [rule for rule in rules if any(route.rule_arn in self._filters for route in rule.routes)]
        for rule in rules:
            self._fed.update((route.number, route) for route in rule.routes)
        return rules

    def _progress(self) -> dict[str, Any]:
        """What the record says of the pages that were put."""
        if not self._replayed:
            return {}
        last = self._place.time // MINUTE * MINUTE
        return {"place": tuple(self._place), "replayed": self._replayed, "last": last}

    async def _last_minute(self) -> int | None:
        """The last minute with archived events among those that the window touches."""
        replay = self._replay()
        first, behind = replay.start // MINUTE * MINUTE, -(-replay.end // MINUTE) * MINUTE
        last = await self._stage.store.last_archived(replay.archive_number, from_time=first, before=behind)
        return None if last is None else last // MINUTE * MINUTE

    # -- giving way

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The turn of this replay among all, which ends with a rest."""
        loop = asyncio.get_running_loop()
        async with self._stage.turn:
            started = loop.time()
            yield
            await asyncio.sleep(min((loop.time() - started) * self._pace().rest, LONGEST_REST_S))

    def _pace(self) -> Step:
        """The step that is right now, with or without live traffic."""
        now, traffic = asyncio.get_running_loop().time(), self._stage.traffic()
        if traffic != self._traffic:
            self._traffic, self._live_until = traffic, now + LIVE_FOR_S
        return BESIDE_LIVE if now < self._live_until else ALONE

    async def _wait_for_targets(self) -> None:
        wait = FIRST_WAIT_S
        while self._is_on() and (route := self._stage.held_up(self._fed.values())) is not None:
            self.waiting_for = route
            await self._pause(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
        self.waiting_for = None

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stage.stopping.wait(), seconds)
