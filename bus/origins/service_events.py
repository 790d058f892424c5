"""Events that an operator's own services put on the default bus, in the two ways in which AWS services do.

A **durable** event is answered for when it is on disk. It may bear an id of the service's making, by which the store
knows it when it comes again because the answer was lost.

A **best-effort** event is answered at once and waits in memory, in a buffer with bounds in events and in bytes; what
does not fit is dropped and counted, and so is what the disk refuses. One task empties the buffer, in batches.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog

from bus.arrival import Arrival, Envelope
from bus.clock import Clock, IdSource
from bus.errors import StoreError
from bus.metrics import Metrics
from bus.scope import Scope
from rules.arn import DEFAULT_BUS
from rules.event import EntryFault, EventTimeError, check_entry, entry_size, format_time, read_time

log = structlog.get_logger("service_events")

BUFFER_BYTES = 32 << 20
"""Most bytes of best-effort events that wait at a time."""

BATCH = 200
PARTNER = "aws.partner/"

_ID = re.compile(r"[A-Za-z0-9._:/+=@\-]{1,64}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_REGION = re.compile(r"[a-z0-9\-]{1,64}")


class ServiceEvent(msgspec.Struct, forbid_unknown_fields=True):
    """An event as a service hands it in: what an envelope has, as far as the service knows it.

    ``detail`` is a JSON object or the text of one. What is left out is filled in: an id, the time of arrival, the
    account and region of the caller.
    """

    source: str
    detail: msgspec.Raw
    detail_type: str = msgspec.field(name="detail-type")
    id: str | None = None
    time: str | None = None
    account: str | None = None
    region: str | None = None
    resources: list[str] = []
    version: str | None = None


class Put(Protocol):
    """Puts events on a bus; see `bus.ingest.Ingest.put`."""

    async def __call__(
        self, scope: Scope, bus_name: str, arrivals: Iterable[Arrival], *, keys: Iterable[str | None]
    ) -> bool: ...


class Waiting(NamedTuple):
    """A best-effort event in the buffer."""

    scope: Scope
    arrival: Arrival
    key: str | None
    size: int


class Fault(Exception):
    """Why an entry is no event."""

    def __init__(self, fault: EntryFault) -> None:
        super().__init__(fault.message)
        self.result = {"ErrorCode": fault.code, "ErrorMessage": fault.message}


_read = msgspec.json.Decoder(ServiceEvent).decode
_read_text = msgspec.json.Decoder(str).decode


class ServiceEvents:
    """The way in. ``most_waiting`` and ``most_bytes`` bound the buffer; ``max_bytes`` one event."""

    def __init__(
        self,
        clock: Clock,
        ids: IdSource,
        *,
        metrics: Metrics,
        put: Put,
        max_bytes: int,
        most_waiting: int,
        most_bytes: int = BUFFER_BYTES,
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._counts = metrics.services
        self._put = put
        self._max_bytes = max_bytes
        self._most_waiting = most_waiting
        self._most_bytes = most_bytes
        self._buffer: deque[Waiting] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._closing = False
        self._emptying: asyncio.Task[None] | None = None

    async def durable(self, scope: Scope, entries: Sequence[msgspec.Raw]) -> list[dict[str, Any]]:
        """Put events of services on the scope's default bus, all that are in order or none; results in their order.

        Raises StoreError when they could not be stored.
        """
        results, waiting = self._take(scope, entries)
        if waiting:
            await self._put(scope, DEFAULT_BUS, [each.arrival for each in waiting], keys=[each.key for each in waiting])
        return results

    def best_effort(self, scope: Scope, entries: Sequence[msgspec.Raw]) -> tuple[list[dict[str, Any]], int]:
        """Have events put when there is time; the results, and how many that were in order had to be dropped."""
        results, waiting = self._take(scope, entries)
        dropped = 0
        for each in waiting:
            if self._closing or len(self._buffer) >= self._most_waiting or self._bytes + each.size > self._most_bytes:
                dropped += 1
                continue
            self._buffer.append(each)
            self._bytes += each.size
        self._counts.ServiceEventsDropped += dropped
        if self._buffer:
            self._filled.set()
        return results, dropped

    # -- the buffer

    def start(self) -> None:
        """Begin to empty the buffer."""
        self._emptying = asyncio.get_running_loop().create_task(self._empty())

    async def close(self) -> None:
        """Take no more, and put what waits."""
        self._closing = True
        self._filled.set()
        if self._emptying is not None:
            await self._emptying

    async def _empty(self) -> None:
        while True:
            await self._filled.wait()
            while self._buffer:
                await self._put_batch(self._next_batch())
            if self._closing:
                return
            self._filled.clear()

    def _next_batch(self) -> list[Waiting]:
        """The next events of one scope."""
        batch = [self._buffer.popleft()]
        while self._buffer and len(batch) < BATCH and self._buffer[0].scope == batch[0].scope:
            batch.append(self._buffer.popleft())
        return batch

    async def _put_batch(self, batch: list[Waiting]) -> None:
        try:
            await self._put(
                batch[0].scope, DEFAULT_BUS, [each.arrival for each in batch], keys=[each.key for each in batch]
            )
        except StoreError as error:
            self._counts.ServiceEventsDropped += len(batch)
            log.warning("best-effort events dropped: they could not be stored", events=len(batch), reason=str(error))
        except Exception:
            self._counts.ServiceEventsDropped += len(batch)
            log.exception("best-effort events dropped", events=len(batch))
        finally:
            # Only now, so that what is being stored counts as waiting.
            self._bytes -= sum(each.size for each in batch)

    # -- entries

    def _take(self, scope: Scope, entries: Sequence[msgspec.Raw]) -> tuple[list[dict[str, Any]], list[Waiting]]:
        """The result of every entry, and the events of those that are in order."""
        now = format_time(self._clock.now_ms() / 1000)
        results: list[dict[str, Any]] = []
        waiting: list[Waiting] = []
        for entry in entries:
            try:
                each = self._event(scope, entry, now)
            except Fault as fault:
                results.append(fault.result)
            else:
                results.append({"EventId": each.arrival.event_id})
                waiting.append(each)
        self._counts.ServiceEventsEntriesCount += len(entries)
        self._counts.ServiceEventsFailedEntriesCount += len(entries) - len(waiting)
        return results, waiting

    def _event(self, scope: Scope, entry: msgspec.Raw, now: str) -> Waiting:
        given = _decode(entry)
        detail = _detail(given.detail)
        members = {
            "Source": given.source, "DetailType": given.detail_type, "Detail": detail, "Resources": given.resources
        }  # fmt: skip
        fault = check_entry(members, by_source=True)
        if fault is not None:
            raise Fault(fault)
        _check_members(given)
        size = entry_size(members)
        if size > self._max_bytes:
            raise _refused("detail", f"the event is larger than {self._max_bytes} bytes")
        event_id = given.id or self._ids.new()
        envelope = Envelope(
            event_id, given.source, given.account or scope.account, _time(given.time, now),
            given.region or scope.region, msgspec.Raw(detail.encode()), given.detail_type, given.resources,
        )  # fmt: skip
        arrival = Arrival.of_envelope(envelope, event_id, envelope.time)
        return Waiting(scope, arrival, dedup_key(given.source, given.id), size)


def dedup_key(source: str, event_id: str | None) -> str | None:
    """What the store knows an event by when it comes again; None for one that came without an id."""
    return None if event_id is None else f"service {source} {event_id}"


def _decode(entry: msgspec.Raw) -> ServiceEvent:
    try:
        return _read(entry)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise Fault(EntryFault("InvalidArgument", f"The entry is not an event. Reason: {error}.")) from None


def _detail(given: msgspec.Raw) -> str:
    """The text of a detail, however it was given."""
    text = bytes(given)
    try:
        return _read_text(text) if text.startswith(b'"') else text.decode()
    except (msgspec.MsgspecError, UnicodeError):
        raise _refused("detail", "it is not text in UTF-8") from None


def _check_members(given: ServiceEvent) -> None:
    if not given.source.startswith("aws.") or given.source.startswith(PARTNER):
        raise _refused("source", "the source of a service begins with aws. and is not a partner's")
    for member, value, form in (("id", given.id, _ID), ("account", given.account, _ACCOUNT),
                                ("region", given.region, _REGION)):  # fmt: skip
        if value is not None and not form.fullmatch(value):
            raise _refused(member, f"it does not have the form {form.pattern}")


def _time(given: str | None, now: str) -> str:
    try:
        return now if given is None else read_time(given)
    except EventTimeError as error:
        raise Fault(EntryFault("InvalidArgument", f"Parameter time is not valid. Reason: {error}")) from None


def _refused(member: str, reason: str) -> Fault:
    return Fault(EntryFault("InvalidArgument", f"Parameter {member} is not valid. Reason: {reason}."))
