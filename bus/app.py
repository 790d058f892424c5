"""The composition root: from Settings to a running bus, wired by arguments in one place and closed in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog

from bus.api import Method
from bus.api.access import Access
from bus.api.model import Operation, load_events, load_queues, load_scheduler
from bus.api.operations import Operations
from bus.api.request import Receive, Send
from bus.api.request import Scope as AsgiScope
from bus.api.rest import Rest
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
from bus.scheduler import Scheduler
from bus.schedules import Schedules
from bus.schedules.firing import Firing
from bus.schedules.groups import Groups
from bus.schedules.invocation import NO_BUS
from bus.schedules.registry import Registry
from bus.schedules.targets import TargetChecks
from bus.scope import Call, Scope
from bus.store.sqlite import SqliteStore, open_store
from bus.tags import Tags
from bus.targets import Route, Target
from bus.targets.addresses import Addresses
from bus.targets.aws import AwsService
from bus.targets.event_bus import EventBus
from bus.targets.log import LogGroup, lines_for
from bus.targets.queue import QueueTarget
from bus.targets.scheduled import AwsApi, PutEvents, Scheduled, ScheduledNow
from bus.targets.universal import action_of
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
    scheduler: Scheduler
    metrics: Metrics
    watchers: Watchers
    rpc: Rpc
    scheduler_api: Rest
    firing: Firing
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
    own: dict[tuple[str, str], tuple[Operation, Method]] = {}
    dispatch, ingest = _connect(settings, clock, ids, state, addresses, metrics, watchers, own, stack)
    scheduler = Scheduler(state.store, clock, metrics=metrics, put=ingest.put)
    state.catalog.on_rule = scheduler.changed
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
    operations = _operations(settings, clock, ids, state, access, dispatch, scheduler, metrics, watchers)
    groups = Groups(clock, state.schedules)
    scheduler_api = _scheduler_api(settings, clock, state, access, addresses, groups)
    for operation, method in (*rpc.methods(), *scheduler_api.methods()):
        own[operation.service, operation.name] = operation, method
    await _begin(settings, state, dispatch, scheduler, stack)
    firing = Firing(state.store, clock, state.schedules, dispatch=dispatch)
    await _begin_schedules(firing, groups, stack)
    return App(
        settings, state.store, state.queues, state.buses, state.catalog, state.wires, ingest, dispatch,
        scheduler, metrics, watchers, rpc, scheduler_api, firing, operations.app(), AsyncExitStack(),
    )  # fmt: skip


def _scheduler_api(
    settings: Settings, clock: Clock, state: State, access: Access, addresses: Addresses, groups: Groups
) -> Rest:
    """EventBridge Scheduler's wire and what answers it."""
    checks = TargetChecks(check_url=addresses.check_url, action_of=action_of)
    schedules = Schedules(state.store, clock, state.schedules, targets=checks, may=access.may)
    return Rest(load_scheduler(), [schedules, groups], access=access, max_body_bytes=settings.max_body_bytes)


async def _begin_schedules(firing: Firing, groups: Groups, stack: AsyncExitStack) -> None:
    """Fire what is due; what was missed first."""
    firing.start()
    stack.push_async_callback(firing.stop)
    groups.start()
    stack.push_async_callback(groups.stop)


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the store keeps, loaded."""

    store: SqliteStore
    queues: Queues
    buses: Buses
    catalog: Catalog
    wires: Wires
    schedules: Registry


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
    catalog = Catalog(store, settings, clock, require_bus=buses.require, lock=buses.lock, check_url=addresses.check_url)
    wires = Wires(store, addresses.check_url)
    await buses.load()
    await catalog.load()
    await wires.load()
    schedules = Registry(store)
    await schedules.load()
    return State(store, queues, buses, catalog, wires, schedules)


def _connect(
    settings: Settings,
    clock: Clock,
    ids: IdSource,
    state: State,
    addresses: Addresses,
    metrics: Metrics,
    watchers: Watchers,
    own: Mapping[tuple[str, str], tuple[Operation, Method]],
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
    wired = Wired(webhook, state.wires.match)
    of_rules = Targets(by_kind, wired, state.wires.match)
    by_schedule: dict[str, Target] = {
        "webhook": Scheduled(webhook),
        "queue": ScheduledNow(queue_target),
        "aws": Scheduled(AwsApi(lambda service, name: own.get((service, name)), aws)),
    }
    of_schedules = Targets(by_schedule, Scheduled(wired), state.wires.match)
    dispatch = Dispatch(
        state.store,
        clock,
        metrics=metrics,
        route=lambda number: state.catalog.route(number) or state.schedules.route(number),
        target=lambda route: (of_rules if route.bus else of_schedules)(route),
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
    by_schedule["event_bus"] = Scheduled(PutEvents(ingest.put))
    by_kind["event_bus"] = EventBus(ingest.forward, across_accounts=not apart)
    return dispatch, ingest


def _operations(
    settings: Settings,
    clock: Clock,
    ids: IdSource,
    state: State,
    access: Access,
    dispatch: Dispatch,
    scheduler: Scheduler,
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
        route=lambda rule, target: _current_route(state, rule, target),
        bus_number=lambda route: state.buses.require(route.scope, route.bus).number if route.bus else NO_BUS,
    )
    return Operations(
        metrics=metrics,
        wires=state.wires,
        watchers=watchers,
        dead_letters=dead_letters,
        admit=lambda request: access.admit_operator(request) is not None,
        rules=lambda: state.catalog.rules_summary(scheduler.next_due),
        find_queue=lambda text: state.queues.find(_queue_arn(settings, text)),
        health=lambda: _health(store, dispatch),
    )


async def _begin(
    settings: Settings, state: State, dispatch: Dispatch, scheduler: Scheduler, stack: AsyncExitStack
) -> None:
    """Set to work: what was left behind first."""
    try:
        await _first_queue(settings, state.queues)
        await _forget_unused(state, dispatch)
    except StoreUnavailable as error:
        log.error("started on a disk that refuses writes", reason=str(error))
    await dispatch.start()
    stack.push_async_callback(dispatch.stop, settings.stop_grace)
    await scheduler.start(state.catalog.rules())
    stack.push_async_callback(scheduler.stop)
    tidying = asyncio.get_running_loop().create_task(_tidy(state, dispatch))
    stack.callback(tidying.cancel)


async def _tidy(state: State, dispatch: Dispatch) -> None:
    """Now and then let go of what replaced and removed targets have left behind."""
    while True:
        await asyncio.sleep(TIDY_EVERY_S)
        try:
            await _forget_unused(state, dispatch)
        except StoreError as error:
            log.warning("routes nobody uses are kept for now", reason=str(error))


async def _forget_unused(state: State, dispatch: Dispatch) -> None:
    in_use = {waiting.route for waiting in await state.store.backlog()}
    await state.catalog.forget_routes(in_use)
    await state.schedules.forget_routes(in_use)
    dispatch.forget_lanes()


def _current_route(state: State, rule_arn: str, target_arn: str) -> Route | str:
    """The target of a rule or schedule as it stands now, or a sentence that says what is missing."""
    if ":scheduler:" in rule_arn:
        route = next((each.route for each in state.schedules.all() if each.arn == rule_arn), None)
        return route or f"there is no schedule {rule_arn} any more"
    for rule in state.catalog.rules():
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
