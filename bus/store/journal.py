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
so that the loop is not done with its turn before the thread is. Meanwhile nothing else is written:
more rows wait for the thread, and other work until it has stopped. What waited for it is then
committed first, so that everything is done in the order in which it was submitted.

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
from bus.store.beside import Beside, Lot
from bus.store.database import in_our_terms, touch

Result = TypeVar("Result")
Work = Callable[[apsw.Connection], Any]

MAX_WEIGHT = 250
"""Events per transaction: beyond this little throughput is gained and latency is lost."""

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
        rows: Sequence[bytes] = (),
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
        committed: Callable[[int, bool], bool] | None = None,
        probe_every_s: float = PROBE_EVERY_S,
    ) -> None:
        """``beside`` is another connection, on which rows may be stored meanwhile.

        ``committed`` is told, after commits, of pages that came into the log without the connection's knowing, and
        whether nobody is writing now; True asks for that.
        """
        self._connection = connection
        self._queue: list[Item] = []
        """What is committed in the loop; rows that wait for the thread beside came before it."""
        self._planned = False
        self._beside: Beside[Item] | None = None if beside is None else Beside(beside, self._beside_ended)
        self._committed = committed or (lambda pages, alone: False)
        self._probe_every_s = probe_every_s
        self._probe: asyncio.TimerHandle | None = None
        self._committing = False
        """Whether a transaction is being run here, or who waited for it is being told."""
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
        if self._beside is not None:
            self._beside.stop_soon()
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
        item = Item(work, len(rows), lambda nothing: _safely(then), failed, rows=rows)
        if self._beside is None or self._queue or self._committing:
            self._queue.append(item)
        else:
            self._beside.offer(item)
        self._plan()

    def _plan(self) -> None:
        if not self._planned and (self._beside is None or not self._beside.busy):
            self._planned = True
            asyncio.get_running_loop().call_soon(self._flush)

    def close(self) -> None:
        """Commit what is queued now and take nothing more."""
        self._closed = True
        if self._probe is not None:
            self._probe.cancel()
        if self._beside is not None:
            beside, self._beside = self._beside, None
            over, self._queue[:0] = beside.close()
            self._beside_ended(over)
        self._flush()

    def _flush(self) -> None:
        self._planned = False
        if self._beside is not None:
            if self._beside.busy:
                return
            if self._beside.waits:
                if not self._queue and self._beside.begin():
                    return
                self._queue[:0] = self._beside.take_back()
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
        self._committed(0, True)

    def _beside_ended(self, lots: list[Lot[Item]]) -> None:
        """Lots of the thread are over; what it stored is on disk, or was rolled back."""
        for lot in lots:
            if lot.error is None:
                self._stands()
            else:  # then the thread has stopped
                self._rolled_back(lot.items, lot.error)
        alone = self._beside is None or not self._beside.busy
        if self._committed(sum(lot.pages for lot in lots), alone) and self._beside is not None:
            self._beside.stop_soon()
        self._flush()  # before the others are told: the thread works meanwhile
        for lot in lots:
            if lot.error is None:
                self._tell(lot.items, [None] * len(lot.items))

    def _commit(self, items: list[Item]) -> None:
        before, self._committing = self._committing, True
        try:
            results = self._run(items)
        except Exception as error:
            self._rolled_back(items, error)
        else:
            self._stands()
            self._tell(items, results)
        finally:
            self._committing = before

    def _stands(self) -> None:
        """A transaction is on disk."""
        self.commits += 1
        self.healthy = True

    def _tell(self, items: list[Item], results: list[Any]) -> None:
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
