"""Archives over a clock that is moved by hand: what goes, when, and in which steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from bus.archives import CHUNK, Archives, managed_pattern
from bus.archives.archived import arrival_of, measure
from bus.config import Settings
from bus.errors import StoreUnavailable
from bus.scope import Call
from bus.store import Append, NewArchived
from rules.event import render_envelope
from tests.bus.configuration import SCOPE, Configuration, configuration
from tests.waiting import DEADLINE_S, eventually

BUS = "arn:aws:events:us-east-1:111111111111:event-bus/default"
DAY_S = 86_400


@dataclass
class Bench:
    """Archives over buses and rules, without the way in: events are stored as the target would have them stored."""

    conf: Configuration
    archives: Archives

    async def create(self, name: str = "a", **members: Any) -> int:
        await self.archives.create_archive(Call(SCOPE), {"ArchiveName": name, "EventSourceArn": BUS, **members})
        archive = self.archives.find(SCOPE, name)
        assert archive is not None
        return archive.number

    async def store(self, number: int, count: int = 1, *, time: int = 0) -> None:
        now = self.conf.clock.now_ms()
        shares = [NewArchived(number, time, 10)]
        await self.conf.store.append([Append(1, "id", now, b"{}", archives=shares) for _ in range(count)])

    async def count(self, number: int) -> int:
        return sum(size.events for size in await self.conf.store.archive_sizes() if size.archive == number)

    async def until_empty(self, number: int) -> None:
        """Wait for somebody else to remove an archive's events."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.count(number):  # noqa: ASYNC110 - what is waited for is in the store
                await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    conf = await configuration()
    buses = conf.buses
    archives = Archives(
        conf.store,
        conf.clock,
        Settings(),
        catalog=conf.catalog,
        find_bus=buses.find,
        require_bus=buses.require,
        lock=buses.lock,
    )
    yield Bench(conf, archives)
    await conf.store.close()


async def test_retention_counts_from_ingestion_and_to_the_day(bench: Bench) -> None:
    number = await bench.create(RetentionDays=2)
    two_days_old = bench.conf.clock.now_ms() // 1000 - 2 * DAY_S
    await bench.store(number, time=two_days_old)
    bench.conf.clock.advance(2 * DAY_S)
    await bench.store(number, time=two_days_old)
    await bench.archives.sweep()
    assert await bench.count(number) == 2
    bench.conf.clock.advance(0.001)
    await bench.archives.sweep()
    assert await bench.count(number) == 1


async def test_without_a_retention_nothing_goes(bench: Bench) -> None:
    number = await bench.create()
    await bench.store(number)
    bench.conf.clock.advance(3650 * DAY_S)
    await bench.archives.sweep()
    assert await bench.count(number) == 1


async def test_a_shorter_retention_takes_effect_without_waiting_for_the_next_minute(bench: Bench) -> None:
    number = await bench.create(RetentionDays=9)
    await bench.store(number)
    bench.conf.clock.advance(3 * DAY_S)
    upkeep = asyncio.create_task(bench.archives.keep_up())
    await bench.archives.update_archive(Call(SCOPE), {"ArchiveName": "a", "RetentionDays": 1})
    await bench.until_empty(number)
    upkeep.cancel()


async def test_events_go_in_small_transactions(bench: Bench) -> None:
    number = await bench.create(RetentionDays=1)
    await bench.store(number, 2 * CHUNK + 1)
    bench.conf.clock.advance(2 * DAY_S)
    before = bench.conf.store.journal.commits
    await bench.archives.sweep()
    assert await bench.count(number) == 0
    assert bench.conf.store.journal.commits - before == 3


async def test_only_the_rows_of_archives_that_are_no_more_go_with_them(bench: Bench) -> None:
    gone, kept = await bench.create("gone"), await bench.create("kept")
    await bench.store(gone, 5)
    await bench.store(kept, 5)
    await bench.archives.delete_archive(Call(SCOPE), {"ArchiveName": "gone"})
    await bench.store(gone)  # matched before, stored after
    await bench.archives.sweep()
    assert (await bench.count(gone), await bench.count(kept)) == (0, 5)
    assert bench.archives.number_for(f"{BUS.replace('event-bus/default', 'rule/')}Events-Archive-gone") is None


async def test_a_disk_that_refuses_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    number = await bench.create()
    await bench.store(number)
    refused: list[int] = []

    async def refuse(archive: int, before_ts: int, *, limit: int = 0) -> int:
        refused.append(archive)
        raise StoreUnavailable("full")

    with monkeypatch.context() as patch:
        patch.setattr(bench.conf.store, "trim_archive", refuse)
        upkeep = asyncio.create_task(bench.archives.keep_up())
        await bench.archives.delete_archive(Call(SCOPE), {"ArchiveName": "a"})
        await eventually(lambda: refused, "the refusal")
    await bench.create("b")
    await bench.archives.delete_archive(Call(SCOPE), {"ArchiveName": "b"})
    await bench.until_empty(number)
    upkeep.cancel()


async def test_an_update_that_leaves_the_target_as_it_is_keeps_its_route(bench: Bench) -> None:
    await bench.create()
    (before,) = bench.conf.catalog.rules()
    await bench.archives.update_archive(Call(SCOPE), {"ArchiveName": "a", "EventPattern": '{"source":["s"]}'})
    (after,) = bench.conf.catalog.rules()
    assert after.routes == before.routes
    assert after.pattern != before.pattern


async def test_a_write_that_fails_leaves_no_half_of_an_archive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(changes: Any) -> int:
        raise StoreUnavailable("full")

    with monkeypatch.context() as patch:
        patch.setattr(bench.conf.store, "conf_put", refuse)
        with pytest.raises(StoreUnavailable):
            await bench.create()
    assert bench.archives.find(SCOPE, "a") is None
    assert list(bench.conf.catalog.rules()) == []
    assert await bench.create()


@pytest.mark.parametrize(
    ("own", "managed"),
    [
        (None, '{"replay-name":[{"exists":false}]}'),
        ('{"source": ["s"]}', '{"replay-name":[{"exists":false}],"source":["s"]}'),
        ('{"source":["s"],"replay-name":["r"]}', '{"replay-name":[{"exists":false}],"source":["s"]}'),
        (
            '{"detail":{"n":[12345678901234567890123, 1.50]}}',
            '{"replay-name":[{"exists":false}],"detail":{"n":[12345678901234567890123,1.50]}}',
        ),
    ],
)
def test_the_managed_rules_pattern(own: str | None, managed: str) -> None:
    assert managed_pattern(own) == managed


# --- events taken apart -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["s", 'a","detail":{"', "\u00e9\\", "\ud800", ""])
@pytest.mark.parametrize("detail", [b"{}", b'{"detail":{"x":1.50}}', b'{"a":"\\ud800","b":"}"}', b'{"e":"\xc3\xa9"}'])
def test_any_event_is_measured_and_comes_again_as_it_was(source: str, detail: bytes) -> None:
    members: dict[str, Any] = {
        "detail_type": "t" + source,
        "source": source,
        "account": "1",
        "time": "2026-01-31T12:00:01Z",
        "region": "r",
        "resources": ["x", source],
        "detail": detail,
    }
    body = render_envelope(event_id="one", **members)
    named = 2 * len(source.encode("utf-8", "surrogatepass")) + 1
    assert measure(body) == (1_769_860_801, len(detail) + named + 20)
    again = arrival_of(body, "two", "r")
    found = {name: getattr(again, name) for name in ("detail_type", "source", "time", "resources")}
    assert {**found, "detail": again.compact_detail(), "account": "1", "region": "r"} == members
    assert (again.event_id, again.scope, again.replay_name) == ("two", ("1", "r"), "r")
