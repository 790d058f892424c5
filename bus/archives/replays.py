"""Replays: the operations, and the records that outlive a crash. What a replay does is told in `bus.archives.playback`.

A record is changed under the replay's own lock, and written before the change counts: a cancellation and the progress
of the moment do not overwrite each other, and what was answered holds after a crash. A replay that is found going on is
taken up where its record says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from uuid import uuid4

import msgspec
import structlog

from bus.archives.listing import named_page, one_filter
from bus.archives.playback import AGAIN_S, Playback, Put, Stage
from bus.archives.replay import ACTIVE, CANCELLED, CANCELLING, GOING_ON, INSTEAD, Replay, described, listed
from bus.clock import Clock
from bus.errors import ApiError, StoreError, StoreUnavailable, not_found, validation
from bus.quotas import Quotas, check_quota
from bus.scope import Call, Scope
from bus.store import ConfChange, Store
from bus.targets import Route
from rules.arn import Arn, ArnError, parse

KIND = "replay"
KEPT_MS = 90 * 86_400_000
"""How long a replay that ended is shown."""

log = structlog.get_logger("replays")


class Archive(Protocol):
    """What is needed of an archive."""

    @property
    def number(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def bus(self) -> str: ...


class Replays:
    """The replay operations.

    ``find_archive`` and ``has_bus`` know what is there; ``put`` is the way in for replayed events; ``held_up`` answers
    with the first of some routes whose target does not keep up; ``traffic`` is a number that grows with live traffic.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        find_archive: Callable[[Scope, str], Archive | None],
        has_bus: Callable[[Scope, str], bool],
        put: Put,
        held_up: Callable[[Iterable[Route]], Route | None],
        traffic: Callable[[], int],
        quotas: Quotas | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._find_archive = find_archive
        self._has_bus = has_bus
        self._quotas = quotas or Quotas()
        self._stage = Stage(store, put, held_up, self._has_archive, traffic, asyncio.Lock(), asyncio.Event())
        self._replays: dict[str, Replay] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._starting = asyncio.Lock()
        self._playing: dict[str, Playback] = {}
        self._workers: set[asyncio.Task[None]] = set()

    # -- life

    async def start(self) -> None:
        """Read every replay from the store, and take up those that were going on."""
        _, entries = await self._store.conf_list(KIND)
        for entry in entries:
            if entry.value is not None:
                replay = msgspec.json.decode(entry.value, type=Replay)
                self._replays[replay.key] = replay
                if replay.state in ACTIVE:
                    self._play(replay.key)

    def hang_up(self) -> None:
        """Put no more pages."""
        self._stage.stopping.set()

    async def close(self) -> None:
        """Let every replay finish the page it is at, and write down how far it is."""
        self.hang_up()
        await asyncio.gather(*self._workers)

    async def forget_old(self) -> None:
        """Let go of the replays that ended long ago."""
        before = self._clock.now_ms() - KEPT_MS
        old = [replay.key for replay in self._replays.values() if replay.ended is not None and replay.ended <= before]
        if old:
            await self._store.conf_put([ConfChange(KIND, key, None) for key in old])
        for key in old:
            del self._replays[key]
            self._locks.pop(key, None)

    def active(self) -> int:
        """How many replays go on."""
        return sum(replay.state in ACTIVE for replay in self._replays.values())

    def summary(self) -> list[dict[str, Any]]:
        """Every replay as operators want to see it, in order of account, region and name."""
        return [self._summary(self._replays[key]) for key in sorted(self._replays)]

    def _summary(self, replay: Replay) -> dict[str, Any]:
        playback = self._playing.get(replay.key)
        waiting_for = playback.waiting_for if playback else None
        return {
            "Account": replay.account,
            "Region": replay.region,
            **listed(replay),
            "ReplayArn": replay.arn,
            "Replayed": replay.replayed,
            "Total": replay.total,
            "WaitingFor": waiting_for and {"Rule": waiting_for.rule, "Target": waiting_for.arn},
        }

    # -- operations

    async def start_replay(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        if request["EventStartTime"] >= request["EventEndTime"]:
            raise validation("Parameter EventEndTime is not valid. Reason: EventStartTime must be before EventEndTime.")
        archive = self._archive_of(call.scope, request["EventSourceArn"])
        destination = request["Destination"]
        # More rules than a bus can have select nothing more, and the record of a replay is written often.
        check_quota(len(destination.get("FilterArns") or ()), self._quotas.rules_per_bus)
        self._check_destination(call.scope, archive, destination["Arn"])
        replay = Replay(
            *call.scope,
            name=request["ReplayName"],
            archive=archive.name,
            archive_number=archive.number,
            bus=archive.bus,
            start=int(request["EventStartTime"]),
            end=int(request["EventEndTime"]),
            started=self._clock.now_ms(),
            mark=uuid4().hex,
            description=request.get("Description"),
            filters=tuple(destination.get("FilterArns") or ()),
        )
        async with self._starting:
            if replay.key in self._replays:
                raise ApiError("ResourceAlreadyExistsException", f"Replay {replay.name} already exists.")
            active = sum(other.state in ACTIVE for other in self._of(call.scope))
            check_quota(active + 1, self._quotas.active_replays)
            await self._write(replay)
        self._play(replay.key)
        return {"ReplayArn": replay.arn, "State": replay.state, "ReplayStartTime": replay.started // 1000}

    async def cancel_replay(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        replay = self._require(call.scope, request["ReplayName"])
        async with self._lock(replay.key):
            replay = self._replays[replay.key]
            if replay.state not in GOING_ON:
                text = f"Replay {replay.name} is not in a valid state for this operation."
                raise ApiError("IllegalStatusException", text)
            await self._write(msgspec.structs.replace(replay, state=CANCELLING))
        return {"ReplayArn": replay.arn, "State": CANCELLING}

    async def describe_replay(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        return described(self._require(call.scope, request["ReplayName"]))

    async def list_replays(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        one_filter(request, "ListReplays")
        source, state = request.get("EventSourceArn"), request.get("State")
        found = [
            replay
            for replay in self._of(call.scope)
            if source in (None, replay.archive_arn)
            and state in (None, replay.state)
            and replay.name.startswith(request.get("NamePrefix") or "")
        ]
        shown, token = named_page(found, request, of=(KIND, *call.scope))
        return {"Replays": [listed(replay) for replay in shown], **token}

    def _of(self, scope: Scope) -> list[Replay]:
        return [replay for replay in self._replays.values() if replay.scope == scope]

    def _require(self, scope: Scope, name: str) -> Replay:
        replay = self._replays.get("/".join((*scope, name)))
        if replay is None:
            raise not_found(f"Replay {name} does not exist.")
        return replay

    def _archive_of(self, scope: Scope, text: str) -> Archive:
        source = _resource(text, "archive/", "EventSourceArn", "Must contain an archive ARN.")
        name = source.resource.removeprefix("archive/")
        archive = self._find_archive(scope, name) if (source.account, source.region) == scope else None
        if archive is None:
            raise validation(f"Parameter EventSourceArn is not valid. Reason: Archive {name} does not exist.")
        return archive

    def _check_destination(self, scope: Scope, archive: Archive, text: str) -> None:
        bus = _resource(text, "event-bus/", "Destination.Arn", "Must contain an event bus ARN.")
        name = bus.resource.removeprefix("event-bus/")
        if not self._has_bus(Scope(bus.account, bus.region), name):
            raise not_found(f"Event bus {name} does not exist.")
        if (bus.account, bus.region, name) != (*scope, archive.bus):
            raise validation("Parameter Destination.Arn is not valid. Reason: Cross event bus replay is not permitted.")

    # -- records

    def _lock(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    async def _write(self, replay: Replay) -> None:
        await self._store.conf_put([ConfChange(KIND, replay.key, msgspec.json.encode(replay))])
        self._replays[replay.key] = replay

    async def _change(self, key: str, changes: Mapping[str, Any]) -> None:
        """Change members of a record; a cancellation that came first has its way."""
        if not changes:
            return
        async with self._lock(key):
            replay = self._replays[key]
            state = changes.get("state", replay.state)
            state = INSTEAD.get((replay.state, state), state)
            reason = None if state == CANCELLED else changes.get("reason")
            ended = None if state in ACTIVE else self._clock.now_ms()
            new = msgspec.structs.replace(replay, **{**changes, "state": state, "reason": reason, "ended": ended})
            await self._write(new)

    # -- at work

    def _has_archive(self, replay: Replay) -> bool:
        archive = self._find_archive(replay.scope, replay.archive)
        return archive is not None and archive.number == replay.archive_number

    def _play(self, key: str) -> None:
        task = asyncio.get_running_loop().create_task(self._work(key))
        self._workers.add(task)
        task.add_done_callback(self._workers.discard)

    async def _work(self, key: str) -> None:
        playback = Playback(self._stage, lambda: self._replays[key], lambda **changes: self._change(key, changes))
        self._playing[key] = playback
        try:
            changes = await playback.run()
            if self._replays[key].state == CANCELLING:
                changes = {**changes, "state": CANCELLED}
            await self._write_end(key, changes)
        finally:
            del self._playing[key]

    async def _write_end(self, key: str, changes: Mapping[str, Any]) -> None:
        """Write what became of a replay, as soon as the disk takes it."""
        while True:
            try:
                await self._change(key, changes)
                return
            except StoreUnavailable:
                if self._stage.stopping.is_set():
                    return  # it is taken up again when the process starts, and comes to the same end
                await asyncio.sleep(AGAIN_S)
            except StoreError as error:
                log.error("what became of a replay could not be stored", replay=key, reason=str(error))
                return


def _resource(text: str, prefix: str, parameter: str, reason: str) -> Arn:
    """The ARN of one of the service's resources, or ValidationException."""
    try:
        found = parse(text)
    except ArnError:
        found = None
    if found is None or found.service != "events" or not found.resource.startswith(prefix):
        raise validation(f"Parameter {parameter} is not valid. Reason: {reason}")
    return found
