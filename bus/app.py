"""The composition root: from Settings to a running bus, wired by arguments in one place and closed in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog

from bus.admission import Admission
from bus.api.access import Access
from bus.api.model import load_events, load_queues
from bus.api.operations import Operations
from bus.api.request import Receive, Send
from bus.api.request import Scope as AsgiScope
from bus.api.rpc import Rpc, ShortCut
from bus.api.sources import SourceRoutes
from bus.api_destinations import ApiDestinations
from bus.buses import Buses
from bus.catalog import Catalog
from bus.clock import Clock, IdSource, SystemClock
from bus.cloudtrail import CloudTrail
from bus.config import Settings
from bus.connections import Connections
from bus.connections.secrets import open_vault
from bus.dead_letters import DeadLetters
from bus.dispatch import Dispatch
from bus.entries import read_entries
from bus.errors import StoreError, StoreUnavailable, validation
from bus.governed import Gate, Governed, governed
from bus.https_endpoint import HttpsEndpoints
from bus.ingest import Ingest
from bus.metrics import Metrics
from bus.partner_events import PartnerEvents
from bus.partners import Partners
from bus.permissions import Permissions
from bus.principals import Principals
from bus.queues import ERROR_CODES, Queues
from bus.scheduler import Scheduler
from bus.scope import Call, Scope
from bus.service_events import ServiceEvents
from bus.store.sqlite import SqliteStore, open_store
from bus.tags import Tags
from bus.targets import Route, Target
from bus.targets.addresses import Addresses
from bus.targets.api_destination import TIMEOUT_S, ApiDestinationTarget
from bus.targets.aws import AwsService
from bus.targets.event_bus import EventBus
from bus.targets.http_client import HttpClient
from bus.targets.log import LogGroup, lines_for
from bus.targets.queue import QueueTarget
from bus.targets.token_request import TokenRequests
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
    admission = Admission(state.principals, find=state.buses.find, find_foreign=state.buses.find_foreign)
    dispatch, ingest = _connect(settings, clock, ids, state, addresses, metrics, watchers, admission, stack)
    scheduler = Scheduler(state.store, clock, metrics=metrics, put=ingest.put)
    state.catalog.on_rule = scheduler.changed
    access = Access(settings, clock=clock)
    partner_events = PartnerEvents(
        clock, ids, metrics=metrics, destination=state.partners.destination, put=ingest.put,
        max_bytes=settings.max_put_events_bytes,
    )  # fmt: skip
    sources = _sources(settings, clock, ids, ingest, metrics, stack)
    rpc = Rpc(
        [load_events(), load_queues()],
        [
            ingest,
            *_behind_gate(state, admission),
            Permissions(state.buses.change_policy),
            state.queues,
            state.partners,
            partner_events,
            state.destinations.connections,
            state.destinations.api_destinations,
        ],
        access=access,
        max_body_bytes=settings.max_body_bytes,
        error_codes=ERROR_CODES,
        refused={"events:PutEvents": ingest.refused, "events:PutPartnerEvents": partner_events.refused},
        short_cuts={"events:PutEvents": ShortCut(read_entries, ingest.put_entries)},
    )
    operations = _operations(settings, clock, ids, state, access, dispatch, scheduler, metrics, watchers, sources)
    await _begin(settings, state, dispatch, scheduler, stack)
    return App(
        settings, state.store, state.queues, state.buses, state.catalog, state.wires, ingest, dispatch,
        scheduler, metrics, watchers, rpc, operations.app(), AsyncExitStack(),
    )  # fmt: skip


def _behind_gate(state: State, admission: Admission) -> list[Governed]:
    """The capabilities that other accounts may use as far as the policy of a bus allows."""
    gate = Gate(
        admission,
        find_bus=state.buses.find,
        find_rule=lambda number, name: state.catalog.ruleset(number).rules.get(name),
    )
    tags = Tags({"rule": state.catalog, "event-bus": state.buses})
    return governed([state.buses, state.catalog, tags], gate)


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the store keeps, loaded, and who asks for it."""

    principals: Principals
    store: SqliteStore
    queues: Queues
    buses: Buses
    catalog: Catalog
    wires: Wires
    partners: Partners
    destinations: Destinations


@dataclass(frozen=True, slots=True)
class Destinations:
    """API destinations, the connections they use, and the target that delivers to them."""

    connections: Connections
    api_destinations: ApiDestinations
    target: ApiDestinationTarget


async def _open_destinations(
    settings: Settings, clock: Clock, store: SqliteStore, buses: Buses, addresses: Addresses, stack: AsyncExitStack
) -> Destinations:
    client = HttpClient(TIMEOUT_S, addresses.open_socket if addresses.guarded else None, reading=True)
    stack.push_async_callback(client.close)
    check = HttpsEndpoints(strict=settings.strict, check_host=addresses.check_host).refusal
    destinations: ApiDestinations
    connections = Connections(
        store,
        clock,
        open_vault(settings),
        fetch=TokenRequests(client, clock).fetch,
        check_endpoint=check,
        detach=lambda arn: destinations.detached(arn),  # noqa: PLW0108 - destinations come next
        lock=buses.lock,
    )
    destinations = ApiDestinations(
        store, clock, find_connection=connections.find, check_endpoint=check, lock=buses.lock
    )
    await connections.load()
    await destinations.load()
    stack.push_async_callback(connections.close)
    target = ApiDestinationTarget(client, clock, find=destinations.find, connections=connections)
    return Destinations(connections, destinations, target)


async def _open_state(
    settings: Settings, clock: Clock, ids: IdSource, addresses: Addresses, stack: AsyncExitStack
) -> State:
    store = await open_store(settings.data_dir, clock)
    stack.push_async_callback(store.close)

    principals = Principals(settings, clock)
    queues = Queues(store, clock, ids, recreate_wait=settings.queue_recreate_wait, principals=principals)
    stack.push_async_callback(queues.close)
    await queues.load()
    store.on_messages = queues.arrived

    catalog: Catalog
    partners: Partners
    buses = Buses(
        store,
        clock,
        has_rules=lambda number: catalog.has_rules(number),  # noqa: PLW0108 - catalog comes next
        partners=lambda: partners,
    )
    partners = Partners(store, clock, find_bus=buses.find, lock=buses.lock)
    catalog = Catalog(store, settings, clock, require_bus=buses.require, lock=buses.lock, check_url=addresses.check_url)
    wires = Wires(store, addresses.check_url)
    await buses.load()
    await partners.load()
    await catalog.load()
    await wires.load()
    destinations = await _open_destinations(settings, clock, store, buses, addresses, stack)
    return State(principals, store, queues, buses, catalog, wires, partners, destinations)


def _sources(
    settings: Settings, clock: Clock, ids: IdSource, ingest: Ingest, metrics: Metrics, stack: AsyncExitStack
) -> SourceRoutes:
    """The ways in for services and log files."""
    most = settings.max_put_events_bytes
    services = ServiceEvents(
        clock, ids, metrics=metrics, put=ingest.put, max_bytes=most, most_waiting=settings.best_effort_buffer
    )
    services.start()
    stack.push_async_callback(services.close)
    return SourceRoutes(services, CloudTrail(ids, metrics=metrics, put=ingest.put, max_bytes=most))


def _connect(
    settings: Settings,
    clock: Clock,
    ids: IdSource,
    state: State,
    addresses: Addresses,
    metrics: Metrics,
    watchers: Watchers,
    admission: Admission,
    stack: AsyncExitStack,
) -> tuple[Dispatch, Ingest]:
    """The way of an event: in, matched, and out to its targets."""
    webhook, aws = Webhook(settings, clock, addresses), AwsService(settings)
    elsewhere = aws if settings.aws_endpoint_url else None
    queue_target = QueueTarget(
        state.queues.find, state.queues.message, refuses=state.queues.refuses, elsewhere=elsewhere
    )
    log_group = LogGroup(lines_for(settings))
    by_kind: dict[str, Target] = {"webhook": webhook, "queue": queue_target, "log_group": log_group, "aws": aws}
    by_kind["api_destination"] = state.destinations.target
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
        turns=lambda route: state.destinations.api_destinations.turns(route.arn),
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
        admission=admission,
        watched=watchers.any,
        watch=watchers.show,
    )
    by_kind["event_bus"] = EventBus(ingest.forward, takes=admission.takes)
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
    sources: SourceRoutes,
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
        admit=access.admit_operator,
        rules=lambda: state.catalog.rules_summary(scheduler.next_due),
        find_queue=lambda text: state.queues.find(_queue_arn(settings, text)),
        health=lambda: _health(store, dispatch),
        more=sources.rows,
        longest={path: settings.max_body_bytes for _, path, _ in sources.rows},
    )


async def _begin(
    settings: Settings, state: State, dispatch: Dispatch, scheduler: Scheduler, stack: AsyncExitStack
) -> None:
    """Set to work: what was left behind first."""
    try:
        await _first_queue(settings, state.queues)
        await _forget_unused(state.store, state.catalog, dispatch)
    except StoreUnavailable as error:
        log.error("started on a disk that refuses writes", reason=str(error))
    state.destinations.connections.start()
    await dispatch.start()
    stack.push_async_callback(dispatch.stop, settings.stop_grace)
    await scheduler.start(state.catalog.rules())
    stack.push_async_callback(scheduler.stop)
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
