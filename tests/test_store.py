"""The contract book of `bus.store`, held for every engine through the protocol alone.

An engine is a row of `ENGINES`: something that can be opened, killed and opened again. What is the
engine's own (files, crashes of the disk) has its tests beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bus.clock import ManualClock
from bus.errors import RevisionConflict
from bus.store import (
    DEDUP_WINDOW_MS,
    Append,
    Appended,
    ArchiveSize,
    Backlog,
    ConfChange,
    ConfEntry,
    Done,
    Lease,
    NewArchived,
    NewDelivery,
    NewMessage,
    Outcome,
    Place,
    Release,
    Retry,
    Store,
    message_rows,
    message_upkeep,
    messages,
    sqlite,
)

BUS, ROUTE, OTHER, QUEUE = 1, 10, 11, 20
ARCHIVE, SECOND_ARCHIVE = 30, 31
START = Place(0, 0)
END = 1 << 40
DAY = 86_400_000
HOUR = 3_600_000
DEADLINE_S = 10.0
NOW_VISIBLE = 0


@dataclass(frozen=True, slots=True)
class Engine:
    """How to open one store of an engine; ``lasting`` when what it holds survives being closed."""

    open: Callable[[Path, ManualClock], Awaitable[Store]]
    lasting: bool


async def _sqlite_on_disk(directory: Path, clock: ManualClock) -> Store:
    return await sqlite.open_store(str(directory / "data"), clock)


async def _sqlite_in_memory(directory: Path, clock: ManualClock) -> Store:
    return await sqlite.open_store(":memory:", clock)


ENGINES = {
    "sqlite": Engine(_sqlite_on_disk, lasting=True),
    "sqlite-memory": Engine(_sqlite_in_memory, lasting=False),
}


class Bench:
    """One store under test, its clock, and what tests of it do all the time."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self._directory = directory
        self._ids = 0
        self.clock = ManualClock()
        self.store: Store

    @property
    def now(self) -> int:
        return self.clock.now_ms()

    async def open(self) -> None:
        self.store = await self._engine.open(self._directory, self.clock)

    async def reopen(self) -> None:
        """As after a stop and a start."""
        if not self._engine.lasting:
            pytest.skip("keeps nothing across a restart")
        await self.store.close()
        await self.open()

    async def reopen_if_lasting(self) -> None:
        """As after a stop and a start, where that is not the end of everything."""
        if self._engine.lasting:
            await self.reopen()

    def event(self, *deliveries: NewDelivery, **members: Any) -> Append:
        self._ids += 1
        given = {"bus": BUS, "event_id": f"event-{self._ids}", "ts": self.now, "body": b'{"n":%d}' % self._ids}
        return Append(**{**given, "deliveries": deliveries, **members})

    def kept(self, **members: Any) -> Append:
        return self.event(keep=True, **members)

    def delivery(self, route: int = ROUTE, *, due: int = 0, expires: int = DAY, lease: bool = False) -> NewDelivery:
        """``due`` and ``expires`` are counted from now."""
        return NewDelivery(route, self.now + due, self.now + expires, lease)

    async def wait(self, route: int = ROUTE, *, due: int = 0, expires: int = DAY) -> Appended:
        """An event with one delivery that nobody holds."""
        (appended,) = await self.store.append([self.event(self.delivery(route, due=due, expires=expires))])
        return appended

    async def claim(self, route: int = ROUTE, *, limit: int = 100, lasting: int = HOUR) -> list[Lease]:
        return await self.store.claim(route, now=self.now, until=self.now + lasting, limit=limit)

    async def claim_expired(self, *, limit: int = 100) -> list[Lease]:
        return await self.store.claim_expired(now=self.now, until=self.now + HOUR, limit=limit)

    async def settle(self, outcome: Outcome) -> bool:
        (accepted,) = await self.store.settle([outcome])
        return accepted

    async def bodies(self, bus: int = BUS) -> list[bytes]:
        return [event.body for event in await self.store.read(bus)]


@pytest.fixture(params=ENGINES)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(ENGINES[request.param], tmp_path)
    await bench.open()
    yield bench
    await bench.store.close()


def message(number: int, queue: int = QUEUE) -> NewMessage:
    return NewMessage(queue, f"message-{number}", visible=number, sent=number, body=f"text {number}")


def done(lease: Lease, *messages: NewMessage) -> Done:
    return Done(lease.seq, lease.route, lease.fence, messages)


def seqs(items: list[Any]) -> list[int]:
    return [item.seq for item in items]


# --- append -----------------------------------------------------------------------------------------------------------


async def test_appended_events_are_read_back_as_they_were(bench: Bench) -> None:
    event = bench.kept(body=b'{"detail":"\xc3\xa9"}', attrs=b"\x00\xff")
    (appended,) = await bench.store.append([event])
    (read,) = await bench.store.read(BUS)
    assert read == (appended.seq, event.event_id, BUS, event.ts, event.body, event.attrs)


async def test_a_lease_carries_all_that_was_appended(bench: Bench) -> None:
    event = bench.event(bench.delivery(expires=5000), attrs=b"trace")
    (appended,) = await bench.store.append([event])
    (lease,) = await bench.claim(lasting=7000)
    assert (lease.seq, lease.route, lease.attempts, lease.last_error) == (appended.seq, ROUTE, 0, None)
    assert (lease.expires, lease.until) == (bench.now + 5000, bench.now + 7000)
    assert (lease.event_id, lease.ts, lease.body, lease.attrs) == (event.event_id, event.ts, event.body, event.attrs)


async def test_sequence_numbers_increase_across_batches_and_reopening(bench: Bench) -> None:
    first = await bench.store.append([bench.kept(), bench.kept()])
    second = await bench.store.append([bench.kept(bus=2)])
    await bench.reopen()
    third = await bench.store.append([bench.kept()])
    numbers = seqs(first + second + third)
    assert numbers == sorted(set(numbers))


async def test_a_number_is_not_used_again_after_its_event_is_gone(bench: Bench) -> None:
    await bench.wait()
    (lease,) = await bench.claim()
    assert await bench.settle(done(lease))
    (passing,) = await bench.store.append([bench.event(dedup_key="k")])
    await bench.reopen()
    assert (await bench.wait()).seq > passing.seq > lease.seq


async def test_an_event_that_needs_no_row_gets_no_number(bench: Bench) -> None:
    appended = await bench.store.append([bench.event(), bench.event(bench.delivery())])
    assert appended[0] == Appended(0)
    assert appended[1].seq > 0


async def test_an_empty_batch_is_answered_with_nothing(bench: Bench) -> None:
    assert await bench.store.append([]) == []
    assert await bench.store.settle([]) == []


BAD_EVENTS: dict[str, dict[str, Any]] = {
    "no id": {"event_id": None},
    "no body": {"body": None},
    "text that is not Unicode": {"event_id": "\ud800"},
    "a number too large": {"ts": 1 << 70},
    "an archived time too large": {"archives": [NewArchived(ARCHIVE, 1 << 70, 1)]},
    "two deliveries for one route": {"deliveries": [NewDelivery(ROUTE, 1, 2), NewDelivery(ROUTE, 1, 2)]},
}


@pytest.mark.parametrize("fault", BAD_EVENTS)
async def test_a_batch_with_a_bad_event_stores_nothing(bench: Bench, fault: str) -> None:
    archives = [NewArchived(ARCHIVE, 1, 1)]
    good = bench.kept(deliveries=[bench.delivery(lease=True)], messages=[message(1)], archives=archives)
    heard: list[set[int]] = []
    bench.store.on_messages = heard.append
    with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the engine's affair; that it fails is the contract's
        await bench.store.append([good, bench.kept(**BAD_EVENTS[fault])], lease_until=bench.now + HOUR)
    assert await bench.store.archive_sizes() == []
    assert await bench.bodies() == []
    assert await bench.store.backlog() == []
    assert heard == []


@pytest.mark.parametrize("fault", BAD_EVENTS)
async def test_a_bad_request_fails_alone(bench: Bench, fault: str) -> None:
    def request(n: int) -> list[Append]:
        return [bench.kept(body=b"%d" % n, deliveries=[bench.delivery(lease=True)])]

    results = await asyncio.gather(
        bench.store.append(request(1), lease_until=bench.now + HOUR),
        bench.store.append([bench.kept(**BAD_EVENTS[fault])]),
        bench.store.append(request(2), lease_until=bench.now + HOUR),
        return_exceptions=True,
    )
    assert isinstance(results[1], Exception)
    assert await bench.bodies() == [b"1", b"2"]
    for result in (results[0], results[2]):
        assert not isinstance(result, BaseException)
        assert await bench.settle(Done(result[0].seq, ROUTE, result[0].fences[0]))


async def test_a_cancelled_caller_leaves_its_neighbours_alone(bench: Bench) -> None:
    cancelled = asyncio.create_task(bench.store.append([bench.kept()]))
    neighbour = asyncio.create_task(bench.store.append([bench.kept()]))
    await asyncio.sleep(0)
    cancelled.cancel()
    (appended,) = await neighbour
    assert appended.seq in seqs(await bench.store.read(BUS))


# --- dedup keys -------------------------------------------------------------------------------------------------------


async def test_a_known_key_is_answered_with_the_first_event(bench: Bench) -> None:
    (first,) = await bench.store.append([bench.kept(dedup_key="k", deliveries=[bench.delivery()])])
    bench.clock.advance(DEDUP_WINDOW_MS / 1000 - 1)
    heard: list[set[int]] = []
    bench.store.on_messages = heard.append
    again = bench.kept(dedup_key="k", deliveries=[bench.delivery(OTHER)], messages=[message(1)])
    assert await bench.store.append([again]) == [Appended(first.seq, (), duplicate=True)]
    assert [waiting.route for waiting in await bench.store.backlog()] == [ROUTE]
    assert len(await bench.bodies()) == 1
    assert heard == []


async def test_a_key_is_forgotten_after_the_window(bench: Bench) -> None:
    (first,) = await bench.store.append([bench.kept(dedup_key="k")])
    bench.clock.advance(DEDUP_WINDOW_MS / 1000)
    (second,) = await bench.store.append([bench.kept(dedup_key="k")])
    assert second.seq > first.seq
    assert not second.duplicate


async def test_a_key_counts_within_its_bus_and_within_a_batch(bench: Bench) -> None:
    batch = [bench.kept(dedup_key="k"), bench.kept(dedup_key="k"), bench.kept(bus=2, dedup_key="k")]
    first, same, elsewhere = await bench.store.append(batch)
    assert (same.seq, same.duplicate) == (first.seq, True)
    assert elsewhere.seq > first.seq
    assert not elsewhere.duplicate


async def test_a_key_is_remembered_for_an_event_that_nobody_waits_for(bench: Bench) -> None:
    (first,) = await bench.store.append([bench.event(dedup_key="k")])
    await bench.reopen()
    (again,) = await bench.store.append([bench.event(dedup_key="k")])
    assert again == Appended(first.seq, (), duplicate=True)


async def test_a_key_of_a_batch_that_failed_is_free(bench: Bench) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - as above
        await bench.store.append([bench.kept(dedup_key="k"), bench.kept(event_id=None)])
    (appended,) = await bench.store.append([bench.kept(dedup_key="k")])
    assert not appended.duplicate


# --- archives ---------------------------------------------------------------------------------------------------------


def archived(bench: Bench, time: int, *archives: int, size: int = 10, **members: Any) -> Append:
    """An event of its own time in these archives, by default in `ARCHIVE`."""
    shares = [NewArchived(archive, time, size) for archive in archives or (ARCHIVE,)]
    return bench.event(archives=shares, **members)


async def times(bench: Bench, archive: int = ARCHIVE, *, after: Place = START, before: int = END) -> list[int]:
    page = await bench.store.read_archive(archive, after=after, before=before, limit=1000)
    return [event.place.time for event in page]


async def test_an_archived_event_is_read_back_without_having_a_number_of_its_own(bench: Bench) -> None:
    event = archived(bench, 1_000, body=b'{"detail":"\xc3\xa9"}')
    assert await bench.store.append([event]) == [Appended(0)]
    (read,) = await bench.store.read_archive(ARCHIVE, after=START, before=END, limit=10)
    assert (read.place.time, read.ts, read.body) == (1_000, event.ts, event.body)
    assert await bench.bodies() == []


async def test_an_archive_is_read_by_time_from_a_place_on_and_up_to_a_time(bench: Bench) -> None:
    await bench.store.append([archived(bench, time) for time in (30, 10, 20, 20, 10)])
    await bench.store.append([archived(bench, 20, SECOND_ARCHIVE)])
    assert await times(bench) == [10, 10, 20, 20, 30]
    assert await times(bench, before=30) == [10, 10, 20, 20]
    assert await times(bench, after=Place(20, 0)) == [20, 20, 30]
    assert await times(bench, SECOND_ARCHIVE) == [20]


async def test_pages_of_an_archive_neither_repeat_nor_skip_within_a_second(bench: Bench) -> None:
    for _ in range(5):
        await bench.store.append([archived(bench, 7) for _ in range(5)] + [archived(bench, 8)])
    found, place = [], START
    while page := await bench.store.read_archive(ARCHIVE, after=place, before=END, limit=4):
        assert [event.place for event in page] == sorted(event.place for event in page)
        place = page[-1].place
        found += [event.body for event in page]
    assert len(found) == len(set(found)) == 30


async def test_a_page_of_an_archive_is_bounded_by_its_bytes(bench: Bench) -> None:
    await bench.store.append([archived(bench, 1, body=b"x" * 1000) for _ in range(3)])
    read = bench.store.read_archive
    assert len(await read(ARCHIVE, after=START, before=END, limit=9, max_bytes=2500)) == 2
    assert len(await read(ARCHIVE, after=START, before=END, limit=9, max_bytes=10)) == 1


async def test_an_archive_is_counted_a_part_at_a_time(bench: Bench) -> None:
    await bench.store.append([archived(bench, time) for time in (1, 1, 1, 2, 3, 9)])
    count = bench.store.count_archive
    assert await count(ARCHIVE, after=START, before=9, limit=100) == (5, None)
    first, place = await count(ARCHIVE, after=START, before=9, limit=2)
    assert first == 2
    assert place is not None
    assert await count(ARCHIVE, after=place, before=9, limit=4) == (3, None)
    assert await count(SECOND_ARCHIVE, after=START, before=9, limit=2) == (0, None)


async def test_the_latest_time_within_a_span(bench: Bench) -> None:
    await bench.store.append([archived(bench, time) for time in (10, 20, 30)])
    assert await bench.store.last_archived(ARCHIVE, from_time=0, before=30) == 20
    assert await bench.store.last_archived(ARCHIVE, from_time=20, before=21) == 20
    assert await bench.store.last_archived(ARCHIVE, from_time=21, before=30) is None


async def test_sizes_follow_what_is_added_and_removed_across_reopening(bench: Bench) -> None:
    both = archived(bench, 1, ARCHIVE, SECOND_ARCHIVE, size=100)
    await bench.store.append([archived(bench, 1, size=20), both])
    await bench.store.append([archived(bench, 1, size=3)])
    await bench.reopen()
    assert await bench.store.archive_sizes() == [ArchiveSize(ARCHIVE, 3, 123), ArchiveSize(SECOND_ARCHIVE, 1, 100)]
    assert await bench.store.trim_archive(ARCHIVE, bench.now + 1, limit=2) == 2
    assert [size.events for size in await bench.store.archive_sizes()] == [1, 1]
    assert await bench.store.trim_archive(ARCHIVE, bench.now + 1) == 1
    assert await bench.store.archive_sizes() == [ArchiveSize(SECOND_ARCHIVE, 1, 100)]


async def test_an_archive_is_trimmed_by_ingestion_whatever_the_time_of_its_events(bench: Bench) -> None:
    await bench.store.append([archived(bench, 5_000)])
    bench.clock.advance(1)
    await bench.store.append([archived(bench, 4_000)])
    assert await bench.store.trim_archive(ARCHIVE, bench.now) == 1
    assert await times(bench) == [4_000]
    assert await bench.store.trim_archive(ARCHIVE, bench.now) == 0


async def test_the_place_of_a_removed_event_is_not_used_again(bench: Bench) -> None:
    await bench.store.append([archived(bench, 1)])
    (gone,) = await bench.store.read_archive(ARCHIVE, after=START, before=END, limit=1)
    await bench.store.trim_archive(ARCHIVE, bench.now + 1)
    await bench.reopen()
    await bench.store.append([archived(bench, 1)])
    assert await times(bench, after=gone.place) == [1]


async def test_an_archived_event_outlives_its_deliveries_and_they_outlive_it(bench: Bench) -> None:
    await bench.store.append([archived(bench, 1, deliveries=[bench.delivery(), bench.delivery(OTHER)])])
    (lease,) = await bench.claim()
    assert await bench.settle(done(lease))
    assert await times(bench) == [1]
    await bench.store.trim_archive(ARCHIVE, bench.now + 1)
    (other,) = await bench.claim(OTHER)
    assert other.body == lease.body


async def test_a_duplicate_is_not_archived_again(bench: Bench) -> None:
    for _ in range(2):
        await bench.store.append([archived(bench, 1, dedup_key="k")])
    assert await times(bench) == [1]


# --- the log ----------------------------------------------------------------------------------------------------------


async def test_the_log_is_read_by_cursor(bench: Bench) -> None:
    batch = [bench.kept(bus=1 + number % 2) for number in range(10)]
    appended = await bench.store.append(batch)
    expected = [item.seq for event, item in zip(batch, appended, strict=True) if event.bus == BUS]
    cursor, found = 0, []
    while page := await bench.store.read(BUS, after_seq=cursor, limit=2):
        assert len(page) <= 2
        found += seqs(page)
        cursor = page[-1].seq
    assert found == expected


async def test_the_log_is_read_by_time_in_order_of_numbers(bench: Bench) -> None:
    start = bench.now
    times = [30, 10, 20, 40]  # clocks of senders differ
    appended = await bench.store.append([bench.kept(ts=start + ts) for ts in times])
    found = await bench.store.read(BUS, from_ts=start + 10, to_ts=start + 40)
    assert seqs(found) == [appended[0].seq, appended[1].seq, appended[2].seq]
    later = await bench.store.read(BUS, from_ts=start + 20, after_seq=appended[0].seq)
    assert seqs(later) == [appended[2].seq, appended[3].seq]


async def test_only_kept_events_are_in_the_log(bench: Bench) -> None:
    await bench.store.append([bench.event(bench.delivery()), bench.kept(body=b"kept")])
    assert await bench.bodies() == [b"kept"]


async def test_settling_the_last_delivery_leaves_a_kept_event_in_the_log(bench: Bench) -> None:
    await bench.store.append([bench.kept(body=b"kept", deliveries=[bench.delivery()])])
    (lease,) = await bench.claim()
    assert await bench.settle(done(lease))
    assert await bench.bodies() == [b"kept"]


async def test_trimming_takes_old_events_a_page_at_a_time(bench: Bench) -> None:
    start = bench.now
    await bench.store.append([bench.kept(ts=start + number, body=b"%d" % number) for number in range(5)])
    await bench.store.append([bench.kept(ts=start, bus=2, body=b"elsewhere")])
    counts = [await bench.store.trim(BUS, start + 3, limit=2) for _ in range(3)]
    assert counts == [2, 1, 0]
    assert await bench.bodies() == [b"3", b"4"]
    assert await bench.bodies(2) == [b"elsewhere"]


async def test_an_event_with_pending_deliveries_survives_trimming(bench: Bench) -> None:
    event = bench.kept(deliveries=[bench.delivery(), bench.delivery(OTHER)])
    await bench.store.append([event])
    assert await bench.store.trim(BUS, bench.now + 1) == 1
    assert await bench.store.trim(BUS, bench.now + 1) == 0
    assert await bench.bodies() == []
    for route in (ROUTE, OTHER):
        (lease,) = await bench.claim(route)
        assert lease.body == event.body
        assert await bench.settle(done(lease))
    assert await bench.store.backlog() == []


async def test_a_cursor_stands_on_a_trimmed_log(bench: Bench) -> None:
    old = await bench.store.append([bench.kept(), bench.kept()])
    bench.clock.advance(1)
    (young,) = await bench.store.append([bench.kept()])
    await bench.store.trim(BUS, bench.now)
    assert seqs(await bench.store.read(BUS, after_seq=old[0].seq)) == [young.seq]


async def test_a_tailing_reader_misses_nothing(bench: Bench) -> None:
    async def write(writer: int) -> list[int]:
        numbers = []
        for _ in range(20):
            numbers += seqs(await bench.store.append([bench.kept(), bench.kept(bus=2), bench.kept()]))
        return numbers

    seen: list[int] = []

    async def tail(writers: asyncio.Future[Any]) -> None:
        ended = False
        while not ended:
            ended = writers.done()
            seen.extend(seqs(await bench.store.read(BUS, after_seq=seen[-1] if seen else 0, limit=7)))
            ended = ended and not await bench.store.read(BUS, after_seq=seen[-1])
            await asyncio.sleep(0)

    writers = asyncio.gather(*(write(writer) for writer in range(8)))
    async with asyncio.timeout(DEADLINE_S):
        await tail(writers)
    assert len(seen) == 8 * 20 * 2
    assert seen == seqs(await bench.store.read(BUS))


# --- deliveries -------------------------------------------------------------------------------------------------------


async def test_claims_come_in_order_of_due_then_of_number(bench: Bench) -> None:
    dues = [-10, -30, -20, -30]
    appended = [await bench.wait(due=due) for due in dues]
    await bench.wait(OTHER, due=-40)
    leases = await bench.claim()
    assert seqs(leases) == [appended[1].seq, appended[3].seq, appended[2].seq, appended[0].seq]


async def test_a_claim_is_bounded_by_count_and_by_bytes(bench: Bench) -> None:
    for _ in range(5):
        await bench.store.append([bench.event(bench.delivery(), body=b"x" * 1000)])
    claim = bench.store.claim
    until = bench.now + HOUR
    assert len(await claim(ROUTE, now=bench.now, until=until, limit=2)) == 2
    assert len(await claim(ROUTE, now=bench.now, until=until, limit=9, max_bytes=2500)) == 2
    assert len(await claim(ROUTE, now=bench.now, until=until, limit=9, max_bytes=10)) == 1
    assert await claim(ROUTE, now=bench.now, until=until, limit=9) == []


async def test_no_two_live_leases_under_concurrent_claimers(bench: Bench) -> None:
    appended = await bench.store.append([bench.event(bench.delivery()) for _ in range(200)])

    async def drain() -> list[Lease]:
        taken: list[Lease] = []
        while page := await bench.claim(limit=7):
            taken += page
            await asyncio.sleep(0)
        return taken

    taken = [lease for leases in await asyncio.gather(*(drain() for _ in range(8))) for lease in leases]
    assert sorted(seqs(taken)) == seqs(appended)
    assert len({lease.fence for lease in taken}) == len(taken)


async def test_what_append_leased_is_nobody_elses(bench: Bench) -> None:
    event = bench.event(bench.delivery(lease=True), bench.delivery(OTHER))
    (appended,) = await bench.store.append([event], lease_until=bench.now + HOUR)
    assert len(appended.fences) == 1
    assert await bench.claim() == []
    assert seqs(await bench.claim(OTHER)) == [appended.seq]
    assert await bench.settle(Done(appended.seq, ROUTE, appended.fences[0]))
    assert [waiting.route for waiting in await bench.store.backlog()] == [OTHER]


async def test_fences_come_in_the_order_of_the_leased_deliveries(bench: Bench) -> None:
    deliveries = [bench.delivery(route, lease=route % 2 == 0) for route in range(1, 6)]
    (appended,) = await bench.store.append([bench.event(*deliveries)], lease_until=bench.now + HOUR)
    second, fourth = appended.fences
    assert not await bench.settle(Done(appended.seq, 2, fourth))
    assert await bench.settle(Done(appended.seq, 2, second))
    assert await bench.settle(Done(appended.seq, 4, fourth))


async def test_a_lease_that_ran_out_is_claimed_anew_and_its_fence_is_stale(bench: Bench) -> None:
    await bench.wait()
    (first,) = await bench.claim(lasting=1000)
    bench.clock.advance(0.999)
    assert await bench.claim() == []
    bench.clock.advance(0.001)
    (second,) = await bench.claim()
    assert second.fence > first.fence
    assert not await bench.settle(done(first, message(1)))
    assert not await bench.settle(Retry(first.seq, first.route, first.fence, bench.now + DAY, "late"))
    assert not await bench.settle(Release(first.seq, first.route, first.fence))
    assert await bench.store.backlog() == [Backlog(ROUTE, 1, bench.now - 1000)]
    assert await bench.settle(done(second))


async def test_a_fence_settles_once(bench: Bench) -> None:
    await bench.wait()
    (lease,) = await bench.claim()
    assert await bench.store.settle([done(lease), done(lease)]) == [True, False]
    assert not await bench.settle(Release(lease.seq, lease.route, lease.fence))


async def test_settlements_of_one_turn_agree_on_who_was_first(bench: Bench) -> None:
    await bench.wait()
    (lease,) = await bench.claim()
    results = await asyncio.gather(*(bench.settle(done(lease, message(n))) for n in range(3)))
    assert sorted(results) == [False, False, True]


async def test_settling_what_was_never_leased_answers_false(bench: Bench) -> None:
    appended = await bench.wait()
    assert not await bench.settle(Done(appended.seq, ROUTE, 0))
    assert not await bench.settle(Done(appended.seq + 1, ROUTE, 1))
    assert len(await bench.claim()) == 1


async def test_a_failed_settlement_leaves_its_leases_as_they_were(bench: Bench) -> None:
    await bench.wait()
    await bench.wait()
    first, second = await bench.claim()
    bad = message(1)._replace(body=None)  # type: ignore[arg-type]
    with pytest.raises(Exception):  # noqa: B017, PT011 - as above
        await bench.store.settle([done(first), done(second, bad)])
    assert await bench.claim() == []
    assert await bench.store.settle([done(first), done(second)]) == [True, True]


async def test_no_lease_outlives_the_process(bench: Bench) -> None:
    await bench.wait()
    (before,) = await bench.claim(lasting=DAY)
    bench.clock.advance(0.001)
    await bench.reopen()
    assert not await bench.settle(done(before))
    (after,) = await bench.claim()
    assert after.fence > before.fence


async def test_a_retry_counts_the_attempt_and_keeps_the_reason(bench: Bench) -> None:
    await bench.wait()
    (lease,) = await bench.claim()
    assert await bench.settle(Retry(lease.seq, lease.route, lease.fence, bench.now, "refused"))
    (again,) = await bench.claim()
    assert (again.attempts, again.last_error) == (1, "refused")
    assert again.fence > lease.fence


async def test_a_retry_a_day_ahead_is_not_a_moment_early_and_survives_a_restart(bench: Bench) -> None:
    await bench.wait(expires=2 * DAY)
    (lease,) = await bench.claim()
    due = bench.now + DAY
    assert await bench.settle(Retry(lease.seq, lease.route, lease.fence, due, "try tomorrow"))
    assert await bench.store.next_due(ROUTE) == due
    bench.clock.advance(DAY / 1000 - 0.001)
    assert await bench.claim() == []
    await bench.reopen()
    assert await bench.claim() == []
    bench.clock.advance(0.001)
    (again,) = await bench.claim()
    assert again.attempts == 1


async def test_a_released_delivery_is_as_due_as_it_was(bench: Bench) -> None:
    first, second = await bench.wait(due=-2), await bench.wait(due=-1)
    (lease,) = await bench.claim(limit=1)
    assert await bench.settle(Release(lease.seq, lease.route, lease.fence))
    leases = await bench.claim()
    assert seqs(leases) == [first.seq, second.seq]
    assert leases[0].attempts == 0


async def test_messages_are_stored_with_the_settlement(bench: Bench) -> None:
    heard: list[set[int]] = []
    bench.store.on_messages = heard.append
    await bench.wait()
    (lease,) = await bench.claim()
    assert await bench.settle(done(lease, message(1), message(2, queue=QUEUE + 1)))
    assert heard == [{QUEUE, QUEUE + 1}]
    assert await bench.store.backlog() == []


async def test_expired_deliveries_are_claimed_whether_due_or_not(bench: Bench) -> None:
    later = await bench.wait(OTHER, due=DAY, expires=2000)
    soon = await bench.wait(ROUTE, expires=1000)
    await bench.wait(ROUTE, expires=5000)
    assert await bench.claim_expired() == []
    bench.clock.advance(2)
    assert seqs(await bench.claim_expired(limit=1)) == [soon.seq]
    assert seqs(await bench.claim_expired()) == [later.seq]
    assert await bench.claim_expired() == []


async def test_an_expired_delivery_somebody_holds_is_left_to_them(bench: Bench) -> None:
    await bench.wait(expires=1000)
    (held,) = await bench.claim(lasting=3000)
    bench.clock.advance(2)
    assert await bench.claim_expired() == []
    bench.clock.advance(1)
    (taken,) = await bench.claim_expired()
    assert not await bench.settle(done(held))
    assert await bench.settle(done(taken))


async def test_next_due_is_when_a_claim_finds_something(bench: Bench) -> None:
    assert await bench.store.next_due(ROUTE) is None
    await bench.wait(due=5000)
    await bench.wait(due=3000)
    await bench.wait(OTHER, due=1000)
    assert await bench.store.next_due(ROUTE) == bench.now + 3000
    bench.clock.advance(3)
    (lease,) = await bench.claim(lasting=500)
    assert await bench.store.next_due(ROUTE) == bench.now + 500
    await bench.settle(Release(lease.seq, lease.route, lease.fence))
    (lease,) = await bench.claim(lasting=HOUR)
    assert await bench.store.next_due(ROUTE) == bench.now + 2000
    await bench.settle(done(lease))
    assert await bench.store.next_due(ROUTE) == bench.now + 2000


async def test_next_expiry_is_when_the_sweep_finds_something(bench: Bench) -> None:
    assert await bench.store.next_expiry() is None
    await bench.wait(expires=3000)
    await bench.wait(OTHER, expires=9000)
    assert await bench.store.next_expiry() == bench.now + 3000
    await bench.claim(lasting=5000)
    assert await bench.store.next_expiry() == bench.now + 5000
    bench.clock.advance(5)
    assert len(await bench.claim_expired()) == 1
    assert await bench.store.next_expiry() == bench.now + 4000


@pytest.mark.parametrize("ask", ["next_due", "next_expiry"])
async def test_a_caller_that_sleeps_until_the_next_instant_needs_no_hint(bench: Bench, ask: str) -> None:
    """Every delivery is done although some are leased and forgotten, and the clock only jumps to what is told."""
    for number in range(12):
        await bench.wait(ROUTE, due=number * 700 % 5000, expires=number * 900 % 7000)
    settled = 0
    for turn in range(200):
        at = await (bench.store.next_due(ROUTE) if ask == "next_due" else bench.store.next_expiry())
        if at is None:
            break
        bench.clock.advance(max(0, at - bench.now) / 1000)
        leases = await (bench.claim(limit=2, lasting=1000) if ask == "next_due" else bench.claim_expired(limit=2))
        assert leases, "the instant came and there was nothing"
        for lease in leases:
            if (lease.seq + turn) % 3:
                settled += await bench.settle(done(lease))
    assert settled == 12


async def test_the_backlog_counts_waiting_and_held_by_route(bench: Bench) -> None:
    await bench.wait(due=2000)
    await bench.wait(due=1000)
    await bench.wait(OTHER)
    await bench.claim(OTHER)
    expected = [Backlog(ROUTE, 2, bench.now + 1000), Backlog(OTHER, 1, bench.now)]
    assert sorted(await bench.store.backlog()) == expected


async def test_deliveries_of_one_event_end_one_by_one(bench: Bench) -> None:
    event = bench.event(*(bench.delivery(route) for route in range(1, 4)))
    await bench.store.append([event])
    for route in range(1, 4):
        (lease,) = await bench.claim(route)
        assert lease.body == event.body
        assert await bench.settle(done(lease))


# --- durability -------------------------------------------------------------------------------------------------------


async def test_everything_is_there_after_a_restart(bench: Bench) -> None:
    await bench.store.append([bench.kept(body=b"kept", deliveries=[bench.delivery(), bench.delivery(OTHER)])])
    await bench.wait(due=1000)
    await bench.store.conf_put([ConfChange("rule", "a", b"1")])
    await bench.reopen()
    assert await bench.bodies() == [b"kept"]
    assert sorted(await bench.store.backlog()) == [Backlog(ROUTE, 2, bench.now), Backlog(OTHER, 1, bench.now)]
    assert [entry.value for entry in (await bench.store.conf_list("rule"))[1]] == [b"1"]


async def test_what_was_queued_when_the_store_closed_is_committed(bench: Bench) -> None:
    waiting = asyncio.create_task(bench.store.append([bench.kept(body=b"last")]))
    await asyncio.sleep(0)
    await bench.reopen()
    assert (await waiting)[0].seq > 0
    assert await bench.bodies() == [b"last"]


# --- queues -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 500])
async def test_sent_rows_are_messages_when_their_sender_hears(bench: Bench, count: int) -> None:
    """Few or many: an engine may have a way of its own for each."""
    beginning = message_rows.beginning(QUEUE, NOW_VISIBLE, bench.now)
    rows = [beginning + b"%036d" % number + message_rows.AS_IT_IS + b"text %d" % number for number in range(count)]
    heard: list[Any] = []
    bench.store.on_messages = heard.append
    sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    bench.store.send(rows, {QUEUE}, then=lambda: sent.set_result(heard.append("sender")), failed=sent.set_exception)
    await asyncio.wait_for(sent, DEADLINE_S)
    assert heard == [{QUEUE}, "sender"]
    await bench.reopen_if_lasting()
    source = messages.Source(QUEUE, fifo=False, oldest=0)
    browsed = await bench.store.transact(
        lambda connection: message_upkeep.browse(
            connection, source, message_upkeep.numbers(connection, source, after=0, limit=1000), max_bytes=1 << 30
        )
    )
    assert [(each.message_id, each.sent, each.body) for each in browsed] == [
        (f"{number:036d}", bench.now, f"text {number}") for number in range(count)
    ]


async def test_queues_hear_of_messages_after_the_commit_and_before_the_answer(bench: Bench) -> None:
    order: list[object] = []
    bench.store.on_messages = order.append

    async def send() -> None:
        await bench.store.append(
            [bench.event(messages=[message(1), message(2)]), bench.event(messages=[message(3, 21)])]
        )
        order.append("answered")

    task = asyncio.create_task(send())
    await asyncio.sleep(0)
    assert order == []
    await task
    assert order == [{QUEUE, 21}, "answered"]


async def test_a_deaf_queue_does_not_hold_up_the_answer(bench: Bench) -> None:
    def fail(queues: set[int]) -> None:
        raise RuntimeError("not listening")

    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    bench.store.on_messages = fail
    first, second = await asyncio.gather(
        bench.store.append([bench.kept(messages=[message(1)])]), bench.store.append([bench.kept()])
    )
    assert seqs(await bench.store.read(BUS)) == seqs(first + second)
    assert len(reported) == 1


async def test_work_of_the_queues_shares_the_transaction_and_its_fate(bench: Bench) -> None:
    assert await bench.store.transact(lambda cursor: 7) == 7

    def fail(cursor: object) -> None:
        raise LookupError("no such queue")

    results = await asyncio.gather(
        bench.store.append([bench.kept(body=b"kept")]), bench.store.transact(fail), return_exceptions=True
    )
    assert isinstance(results[1], LookupError)
    assert await bench.bodies() == [b"kept"]


# --- configuration ----------------------------------------------------------------------------------------------------


async def test_configuration_is_listed_by_kind_with_its_revision(bench: Bench) -> None:
    first = await bench.store.conf_put([ConfChange("rule", "b", b"2"), ConfChange("rule", "a", b"1")])
    second = await bench.store.conf_put([ConfChange("bus", "a", b"3")])
    assert second > first
    revision, entries = await bench.store.conf_list("rule")
    assert [(entry.key, entry.value) for entry in entries] == [("a", b"1"), ("b", b"2")]
    assert max(entry.rev for entry in entries) == first
    assert revision >= second


async def test_a_deleted_value_is_not_listed(bench: Bench) -> None:
    await bench.store.conf_put([ConfChange("rule", "a", b"1")])
    await bench.store.conf_put([ConfChange("rule", "a", None)])
    assert (await bench.store.conf_list("rule"))[1] == []


async def test_compare_and_set(bench: Bench) -> None:
    put = bench.store.conf_put
    revision = await put([ConfChange("rule", "a", b"1", expect_rev=0)])
    with pytest.raises(RevisionConflict):
        await put([ConfChange("rule", "a", b"2", expect_rev=0)])
    with pytest.raises(RevisionConflict):
        await put([ConfChange("rule", "a", b"2", expect_rev=revision - 1)])
    with pytest.raises(RevisionConflict):
        await put([ConfChange("rule", "b", b"2", expect_rev=revision)])
    revision = await put([ConfChange("rule", "a", None, expect_rev=revision)])
    assert await put([ConfChange("rule", "a", b"3", expect_rev=0)]) > revision


async def test_racing_writers_of_one_value_have_one_winner(bench: Bench) -> None:
    race = [bench.store.conf_put([ConfChange("rule", "a", b"%d" % n, expect_rev=0)]) for n in range(5)]
    results = await asyncio.gather(*race, return_exceptions=True)
    won = [result for result in results if isinstance(result, int)]
    assert len(won) == 1
    assert all(isinstance(result, int | RevisionConflict) for result in results)
    _, (entry,) = await bench.store.conf_list("rule")
    assert (entry.rev, entry.value) == (won[0], b"%d" % results.index(won[0]))


async def test_a_conflict_changes_nothing_of_its_call(bench: Bench) -> None:
    await bench.store.conf_put([ConfChange("rule", "b", b"1")])
    with pytest.raises(RevisionConflict):
        await bench.store.conf_put([ConfChange("rule", "a", b"1"), ConfChange("rule", "b", b"2", expect_rev=0)])
    assert [(entry.key, entry.value) for entry in (await bench.store.conf_list("rule"))[1]] == [("b", b"1")]


async def watched(watch: AsyncIterator[ConfEntry], count: int) -> list[tuple[str, bytes | None]]:
    found = []
    async with asyncio.timeout(DEADLINE_S):
        async for entry in watch:
            found.append((entry.key, entry.value))
            if len(found) == count:
                break
    return found


async def test_listing_then_watching_misses_nothing(bench: Bench) -> None:
    put = bench.store.conf_put
    await put([ConfChange("rule", "before", b"0")])
    revision, _ = await bench.store.conf_list("rule")
    await put([ConfChange("rule", "a", b"1")])
    watch = bench.store.conf_watch(revision)
    waiting = asyncio.create_task(watched(watch, 4))
    await asyncio.sleep(0)
    await put([ConfChange("rule", "b", b"2"), ConfChange("bus", "c", b"3")])
    await put([ConfChange("rule", "b", None)])
    found = await waiting
    assert found[0] == ("a", b"1")
    assert found[-1] == ("b", None)


async def test_a_watch_taken_up_again_has_no_gap(bench: Bench) -> None:
    """Changes come while a watcher reads, between watches, and across a restart; the last state always arrives."""
    state: dict[str, bytes | None] = {}
    last = 0

    async def follow() -> None:
        nonlocal last
        async with asyncio.timeout(DEADLINE_S):
            async for entry in bench.store.conf_watch(last):
                assert entry.rev > last
                last = entry.rev
                state[entry.key] = entry.value
                if entry.key == "end":
                    return

    for turn in range(4):
        following = asyncio.create_task(follow())
        for number in range(10):
            key = f"key-{number * 7 % 5}"
            await bench.store.conf_put([ConfChange("rule", key, b"%d %d" % (turn, number) if number % 3 else None)])
        await bench.store.conf_put([ConfChange("rule", "end", b"%d" % turn)])
        await following
        _, entries = await bench.store.conf_list("rule")
        assert {key: value for key, value in state.items() if value is not None} == {e.key: e.value for e in entries}
        await bench.store.conf_put([ConfChange("rule", "while nobody looked", b"%d" % turn)])


async def test_a_watch_survives_a_restart(bench: Bench) -> None:
    revision = await bench.store.conf_put([ConfChange("rule", "a", b"1")])
    await bench.store.conf_put([ConfChange("rule", "a", None)])
    await bench.reopen()
    await bench.store.conf_put([ConfChange("rule", "b", b"2")])
    assert await watched(bench.store.conf_watch(revision), 2) == [("a", None), ("b", b"2")]


async def test_allocated_numbers_are_never_used_twice(bench: Bench) -> None:
    used: list[int] = []
    for _ in range(2):
        number, other = bench.store.allocate(), bench.store.allocate()
        used += [number, other, await bench.store.conf_put([ConfChange("bus", str(number), b"%d" % other)])]
    await bench.store.conf_put([ConfChange("bus", str(used[0]), None)])
    await bench.reopen()
    used.append(bench.store.allocate())
    assert len(set(used)) == len(used)
    assert used == sorted(used)
