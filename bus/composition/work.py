"""Setting to work: what was left behind first, and then the upkeep that goes on as long as the bus does."""

from __future__ import annotations

import asyncio

import structlog

from bus.composition import Foundation
from bus.composition.delivery import Delivery
from bus.composition.origins import Origins
from bus.composition.state import State
from bus.composition.wire import Wire
from bus.errors import StoreError, StoreUnavailable
from bus.scope import Call, Scope

log = structlog.get_logger("app")

TIDY_EVERY_S = 3600.0
"""An hour between looks for what no rule and no delivery uses any more."""

DEAD_LETTER_QUEUE = "dead-letters"
"""A queue that is there from the start, so that a target's dead letters have somewhere to go."""


async def begin(base: Foundation, state: State, delivery: Delivery, origins: Origins, wire: Wire) -> None:
    """Start everything that acts by itself; it is stopped in reverse order."""
    try:
        call = Call(Scope(base.settings.account_id, base.settings.region))
        await state.queues.create_queue(call, {"QueueName": DEAD_LETTER_QUEUE})
        await _forget_unused(base, state, delivery)
    except StoreUnavailable as error:
        log.error("started on a disk that refuses writes", reason=str(error))
    state.destinations.connections.start()
    await delivery.dispatch.start()
    base.stack.push_async_callback(delivery.dispatch.stop, base.settings.stop_grace)
    await origins.scheduler.start(state.catalog.rules())
    base.stack.push_async_callback(origins.scheduler.stop)
    origins.firing.start()
    base.stack.push_async_callback(origins.firing.stop)
    wire.groups.start()
    base.stack.push_async_callback(wire.groups.stop)
    await origins.replays.start()
    base.stack.push_async_callback(origins.replays.close)
    loop = asyncio.get_running_loop()
    for upkeep in (_tidy(base, state, delivery, origins), state.archives.keep_up()):
        base.stack.callback(loop.create_task(upkeep).cancel)


async def _tidy(base: Foundation, state: State, delivery: Delivery, origins: Origins) -> None:
    """Now and then let go of what replaced and removed targets have left behind, of replays long over, and of tags."""
    while True:
        await asyncio.sleep(TIDY_EVERY_S)
        try:
            await _forget_unused(base, state, delivery)
            await origins.replays.forget_old()
            await state.tag_book.forget_gone()
        except StoreError as error:
            log.warning("what nobody uses is kept for now", reason=str(error))


async def _forget_unused(base: Foundation, state: State, delivery: Delivery) -> None:
    in_use = {waiting.route for waiting in await base.store.backlog()}
    await state.catalog.forget_routes(in_use)
    await state.schedules.forget_routes(in_use)
    delivery.dispatch.forget_lanes()
