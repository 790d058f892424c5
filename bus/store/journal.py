"""Group commit: everything that one turn of the event loop wants written is one transaction.

Theory of operation. Work is a function over the connection. ``submit`` queues it and, when no flush
is planned, plans one with ``call_soon``; by the time it runs, every request that became readable in
the same turn has queued its own. ``_flush`` runs the queue in transactions of at most `MAX_WEIGHT`
events and forces each to disk once. Only then do the futures get their results, so nothing is
answered, published or delivered before its commit.

The commit runs in the loop itself. A writer thread looks better and is starved: a busy loop takes
the interpreter lock back within microseconds on every turn, while the thread needs it for each
statement. Blocking the loop for the length of one forced write is the known, bounded price.

When a transaction fails, it is rolled back. If the disk refused it, everything in it is refused;
otherwise its items are run one by one, so that a bad item fails alone. Work must therefore leave
the memory of the process alone until ``then`` is called, or undo itself in ``undo``.

After a refusal a small write is tried every second until one succeeds, so that ``healthy`` tells
the truth even when no one has anything to store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import apsw

from bus.errors import StoreUnavailable
from bus.store.database import in_our_terms, touch

Result = TypeVar("Result")
Work = Callable[[apsw.Connection], Any]

MAX_WEIGHT = 250
"""Events per transaction: beyond this little throughput is gained and latency is lost."""

PROBE_EVERY_S = 1.0


class Item:
    """One piece of work and whoever waits for it."""

    __slots__ = ("future", "then", "undo", "weight", "work")

    def __init__(
        self,
        work: Work,
        future: asyncio.Future[Any],
        weight: int,
        then: Callable[[Any], None] | None,
        undo: Callable[[], None] | None,
    ) -> None:
        self.work = work
        self.future = future
        self.weight = weight
        self.then = then
        self.undo = undo

    def succeed(self, result: Any) -> None:
        """What happens after the commit; it stands, so an error in ``then`` is reported and holds up nobody."""
        if self.then is not None:
            try:
                self.then(result)
            except Exception as error:
                self.future.get_loop().call_exception_handler(
                    {"message": "a callback failed after its commit", "exception": error}
                )
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Journal:
    """The queue of work for the next commit."""

    def __init__(
        self,
        connection: apsw.Connection,
        *,
        committed: Callable[[], None] | None = None,
        probe_every_s: float = PROBE_EVERY_S,
    ) -> None:
        self._connection = connection
        self._queue: list[Item] = []
        self._planned = False
        self._committed = committed
        self._probe_every_s = probe_every_s
        self._probe: asyncio.TimerHandle | None = None
        self._closed = False
        self.commits = 0
        self.healthy = True

    def submit(
        self,
        work: Callable[[apsw.Connection], Result],
        *,
        weight: int = 1,
        then: Callable[[Result], None] | None = None,
        undo: Callable[[], None] | None = None,
    ) -> asyncio.Future[Result]:
        """Queue ``work`` for this turn's transaction; the future holds its result once that is on disk.

        ``then`` is called with the result right after the commit, before anyone else runs;
        ``undo`` when the transaction was rolled back.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        if self._closed:
            future.set_exception(StoreUnavailable("the store is closed"))
            return future
        self._queue.append(Item(work, future, weight, then, undo))
        if not self._planned:
            self._planned = True
            loop.call_soon(self._flush)
        return future

    def close(self) -> None:
        """Commit what is queued now and take nothing more."""
        self._closed = True
        if self._probe is not None:
            self._probe.cancel()
        self._flush()

    def _flush(self) -> None:
        self._planned = False
        queue, self._queue = self._queue, []
        if not queue:
            return
        start, weight = 0, 0
        for position, item in enumerate(queue):
            if weight and weight + item.weight > MAX_WEIGHT:
                self._commit(queue[start:position])
                start, weight = position, 0
            weight += item.weight
        self._commit(queue[start:])
        if self._committed is not None:
            self._committed()

    def _commit(self, items: list[Item]) -> None:
        try:
            results = self._run(items)
        except Exception as error:
            self._rolled_back(items, error)
            return
        self.commits += 1
        self.healthy = True
        for item, result in zip(items, results, strict=True):
            item.succeed(result)

    def _run(self, items: list[Item]) -> list[Any]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [item.work(connection) for item in items]
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with contextlib.suppress(apsw.Error):  # the first error is the one to tell
                    connection.execute("ROLLBACK")
            raise
        return results

    def _rolled_back(self, items: list[Item], error: Exception) -> None:
        for item in items:
            if item.undo is not None:
                item.undo()
        told = in_our_terms(error) if isinstance(error, apsw.Error) else error
        if isinstance(told, StoreUnavailable):
            self._refused()
        elif len(items) > 1:
            for item in items:
                self._commit([item])
            return
        for item in items:
            item.fail(told)

    def _refused(self) -> None:
        self.healthy = False
        if self._probe is None and not self._closed:
            self._probe = asyncio.get_running_loop().call_later(self._probe_every_s, self._try_again)

    def _try_again(self) -> None:
        self._probe = None
        if not self.healthy:
            self.submit(touch).add_done_callback(asyncio.Future.exception)  # a failure plans the next try
