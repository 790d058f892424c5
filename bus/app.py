"""The composition root: from Settings to a running bus, wired by arguments and closed in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from bus.api.access import Access
from bus.api.request import Receive, Send
from bus.api.request import Scope as AsgiScope
from bus.api.rest import Rest
from bus.api.rpc import Rpc
from bus.archives import Archives
from bus.archives.replays import Replays
from bus.buses import Buses
from bus.catalog import Catalog
from bus.clock import Clock, IdSource, SystemClock
from bus.composition import Foundation
from bus.composition.delivery import open_delivery
from bus.composition.operators import open_operations
from bus.composition.origins import open_origins
from bus.composition.state import open_state
from bus.composition.wire import open_wire
from bus.composition.work import begin
from bus.config import Settings
from bus.dispatch import Dispatch
from bus.ingest import Ingest
from bus.metrics import Metrics
from bus.queues import Queues
from bus.scheduler import Scheduler
from bus.schedules.firing import Firing
from bus.store.sqlite import SqliteStore, open_store
from bus.targets.addresses import Addresses
from bus.watchers import Watchers
from bus.wires import Wires


@dataclass(slots=True, kw_only=True)
class App:
    """A running bus: the ASGI application, and the parts that tests and tools look at."""

    settings: Settings
    store: SqliteStore
    queues: Queues
    buses: Buses
    catalog: Catalog
    wires: Wires
    ingest: Ingest
    dispatch: Dispatch
    scheduler: Scheduler
    archives: Archives
    replays: Replays
    metrics: Metrics
    watchers: Watchers
    firing: Firing
    rpc: Rpc
    scheduler_api: Rest
    operations: Callable[[AsgiScope, Receive, Send], Any]
    closing: AsyncExitStack
    stopping: asyncio.Task[None] | None = None

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """AWS calls are POSTs that are not for the operator; everything else is looked up by path."""
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        if path.startswith("/_bus/") or path == "/metrics":
            await self.operations(scope, receive, send)
        elif path.startswith(self.scheduler_api.prefixes) and self.scheduler_api.serves(scope):
            await self.scheduler_api(scope, receive, send)
        else:
            await self.rpc(scope, receive, send)

    def begin_stop(self) -> None:
        """Start no more attempts, and answer everyone who waits for something to happen: nobody may delay a stop."""
        self.queues.hang_up()
        self.replays.hang_up()
        self.watchers.hang_up()
        self.stopping = asyncio.get_running_loop().create_task(self.dispatch.stop(self.settings.stop_grace))

    async def close(self) -> None:
        """Finish what is under way, then let go of everything in reverse order."""
        await self.closing.aclose()


async def open_app(settings: Settings, clock: Clock | None = None) -> App:
    """Open the store and wire everything to it; StoreUnusable and ConfigError say what is wrong."""
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        app = await _assemble(settings, clock, stack)
        app.closing = stack.pop_all()
        return app
    raise AssertionError("unreachable")


async def _assemble(settings: Settings, clock: Clock, stack: AsyncExitStack) -> App:
    """The stages in which a bus comes to be; what is opened later is closed earlier."""
    store = await open_store(settings.data_dir, clock)
    stack.push_async_callback(store.close)
    base = Foundation(settings, clock, IdSource(clock), Metrics(), Watchers(), Addresses(settings), store, stack)
    state = await open_state(base)
    delivery = open_delivery(base, state)
    origins = open_origins(base, state, delivery)
    access = Access(settings, clock=clock)
    wire = open_wire(base, state, delivery, origins, access)
    operations = open_operations(base, state, delivery, origins, access)
    await begin(base, state, delivery, origins, wire)
    return App(
        settings=settings,
        store=store,
        queues=state.queues,
        buses=state.buses,
        catalog=state.catalog,
        wires=state.wires,
        ingest=delivery.ingest,
        dispatch=delivery.dispatch,
        scheduler=origins.scheduler,
        archives=state.archives,
        replays=origins.replays,
        metrics=base.metrics,
        watchers=base.watchers,
        firing=origins.firing,
        rpc=wire.rpc,
        scheduler_api=wire.scheduler,
        operations=operations.app(),
        closing=stack,
    )
