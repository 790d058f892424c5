"""Receivers: who waits at which queue, and who gets which message.

Theory of operation. Each queue has a *line* of waiters in order of arrival; a receive that does not want to wait stands
in it too, for one *pass*. A pass is one transaction that goes along the line and gives every waiter what the queue
still has for it; it ends when the queue has nothing more. Then those who got something are answered, those who do not
wait are sent away empty-handed, and the rest stay where they are. There is at most one pass under way per line, and a
``kick`` during a pass asks for one more, so that nothing that happens meanwhile is missed.

A line is kicked when something may have become receivable: messages arrived (told by the store after its commit), a
receipt was used, and at the next instant at which a message becomes visible, which each pass leaves on the agenda.
Nothing polls.

A pass may find that a waiter has gone (its client disconnected) between the taking and the telling. What it was to get
is given back in a further transaction, as if it had never been received.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apsw

from bus.clock import Clock
from bus.errors import ApiError
from bus.queues.agenda import Agenda, Entry
from bus.queues.queue import DEDUP_WINDOW_MS, Queue
from bus.queues.registry import Registry
from bus.store import Store, message_upkeep, messages
from bus.store.messages import DeadLetters, Received

MAX_IN_FLIGHT = 120_000
"""Messages of one queue that may be with receivers at a time."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@dataclass(slots=True, eq=False)
class Waiter:
    """A receive: how many messages, invisible for how long (s), and until when it waits (ms)."""

    limit: int
    visibility: int
    deadline: int
    attempt: str | None = None
    future: asyncio.Future[list[Received]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    alarm: Entry | None = None
    timer: asyncio.TimerHandle | None = None

    def answer(self, rows: list[Received]) -> bool:
        """Whether it was still there to be answered."""
        if self.future.done():
            return False
        self.future.set_result(rows)
        return True


class _Pass(NamedTuple):
    """What a pass did: who was there, who gets what, whether there is more to discard, when to come again."""

    present: list[Waiter]
    handed: list[tuple[Waiter, list[Received]]]
    moved: int
    more: bool
    full: bool
    next_visible: int | None


class Reception:
    """The lines of all queues."""

    def __init__(self, store: Store, clock: Clock, agenda: Agenda, registry: Registry, spawn: Spawn) -> None:
        self.store = store
        self.clock = clock
        self.agenda = agenda
        self.registry = registry
        self.spawn = spawn
        self.patient = True
        self._lines: dict[Queue, Line] = {}

    def line(self, queue: Queue) -> Line:
        """The line of a queue, made when it is first asked for."""
        line = self._lines.get(queue)
        if line is None:
            line = self._lines[queue] = Line(self, queue)
        return line

    def arrived(self, numbers: Iterable[int]) -> None:
        """Messages were committed to these queues."""
        if self._lines:
            for number in numbers:
                queue = self.registry.numbered(number)
                if queue is not None:
                    self.kick(queue)

    def kick(self, queue: Queue) -> None:
        """Something may have become receivable."""
        line = self._lines.get(queue)
        if line is not None:
            line.kick()

    def drop(self, queue: Queue) -> None:
        """The queue is gone: whoever waits at it has waited enough."""
        line = self._lines.pop(queue, None)
        if line is not None:
            line.dismiss()

    def trim(self) -> None:
        """Forget receive attempts that nobody may repeat any more."""
        for line in self._lines.values():
            line.trim()

    def hang_up(self) -> None:
        """Answer everyone, and from now on let nobody wait."""
        self.patient = False
        for line in self._lines.values():
            line.dismiss()

    def dead_letters(self, queue: Queue) -> tuple[Queue, DeadLetters] | None:
        """Where exhausted messages of a queue go; None when it has no policy or no such queue takes them."""
        if queue.redrive is None:
            return None
        target = self.registry.find(queue.redrive.arn)
        if target is None or not target.takes_dead_letters_of(queue):
            return None
        return target, DeadLetters(target.number, queue.redrive.after, queue.arn, target.by_group)


class Line:
    """The waiters of one queue."""

    def __init__(self, reception: Reception, queue: Queue) -> None:
        self._reception = reception
        self._store = reception.store
        self._clock = reception.clock
        self._queue = queue
        self._waiters: dict[Waiter, None] = {}
        self._attempts: dict[str, tuple[int, list[tuple[int, int]]]] = {}
        self._serving = False
        self._again = False
        self._alarm: Entry | None = None
        self._in_flight: int | None = None
        self.watchers: set[asyncio.Event] = set()

    async def receive(self, waiter: Waiter) -> list[Received]:
        """Stand in the line until there is something, or the deadline has come."""
        self._waiters[waiter] = None
        left = waiter.deadline - self._clock.now_ms()
        if not self._reception.patient:
            waiter.deadline = 0
        elif left > 0:
            # The clock of the agenda may be set back, the loop's never is: whichever comes first ends the wait.
            waiter.alarm = self._reception.agenda.at(waiter.deadline, lambda: self._expire(waiter))
            waiter.timer = asyncio.get_running_loop().call_later(left / 1000, self._expire, waiter)
        self.kick()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self._reception.spawn(self._give_back(waiter.future.result()))
            raise
        finally:
            self._waiters.pop(waiter, None)
            if waiter.alarm is not None:
                waiter.alarm.cancel()
            if waiter.timer is not None:
                waiter.timer.cancel()

    def kick(self) -> None:
        """Ask for a pass, and wake whoever else follows the queue."""
        for watcher in self.watchers:
            watcher.set()
        self._again = True
        if self._waiters and not self._serving:
            self._serving = True
            self._reception.spawn(self._serve())

    def dismiss(self) -> None:
        """Answer all with nothing."""
        if self._alarm is not None:
            self._alarm.cancel()
        for waiter in self._waiters:
            waiter.answer([])
        for watcher in self.watchers:
            watcher.set()

    def trim(self) -> None:
        """Forget old attempts."""
        since = self._clock.now_ms() - DEDUP_WINDOW_MS
        self._attempts = {name: kept for name, kept in self._attempts.items() if kept[0] > since}

    def _expire(self, waiter: Waiter) -> None:
        waiter.answer([])

    # -- serving

    async def _serve(self) -> None:
        try:
            while self._again and self._waiters:
                self._again = False
                await self._settle(await self._store.transact(self._pass))
        except Exception as error:
            # Whoever waits here is the one to be told, whatever it was.
            for waiter in self._waiters:
                if not waiter.future.done():
                    waiter.future.set_exception(error)
        finally:
            self._serving = False

    def _pass(self, connection: apsw.Connection) -> _Pass:
        # May be run again when its transaction is rolled back: it leaves nothing behind but its result.
        now = self._clock.now_ms()
        present = [waiter for waiter in self._waiters if not waiter.future.done()]
        handed: list[tuple[Waiter, list[Received]]] = []
        found = self._reception.dead_letters(self._queue)
        dead = found[1] if found else None
        moved, more, empty, full = 0, False, self._queue.gone, False
        for waiter in present:
            rows = self._repeated(connection, waiter, now)
            if not rows and not empty:
                if not self._has_room(connection, waiter.limit, now):
                    empty = full = True
                    continue
                until = now + waiter.visibility * 1000
                source = self._queue.source(now)
                taken = messages.receive(connection, source, now=now, until=until, limit=waiter.limit, dead=dead)
                rows, moved, more = taken.messages, moved + taken.moved, taken.more
                empty = len(rows) < waiter.limit
            if rows:
                handed.append((waiter, rows))
        instant = messages.next_visible(connection, self._queue.source(now), now)
        return _Pass(present, handed, moved, more, full, instant)

    def _has_room(self, connection: apsw.Connection, limit: int, now: int) -> bool:
        # The count is kept as an upper bound and taken anew only when the bound reaches the limit.
        if self._in_flight is None or self._in_flight + limit > MAX_IN_FLIGHT:
            self._in_flight = message_upkeep.count_in_flight(connection, self._queue.source(now), now)
        return self._in_flight + limit <= MAX_IN_FLIGHT

    async def _settle(self, done: _Pass) -> None:
        lost: list[Received] = []
        for waiter, rows in done.handed:
            self._in_flight = (self._in_flight or 0) + len(rows)
            if waiter.attempt is not None:
                receipts = [(row.number, row.receives) for row in rows]
                self._attempts[waiter.attempt] = (self._clock.now_ms(), receipts)
            if waiter.answer(rows):
                self._waiters.pop(waiter, None)
            else:
                lost.extend(rows)
        self._send_away(done)
        self._come_again(done.next_visible)
        found = self._reception.dead_letters(self._queue)
        if done.moved and found:
            self._reception.kick(found[0])
        if lost:
            await self._give_back(lost)

    def _send_away(self, done: _Pass) -> None:
        now = self._clock.now_ms()
        if done.more:
            self._again = True
            return
        for waiter in done.present:
            if waiter.deadline > now or waiter.future.done():
                continue
            if done.full and not self._queue.fifo:
                text = f"Too many messages are in flight: the maximum is {MAX_IN_FLIGHT}."
                waiter.future.set_exception(ApiError("OverLimit", text))
            else:
                waiter.answer([])
            self._waiters.pop(waiter, None)

    def _come_again(self, instant: int | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        last = max((waiter.deadline for waiter in self._waiters), default=0)
        if instant is not None and instant < last:
            self._alarm = self._reception.agenda.at(instant, self.kick)

    def _repeated(self, connection: apsw.Connection, waiter: Waiter, now: int) -> list[Received]:
        """The messages of an earlier receive with the same attempt id, invisible anew."""
        kept = self._attempts.get(waiter.attempt) if waiter.attempt is not None else None
        if kept is None or kept[0] <= now - DEDUP_WINDOW_MS:
            return []
        until = now + waiter.visibility * 1000
        return messages.hold(connection, self._queue.number, kept[1], now=now, until=until)

    async def _give_back(self, rows: list[Received]) -> None:
        received = [row for row in rows if not row.repeated]
        if received:
            now = self._clock.now_ms()
            await self._store.transact(lambda connection: messages.give_back(connection, received, now=now))
            self.kick()
