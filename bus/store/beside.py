"""Storing rows of messages beside the event loop.

Theory of operation. A writer thread starves beside a busy loop: it needs the interpreter lock for each of its
statements, and the loop lets go of it for microseconds only. This thread has one statement for all rows of a commit
(`bus.store.message_rows`), which is a transaction by itself: rows, index, log and forced write are one call without the
lock, during which the loop works on the next requests. Then it needs the lock for a moment, and gets it when the loop
has nothing to do; a loop that always has something to do stands still for it after `PATIENCE_S`. While it has the lock
it takes what waits by then as its next lot, so that it never waits for the loop to hand it one. Only when it is idle
the loop calls it, and `begin` waits until it has taken the lock and given it back.

As long as the thread is busy nobody else may write; the journal sees to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, NamedTuple, Protocol, TypeVar

import apsw

from bus.store import message_rows

PATIENCE_S = 0.005

ENOUGH_ROWS, MOST_ROWS = 64, 500
"""Storing fewer rows in the loop takes no longer than calling the thread; and at most so many go in one transaction of
the thread."""

MOST_BYTES = 1 << 20
"""Of rows in one transaction of the thread, for which the loop may have to stand still."""


class Rows(Protocol):
    """Some rows that are stored together."""

    @property
    def rows(self) -> Sequence[bytes]: ...


Item = TypeVar("Item", bound=Rows)


class Lot(NamedTuple, Generic[Item]):
    """What went into one transaction: ``error`` if nothing of it is there, else the pages that it added to the log."""

    items: list[Item]
    error: Exception | None
    pages: int


class Beside(Generic[Item]):
    """A thread with a connection of its own that stores one lot of rows after another.

    ``ended`` is called in the loop with lots that are over, in their order.
    """

    def __init__(self, connection: apsw.Connection, ended: Callable[[list[Lot[Item]]], None]) -> None:
        """``connection`` is for this alone, and closed with it."""
        self._connection = connection
        self._ended = ended
        self._guard = threading.Lock()
        """Of what waits, and of the lots that are over: both sides change them."""
        self._waiting: list[Item] = []
        self._waiting_rows = 0
        self._over: list[Lot[Item]] = []
        """Lots of which ``ended`` was not told yet."""
        self._writing = False
        """The thread ends it after its lot has come to those that are over, and `busy` looks in the other order."""
        self._stop_soon = False
        """Whether the thread is to stop after the lot under way."""
        self._starts: SimpleQueue[tuple[asyncio.AbstractEventLoop, list[Item]] | None] = SimpleQueue()
        self._begun = threading.Lock()
        """Released by the thread when it has a start, and taken by `begin`, which waits for that; held otherwise."""
        self._begun.acquire()
        self._signs: SimpleQueue[None] = SimpleQueue()
        """Wakes `_wait` after each lot; what counts is what is over."""
        self._patience: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None

    # -- in the loop

    @property
    def busy(self) -> bool:
        """Whether nobody else may write: ``ended`` will be called."""
        return self._writing or bool(self._over)

    @property
    def waits(self) -> bool:
        """Whether there are rows that the thread has not begun to store."""
        return bool(self._waiting)

    def offer(self, item: Item) -> None:
        """Take rows, of which there is at least one; the thread begins when enough of them wait."""
        with self._guard:
            self._waiting.append(item)
            self._waiting_rows += len(item.rows)
        if self._waiting_rows >= ENOUGH_ROWS:
            self.begin()

    def begin(self) -> bool:
        """Have the thread store what waits, unless that is little; whether it is busy then."""
        if self.busy:
            return True
        if self._waiting_rows < ENOUGH_ROWS or not self._start():
            return False
        with self._guard:
            self._writing, self._stop_soon = True, False
            items = self._next_lot()
        self._starts.put((asyncio.get_running_loop(), items))
        self._begun.acquire()
        self._be_patient()
        return True

    def stop_soon(self) -> None:
        """Let the thread not go on after the lot under way."""
        self._stop_soon = True

    def take_back(self) -> list[Item]:
        """What waits, for the loop to store; not to be called while the thread is busy."""
        with self._guard:
            items, self._waiting, self._waiting_rows = self._waiting, [], 0
            return items

    def close(self) -> tuple[list[Lot[Item]], list[Item]]:
        """Finish the lot under way and end the thread: the lots that ``ended`` was not told of, and what waits."""
        self.stop_soon()
        if self._thread is not None:
            self._starts.put(None)
            self._thread.join()
            self._thread = None
        if self._patience is not None:
            self._patience.cancel()
        self._connection.close()
        over, self._over = self._over, []
        return over, self.take_back()

    def _start(self) -> bool:
        """Have the thread run; False when the system gives none."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="messages", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def _look(self) -> None:
        """Tell of lots that are over, unless that has been done."""
        with self._guard:
            over, self._over = self._over, []
        while not self._signs.empty():
            self._signs.get()
        if over:
            self._be_patient()
            self._ended(over)

    def _be_patient(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._wait) if self._writing else None

    def _wait(self) -> None:
        """The loop is too busy to let the thread have the lock: stand still until a lot is over."""
        while self._writing and not self._over:
            self._signs.get()
        self._look()

    # -- in the thread

    def _run(self) -> None:
        while (start := self._starts.get()) is not None:
            loop, items = start
            del start
            self._begun.release()
            while items:
                error = self._store(items)
                items = self._next(Lot(items, error, self._take_pages()))
                self._signs.put(None)
                with contextlib.suppress(RuntimeError):  # the loop is closed: whoever closes this looks by itself
                    loop.call_soon_threadsafe(self._look)

    def _store(self, items: list[Item]) -> Exception | None:
        try:
            message_rows.store(self._connection, message_rows.bound([row for item in items for row in item.rows]))
        except Exception as error:
            return error
        return None

    def _take_pages(self) -> int:
        """Pages that were added to the log since this was last asked."""
        try:
            return self._connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)[0]
        except apsw.Error:
            return 0

    def _next(self, lot: Lot[Item]) -> list[Item]:
        """What is stored after a lot; nothing if few rows wait, the loop wants to write, or something is wrong."""
        with self._guard:
            self._over.append(lot)
            self._writing = self._waiting_rows >= ENOUGH_ROWS and not self._stop_soon and lot.error is None
            return self._next_lot() if self._writing else []

    # -- in either

    def _next_lot(self) -> list[Item]:
        """Take what waits, as far as it is not too much for one transaction."""
        rows = size = 0
        for count, item in enumerate(self._waiting):
            rows, size = rows + len(item.rows), size + sum(map(len, item.rows))
            if count and (rows > MOST_ROWS or size > MOST_BYTES):
                taken, self._waiting = self._waiting[:count], self._waiting[count:]
                self._waiting_rows -= rows - len(item.rows)
                return taken
        taken, self._waiting, self._waiting_rows = self._waiting, [], 0
        return taken
