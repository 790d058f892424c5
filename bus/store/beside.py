"""Storing rows of messages beside the event loop.

Theory of operation. A writer thread starves beside a busy loop: it needs the interpreter lock for each of its
statements, and the loop lets go of it for microseconds only. This thread has one statement for all rows of a commit
(`bus.store.message_rows`), which is a transaction by itself: rows, index, log and forced write are one call without the
lock, XX
The journal sees to it that nobody else writes meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import NamedTuple

import apsw

from bus.store import message_rows
from bus.store.database import open_again

PATIENCE_S = 0.002

CACHE_KIB = 8192
"""Holds the pages of a commit; what was stored before is not looked at."""


class Written(NamedTuple):
    """What became of a write: the pages it added to the log, or why nothing of it is there."""

    pages: int = 0
    error: Exception | None = None


class Beside:
    """A thread with a connection of its own that stores one lot of rows at a time.

    ``ended`` is called in the loop when a lot is over, with what became of it.
    """

    def __init__(self, path: str, ended: Callable[[Written], None]) -> None:
        self._path = path
        self._ended = ended
        self._lots: SimpleQueue[tuple[asyncio.AbstractEventLoop, message_rows.Bound] | None] = SimpleQueue()
        self._written = Written()
        self._begun, self._over = threading.Lock(), threading.Lock()
        """Released when a lot is begun, and when it is over; held otherwise."""
        self._begun.acquire()
        self._over.acquire()
        self._patience: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None

    def write(self, lot: Sequence[bytes]) -> None:
        """Begin to store rows, in order; not to be called again before that has ended."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="messages", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        self._lots.put((loop, message_rows.bound(lot)))
        self._begun.acquire()
        self._patience = loop.call_later(PATIENCE_S, self._wait)

    def close(self) -> None:
        """Finish what is under way and end the thread."""
        if self._thread is not None:
            self._lots.put(None)
            self._thread.join()
            self._thread = None
            self._look()

    def _wait(self) -> None:
        """The loop is too busy to let the thread have the lock: stand still until it is done."""
        self._over.acquire()
        self._end()

    def _look(self) -> None:
        """A lot is over, unless that was seen to."""
        if self._over.acquire(blocking=False):
            self._end()

    def _end(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._ended(self._written)

    def _run(self) -> None:
        connection: apsw.Connection | None = None
        while (lot := self._lots.get()) is not None:
            loop, bound = lot
            self._begun.release()
            try:
                connection = connection or open_again(self._path, cache_kib=CACHE_KIB)
                message_rows.store(connection, bound)
                self._written = Written(connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)[0])
            except Exception as error:
                self._written = Written(error=error)
            del lot, bound
            self._over.release()
            with contextlib.suppress(RuntimeError):  # the loop is closed: whoever closes this looks by itself
                loop.call_soon_threadsafe(self._look)
        if connection is not None:
            connection.close()
