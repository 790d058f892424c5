"""Keeping the write-ahead log short without making anyone wait for it.

Theory of operation. Automatic checkpoints would stop the loop for tens of milliseconds now and
then. Instead a thread with a connection of its own copies pages back every two seconds, and sooner
when the log has grown much (PASSIVE: it never blocks the writer, and being starved by a busy loop
does no harm beyond a larger log). PASSIVE cannot make the log begin again while the writer keeps
writing, so the writer itself does that (RESTART) when the log reaches its limit, and when nothing
was written for a moment and the thread has copied everything. A short file is kept then, because
writing over blocks it has is up to one and a half times as fast as making it grow; a long one is
given back (TRUNCATE), because whoever opens the database after a crash has to read it.

The log's length is the number of pages since it began, not the size of its file: that does not
shrink when the log begins again. SQLite tells it after every commit of the writer's connection and
every pass of the thread; what another connection adds is counted in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading

import apsw

from bus.store.database import BUSY_TIMEOUT_MS, PAGE_SIZE, open_again

WAL_LIMIT = 256 * 1024 * 1024
PASSIVE_EVERY_S = 2.0
IDLE_AFTER_S = 1.0
RETRY_BUSY_S = 1.0


class Checkpoints:
    """Checkpoints of one database; does nothing for one in memory."""

    def __init__(self, connection: apsw.Connection, path: str | None, *, wal_limit: int = WAL_LIMIT) -> None:
        self._connection = connection
        self._path = path
        self._limit = wal_limit // PAGE_SIZE
        self._kept_bytes = wal_limit // 4
        self._copy_at = self._limit // 2
        self._pages = 0
        self._not_before = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._last_commit = 0.0
        self._passes = 0
        """Passes the thread has begun."""
        self._complete = 0
        """The latest pass that ended."""
        self._needed = 0
        """The pass that will have seen the latest commit."""
        self._passing = False
        self._stop = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        if path is not None:
            connection.set_wal_hook(self._written)
            self._thread = threading.Thread(target=self._run, args=(path,), name="checkpoints", daemon=True)
            self._thread.start()

    def wal_bytes(self) -> int:
        """Size of the write-ahead log's file."""
        if self._path is None:
            return 0
        try:
            return os.stat(self._path + "-wal").st_size
        except FileNotFoundError:
            return 0

    def _written(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def committed(self, beside: int = 0, alone: bool = True) -> bool:
        """After commits: guard the log's length, and remember to begin it again when nothing follows.

        ``beside`` are pages that another connection added, of which this one's own commits did not tell. ``alone``
        says that nobody is writing now; True asks to be called as soon as that is so.
        """
        if self._path is None:
            return False
        self._pages += beside
        loop = asyncio.get_running_loop()
        self._last_commit = loop.time()
        self._needed = self._passes + 1
        if self._idle is None:
            self._idle = loop.call_later(IDLE_AFTER_S, self._when_idle, loop)
        if self._pages > self._limit:
            if self._last_commit < self._not_before:
                return False
            if not alone:
                return True
            self._begin_again(apsw.SQLITE_CHECKPOINT_RESTART, loop)
        elif self._pages > self._copy_at:
            self._copy_at = self._pages + self._limit // 8
            self._wake.set()
        elif self._pages < self._limit // 2:
            self._copy_at = self._limit // 2
        return False

    def _when_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        self._idle = None
        quiet = loop.time() - self._last_commit
        if quiet < IDLE_AFTER_S:
            self._idle = loop.call_later(IDLE_AFTER_S - quiet, self._when_idle, loop)
        elif self._complete < self._needed:  # let the thread do the copying
            self._wake.set()
            self._idle = loop.call_later(IDLE_AFTER_S, self._when_idle, loop)
        else:
            short = self.wal_bytes() <= self._kept_bytes
            mode = apsw.SQLITE_CHECKPOINT_RESTART if short else apsw.SQLITE_CHECKPOINT_TRUNCATE
            if not self._begin_again(mode, loop):
                self._idle = loop.call_later(RETRY_BUSY_S, self._when_idle, loop)

    def _begin_again(self, mode: int, loop: asyncio.AbstractEventLoop) -> bool:
        """Make the log begin again, without waiting for readers: when one is busy, again a second later."""
        self._connection.set_busy_timeout(0)
        try:
            self._connection.wal_checkpoint(mode=mode)
        except apsw.Error:  # busy, or a disk that refuses: the next commit will tell whoever waits for it
            if not self._passing:  # the thread is soon done, a reader may take long
                self._not_before = loop.time() + RETRY_BUSY_S
            return False
        finally:
            self._connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        self._pages = 0
        return True

    def _run(self, path: str) -> None:
        connection: apsw.Connection | None = None
        while True:
            self._wake.wait(PASSIVE_EVERY_S)
            self._wake.clear()
            if self._stop:
                break
            self._passes += 1
            self._passing = True
            with contextlib.suppress(apsw.Error):  # a disk that refuses: the next round tries again
                connection = connection or open_again(path, cache_kib=2048)
                self._pages, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                self._complete = self._passes
            self._passing = False
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """End the thread and leave the log empty."""
        self._stop = True
        self._wake.set()
        if self._idle is not None:
            self._idle.cancel()
        if self._thread is not None:
            self._thread.join()
            with contextlib.suppress(apsw.Error):  # what stays in the log is read from it at the next start
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
