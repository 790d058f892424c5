"""What is the embedded engine's own: files, processes, a disk that refuses, and the pace of its commits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import apsw
import pytest

from bus.clock import ManualClock, SystemClock
from bus.errors import StoreError, StoreUnavailable, StoreUnusable
from bus.store import Append, ConfChange, Done, NewDelivery, NewMessage, archives
from bus.store import database as database_module
from bus.store.database import APPLICATION_ID, FILE_NAME, LOCK_NAME, connect, migrate, migrations, rows
from bus.store.sqlite import SqliteStore, open_store

NOW = 1_700_000_000_000
DAY = 86_400_000
DEADLINE_S = 20.0
ROOT = Path(__file__).parents[2]


def event(number: int = 0, *, size: int = 100, keep: bool = True, lease: bool = False) -> Append:
    delivery = NewDelivery(1, NOW, NOW + DAY, lease)
    return Append(1, f"event-{number}", NOW, b"x" * size, deliveries=[delivery], keep=keep)


async def until(condition: Callable[[], bool]) -> None:
    """Turn the loop until the condition holds; a deadline, not a duration."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is the state of a file or of a thread
            await asyncio.sleep(0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def store(directory: Path) -> AsyncIterator[SqliteStore]:
    store = await open_store(str(directory), ManualClock(NOW))
    yield store
    await store.close()


async def filled(directory: Path, events: int = 200) -> Path:
    """A data directory with some events; its database file."""
    store = await open_store(str(directory), ManualClock(NOW))
    await store.append([event(number, size=900) for number in range(events)])
    await store.close()
    return directory / FILE_NAME


async def refused(directory: Path | str) -> str:
    """Why the store would not open; that nothing was changed is for the caller to see."""
    with pytest.raises(StoreUnusable) as caught:
        await open_store(str(directory), ManualClock(NOW))
    return str(caught.value)


def python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script to its end in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


# --- who may open it --------------------------------------------------------------------------------------------------


OWNER_SCRIPT = """
import asyncio, sys
from bus.clock import SystemClock
from bus.store.sqlite import open_store

async def main():
    store = await open_store(sys.argv[1], SystemClock())
    print("open", flush=True)
    sys.stdin.read()
    await store.close()

asyncio.run(main())
"""


@contextlib.contextmanager
def another_owner(directory: Path) -> Iterator[int]:
    """A process that has the directory open until it is killed; its number."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER_SCRIPT, str(directory)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == b"open\n"
        yield owner.pid
    finally:
        owner.kill()
        owner.communicate()


async def test_a_second_process_is_told_who_has_the_directory(directory: Path) -> None:
    await filled(directory)
    with another_owner(directory) as pid:
        reason = await refused(directory)
        assert f"in use by another busbar (process {pid})" in reason
        assert "--data-dir" in reason
    store = await open_store(str(directory), ManualClock(NOW))  # the lock died with its owner
    assert len(await store.read(1)) == 200
    await store.close()


async def test_the_same_process_is_kept_out_as_well(store: SqliteStore, directory: Path) -> None:
    assert f"process {os.getpid()}" in await refused(directory)


def test_the_data_directory_is_for_its_user_alone(directory: Path) -> None:
    asyncio.run(filled(directory))
    assert directory.stat().st_mode & 0o077 == 0


def modes(directory: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}


async def test_the_files_are_for_their_user_alone_in_a_directory_that_is_open_to_others(tmp_path: Path) -> None:
    store = await open_store(str(tmp_path), ManualClock(NOW))
    await store.append([event(1)])
    assert modes(tmp_path) == dict.fromkeys(("bus.sqlite3", "bus.sqlite3-shm", "bus.sqlite3-wal", "lock"), 0o600)
    await store.close()


async def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("something else")
    assert "cannot be made" in await refused(tmp_path / "data")
    assert "cannot be made" in await refused(tmp_path / "data" / "below")
    assert (tmp_path / "data").read_text() == "something else"


@pytest.mark.parametrize("name", [FILE_NAME, LOCK_NAME])
async def test_a_directory_where_a_file_should_be(directory: Path, name: str) -> None:
    (directory / name).mkdir(parents=True)
    assert str(directory) in await refused(directory)


def _as_somebody(check: Callable[[], None]) -> int:
    """Run ``check`` in a child process that is not the superuser; its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            check()
            status = 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A data directory below nothing that only its owner may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        yield Path(place) / "data"


@pytest.mark.parametrize(
    ("mode", "file_mode", "reason"),
    [(0o555, 0o666, "data directory .* is not writable"), (0o777, 0o444, "database .* is not writable")],
)
def test_a_directory_that_may_not_be_written(
    public_directory: Path, monkeypatch: pytest.MonkeyPatch, mode: int, file_mode: int, reason: str
) -> None:
    path = asyncio.run(filled(public_directory))
    scripts = migrations()
    monkeypatch.setattr(database_module, "migrations", lambda: scripts)  # the checkout may be private, too
    (public_directory / LOCK_NAME).chmod(0o666)
    path.chmod(file_mode)
    public_directory.chmod(mode)

    def check() -> None:
        with pytest.raises(StoreUnusable, match=reason):
            asyncio.run(_open_and_close(public_directory))

    before = path.read_bytes()
    assert _as_somebody(check) == 0
    assert path.read_bytes() == before


async def _open_and_close(directory: Path) -> None:
    await (await open_store(str(directory), SystemClock())).close()


# --- what it may not be -----------------------------------------------------------------------------------------------


def _scribble(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


async def test_garbage_where_the_header_should_be(directory: Path) -> None:
    path = await filled(directory)
    _scribble(path, 0, b"this is no database " * 10)
    before = path.read_bytes()
    reason = await refused(directory)
    assert "damaged" in reason
    assert "move it away" in reason
    assert path.read_bytes() == before
    assert names(directory) == [FILE_NAME, LOCK_NAME]


async def test_a_truncated_file(directory: Path) -> None:
    path = await filled(directory)
    os.truncate(path, path.stat().st_size // 2)
    assert "damaged" in await refused(directory)


def _page_of(path: Path, table: str, pick: int) -> int:
    """Where in the file a leaf page of a table lies."""
    connection = apsw.Connection(str(path))
    query = "SELECT pgoffset FROM dbstat WHERE name=? AND pagetype='leaf' ORDER BY path LIMIT 1 OFFSET ?"
    row = connection.execute(query, (table, pick)).fetchone()
    connection.close()
    assert row is not None
    return int(str(row[0]))


async def test_a_damaged_page_in_the_middle_is_found_when_opening(directory: Path) -> None:
    path = await filled(directory)
    _scribble(path, _page_of(path, "event", 10), b"\xa5" * 4096)
    before = path.read_bytes()
    assert "damaged" in await refused(directory)
    assert path.read_bytes() == before


async def test_a_damaged_page_of_a_file_too_large_to_check_is_told_when_met(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await filled(directory)
    _scribble(path, _page_of(path, "event", 10), b"\xa5" * 4096)
    monkeypatch.setattr(database_module, "CHECKED_BYTES", 0)
    store = await open_store(str(directory), ManualClock(NOW))
    with pytest.raises(StoreUnusable, match="damaged"):
        await store.read(1)
    with pytest.raises(StoreUnusable, match="damaged"):
        await store.claim(1, now=NOW, until=NOW + DAY, limit=200)
    whole = await store.claim(1, now=NOW, until=NOW + DAY, limit=5)
    assert len(whole) == 5, "the claim that failed left nothing leased"
    assert await store.settle([Done(lease.seq, 1, lease.fence) for lease in whole]) == [True] * 5
    assert (await store.append([event(999)]))[0].seq == 201
    await store.close()


def _foreign(directory: Path) -> Path:
    directory.mkdir()
    path = directory / FILE_NAME
    with contextlib.closing(sqlite3.connect(path)) as foreign:
        foreign.execute("CREATE TABLE bookmarks(url TEXT)")
        foreign.commit()
    return path


async def test_the_database_of_another_program_is_left_alone(directory: Path) -> None:
    path = _foreign(directory)
    before = path.read_bytes()
    assert "another program" in await refused(directory)
    assert path.read_bytes() == before


async def test_a_newer_schema_is_left_alone(directory: Path) -> None:
    path = await filled(directory)
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA user_version={len(migrations()) + 3}")
    connection.close()
    before = path.read_bytes()
    reason = await refused(directory)
    assert f"schema {len(migrations()) + 3}" in reason
    assert f"up to {len(migrations())}" in reason
    assert path.read_bytes() == before


async def test_a_file_that_another_program_holds(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 0)
    path = await filled(directory)
    other = apsw.Connection(str(path))
    other.execute("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE").fetchall()
    assert "another program" in await refused(directory)
    other.close()


# --- migrations -------------------------------------------------------------------------------------------------------

ADD_COLUMN = "ALTER TABLE event ADD COLUMN colour TEXT; UPDATE event SET colour = 'blue' || seq;"
NEEDS_COLUMN = "CREATE TABLE paint AS SELECT colour FROM event;"


def _version(connection: apsw.Connection) -> int:
    return int(str(connection.execute("PRAGMA user_version").fetchall()[0][0]))


async def test_migrations_run_in_order_and_once(directory: Path) -> None:
    path = await filled(directory, events=2)
    scripts = [*migrations(), ADD_COLUMN, NEEDS_COLUMN]
    connection = connect(str(path))
    migrate(connection, scripts[:-1])
    assert _version(connection) == len(scripts) - 1
    migrate(connection, scripts)
    migrate(connection, scripts)
    assert _version(connection) == len(scripts)
    assert connection.execute("SELECT colour FROM paint").fetchall() == [("blue1",), ("blue2",)]
    connection.close()


async def test_a_migration_that_fails_leaves_the_version_before_it(directory: Path) -> None:
    path = await filled(directory, events=2)
    connection = connect(str(path))
    scripts = [*migrations(), ADD_COLUMN, "CREATE TABLE half(x); SELECT * FROM nowhere;"]
    with pytest.raises(apsw.SQLError):
        migrate(connection, scripts)
    assert not connection.in_transaction
    assert _version(connection) == len(scripts) - 1
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name='half'").fetchall() == [(0,)]
    connection.close()


async def test_a_new_file_is_marked_as_ours_and_forced_to_disk(store: SqliteStore, directory: Path) -> None:
    connection = store._connection
    values = {
        name: connection.execute(f"PRAGMA {name}").fetchall()[0][0]
        for name in ("application_id", "user_version", "journal_mode", "synchronous", "page_size", "wal_autocheckpoint")
    }
    assert values == {
        "application_id": APPLICATION_ID,
        "user_version": len(migrations()),
        "journal_mode": "wal",
        "synchronous": 2,
        "page_size": 4096,
        "wal_autocheckpoint": 0,
    }


# --- group commit -----------------------------------------------------------------------------------------------------


async def test_what_arrives_in_one_turn_is_one_commit(store: SqliteStore) -> None:
    before = store.journal.commits
    results = await asyncio.gather(
        *(store.append([event(number, lease=True)], lease_until=NOW + DAY) for number in range(100)),
        store.conf_put([ConfChange("rule", "a", b"1")]),
        store.transact(lambda connection: None),
    )
    assert store.journal.commits == before + 1
    appended = [item for (item,) in results[:100]]  # type: ignore[misc]
    await asyncio.gather(*(store.settle([Done(item.seq, 1, item.fences[0])]) for item in appended))
    assert store.journal.commits == before + 2


async def test_a_crowded_turn_is_split_into_bounded_commits(store: SqliteStore) -> None:
    before = store.journal.commits
    await asyncio.gather(*(store.append([event()] * 100) for _ in range(10)))
    assert store.journal.commits == before + 5


async def test_a_bad_item_costs_its_neighbours_a_commit_each_and_nothing_else(store: SqliteStore) -> None:
    results = await asyncio.gather(
        store.append([event(1)]),
        store.append([event(2)._replace(event_id=None)]),  # type: ignore[arg-type]
        store.append([event(3)]),
        return_exceptions=True,
    )
    assert isinstance(results[1], StoreError)
    assert not isinstance(results[1], StoreUnavailable)
    assert [item.event_id for item in await store.read(1)] == ["event-1", "event-3"]
    assert store.healthy


async def test_a_settlement_that_is_run_again_sends_its_messages_once(store: SqliteStore) -> None:
    (appended,) = await store.append([event(lease=True)], lease_until=NOW + DAY)
    outcome = Done(appended.seq, 1, appended.fences[0], [NewMessage(9, "m", NOW, NOW, "text")])
    settled, failed = await asyncio.gather(
        store.settle([outcome]),
        store.append([event()._replace(event_id=None)]),  # type: ignore[arg-type]
        return_exceptions=True,
    )
    assert settled == [True]
    assert isinstance(failed, StoreError)
    assert store._connection.execute("SELECT queue, body FROM message").fetchall() == [(9, "text")]


async def test_nothing_stays_that_nobody_needs(store: SqliteStore) -> None:
    two = [NewDelivery(route, NOW, NOW + DAY, True) for route in (1, 2)]
    batch = [
        event(1, keep=False)._replace(deliveries=two),
        event(2, keep=False)._replace(deliveries=(), dedup_key="k"),
        event(3, keep=False)._replace(deliveries=(), messages=[NewMessage(9, "m", NOW, NOW, "text")]),
    ]
    appended = await store.append(batch, lease_until=NOW + DAY)
    count = "SELECT count(*) FROM event"
    for route, left in ((1, 1), (2, 0)):
        assert await store.settle([Done(appended[0].seq, route, appended[0].fences[route - 1])]) == [True]
        assert store._connection.execute(count).fetchall() == [(left,)]


async def test_another_program_that_writes_makes_the_store_refuse(store: SqliteStore, directory: Path) -> None:
    store._connection.set_busy_timeout(0)
    with contextlib.closing(apsw.Connection(str(directory / FILE_NAME))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await store.append([event(1)])
        assert not store.healthy
    await store.append([event(2)])
    assert store.healthy
    assert [item.event_id for item in await store.read(1)] == ["event-2"]


async def test_a_closed_store_refuses(directory: Path) -> None:
    store = await open_store(str(directory), ManualClock(NOW))
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.append([event()])


# --- a disk that refuses ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(store: SqliteStore) -> Iterator[None]:
    """No page more than the database has now."""
    connection = store._connection
    ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
    connection.execute(f"PRAGMA max_page_count={pages}").fetchall()
    yield
    connection.execute("PRAGMA max_page_count=1073741823").fetchall()


async def test_a_full_disk_refuses_every_waiter_and_recovers(directory: Path) -> None:
    store = await open_store(str(directory), ManualClock(NOW), probe_every_s=0.01)
    heard: list[set[int]] = []
    store.on_messages = heard.append
    await store.append([event(1, size=3000)])
    (lease,) = await store.claim(1, now=NOW, until=NOW + DAY, limit=1)
    big = event(2, size=50_000, lease=True)._replace(messages=[NewMessage(9, "m", NOW, NOW, "text")])
    with full_disk(store):
        results = await asyncio.gather(
            store.append([big], lease_until=NOW + DAY),
            store.settle([Done(lease.seq, 1, lease.fence)]),
            store.conf_put([ConfChange("rule", "a", b"1")]),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [StoreUnavailable] * 3
        assert not store.healthy
        assert [item.event_id for item in await store.read(1)] == ["event-1"]
        assert await store.claim(1, now=NOW, until=NOW + DAY, limit=9) == []
        assert (await store.conf_list("rule"))[1] == []
        assert heard == []
    assert await store.settle([Done(lease.seq, 1, lease.fence)]) == [True], "the lease came through the refusal"
    await store.append([big], lease_until=NOW + DAY)
    assert store.healthy
    assert [item.event_id for item in await store.read(1)] == ["event-1", "event-2"]
    assert heard == [{9}]
    await store.close()


async def test_health_returns_with_the_disk_although_nobody_writes(directory: Path) -> None:
    store = await open_store(str(directory), ManualClock(NOW), probe_every_s=0.01)
    with full_disk(store), pytest.raises(StoreUnavailable):
        await store.append([event(1, size=100_000)])
    assert not store.healthy
    await until(lambda: store.healthy)
    await store.close()


FULL_DISK_SCRIPT = """
import asyncio, resource, sys
from bus.clock import SystemClock
from bus.errors import StoreUnavailable
from bus.store import Append, NewDelivery
from bus.store.sqlite import open_store

def event(n):
    return Append(1, f"event-{n}", 1, b"x" * 2000, deliveries=[NewDelivery(1, 1, 2)], keep=True)

async def main():
    store = await open_store(sys.argv[1], SystemClock())
    await store.append([event(0)])
    limit = store.wal_bytes + 100_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    accepted, refused = [0], 0
    for n in range(1, 200):
        try:
            await store.append([event(n)])
            accepted.append(n)
        except StoreUnavailable:
            refused += 1
    assert refused and not store.healthy, (refused, store.healthy)
    assert [e.event_id for e in await store.read(1)] == [f"event-{n}" for n in accepted]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.append([event(1000)])
    assert store.healthy
    print(*accepted, 1000, flush=True)
    if sys.argv[2] == "close":
        await store.close()
    else:
        import os; os._exit(0)

asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["close", "die"])
async def test_a_log_that_cannot_grow(directory: Path, end: str) -> None:
    """The system refuses the log's next page, for real, in a process of its own."""
    done = python(FULL_DISK_SCRIPT, directory, end)
    assert done.returncode == 0, done.stderr
    store = await open_store(str(directory), ManualClock(NOW))
    assert [item.event_id for item in await store.read(1)] == [f"event-{n}" for n in done.stdout.split()]
    assert (await store.backlog())[0].waiting == len(done.stdout.split())
    await store.close()


# --- the write-ahead log ----------------------------------------------------------------------------------------------


async def test_the_log_stays_below_twice_its_limit_under_load(directory: Path) -> None:
    limit = 4 << 20
    store = await open_store(str(directory), ManualClock(NOW), wal_limit=limit)
    written = largest = 0
    while written < 6 * limit:
        await asyncio.gather(*(store.append([event(size=9000)]) for _ in range(10)))
        written += 90_000
        largest = max(largest, store.wal_bytes)
    assert limit // 2 < largest < 2 * limit
    assert (await store.backlog())[0].waiting == written // 9000
    await store.close()


async def test_a_reader_holds_up_the_guard_but_not_the_writer(directory: Path) -> None:
    limit = 1 << 18
    store = await open_store(str(directory), ManualClock(NOW), wal_limit=limit)
    await store.append([event()])
    reader = apsw.Connection(str(directory / FILE_NAME))
    reader.execute("BEGIN; SELECT count(*) FROM event").fetchall()
    for _ in range(40):
        await store.append([event(size=20_000)])
    assert store.wal_bytes > 2 * limit
    assert store.healthy
    assert reader.execute("SELECT count(*) FROM event").fetchall() == [(1,)]
    reader.close()
    assert len(await store.read(1)) == 41
    await store.close()


async def test_a_long_log_is_given_back_when_nothing_happens(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.store.checkpoints.IDLE_AFTER_S", 0.01)
    store = await open_store(str(directory), ManualClock(NOW), wal_limit=1 << 20)
    await store.append([event(size=300_000)])
    assert store.wal_bytes > 0
    await until(lambda: store.wal_bytes == 0)
    assert len(await store.read(1)) == 1
    await store.close()


async def test_a_short_log_is_written_over_after_a_rest(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.store.checkpoints.IDLE_AFTER_S", 0.01)
    store = await open_store(str(directory), ManualClock(NOW))
    largest = 0
    for _ in range(5):
        await store.append([event(size=100_000)])
        largest = largest or store.wal_bytes
        await until(lambda: store._checkpoints._pages == 0)
        assert largest <= store.wal_bytes < 2 * largest
    assert len(await store.read(1)) == 5
    await store.close()


async def test_a_clean_stop_leaves_one_file_and_the_lock(directory: Path) -> None:
    await filled(directory)
    assert names(directory) == [FILE_NAME, LOCK_NAME]


# --- a busy loop ------------------------------------------------------------------------------------------------------


async def _rate(store: SqliteStore, *, spinning: bool, rounds: int = 6) -> float:
    """Events per second of 512 clients that wait for the disk, with or without other work of 1 ms a turn."""
    stop = False

    async def spin() -> None:
        while not stop:
            ends = time.perf_counter() + 0.001
            while time.perf_counter() < ends:
                pass
            await asyncio.sleep(0)

    async def client() -> None:
        for _ in range(rounds):
            await store.append([event(size=900)])

    spinner = asyncio.create_task(spin()) if spinning else None
    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(512)))
    rate = 512 * rounds / (time.perf_counter() - started)
    stop = True
    if spinner is not None:
        await spinner
    return rate


async def test_a_busy_loop_does_not_starve_the_writer(store: SqliteStore) -> None:
    """A writer thread fails this by orders of magnitude; rounds alternate so that a noisy machine hits both alike."""
    await _rate(store, spinning=False, rounds=1)
    free = busy = 0.0
    for _ in range(8):
        free = max(free, await _rate(store, spinning=False))
        busy = max(busy, await _rate(store, spinning=True))
        if busy >= 0.5 * free:
            break
    assert busy >= 0.5 * free


# --- kill -9 ----------------------------------------------------------------------------------------------------------

WRITER_SCRIPT = """
import asyncio, os, sys
from bus.clock import SystemClock
from bus.store import Append, Done, NewDelivery, NewMessage
from bus.store.sqlite import open_store

async def main():
    store = await open_store(sys.argv[1], SystemClock(), wal_limit=1 << 20)
    run = sys.argv[2]

    def event(batch, place):
        name = f"{run}.{batch}.{place}"
        wanted = [NewDelivery(route, 1, 1 << 60, lease=route == 2) for route in (1, 2)]
        return Append(1, name, 1, name.encode() * 40, deliveries=wanted, keep=True,
                      messages=[NewMessage(9, name.rjust(36, "0"), 1, 1, name)])

    async def client(number):
        batch = number
        while True:
            appended = await store.append([event(batch, place) for place in range(3)], lease_until=1 << 60)
            os.write(1, f"a {batch}\\n".encode())
            assert all(await store.settle([Done(a.seq, 2, a.fences[0]) for a in appended]))
            os.write(1, f"s {batch}\\n".encode())
            batch += 16

    os.write(1, b"ready\\n")
    await asyncio.gather(*(client(number) for number in range(16)))

asyncio.run(main())
"""


def _write_and_kill(directory: Path, run: int, lines: int) -> tuple[set[int], set[int]]:
    """Let a writer run until it has reported so many lines, kill it; the batches it knew appended, and settled."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER_SCRIPT, str(directory), str(run)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(lines)]
    writer.send_signal(signal.SIGKILL)
    said += writer.stdout.readlines()
    writer.wait()
    assert said[0] == b"ready\n"
    facts = [line.split() for line in said[1:] if line.endswith(b"\n")]
    appended, settled = ({int(batch) for kind, batch in facts if kind == which} for which in (b"a", b"s"))
    return appended, settled


async def test_killed_writers_lose_nothing_they_acknowledged(directory: Path) -> None:
    seed = random.randrange(1 << 32)
    choose = random.Random(seed)
    expected: list[tuple[int, set[int], set[int]]] = []
    for run in range(5):
        appended, settled = _write_and_kill(directory, run, choose.randrange(2, 400))
        expected.append((run, appended, settled))
    store = await open_store(str(directory), ManualClock(NOW))
    rows = store._connection.execute
    held: dict[tuple[int, int], list[int]] = {}
    for item in await store.read(1, limit=1_000_000):
        run, batch, place = map(int, item.event_id.split("."))
        assert item.body == item.event_id.encode() * 40
        held.setdefault((run, batch), []).append(place)
    assert all(places == [0, 1, 2] for places in held.values()), f"half a batch, or one twice (seed {seed})"
    waiting: dict[int, set[tuple[int, int]]] = {1: set(), 2: set()}
    for route, event_id in rows("SELECT route, id FROM delivery JOIN event USING(seq)"):
        run, batch, _ = map(int, event_id.split("."))
        waiting[route].add((run, batch))
    sent = [body for (body,) in rows("SELECT body FROM message")]
    assert len(sent) == len(set(sent)) == 3 * len(held), f"messages differ from events (seed {seed})"
    assert waiting[1] == held.keys()
    for run, appended, settled in expected:
        assert {(run, batch) for batch in appended} <= held.keys(), f"an acknowledged batch is gone (seed {seed})"
        assert not {(run, batch) for batch in settled} & waiting[2], f"a settlement is gone (seed {seed})"
    assert rows("PRAGMA integrity_check").fetchall() == [("ok",)]
    await store.close()


# --- size -------------------------------------------------------------------------------------------------------------


def _fill(path: Path, deliveries: int) -> None:
    """Deliveries as the store writes them, without its pace."""
    connection = connect(str(path))
    connection.execute("PRAGMA synchronous=OFF; BEGIN").fetchall()
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO event(id, bus, ts, body) SELECT printf('%036d', i), 1, ?, zeroblob(100) FROM n",
        (deliveries, NOW),
    )
    connection.execute(
        "INSERT INTO delivery(seq, route, due, expires) SELECT seq, seq % 10, ts + seq, ts + ? + seq FROM event", (DAY,)
    )
    connection.execute("COMMIT")
    connection.close()


MEMORY_SCRIPT = """
import asyncio, sys
from bus.clock import ManualClock
from bus.store.sqlite import open_store

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

async def main():
    store = await open_store(sys.argv[1], ManualClock())
    before = resident()
    assert sum(row.waiting for row in await store.backlog()) == 100_000
    now = 1_700_000_100_000
    for route in range(10):
        assert len(await store.claim(route, now=now, until=now + 1000, limit=100)) == 100
        await store.next_due(route)
    await store.next_expiry()
    print(resident() - before)
    await store.close()

asyncio.run(main())
"""


def test_memory_does_not_grow_with_the_backlog(directory: Path) -> None:
    """Objects for so many deliveries would take 50 MB and more; the page cache has its own bound."""
    directory.mkdir()
    _fill(directory / FILE_NAME, 100_000)
    done = python(MEMORY_SCRIPT, directory)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16 << 20


# --- archives ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["_READ", "_NTH", "_COUNT", "_LAST", "_OLD"])
async def test_no_question_to_an_archive_walks_through_it_or_sorts_it(store: SqliteStore, query: str) -> None:
    text = getattr(archives, query)
    plan = [step for *_, step in rows(store._connection, "EXPLAIN QUERY PLAN " + text, (1,) * _parameters(text))]
    assert any(step.startswith("SEARCH archived") for step in plan)
    assert not any(step.startswith("SCAN archived") or "TEMP B-TREE" in step for step in plan)


def _parameters(query: str) -> int:
    numbered = {int(number) for number in re.findall(r"\?(\d)", query)}
    return max(numbered) if numbered else query.count("?")
