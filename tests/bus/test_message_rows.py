"""Rows of plain messages: what they come to, here and beside the loop, and that SQLite compacts as the rules do."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.clock import ManualClock
from bus.errors import StoreError, StoreUnavailable
from bus.store import NewMessage, message_rows
from bus.store.beside import ENOUGH_ROWS, MOST_BYTES, MOST_ROWS, Beside, Lot
from bus.store.database import FILE_NAME, connect, open_again, rows
from bus.store.journal import MAX_WEIGHT
from bus.store.sqlite import SqliteStore, open_store
from rules.event import compact_detail, resolve_escapes

QUEUE = 1 << 40
NOW = 1_700_000_000_000
STORED = (
    "SELECT queue, id, visible, sent, body, typeof(body), attrs, grp, dedup, head, receives FROM message"
    " ORDER BY number"
)


def message_id(number: int) -> str:
    return f"{number:036d}"


def row(number: int, text: str = "text", letter: bytes = message_rows.AS_IT_IS) -> bytes:
    head = message_rows.beginning(QUEUE, NOW + number, NOW)
    return head + message_id(number).encode() + letter + text.encode()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_store(str(tmp_path / "data"), ManualClock(NOW))
    yield store
    await store.close()


async def send(store: SqliteStore, lot: Sequence[bytes]) -> None:
    """Send rows and wait for them."""
    sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    store.send(lot, {QUEUE}, then=lambda: sent.set_result(None), failed=sent.set_exception)
    await sent


def stored(store: SqliteStore) -> list[tuple[Any, ...]]:
    return rows(store._connection, STORED)


TEXTS = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=40), min_size=1, max_size=2 * ENOUGH_ROWS)


@settings(max_examples=25, deadline=None)
@given(TEXTS)
def test_rows_come_to_the_same_as_messages(texts: list[str]) -> None:
    async def both() -> tuple[list[Any], list[Any]]:
        sent, appended = [await open_store(":memory:", ManualClock(NOW)) for _ in range(2)]
        await send(sent, [row(number, text) for number, text in enumerate(texts)])
        messages = [NewMessage(QUEUE, message_id(n), NOW + n, NOW, text) for n, text in enumerate(texts)]
        await appended.append([], messages=messages)
        answer = stored(sent), stored(appended)
        await sent.close()
        await appended.close()
        return answer

    sent, appended = asyncio.run(both())
    assert sent == appended


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SPACE = st.sampled_from(["", " ", "  ", "\t", "\n", "\r\n"])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5), SPACE, SPACE, SPACE, st.booleans())
def test_sqlite_compacts_a_loose_text_as_the_rules_do(
    value: dict[str, Any], before: str, inside: str, after: str, ascii: bool
) -> None:
    separators = (f"{inside},{before}", f"{before}:{inside}")
    text = before + json.dumps(value, separators=separators, ensure_ascii=ascii) + after
    expected = compact_detail(text)
    assert expected is not None
    loose = resolve_escapes(text).decode() if "\\" in text else text
    assert compacted(loose) == expected.decode()


@pytest.mark.parametrize(
    "text",
    [
        '{ "a" : 1 , "a" : 2 }',
        '{"n": [1.50, -0.0, 1e999, 1E+5, 123456789012345678901234567890, 0.10e-7]}',
        '{"s": "a\\"b\\\\c\\n : , { } [ ]  "}',
        " \t\r\n{ } \n",
        '{"a": [ ] , "b" : { } , "" : null}',
        '{"deep": ' + "[ " * 400 + "]" * 400 + "}",
        '{"é\u2028\ufeff": "\U0001f600 \x7f"}',
    ],
)
def test_what_the_rules_keep_sqlite_keeps(text: str) -> None:
    expected = compact_detail(text)
    assert expected is not None
    assert compacted(text) == expected.decode()


def compacted(text: str) -> str:
    """What is stored of a loose text."""
    connection = connect(":memory:")
    message_rows.store(connection, message_rows.bound([row(0, text, message_rows.LOOSE)]))
    ((body,),) = connection.execute("SELECT body FROM message").fetchall()
    connection.close()
    return str(body)


def test_the_longest_loose_text_is_never_too_deep_for_sqlite() -> None:
    half = message_rows.LONGEST_LOOSE // 2
    nested = '{"detail":' + "[" * half + "]" * half + "}"
    assert compacted(nested) == nested


# --- beside the loop --------------------------------------------------------------------------------------------------


async def test_many_rows_are_stored_by_the_thread_as_in_the_loop(store: SqliteStore) -> None:
    texts = [f'{{"n" : {number}, "s": "Zoë"}}' for number in range(ENOUGH_ROWS)]
    lot = [row(number, text, message_rows.LOOSE) for number, text in enumerate(texts)]
    await send(store, lot)
    assert thread() is not None, "so many rows are worth it"
    in_memory = await open_store(":memory:", ManualClock(NOW))
    await send(in_memory, lot)
    assert stored(store) == stored(in_memory)
    await in_memory.close()


def thread() -> threading.Thread | None:
    return next((each for each in threading.enumerate() if each.name == "messages"), None)


async def test_few_rows_need_no_thread(store: SqliteStore) -> None:
    await send(store, [row(number) for number in range(ENOUGH_ROWS - 1)])
    assert thread() is None
    assert len(stored(store)) == ENOUGH_ROWS - 1


async def test_enough_rows_are_on_their_way_before_the_turn_ends(store: SqliteStore) -> None:
    answers: list[int] = []
    for number in range(ENOUGH_ROWS):
        store.send([row(number)], {QUEUE}, then=lambda number=number: answers.append(number), failed=pytest.fail)
    assert thread() is not None
    await until(lambda: len(answers) == ENOUGH_ROWS)
    assert answers == list(range(ENOUGH_ROWS)), "in the order in which they were sent"


async def test_what_is_submitted_meanwhile_waits_its_turn(store: SqliteStore) -> None:
    """Two writers at once would be refused by the database, or wait for each other for seconds."""
    results = await asyncio.gather(
        *(send(store, [row(number)]) for number in range(ENOUGH_ROWS)),
        *(send(store, [row(number)]) for number in range(100, 100 + 2 * MOST_ROWS)),
        return_exceptions=True,
    )
    assert results == [None] * (ENOUGH_ROWS + 2 * MOST_ROWS)
    mixed: list[Any] = []
    for number in range(20):
        mixed += [
            send(store, [row(number)] * ENOUGH_ROWS),
            store.transact(lambda connection: connection.total_changes()),
        ]
    assert not [
        result for result in await asyncio.gather(*mixed, return_exceptions=True) if isinstance(result, Exception)
    ]
    assert len(stored(store)) == ENOUGH_ROWS + 2 * MOST_ROWS + 20 * ENOUGH_ROWS


async def test_no_more_than_so_many_rows_go_in_one_transaction(store: SqliteStore) -> None:
    before = store.journal.commits
    await asyncio.gather(*(send(store, [row(number)] * 100) for number in range(11)))
    assert store.journal.commits - before == 1 + 2, "one at once, and what came meanwhile in lots of 500"


async def test_receivers_hear_of_rows_after_the_commit_and_before_the_sender(store: SqliteStore) -> None:
    heard: list[Any] = []
    store.on_messages = lambda queues: heard.append((queues, len(stored(store))))
    store.send([row(0)] * ENOUGH_ROWS, {QUEUE}, then=lambda: heard.append("sender"), failed=pytest.fail)
    await until(lambda: "sender" in heard)
    assert heard == [({QUEUE}, ENOUGH_ROWS), "sender"]


async def test_what_the_disk_refuses_beside_the_loop_is_told_and_not_there(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(store, [row(0)] * ENOUGH_ROWS)
    whole = message_rows.store

    def full(connection: apsw.Connection, bound: Any) -> None:
        whole(connection, bound) if connection.in_transaction else refuse()

    def refuse() -> None:
        raise apsw.FullError("database or disk is full")

    monkeypatch.setattr(message_rows, "store", full)
    with pytest.raises(StoreUnavailable, match="full"):
        await send(store, [row(1)] * ENOUGH_ROWS)
    assert not store.healthy
    assert len(stored(store)) == ENOUGH_ROWS
    monkeypatch.undo()
    await send(store, [row(2)] * ENOUGH_ROWS)
    assert store.healthy


async def test_a_refusal_is_not_forgotten_over_a_lot_that_was_stored_before_it(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, lots = message_rows.store, threading.Semaphore(0)

    def full_after_one(connection: apsw.Connection, bound: Any) -> None:
        lots.acquire()
        if store.journal._beside is not None and store.journal._beside._over:
            raise apsw.FullError("database or disk is full")
        whole(connection, bound)

    monkeypatch.setattr(message_rows, "store", full_after_one)
    first, second = (asyncio.ensure_future(send(store, [row(number)] * ENOUGH_ROWS)) for number in range(2))
    while not store.journal._beside.waits:  # type: ignore[union-attr]  # noqa: ASYNC110 - until both are submitted
        await asyncio.sleep(0)
    lots.release(2)
    while len(store.journal._beside._over) < 2:  # type: ignore[union-attr]
        store.journal._beside._signs.get(timeout=20)  # type: ignore[union-attr]  # meanwhile the loop stands still
    await first
    with pytest.raises(StoreUnavailable, match="full"):
        await second
    assert not store.healthy
    monkeypatch.undo()
    await send(store, [row(2)])
    assert store.healthy


async def test_rows_that_are_sent_while_others_are_told_come_behind_what_waits(store: SqliteStore) -> None:
    """The thread must not begin while the loop is not done with its own transactions."""
    told: list[str] = []

    def send_more() -> None:
        store.send([row(1)] * ENOUGH_ROWS, {QUEUE}, then=lambda: told.append("more"), failed=pytest.fail)
        assert thread() is None

    count = lambda connection: rows(connection, "SELECT count(*) FROM message")  # noqa: E731
    counts = [store.journal.submit(count)]
    store.send([row(0)] * 10, {QUEUE}, then=send_more, failed=pytest.fail)
    counts.append(store.journal.submit(count, weight=MAX_WEIGHT))
    assert await asyncio.gather(*counts) == [[(0,)], [(10,)]]
    await until(lambda: bool(told))


async def test_a_full_disk_refuses_rows_and_recovers(store: SqliteStore) -> None:
    await send(store, [row(0)] * ENOUGH_ROWS)
    beside = store.journal._beside
    assert beside is not None
    await send(store, [row(0)] * ENOUGH_ROWS)
    ((pages,),) = store._connection.execute("PRAGMA page_count").fetchall()
    connections = [each for each in apsw.connections() if each.filename == store._connection.filename]
    for each in connections:
        each.execute(f"PRAGMA max_page_count={pages}").fetchall()
    with pytest.raises(StoreUnavailable):
        await send(store, [row(1, "x" * 9000)] * ENOUGH_ROWS)
    assert len(stored(store)) == 2 * ENOUGH_ROWS
    for each in connections:
        each.execute("PRAGMA max_page_count=1073741823").fetchall()
    await send(store, [row(1, "x" * 9000)] * ENOUGH_ROWS)
    assert len(stored(store)) == 3 * ENOUGH_ROWS


async def test_a_bad_row_fails_alone(store: SqliteStore) -> None:
    lots = [[row(0)] * ENOUGH_ROWS, [row(1, "{no json", message_rows.LOOSE)], [row(2)] * ENOUGH_ROWS]
    results = await asyncio.gather(*(send(store, lot) for lot in lots), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), StoreError, type(None)]
    assert len(stored(store)) == 2 * ENOUGH_ROWS
    assert store.healthy


async def test_a_lot_is_bounded_by_its_bytes_too(store: SqliteStore) -> None:
    before = store.journal.commits
    large = [row(0, "x" * (MOST_BYTES // 4))] * 2
    await asyncio.gather(*(send(store, large) for _ in range(ENOUGH_ROWS)))
    assert store.journal.commits - before > ENOUGH_ROWS // 4


async def test_without_a_thread_the_loop_stores_rows(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    await send(store, [row(0)] * ENOUGH_ROWS)
    monkeypatch.undo()
    assert thread() is None
    await send(store, [row(0)] * ENOUGH_ROWS)
    assert thread() is not None
    assert len(stored(store)) == 2 * ENOUGH_ROWS


async def test_a_callback_that_fails_holds_up_nobody(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["message"]))
    heard: list[str] = []

    def fail(*arguments: object) -> None:
        raise ValueError

    store.send([row(0)] * ENOUGH_ROWS, {QUEUE}, then=fail, failed=fail)
    await send(store, [row(1)])
    store.send([row(2, "{", message_rows.LOOSE)] * ENOUGH_ROWS, {QUEUE}, then=fail, failed=fail)
    store.send([row(3, "{", message_rows.LOOSE)], {QUEUE}, then=fail, failed=lambda error: heard.append(str(error)))
    await send(store, [row(4)])
    assert ["malformed JSON" in each for each in heard] == [True]
    assert told == ["a callback failed after its commit"] * 2
    store.on_messages = fail
    await send(store, [row(5)])
    assert len(told) == 3, "the sender hears of it all the same"


async def test_closing_waits_for_what_is_under_way(tmp_path: Path) -> None:
    store = await open_store(str(tmp_path), ManualClock(NOW))
    answers: list[str] = []
    for _ in range(3):
        store.send([row(0)] * ENOUGH_ROWS, {QUEUE}, then=lambda: answers.append("stored"), failed=pytest.fail)
    await store.close()
    assert answers == ["stored"] * 3
    assert thread() is None
    store.send([row(0)], {QUEUE}, then=pytest.fail, failed=lambda error: answers.append(type(error).__name__))
    assert answers[3:] == ["StoreUnavailable"]
    database = apsw.Connection(str(tmp_path / FILE_NAME))
    assert database.execute("SELECT count(*) FROM message").fetchall() == [(3 * ENOUGH_ROWS,)]
    database.close()


async def test_the_log_begins_again_although_only_the_thread_writes(tmp_path: Path) -> None:
    limit = 1 << 20
    store = await open_store(str(tmp_path), ManualClock(NOW), wal_limit=limit)
    largest = 0
    for _ in range(100):
        await send(store, [row(0, "x" * 3000)] * ENOUGH_ROWS)
        largest = max(largest, store.wal_bytes)
    assert limit // 2 < largest < 3 * limit, "ten times as much was written"
    await store.close()


async def test_the_log_begins_again_although_the_thread_never_rests(tmp_path: Path) -> None:
    limit = 1 << 20
    store = await open_store(str(tmp_path), ManualClock(NOW), wal_limit=limit)
    largest = 0

    async def flood() -> None:
        nonlocal largest
        for _ in range(50):
            await send(store, [row(0, "x" * 3000)] * ENOUGH_ROWS)
            largest = max(largest, store.wal_bytes)

    await asyncio.gather(*(flood() for _ in range(4)))
    assert limit // 2 < largest < 8 * limit, "forty times as much was written"
    await store.close()


async def test_the_thread_goes_on_by_itself_with_what_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = await open_store(str(tmp_path), ManualClock(NOW))
    await make.close()
    over: list[Lot[Item]] = []
    beside: Beside[Item] = Beside(open_again(str(tmp_path / FILE_NAME), cache_kib=100), over.extend)
    whole, may_store = message_rows.store, threading.Event()

    def when_it_may(connection: apsw.Connection, bound: Any) -> None:
        may_store.wait(20)
        whole(connection, bound)

    monkeypatch.setattr(message_rows, "store", when_it_may)
    beside.offer(Item([row(0)] * ENOUGH_ROWS))
    for number in range(1, 1 + ENOUGH_ROWS):
        beside.offer(Item([row(number)]))
    may_store.set()
    while len(beside._over) < 2:
        beside._signs.get(timeout=20)  # meanwhile the loop stands still
    assert beside.busy, "as long as nobody has been told"
    await until(lambda: bool(over))
    assert [len(lot.items) for lot in over] == [1, ENOUGH_ROWS]
    assert not beside.busy
    beside.close()


async def test_other_work_comes_behind_the_rows_that_were_submitted_before_it(store: SqliteStore) -> None:
    told: list[None] = []
    submit = lambda lot: store.send(lot, {QUEUE}, then=lambda: told.append(None), failed=pytest.fail)  # noqa: E731
    counts = []
    for number in range(30):
        submit([row(number)] * ENOUGH_ROWS)
        submit([row(number)])
        counts.append(store.journal.submit(lambda connection: rows(connection, "SELECT count(*) FROM message")))
        await asyncio.sleep(0)
    seen = await asyncio.gather(*counts)
    assert seen == [[(number * (ENOUGH_ROWS + 1),)] for number in range(1, 31)]
    await until(lambda: len(told) == 60)


async def test_a_busy_loop_waits_for_the_thread(tmp_path: Path) -> None:
    """A loop that is never idle keeps the interpreter lock to itself; it has to stand still for the thread."""
    make = await open_store(str(tmp_path), ManualClock(NOW))
    await make.close()
    over: list[Lot[Item]] = []
    beside: Beside[Item] = Beside(open_again(str(tmp_path / FILE_NAME), cache_kib=100), over.extend)
    for count in range(1, 20):
        beside.offer(Item([row(0)] * ENOUGH_ROWS))
        assert beside.begin()
        turns = 0
        while len(over) < count:
            sum(range(2000))
            await asyncio.sleep(0)
            turns += 1
            assert turns < 1_000_000
    assert [lot.error for lot in over] == [None] * 19
    assert all(lot.pages > 0 for lot in over)
    assert beside.close() == ([], []), "each was told of once"


class Item(NamedTuple):
    rows: Sequence[bytes]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is a callback
            await asyncio.sleep(0)
