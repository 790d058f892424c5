"""The Store protocol: the one seam between the bus and what is on disk, in verbs of the domain.

The contract book, which ``tests/test_store.py`` holds for every engine:

* Every coroutine that changes something returns only when the change would survive a power cut;
  when it raises, nothing of that change is there. (A caller that is cancelled while it waits does
  not know.) `StoreUnavailable` means the disk refused (full, failing): nothing is lost by trying
  again. A request that cannot be stored fails alone, whatever shares its transaction.
* ``append`` is all or nothing for its batch. Sequence numbers increase in commit order, are never
  used twice, and no reader sees a lower one appear after a higher one. An event is stored as long
  as it has unsettled deliveries, or is kept; one that has neither gets no number. An event whose
  (bus, dedup key) was taken within `DEDUP_WINDOW_MS` is answered with the first one's number as a
  duplicate, and creates nothing. ``messages`` are stored with the batch: those of events that come
  to nothing else. ``send`` stores messages that need no more than a row.
* ``read`` is the log of kept events, in order of their numbers, within a span of ``ts`` (from
  included, to excluded). ``trim`` takes old ones out of it, answering how many (fewer than the
  limit: there are no more); what is still to be delivered of them is delivered.
* An event is also kept by the **archives** that its append names, each on its own: neither its row nor its deliveries
  are needed for that, and an event that is only archived gets no number. ``read_archive`` answers what lies behind a
  place and before a time (the event's own), in the order of places; an event gets a place that was never used.
  ``count_archive`` counts as far as ``limit``. ``trim_archive`` removes by ``ts``, answering how many (fewer than the
  limit: there are no more). ``archive_sizes`` agrees with what was added and removed at every commit; an archive
  without events is not among them.
* A delivery is identified by (seq, route). It is **leased** by one owner at a time: by ``append``
  when the caller asks for it, or by ``claim``. Two live leases on one delivery never exist. A
  lease that runs out makes the delivery due again, and whoever claims it gets a higher fence;
  settling with a fence that is not the delivery's latest, or twice with the same, answers False
  and changes nothing. No lease outlives the process that took it.
* ``claim`` leases what is due of one route, earliest first and by number within an instant;
  ``claim_expired`` what has expired of any route, due or not. Both stop at ``limit`` or when the
  bodies exceed ``max_bytes``, but answer at least one if there is one.
* ``next_due`` and ``next_expiry`` are the first instant at which the respective claim can find
  something: that of a leased delivery is not before its lease runs out. ``backlog`` counts all
  unsettled deliveries, leased or not.
* ``settle`` ends leases: `Done` removes the delivery and stores its messages, `Retry` counts an
  attempt and makes it due again, `Release` leaves it as it was.
* Configuration is a map (kind, key) to bytes under one global revision; a deleted key leaves a
  tombstone for watchers. ``conf_list`` then ``conf_watch(since)`` misses nothing: a watcher sees
  the latest change of every key after ``since``, in order of revision. ``conf_put`` is all or
  nothing; a mismatch of ``expect_rev`` raises `RevisionConflict`.
* ``on_messages`` is called after the commit and before the sender has its answer.
* Instants are integer milliseconds since the epoch. The engine never looks at a clock of its own:
  what is due is asked with the caller's ``now``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

Result = TypeVar("Result")

DEDUP_WINDOW_MS = 300_000
"""How long the key that a caller gave to an event is remembered, by the events' own ``ts``."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What an engine can do: whether several processes may share it, and its largest useful batch."""

    multi_node: bool
    max_batch: int


class NewDelivery(NamedTuple):
    """One target's share of an event, to be stored with it. With ``lease`` the caller holds it from the start."""

    route: int
    due: int
    expires: int
    lease: bool = False


class NewMessage(NamedTuple):
    """A message for an embedded queue.

    ``message_id`` is the id it will bear (36 characters). ``visible`` is when it may first be
    received, ``sent`` when it was sent (ms). ``attrs`` is the queues' own encoding of attributes.
    ``dedup`` names it within the deduplication memory of a FIFO queue: a message whose name is
    remembered from after ``dedup_since`` is not stored again.
    """

    queue: int
    message_id: str
    visible: int
    sent: int
    body: str
    attrs: bytes | None = None
    group: str | None = None
    dedup: str | None = None
    dedup_since: int = 0


class NewArchived(NamedTuple):
    """An archive's share of an event: its number, the event's own time (epoch seconds), and what it counts for."""

    archive: int
    time: int
    size: int


class Append(NamedTuple):
    """An event with all that its acceptance creates.

    ``bus`` is the bus's number, ``ts`` the instant of ingestion (ms), ``body`` the envelope as
    compact JSON, ``attrs`` what travels beside it (trace header, hops). The row lives until its
    last delivery is settled, or until it is trimmed when ``keep`` is set.
    """

    bus: int
    event_id: str
    ts: int
    body: bytes
    attrs: bytes | None = None
    deliveries: Sequence[NewDelivery] = ()
    messages: Sequence[NewMessage] = ()
    keep: bool = False
    dedup_key: str | None = None
    archives: Sequence[NewArchived] = ()


class Appended(NamedTuple):
    """Where an event landed: its sequence number (0 when nothing of it needed a row), the fences of
    the deliveries asked for with ``lease`` in their order, and whether its dedup key was already known."""

    seq: int
    fences: Sequence[int] = ()
    duplicate: bool = False


NOWHERE = Appended(0)
"""Of an event that needed no row."""


@dataclass(slots=True)
class Lease:
    """A delivery held by one owner, with all that an attempt needs.

    ``attempts`` were made so far. ``until`` is when the lease runs out, ``expires`` when the event
    is too old to deliver, ``ts`` when it was accepted (ms).
    """

    seq: int
    route: int
    fence: int
    attempts: int
    expires: int
    until: int
    event_id: str
    ts: int
    body: bytes
    attrs: bytes | None
    last_error: str | None = None


class Done(NamedTuple):
    """The delivery is over: delivered, dead-lettered or dropped; ``messages`` are sent in the same breath."""

    seq: int
    route: int
    fence: int
    messages: Sequence[NewMessage] = ()


class Retry(NamedTuple):
    """The attempt failed; try again at ``due``."""

    seq: int
    route: int
    fence: int
    due: int
    error: str


class Release(NamedTuple):
    """The lease is given back unused: the delivery is as due as it was."""

    seq: int
    route: int
    fence: int


Outcome = Done | Retry | Release


class Backlog(NamedTuple):
    """How much waits for one route: the count, and the earliest instant one of them is due."""

    route: int
    waiting: int
    first_due: int


class LoggedEvent(NamedTuple):
    """An event read back from the log."""

    seq: int
    event_id: str
    bus: int
    ts: int
    body: bytes
    attrs: bytes | None


class Place(NamedTuple):
    """Where an event lies in an archive: its own time (epoch seconds), then its number; places are in this order."""

    time: int
    number: int


class ArchivedEvent(NamedTuple):
    """An event read back from an archive; ``ts`` is when it was ingested (ms)."""

    place: Place
    ts: int
    body: bytes


class ArchiveSize(NamedTuple):
    """What an archive holds."""

    archive: int
    events: int
    bytes: int


class ConfEntry(NamedTuple):
    """One configuration value with the revision that wrote it; ``value`` None is a tombstone."""

    kind: str
    key: str
    value: bytes | None
    rev: int


class ConfChange(NamedTuple):
    """A value to write (None deletes); with ``expect_rev`` only when the key still has that revision (0: absent)."""

    kind: str
    key: str
    value: bytes | None
    expect_rev: int | None = None


class Store(Protocol):
    """See the module's contract book."""

    caps: Caps

    # -- log
    async def append(
        self, batch: Sequence[Append], *, messages: Sequence[NewMessage] = (), lease_until: int = 0
    ) -> list[Appended]: ...

    async def read(
        self, bus: int, *, after_seq: int = 0, from_ts: int | None = None, to_ts: int | None = None, limit: int = 1000
    ) -> list[LoggedEvent]: ...

    async def trim(self, bus: int, before_ts: int, *, limit: int = 1000) -> int: ...

    def send(
        self,
        rows: Sequence[bytes],
        queues: Set[int],
        *,
        then: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Store plain messages of these queues, given as `bus.store.message_rows`, for one who does not wait.

        One of the two is called: ``then`` once they would survive a power cut, ``failed`` with what ``append`` raises.
        """
        ...

    # -- archives
    async def read_archive(
        self, archive: int, *, after: Place, before: int, limit: int, max_bytes: int = 1 << 20
    ) -> list[ArchivedEvent]:
        """Stops at ``limit`` or when the bodies exceed ``max_bytes``, but answers at least one if there is one."""
        ...

    async def count_archive(self, archive: int, *, after: Place, before: int, limit: int) -> tuple[int, Place | None]:
        """How many, and the place of the last one counted when there may be more."""
        ...

    async def last_archived(self, archive: int, *, from_time: int, before: int) -> int | None:
        """The latest time of an event from ``from_time`` on and before ``before``."""
        ...

    async def trim_archive(self, archive: int, before_ts: int, *, limit: int = 200) -> int: ...

    async def archive_sizes(self) -> list[ArchiveSize]: ...

    # -- deliveries
    async def claim(self, route: int, *, now: int, until: int, limit: int, max_bytes: int = 1 << 22) -> list[Lease]: ...

    async def claim_expired(self, *, now: int, until: int, limit: int) -> list[Lease]: ...

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]: ...

    async def next_due(self, route: int) -> int | None: ...

    async def next_expiry(self) -> int | None: ...

    async def backlog(self) -> list[Backlog]: ...

    # -- queues: what a queue means is `bus.queues`; the store runs its statements in the shared transaction
    async def transact(self, work: Callable[[Any], Result]) -> Result:
        """Run ``work`` with the engine's cursor inside the tick's transaction; durable when it returns."""
        ...

    on_messages: Callable[[set[int]], None]
    """Called after each commit with the numbers of the queues that received messages."""

    # -- configuration
    async def conf_put(self, changes: Sequence[ConfChange]) -> int: ...

    async def conf_list(self, kind: str) -> tuple[int, list[ConfEntry]]: ...

    def conf_watch(self, since: int) -> AsyncIterator[ConfEntry]: ...

    def allocate(self) -> int:
        """A number no configuration value of this store has used before (for buses, routes, queues)."""
        ...

    # -- life
    async def close(self) -> None: ...
