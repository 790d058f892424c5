"""The composition root: from Settings to a running bus, wired by arguments in one place and closed in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog

from bus.api.access import Access
from bus.api.model import load_events, load_queues
from bus.api.operations import Operations
from bus.api.request import Receive, Send
from bus.api.request import Scope as AsgiScope
from bus.api.rpc import Rpc, ShortCut
from bus.buses import Buses
from bus.catalog import Catalog
from bus.clock import Clock, IdSource, SystemClock
from bus.config import Settings
from bus.dead_letters import DeadLetters
from bus.dispatch import Dispatch
from bus.entries import read_entries
from bus.errors import StoreError, StoreUnavailable, validation
from bus.ingest import Ingest
from bus.metrics import Metrics
from bus.queues import ERROR_CODES, Queues
from bus.scope import Call, Scope
from bus.store.sqlite import SqliteStore, open_store
from bus.tags import Tags
from bus.targets import Route, Target
from bus.targets.addresses import Addresses
from bus.targets.aws import AwsService
from bus.targets.event_bus import EventBus
from bus.targets.log import LogGroup, lines_for
from bus.targets.queue import QueueTarget
from bus.targets.webhook import Webhook
from bus.targets.wired import Wired
from bus.watchers import Watchers
from bus.wires import Wires
from rules.arn import ArnError, parse, queue_arn, target_kind

log = structlog.get_logger("app")

TIDY_EVERY_S = 3600.0
"""An hour between looks for what no rule and no delivery uses any more."""

DEAD_LETTER_QUEUE = "dead-letters"
"""A queue that is there from the start, so that a target's dead letters have somewhere to go."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Which target delivers for a route: a wire that covers its ARN first, then the ARN's kind."""

    by_kind: Mapping[str, Target]
    wired: Target
    match_wire: Callable[[str], str | None]

    def __call__(self, route: Route) -> Target:
        arn = route.arn
        if self.match_wire(arn) is not None:
            return self.wired
        return self.by_kind[_kind(arn)]


_kind = lru_cache(10_000)(target_kind)
"""Asked for every delivery; reading an ARN costs more than the rest of a hand-over."""


@dataclass(slots=True)
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
    metrics: Metrics
    watchers: Watchers
    rpc: Rpc
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
        else:
            await self.rpc(scope, receive, send)

    def begin_stop(self) -> None:
        """Start no more attempts, and answer everyone who waits for something to happen: nobody may delay a stop."""
        self.queues.hang_up()
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
        app.closing.push_async_exit(stack.pop_all())
        return app
    raise AssertionError("unreachable")


async def _assemble(settings: Settings, clock: Clock, stack: AsyncExitStack) -> App:
    """The stages in which a bus comes to be; what is opened later is closed earlier."""
    ids, metrics, watchers = IdSource(clock), Metrics(), Watchers()
    addresses = Addresses(settings)
    state = await _open_state(settings, clock, ids, addresses, stack)
    dispatch, ingest = _connect(settings, clock, ids, state, addresses, metrics, watchers, stack)
    access = Access(settings, clock=clock)
    rpc = Rpc(
        [load_events(), load_queues()],
        [ingest, state.buses, state.catalog, Tags({"rule": state.catalog, "event-bus": state.buses}), state.queues],
        access=access,
        max_body_bytes=settings.max_body_bytes,
        error_codes=ERROR_CODES,
        refused={"events:PutEvents": ingest.refused},
        short_cuts={"events:PutEvents": ShortCut(read_entries, ingest.put_entries)},
    )
    operations = _operations(settings, clock, ids, state, access, dispatch, metrics, watchers)
    await _begin(settings, state, dispatch, stack)
    return App(
        settings, state.store, state.queues, state.buses, state.catalog, state.wires, ingest, dispatch, metrics,
        watchers, rpc, operations.app(), AsyncExitStack(),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the store keeps, loaded."""

    store: SqliteStore
    queues: Queues
    buses: Buses
    catalog: Catalog
    wires: Wires


async def _open_state(
    settings: Settings, clock: Clock, ids: IdSource, addresses: Addresses, stack: AsyncExitStack
) -> State:
    store = await open_store(settings.data_dir, clock)
    stack.push_async_callback(store.close)

    queues = Queues(store, clock, ids, recreate_wait=settings.queue_recreate_wait)
    stack.push_async_callback(queues.close)
    await queues.load()
    store.on_messages = queues.arrived

    catalog: Catalog
    buses = Buses(store, clock, has_rules=lambda number: catalog.has_rules(number))  # noqa: PLW0108 - catalog comes next
    catalog = Catalog(store, settings, require_bus=buses.require, lock=buses.lock, check_url=addresses.check_url)
    wires = Wires(store, addresses.check_url)
    await buses.load()
    await catalog.load()
    await wires.load()
    return State(store, queues, buses, catalog, wires)


def _connect(
    settings: Settings,
    clock: Clock,
    ids: IdSource,
    state: State,
    addresses: Addresses,
    metrics: Metrics,
    watchers: Watchers,
    stack: AsyncExitStack,
) -> tuple[Dispatch, Ingest]:
    """The way of an event: in, matched, and out to its targets."""
    webhook, aws = Webhook(settings, clock, addresses), AwsService(settings)
    elsewhere = aws if settings.aws_endpoint_url else None
    queue_target = QueueTarget(state.queues.find, state.queues.message, elsewhere=elsewhere)
    log_group = LogGroup(lines_for(settings))
    by_kind: dict[str, Target] = {"webhook": webhook, "queue": queue_target, "log_group": log_group, "aws": aws}
    for target in by_kind.values():
        stack.push_async_callback(target.close)
    dispatch = Dispatch(
        state.store,
        clock,
        metrics=metrics,
        route=state.catalog.route,
        target=Targets(by_kind, Wired(webhook, state.wires.match), state.wires.match),
        dead_letter=queue_target.dead_letter,
        max_in_flight=settings.max_in_flight,
    )
    state.wires.changed = dispatch.look_for_targets
    ingest = Ingest(
        state.store,
        clock,
        ids,
        metrics=metrics,
        find_bus=state.buses.find,
        rule_set=state.catalog.ruleset,
        dispatch=dispatch,
        max_bytes=settings.max_put_events_bytes,
        watched=watchers.any,
        watch=watchers.show,
    )
    apart = settings.credentials is not None or settings.strict
    by_kind["event_bus"] = EventBus(ingest.forward, across_accounts=not apart)
    return dispatch, ingest


def _operations(
    settings: Settings,
    clock: Clock,
    ids: IdSource,
    state: State,
    access: Access,
    dispatch: Dispatch,
    metrics: Metrics,
    watchers: Watchers,
) -> Operations:
    """The operator's side."""
    store = state.store
    metrics.gauge("busbar_wal_bytes", "Size of the store's write-ahead log.", lambda: store.wal_bytes)
    metrics.gauge("busbar_deliveries_in_memory", "Deliveries claimed or under way.", dispatch.waiting)
    dead_letters = DeadLetters(
        store,
        clock,
        ids,
        queues=state.queues,
        dispatch=dispatch,
        route=lambda rule, target: _current_route(state.catalog, rule, target),
        bus_number=lambda route: state.buses.require(route.scope, route.bus).number,
    )
    return Operations(
        metrics=metrics,
        wires=state.wires,
        watchers=watchers,
        dead_letters=dead_letters,
        admit=lambda request: access.admit_operator(request) is not None,
        rules=state.catalog.rules_summary,
        find_queue=lambda text: state.queues.find(_queue_arn(settings, text)),
        health=lambda: _health(store, dispatch),
    )


async def _begin(settings: Settings, state: State, dispatch: Dispatch, stack: AsyncExitStack) -> None:
    """Set to work: what was left behind first."""
    try:
        await _first_queue(settings, state.queues)
        await _forget_unused(state.store, state.catalog, dispatch)
    except StoreUnavailable as error:
        log.error("started on a disk that refuses writes", reason=str(error))
    await dispatch.start()
    stack.push_async_callback(dispatch.stop, settings.stop_grace)
    tidying = asyncio.get_running_loop().create_task(_tidy(state.store, state.catalog, dispatch))
    stack.callback(tidying.cancel)


async def _tidy(store: SqliteStore, catalog: Catalog, dispatch: Dispatch) -> None:
    """Now and then let go of what replaced and removed targets have left behind."""
    while True:
        await asyncio.sleep(TIDY_EVERY_S)
        try:
            await _forget_unused(store, catalog, dispatch)
        except StoreError as error:
            log.warning("routes nobody uses are kept for now", reason=str(error))


async def _forget_unused(store: SqliteStore, catalog: Catalog, dispatch: Dispatch) -> None:
    await catalog.forget_routes({waiting.route for waiting in await store.backlog()})
    dispatch.forget_lanes()


def _current_route(catalog: Catalog, rule_arn: str, target_arn: str) -> Route | str:
    """The rule's target as it stands now, or a sentence that says what is missing."""
    for rule in catalog.rules():
        if rule.arn == rule_arn:
            found = next((route for route in rule.routes if route.arn == target_arn), None)
            return found or f"rule {rule.name} has no target {target_arn} any more"
    return f"there is no rule {rule_arn} any more"


def _queue_arn(settings: Settings, text: str) -> str:
    """A queue as an operator names it: by ARN, or by name in the server's own account and region."""
    if text.startswith("arn:"):
        try:
            return str(parse(text))
        except ArnError as error:
            raise validation(f"{text} does not name a queue: {error}") from None
    return queue_arn(text, region=settings.region, account=settings.account_id)


def _health(store: SqliteStore, dispatch: Dispatch) -> dict[str, Any]:
    return {
        "status": "ok" if store.healthy else "the disk refuses writes",
        "deliveries_in_memory": dispatch.waiting(),
        "wal_bytes": store.wal_bytes,
    }


async def _first_queue(settings: Settings, queues: Queues) -> None:
    call = Call(Scope(settings.account_id, settings.region))
    await queues.create_queue(call, {"QueueName": DEAD_LETTER_QUEUE})
