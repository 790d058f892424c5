"""Storing rows of messages beside the event loop.

Theory of operation. A writer thread starves beside a busy loop: it needs the interpreter lock for each of its
statements, and the loop lets go of it for microseconds only. This thread has one statement for all rows of a commit
(`bus.store.message_rows`), which is a transaction by itself: rows, index, log and forced write are one call without the
lock, during which the loop works on the next requests. To begin it needs the lock once, and `write` waits until it is
given back. To end it needs it once more, and gets it when the loop has nothing to do; a loop that always has something
to do stands still for it after `PATIENCE_S`.

The journal sees to it that nobody else writes meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import apsw

from bus.store import message_rows

PATIENCE_S = 0.005


class Beside:
    """A thread with a connection of its own that stores one lot of rows at a time.

    ``ended`` is called in the loop when a lot is over, with the error if nothing of it is there.
    """

    def __init__(self, connection: apsw.Connection, ended: Callable[[Exception | None], None]) -> None:
        """``connection`` is for this alone, and closed with it."""
        self._connection = connection
        self._ended = ended
        self._lots: SimpleQueue[tuple[asyncio.AbstractEventLoop, message_rows.Bound] | None] = SimpleQueue()
        self._begun = threading.Lock()
        """Released by the thread when it begins a lot, and taken by `write`, which waits for that; held otherwise."""
        self._begun.acquire()
        self._over: SimpleQueue[None] = SimpleQueue()
        """Has something when a lot is over; emptied when the next one begins."""
        self._written, self._finished, self._told = 0, 0, 0
        """How many lots were written, how many of them the thread has finished, and of how many ``ended`` was told.

        The thread only changes the second; the loop does the rest, whichever of `_look` and `_wait` comes first.
        """
        self._pages = 0
        self._error: Exception | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> bool:
        """Have the thread run; False when the system gives none."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="messages", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def write(self, lot: Sequence[bytes]) -> None:
        """Begin to store rows, in order, once started; not to be called again before that has ended."""
        loop = asyncio.get_running_loop()
        bound = message_rows.bound(lot)
        self._written += 1
        self._lots.put((loop, bound))
        self._begun.acquire()
        self._patience = loop.call_later(PATIENCE_S, self._wait)

    def take_pages(self) -> int:
        """Pages that were added to the log since this was last asked."""
        pages, self._pages = self._pages, 0
        return pages

    def close(self) -> None:
        """Finish what is under way and end the thread."""
        if self._thread is not None:
            self._lots.put(None)
            self._thread.join()
            self._thread = None
            self._look()
        self._connection.close()

    def _look(self) -> None:
        """Tell that a lot is over, unless that is known."""
        if self._told < self._finished:
            if self._patience is not None:
                self._patience.cancel()
            self._told = self._finished
            self._ended(self._error)

    def _wait(self) -> None:
        """The loop is too busy to let the thread have the lock: stand still until it is done."""
        while self._finished < self._written:
            self._over.get()
        self._look()

    def _run(self) -> None:
        connection = self._connection
        while (lot := self._lots.get()) is not None:
            loop, bound = lot
            while not self._over.empty():
                self._over.get()
            self._begun.release()
            self._error = None
            try:
                message_rows.store(connection, bound)
                self._pages += connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)[0]
            except Exception as error:
                self._error = error
            del lot, bound
            self._finished += 1
            self._over.put(None)
            with contextlib.suppress(RuntimeError):  # the loop is closed: whoever closes this looks by itself
                loop.call_soon_threadsafe(self._look)
