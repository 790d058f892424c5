"""Group commit: everything that one turn of the event loop wants written is one transaction.

Theory of operation. Work is a function over the connection. ``submit`` queues it and, when no flush
is planned, plans one with ``call_soon``; by the time it runs, every request that became readable in
the same turn has queued its own. ``_flush`` runs the queue in transactions of at most `MAX_WEIGHT`
events and forces each to disk once. Only then do the futures get their results, so nothing is
answered, published or delivered before its commit.

The commit runs in the loop itself. A writer thread looks better and is starved: a busy loop takes
the interpreter lock back within microseconds on every turn, while the thread needs it for each
statement. Blocking the loop for the length of one forced write is the known, bounded price.

The exception are rows of messages: when there is nothing else to write and they are many, they go
in one statement that does not need the lock (`bus.store.beside`), and as soon as they are enough,
so that the loop is not done with its turn before the thread is. Meanwhile nothing else is written,
and what is submitted shares the next transaction.

When a transaction fails, it is rolled back. If the disk refused it, everything in it is refused;
otherwise its items are run one by one, so that a bad item fails alone. Work must therefore leave
the memory of the process alone until ``then`` is called, or undo itself in ``undo``.

After a refusal a small write is tried every second until one succeeds, so that ``healthy`` tells
the truth even when no one has anything to store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

from bus.errors import StoreUnavailable
from bus.store import message_rows
from bus.store.beside import Beside
from bus.store.database import in_our_terms, touch

Result = TypeVar("Result")
Work = Callable[[apsw.Connection], Any]

MAX_WEIGHT = 250
"""Events per transaction: beyond this little throughput is gained and latency is lost."""

FEW_ROWS, ENOUGH_ROWS, MOST_ROWS = 32, 64, 500
"""Storing fewer than few rows in the loop takes no longer than calling the thread; enough do not wait for more, and at
most so many go in one transaction of the thread."""

MOST_BYTES = 1 << 20
"""Of rows in one transaction of the thread, for which the loop may have to stand still."""

PROBE_EVERY_S = 1.0
CLOSED = "the store is closed"


class Item:
    """One piece of work and whoever waits for it; ``rows`` are all that it comes to, where it is no more.

    ``then`` is called with the result, ``failed`` with the error, ``undo`` before either when it was rolled back.
    """

    __slots__ = ("failed", "rows", "then", "undo", "weight", "work")

    def __init__(
        self,
        work: Work,
        weight: int,
        then: Callable[[Any], None],
        failed: Callable[[Exception], None],
        undo: Callable[[], None] | None = None,
        rows: Sequence[bytes] | None = None,
    ) -> None:
        self.work = work
        self.weight = weight
        self.then = then
        self.failed = failed
        self.undo = undo
        self.rows = rows


class Journal:
    """The queue of work for the next commit."""

    def __init__(
        self,
        connection: apsw.Connection,
        *,
        beside: apsw.Connection | None = None,
        committed: Callable[[int], None] | None = None,
        probe_every_s: float = PROBE_EVERY_S,
    ) -> None:
        """``beside`` is another connection, on which rows may be stored meanwhile.

        ``committed`` is told, after a flush, of pages that came into the log without the connection's knowing.
        """
        self._connection = connection
        self._queue: list[Item] = []
        self._waiting_rows = 0
        self._other_than_rows = False
        self._planned = False
        self._beside = None if beside is None else Beside(beside, self._beside_ended)
        self._under_way: list[Item] = []
        """What the thread beside is storing; nothing else may be written before it is done."""
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
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def succeed(result: Result) -> None:
            if then is not None:
                _safely(then, result)
            if not future.done():
                future.set_result(result)

        def fail(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        if self._closed:
            fail(StoreUnavailable(CLOSED))
            return future
        self._queue.append(Item(work, weight, succeed, fail, undo))
        self._other_than_rows = True
        self._plan()
        return future

    def submit_rows(
        self, rows: Sequence[bytes], *, then: Callable[[], None], failed: Callable[[Exception], None]
    ) -> None:
        """The same for rows of messages, of which there is at least one, and for one who does not wait."""
        if self._closed:
            failed(StoreUnavailable(CLOSED))
            return
        work = lambda connection: message_rows.store(connection, message_rows.bound(rows))  # noqa: E731
        self._queue.append(Item(work, len(rows), lambda nothing: _safely(then), failed, rows=rows))
        self._waiting_rows += len(rows)
        if self._waiting_rows >= ENOUGH_ROWS:
            self._try_beside()
        self._plan()

    def _plan(self) -> None:
        if not self._planned and not self._under_way and self._queue:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._flush)

    def close(self) -> None:
        """Commit what is queued now and take nothing more."""
        self._closed = True
        if self._probe is not None:
            self._probe.cancel()
        if self._beside is not None:
            beside, self._beside = self._beside, None
            beside.close()
        self._flush()

    def _flush(self) -> None:
        self._planned = False
        if self._under_way or not self._queue or (self._waiting_rows >= FEW_ROWS and self._try_beside()):
            return
        queue = self._take()
        start, weight = 0, 0
        for position, item in enumerate(queue):
            if weight and weight + item.weight > MAX_WEIGHT:
                self._commit(queue[start:position])
                start, weight = position, 0
            weight += item.weight
        self._commit(queue[start:])
        if self._committed is not None:
            self._committed(0)

    def _take(self) -> list[Item]:
        """All that waits."""
        taken, self._queue = self._queue, []
        self._waiting_rows, self._other_than_rows = 0, False
        return taken

    def _take_rows(self) -> list[Item]:
        """What waits, as far as it is not too much for one transaction."""
        rows = size = 0
        for count, item in enumerate(self._queue):
            rows, size = rows + item.weight, size + sum(map(len, item.rows or ()))
            if count and (rows > MOST_ROWS or size > MOST_BYTES):
                taken, self._queue = self._queue[:count], self._queue[count:]
                self._waiting_rows -= rows - item.weight
                return taken
        return self._take()

    def _try_beside(self) -> bool:
        """Have the thread store what waits, unless that is more than rows, or it is busy."""
        if self._beside is None or self._under_way or self._other_than_rows:
            return False
        if not self._beside.start():
            return False
        self._under_way = self._take_rows()
        self._beside.write([row for item in self._under_way for row in item.rows or ()])
        return True

    def _beside_ended(self, error: Exception | None) -> None:
        """The thread is done; what it stored is on disk, or was rolled back."""
        items, self._under_way = self._under_way, []
        if error is not None:
            self._rolled_back(items, error)
        if self._committed is not None and self._beside is not None:
            self._committed(self._beside.take_pages())
        self._flush()  # first of all: the thread works while the others are told
        if error is None:
            self._stand(items, [None] * len(items))

    def _commit(self, items: list[Item]) -> None:
        try:
            results = self._run(items)
        except Exception as error:
            self._rolled_back(items, error)
        else:
            self._stand(items, results)

    def _stand(self, items: list[Item], results: list[Any]) -> None:
        """The transaction is on disk."""
        self.commits += 1
        self.healthy = True
        for item, result in zip(items, results, strict=True):
            item.then(result)

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
            _safely(item.failed, told)

    def _refused(self) -> None:
        self.healthy = False
        if self._probe is None and not self._closed:
            self._probe = asyncio.get_running_loop().call_later(self._probe_every_s, self._try_again)

    def _try_again(self) -> None:
        self._probe = None
        if not self.healthy:
            self.submit(touch).add_done_callback(asyncio.Future.exception)  # a failure plans the next try


def _safely(then: Callable[..., None], *arguments: Any) -> None:
    """What happens after a commit: it stands, so an error is reported and holds up nobody."""
    try:
        then(*arguments)
    except Exception as error:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a callback failed after its commit", "exception": error}
        )
