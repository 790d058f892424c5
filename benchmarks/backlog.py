"""Filling a stopped bus's store with deliveries that wait, through the Store protocol.

As a process: ``python -m benchmarks.backlog '{"data_dir": ..., "count": ..., "target": ID, "failed": false}'``. The
route of the target with that Id must be there. With ``failed`` each delivery has one failed attempt behind it and its
next one is due within the coming minute; otherwise it is due now and untried.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks import events
from bus.clock import IdSource, SystemClock
from bus.resources import load_route
from bus.store import Append, Appended, NewDelivery, Retry
from bus.store.sqlite import SqliteStore, open_store

CHUNK = 125
DAY_MS = 86_400_000
SPREAD_MS = 60_000
REFUSED = "CONNECTION_FAILURE\tNo connection: Connection refused."


class Filler:
    """Appends events for one route."""

    def __init__(self, store: SqliteStore, route: int, *, failed: bool) -> None:
        self._store = store
        self._route = route
        self._failed = failed
        self._clock = SystemClock()
        self._ids = IdSource(self._clock)
        self._bodies = cycle(events.envelopes(256))

    async def add(self, count: int) -> None:
        """One transaction's worth."""
        now = self._clock.now_ms()
        delivery = NewDelivery(self._route, now, now + DAY_MS, self._failed)
        batch = [Append(1, self._ids.new(), now, next(self._bodies), None, [delivery]) for _ in range(count)]
        appended = await self._store.append(batch, lease_until=now + DAY_MS)
        if self._failed:
            await self._store.settle([self._retry(place, now, stored) for place, stored in enumerate(appended)])

    def _retry(self, place: int, now: int, stored: Appended) -> Retry:
        due = now + SPREAD_MS * place // CHUNK
        return Retry(stored.seq, self._route, stored.fences[0], due, REFUSED)


async def _route_of(store: SqliteStore, target: str) -> int:
    _, entries = await store.conf_list("route")
    for entry in entries:
        if entry.value is not None and load_route(int(entry.key), entry.value).target["Id"] == target:
            return int(entry.key)
    raise LookupError(f"no route leads to a target with the Id {target}")


async def fill(job: dict[str, Any]) -> dict[str, Any]:
    """Add the deliveries; how many wait afterwards."""
    store = await open_store(job["data_dir"], SystemClock())
    try:
        filler = Filler(store, await _route_of(store, job["target"]), failed=job["failed"])
        left = job["count"]
        while left:
            await filler.add(min(CHUNK, left))
            left -= min(CHUNK, left)
        return {"waiting": sum(lane.waiting for lane in await store.backlog())}
    finally:
        await store.close()


def forget_cached(data_dir: Path) -> None:
    """Have the system drop what it holds of the directory's files, so that the next reader meets the disk."""
    for path in data_dir.iterdir():
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(fill(json.loads(sys.argv[1])))))
