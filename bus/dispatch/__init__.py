"""The dispatcher: from a stored delivery to a settled one, at least once.

Theory of operation. Each route has a `Lane`; a lane has workers, as many as its `Pace` allows, and
each worker takes one delivery after another through the stages of `_attempt`:

    expired? -> render the input -> deliver -> decide -> settle

Nothing is settled before its effect is certain (`bus.dispatch.settling`). What grows too old is ended apart from
the lanes (`bus.dispatch.aging`).

Targets inside the process (queues, archives) need no delivery at all when they take the event at once: what they
make of it rides in the transaction that accepts it. Only what they refuse becomes a delivery.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import structlog

from bus.accepted import LEASE_MS, Accepted, Luggage, unpack
from bus.bus_logs import BusLogs, silent
from bus.clock import Clock
from bus.dispatch.aging import Aging
from bus.dispatch.lane import PAGE, Lane
from bus.dispatch.letters import letter_attributes
from bus.dispatch.settling import Settling
from bus.dispatch.tally import Tally
from bus.dispatch.turns import Turns
from bus.errors import ApiError, StoreError
from bus.metrics import Metrics
from bus.store import Appended, Done, Lease, NewArchived, NewDelivery, NewMessage, Outcome, Retry, Store
from bus.targets import Delivered, Delivery, Failed, Route, Slot, Target
from rules.retry import Exhausted, RetryAt, decide
from rules.template import Dropped, InvalidJson, Rendering

log = structlog.get_logger("dispatch")

LONGEST_TIMER_S = 30.0
"""Timers look again at least this often, so that a clock that jumped or a machine that slept is noticed."""

BROKEN_OFF_MS = 60_000
CLAIM_AGAIN_MS = 1000
LONGEST_ERROR = 2048

INVALID_INPUT = "Invalid input for target."
TOO_OLD = "The event reached MaximumEventAgeInSeconds before it could be delivered."

DeadLetter = Callable[[str, bytes, Mapping[str, str], str | None], NewMessage]
"""(queue ARN, body, attributes, trace) to the message; ApiError when the queue is absent or refuses."""


class Plan(msgspec.Struct, gc=False):
    """What one event's matched routes come to, before it is committed.

    ``lanes`` are those of ``deliveries``, in their order; ``delivered`` those of ``messages`` and ``archives``.
    """

    deliveries: list[NewDelivery] = []
    messages: list[NewMessage] = []
    archives: list[NewArchived] = []
    lanes: list[Lane] = []
    delivered: list[Lane] = []


class Straight(msgspec.Struct, gc=False):
    """Routes that take every event as it comes: where each goes, and whose delivery it is."""

    slots: list[Slot] = []
    lanes: list[Lane] = []


Planned = tuple[Accepted, Plan, Appended]
"""An event, what it came to, and where it landed."""


class Dispatch:
    """Owns the lanes."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        metrics: Metrics,
        route: Callable[[int], Route | None],
        target: Callable[[Route], Target],
        dead_letter: DeadLetter,
        max_in_flight: int,
        jitter: Callable[[], float] = random.random,
        turns: Callable[[Route], Turns | None] = lambda route: None,
        logs: BusLogs | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._logs = logs or silent(clock)
        self._tally = Tally(metrics, clock)
        self._settling = Settling(store, clock, settled=self._after_settling, resumed=self.tick)
        self._aging = Aging(store, clock, lease_ms=LEASE_MS, look=self._end_old_in_lanes, end=self._end_claimed)
        self._route = route
        self._target = target
        self._dead_letter = dead_letter
        self._max_in_flight = max_in_flight
        self._jitter = jitter
        self._turns = turns
        self._lanes: dict[int, Lane] = {}
        self._stopping = False
        self._stopped: asyncio.Task[None] | None = None

    # -- life

    async def start(self) -> None:
        """Take up the deliveries the store still holds; only their number is read, never the backlog."""
        for waiting in await self._store.backlog():
            lane = self._lane(waiting.route)
            if lane is not None:
                lane.note_due(waiting.first_due)
        self.tick()

    async def stop(self, grace: float) -> None:
        """Start nothing more, give what is under way ``grace`` seconds from the first call, settle what came of it."""
        if self._stopped is None:
            self._stopping = True
            self._stopped = asyncio.get_running_loop().create_task(self._finish(grace))
        await asyncio.shield(self._stopped)

    async def _finish(self, grace: float) -> None:
        for lane in self._lanes.values():
            if lane.timer is not None:
                lane.timer.cancel()
        self._aging.stop()
        tasks = [task for lane in self._lanes.values() for task in lane.tasks]
        if self._aging.round is not None:
            tasks.append(self._aging.round)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            if late:
                log.warning("stopped with attempts under way; they will be made again", attempts=len(late))
        await self._settling.finish()

    def tick(self) -> None:
        """Look at every lane and at what has grown too old; timers call this, and tests that move the clock."""
        for lane in list(self._lanes.values()):
            self._look(lane)
        self._aging.start_round()

    # -- accepting

    def plan(self, event: Accepted, routes: Iterable[Route]) -> Plan:
        """What has to be stored with ``event`` so that every route gets it."""
        plan = Plan()
        for route in routes:
            lane = self._aimed(route)
            if lane.deliver_now is not None:
                body = event.body if lane.whole_event else _render(lane, event.body, event.ts, event.luggage)
                if type(body) is bytes:
                    outcome = lane.deliver_now(_first_attempt(lane.route, event, body))
                    if type(outcome) is Delivered:
                        plan.messages += outcome.messages
                        plan.archives += outcome.archives
                        plan.delivered.append(lane)
                        continue
            plan.deliveries.append(
                NewDelivery(route.number, event.ts, event.ts + lane.max_age_ms, not self._stopping and lane.has_room())
            )
            plan.lanes.append(lane)
        return plan

    def straight(self, routes: Iterable[Route]) -> Straight | None:
        """What events come to that all of these routes, of which there is one at least, take as they are.

        None when each has to be planned. It holds as long as nothing else runs.
        """
        straight = Straight()
        for route in routes:
            lane = self._aimed(route)
            slot = lane.slot(route) if lane.slot is not None and lane.whole_event else None
            if slot is None:
                return None
            straight.slots.append(slot)
            straight.lanes.append(lane)
        return straight if straight.slots else None

    def went_straight(self, straight: Straight, number: int, ts: int) -> None:
        """After the commit of so many events, accepted at ``ts`` (ms), that were not planned one by one."""
        self._tally.created(number * len(straight.lanes))
        self._tally.delivered_now(straight.lanes, self._clock.now_ms() - ts, number)

    def accepted(self, events: Sequence[Planned]) -> None:
        """After the commit of events of one instant: hand the leased deliveries to their lanes, then count and tell.

        In this order, because a delivery that is leased and in no lane would lie there as long as the lease.
        """
        over: list[Lane] = []
        for event, plan, appended in events:
            over += plan.delivered
            if plan.deliveries:
                self._tally.created(len(plan.lanes))
                self._hand_over(event, plan, appended)
        if over:
            self._tally.created(len(over))
            self._tally.delivered_now(over, self._clock.now_ms() - events[0][0].ts)
        if self._logs.buses:
            for event, plan, _ in events:
                self._logs.created(event, [lane.route for lane in plan.lanes], [lane.route for lane in plan.delivered])

    def _hand_over(self, event: Accepted, plan: Plan, appended: Appended) -> None:
        fences = iter(appended.fences)
        until = event.ts + LEASE_MS
        for delivery, lane in zip(plan.deliveries, plan.lanes, strict=True):
            if delivery.lease:
                lease = Lease(
                    appended.seq, delivery.route, next(fences), 0, delivery.expires, until,
                    event.event_id, event.ts, event.body, event.attrs,
                )  # fmt: skip
                lane.put(lease)
            else:
                lane.behind = True
            self._pump(lane)

    # -- lanes

    def _open(self, route: Route) -> Lane:
        counts = self._metrics.rule(route.scope, route.bus, route.rule)
        lane = self._lanes[route.number] = Lane(
            route, window=self._max_in_flight, counts=counts, turns=self._turns(route)
        )
        return lane

    def _aimed(self, route: Route) -> Lane:
        """The lane of a route, knowing who delivers."""
        lane = self._lanes.get(route.number) or self._open(route)
        if lane.target is None:
            self._aim(lane)
        return lane

    def _aim(self, lane: Lane) -> Target:
        """Find out who delivers for a lane."""
        lane.aim(target := self._target(lane.route))
        return target

    def look_for_targets(self) -> None:
        """Who delivers for a route may have changed."""
        for lane in self._lanes.values():
            lane.target = lane.deliver_now = lane.slot = None

    def _lane(self, number: int) -> Lane | None:
        lane = self._lanes.get(number)
        if lane is not None:
            return lane
        route = self._route(number)
        if route is None:
            log.error("deliveries wait for a route that is not known", route=number)
            return None
        return self._open(route)

    def forget_lanes(self) -> None:
        """Let go of lanes that have nothing in hand and whose route is known no more."""
        gone = [lane for number, lane in self._lanes.items() if lane.idle and self._route(number) is None]
        for lane in gone:
            if lane.timer is not None:
                lane.timer.cancel()
            del self._lanes[lane.route.number]
        self._forget_schedules(lane.route for lane in gone if not lane.route.bus)

    def _forget_schedules(self, routes: Iterable[Route]) -> None:
        """Let go of the counters of schedules that went with their last lane: those that fire once come without end."""
        kept = {(lane.route.scope, lane.route.rule) for lane in self._lanes.values() if not lane.route.bus}
        for route in routes:
            if (route.scope, route.rule) not in kept:
                self._metrics.forget(route.scope, route.bus, route.rule)

    def crowded(self, route: int) -> bool:
        """Whether the route's deliveries wait for a target that does not keep up, or that fails."""
        lane = self._lanes.get(route)
        return lane is not None and lane.crowded

    def waiting(self) -> int:
        """Deliveries in memory or under way."""
        return sum(len(lane.ready) + lane.running for lane in self._lanes.values())

    def _look(self, lane: Lane) -> None:
        """Wake a lane whose time has come, and set its timer for the next one."""
        now = self._clock.now_ms()
        if lane.next_due is not None and lane.next_due <= now:
            lane.next_due = None
            lane.behind = True
        if not lane.ready and not lane.behind:
            lane.turn = None  # nobody is left to use it
        self._pump(lane)
        self._set_timer(lane, now)

    def _set_timer(self, lane: Lane, now: int) -> None:
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        if self._stopping:
            return
        loop = asyncio.get_running_loop()
        delays = []
        if lane.next_due is not None:
            delays.append((lane.next_due - now) / 1000)
        if lane.pace.resume_at > loop.time():
            delays.append(lane.pace.resume_at - loop.time())
        if lane.turn is not None and lane.turn > loop.time():
            delays.append(lane.turn - loop.time())
        if (lane.ready or lane.behind) and self._may_attempt(lane, lane.running, loop.time()):
            delays.append(0.0)  # a pause or turn that ended just now; the timer that was to tell is the one cancelled
        if delays:
            lane.timer = loop.call_later(min(max(min(delays), 0.0), LONGEST_TIMER_S), self._look, lane)

    def _pump(self, lane: Lane) -> None:
        """Start workers while there is something to do and the pace allows."""
        loop = asyncio.get_running_loop()
        wanted = len(lane.ready) + lane.behind
        if lane.takes_turns:
            wanted = min(wanted, 1)  # the others come one at a time, as their turns do
        while wanted > 0 and self._may_attempt(lane, lane.running, loop.time()):
            lane.running += 1
            wanted -= 1
            task = loop.create_task(self._work(lane))
            lane.tasks.add(task)
            task.add_done_callback(lane.tasks.discard)

    def _may_attempt(self, lane: Lane, running: int, now: float) -> bool:
        return not self._stopping and not self._settling.full and lane.pace.allows(running, now) and lane.comes_up(now)

    async def _work(self, lane: Lane) -> None:
        """One worker: attempt after attempt, until the lane has nothing or the pace says stop."""
        loop = asyncio.get_running_loop()
        try:
            while self._may_attempt(lane, lane.running - 1, loop.time()):
                if lane.wants_more():
                    await self._claim(lane)
                if not lane.ready:
                    break
                if lane.turns is not None and not self._take_turn(lane):
                    break
                await self._safely_attempt(lane, lane.take())
        except StoreError as error:
            log.error("deliveries could not be read; trying again", reason=str(error), rule=lane.route.rule_arn)
            lane.note_due(self._clock.now_ms() + CLAIM_AGAIN_MS)
        finally:
            lane.running -= 1
            if not lane.running:
                self._look(lane)

    def _take_turn(self, lane: Lane) -> bool:
        """Whether the target's rate lets an attempt begin; the lane's timer wakes it for the next one in any case."""
        taken = lane.take_turn(asyncio.get_running_loop().time())
        if lane.turn is not None:
            self._set_timer(lane, self._clock.now_ms())
        return taken

    async def _claim(self, lane: Lane) -> None:
        """Fill the lane with what is due, earliest first."""
        now = self._clock.now_ms()
        lane.behind = False
        leases = await self._store.claim(lane.route.number, now=now, until=now + LEASE_MS, limit=PAGE)
        for lease in leases:
            lane.put(lease)
        if len(leases) == PAGE or lane.heavy:
            lane.behind = True  # the page was full: perhaps there is more
        else:
            lane.next_due = await self._store.next_due(lane.route.number)
            self._set_timer(lane, now)
        self._pump(lane)

    # -- one attempt

    async def _safely_attempt(self, lane: Lane, lease: Lease) -> None:
        """An attempt that breaks off for a fault of ours is made again a little later, not lost with its lease."""
        try:
            await self._attempt(lane, lease)
        except Exception as error:
            log.exception("an attempt broke off", event_id=lease.event_id, rule=lane.route.rule_arn)
            reason = f"INTERNAL_ERROR\tThe attempt ended with {type(error).__name__}."
            due = self._clock.now_ms() + BROKEN_OFF_MS
            self._settling.add(Retry(lease.seq, lease.route, lease.fence, due, reason))

    async def _attempt(self, lane: Lane, lease: Lease) -> None:
        now = self._clock.now_ms()
        if lease.until <= now:
            lane.behind = True  # it lay here too long and is somebody's to claim again
            return
        if lease.expires <= now:
            self._end_too_old(lane, lease)
            return
        luggage = unpack(lease.attrs)
        body = _render(lane, lease.body, lease.ts, luggage)
        if isinstance(body, Dropped):
            self._settling.add(Done(lease.seq, lease.route, lease.fence))
            return
        if isinstance(body, InvalidJson):
            self._tally.attempt(lane, lease)
            self._fail(lane, lease, body.body, Failed("INVALID_JSON", INVALID_INPUT), None)
            return
        delivery = _delivery(lane.route, lease.event_id, body, lease.body, lease.attempts + 1, lease.ts, luggage)
        self._tally.attempt(lane, lease)
        if self._logs.buses:
            self._logs.attempting(lane.route, lease, body)
        started = asyncio.get_running_loop().time()
        outcome = await self._deliver(lane, delivery)
        self._settle_outcome(lane, lease, delivery, outcome, started)

    async def _deliver(self, lane: Lane, delivery: Delivery) -> Delivered | Failed:
        try:
            return await (lane.target or self._aim(lane)).deliver(delivery)
        except Exception as error:
            route = delivery.route
            log.exception("a target broke its contract", rule=route.rule_arn, target=route.target["Id"])
            return Failed("INTERNAL_ERROR", f"The attempt ended with {type(error).__name__}.", retry=True)

    def _settle_outcome(
        self, lane: Lane, lease: Lease, delivery: Delivery, outcome: Delivered | Failed, started: float
    ) -> None:
        now = self._clock.now_ms()
        self._tally.attempted(lane, lease)
        if self._logs.buses:
            took_s = asyncio.get_running_loop().time() - started
            self._logs.attempted(lane.route, lease, delivery.body, outcome, took_s)
        if isinstance(outcome, Delivered):
            self._succeeded(lane)
            self._tally.succeeded(lane, lease)
            self._settling.add(Done(lease.seq, lease.route, lease.fence, outcome.messages))
            return
        log.info(
            "attempt failed", event_id=lease.event_id, rule=lane.route.rule_arn, target=lane.route.target["Id"],
            attempt=delivery.attempt, code=outcome.code, reason=outcome.message, retry=outcome.retry,
        )  # fmt: skip
        if not outcome.retry:
            self._succeeded(lane)
            self._fail(lane, lease, delivery.body, outcome, None)
            return
        lane.pace.failed(started, asyncio.get_running_loop().time())
        self._set_timer(lane, now)
        next_step = decide(lane.policy, delivery.attempt, lease.ts, now, outcome.retry_after, jitter=self._jitter)
        if isinstance(next_step, RetryAt):
            self._settling.add(Retry(lease.seq, lease.route, lease.fence, next_step.due_ms, _reason(outcome)))
        else:
            self._fail(lane, lease, delivery.body, outcome, next_step)

    def _succeeded(self, lane: Lane) -> None:
        """The target is alive; the window may have grown."""
        lane.pace.succeeded()
        if lane.ready and lane.running < lane.pace.window:
            self._pump(lane)

    def _end_too_old(self, lane: Lane, lease: Lease) -> None:
        """Age ends a delivery whether or not its target is being pressed; the last failure is what it died of."""
        code, _, message = (lease.last_error or f"TIMEOUT\t{TOO_OLD}").partition("\t")
        body = _render(lane, lease.body, lease.ts, unpack(lease.attrs))
        if isinstance(body, Dropped):
            self._settling.add(Done(lease.seq, lease.route, lease.fence))
            return
        text = body.body if isinstance(body, InvalidJson) else body
        exhausted = Exhausted("MaximumEventAgeInSeconds", max(0, lease.attempts - 1))
        self._fail(lane, lease, text, Failed(code, message), exhausted, made=0)

    def _fail(
        self, lane: Lane, lease: Lease, body: bytes, failure: Failed, exhausted: Exhausted | None, *, made: int = 1
    ) -> None:
        """The delivery is over without success: dead-letter it, or drop it and say so.

        ``made`` are the attempts just made, which the lease does not count yet.
        """
        self._tally.failed(lane)
        facts = {
            "event_id": lease.event_id, "rule": lane.route.rule_arn, "target": lane.route.target["Id"],
            "code": failure.code, "reason": failure.message,
        }  # fmt: skip
        messages: list[NewMessage] = []
        if lane.dead_letter_arn is None:
            self._tally.dropped(lane)
            log.warning("delivery dropped: its target has no dead-letter queue", **facts)
        else:
            attributes = letter_attributes(lane.route, lease, failure, exhausted)
            try:
                letter = self._dead_letter(lane.dead_letter_arn, body, attributes, unpack(lease.attrs).trace)
            except ApiError as refusal:
                self._tally.letter_refused(lane)
                log.warning("delivery dropped: its dead-letter queue refused it", refusal=refusal.message, **facts)
            else:
                messages.append(letter)
                self._tally.letter_sent(lane)
        if self._logs.buses:
            attempts = lease.attempts + made
            self._logs.ended(lane.route, lease, body, failure, attempts=attempts, letter=bool(messages))
        self._settling.add(Done(lease.seq, lease.route, lease.fence, messages))

    # -- after settling, and age

    def _after_settling(self, settled: Sequence[Outcome]) -> None:
        """Only now that a retry is in the store may its lane look for it."""
        now = self._clock.now_ms()
        for outcome in settled:
            if type(outcome) is Retry and (lane := self._lanes.get(outcome.route)) is not None:
                lane.note_due(outcome.due)
                self._set_timer(lane, now)

    def _end_claimed(self, lease: Lease) -> None:
        lane = self._lane(lease.route)
        if lane is None:
            log.error("a delivery is dropped: its route is not known", event_id=lease.event_id, route=lease.route)
            self._settling.add(Done(lease.seq, lease.route, lease.fence))
        else:
            self._end_too_old(lane, lease)

    def _end_old_in_lanes(self) -> None:
        """What lies in memory is leased, so the store's list of what is too old leaves it out."""
        now = self._clock.now_ms()
        for lane in self._lanes.values():
            for _ in range(len(lane.ready)):
                lease = lane.take()
                if lease.expires <= now < lease.until:
                    self._end_too_old(lane, lease)
                else:
                    lane.put(lease)


def _render(lane: Lane, event: bytes, accepted: int, luggage: Luggage) -> bytes | Dropped | InvalidJson:
    if lane.whole_event or luggage.rendered:
        return event
    return lane.input.render(
        Rendering(body=event, rule_name=lane.route.rule, rule_arn=lane.route.rule_arn, ingestion_ms=accepted)
    )


def _first_attempt(route: Route, event: Accepted, body: bytes) -> Delivery:
    event_id, _, ts, whole, luggage, _ = event
    return Delivery(route, event_id, body, whole, 1, ts, luggage.trace, luggage.hops)


def _delivery(
    route: Route, event_id: str, body: bytes, event: bytes, attempt: int, accepted: int, luggage: Luggage
) -> Delivery:
    return Delivery(route, event_id, body, event, attempt, accepted, luggage.trace, luggage.hops)


def _reason(failure: Failed) -> str:
    """A failure as the store keeps it beside the delivery."""
    return f"{failure.code}\t{failure.message}"[:LONGEST_ERROR].encode("utf-8", "replace").decode()
