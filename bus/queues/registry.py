"""Which queues there are: looked up in memory, changed only when the change is on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from bus.queues.queue import Queue, Record
from bus.scope import Scope
from bus.store import ConfChange, Store

KIND = "queue"


class Registry:
    """All queues by ARN and by number. ``lock`` is held over a check and the change that relies on it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_arn: dict[str, Queue] = {}
        self._by_number: dict[int, Queue] = {}
        self.lock = asyncio.Lock()

    async def load(self) -> None:
        """Read all queues."""
        _, entries = await self._store.conf_list(KIND)
        for entry in entries:
            if entry.value is not None:
                account, region, name = entry.key.split("/")
                self._add(Queue(Scope(account, region), name, msgspec.json.decode(entry.value, type=Record)))

    def find(self, arn: str) -> Queue | None:
        return self._by_arn.get(arn)

    def numbered(self, number: int) -> Queue | None:
        return self._by_number.get(number)

    def __iter__(self) -> Iterator[Queue]:
        return iter(list(self._by_arn.values()))

    def __len__(self) -> int:
        return len(self._by_arn)

    def numbers(self) -> set[int]:
        """The numbers of all queues."""
        return set(self._by_number)

    def of(self, scope: Scope) -> list[Queue]:
        """The queues of one account and region, by name."""
        return sorted((queue for queue in self._by_arn.values() if queue.scope == scope), key=lambda queue: queue.name)

    async def create(self, queue: Queue) -> None:
        """Keep a new queue."""
        await self._put(queue, queue.record)
        self._add(queue)

    async def change(self, queue: Queue, record: Record) -> None:
        """Keep the new record of a queue, and let the queue follow it."""
        await self._put(queue, record)
        del self._by_number[queue.number]
        queue.follow(record)
        self._by_number[queue.number] = queue

    async def delete(self, queue: Queue) -> None:
        """Forget a queue."""
        await self._put(queue, None)
        queue.gone = True
        del self._by_arn[queue.arn], self._by_number[queue.number]

    def sources(self, dead_letters: Queue) -> list[Queue]:
        """The queues whose redrive policy names ``dead_letters``, by name."""
        return [q for q in self.of(dead_letters.scope) if q.redrive is not None and q.redrive.arn == dead_letters.arn]

    def _add(self, queue: Queue) -> None:
        self._by_arn[queue.arn] = queue
        self._by_number[queue.number] = queue

    async def _put(self, queue: Queue, record: Record | None) -> None:
        value = None if record is None else msgspec.json.encode(record)
        await self._store.conf_put([ConfChange(KIND, queue.key, value)])
