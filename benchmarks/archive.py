"""Filling the archive of a stopped bus, through the Store protocol.

As a process: ``python -m benchmarks.archive '{"data_dir": ..., "count": ..., "source": ...}'``. The one archive of the
bus must be there; the events' own times are `PER_SECOND` to a second, from `FIRST` on.
"""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import cycle
from typing import Any

import orjson

from benchmarks import events
from bus.archives.archived import measure
from bus.clock import SystemClock
from bus.store import Append, NewArchived
from bus.store.sqlite import open_store
from rules.event import format_time

CHUNK = 250
FIRST = 1_767_225_600
PER_SECOND = 500


async def fill(job: dict[str, Any]) -> dict[str, Any]:
    """Add the events; how many the archive holds afterwards."""
    clock = SystemClock()
    store = await open_store(job["data_dir"], clock)
    try:
        _, (entry,) = await store.conf_list("archive")
        number = int(orjson.loads(entry.value or b"")["number"])
        bodies = cycle(events.envelopes(256, source=job["source"]))
        for done in range(0, job["count"], CHUNK):
            time = FIRST + done // PER_SECOND
            now, text = clock.now_ms(), format_time(time).encode()
            batch = []
            for body in (next(bodies) for _ in range(min(CHUNK, job["count"] - done))):
                dated = body.replace(events.TIME.encode(), text, 1)
                batch.append(
                    Append(1, "archived", now, dated, archives=[NewArchived(number, time, measure(dated).size)])
                )
            await store.append(batch)
        (size,) = await store.archive_sizes()
        return {"events": size.events, "until": FIRST + job["count"] // PER_SECOND + 1}
    finally:
        await store.close()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(fill(json.loads(sys.argv[1])))))
