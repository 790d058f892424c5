"""A lane: the deliveries of one route that are in memory, and when to look for more.

Theory of operation. Everything that waits is in the store; a lane holds a page of it, leased. New
deliveries go straight into the lane while it has room and nothing older waits in the store
(``behind``); otherwise they are only stored, and the lane claims them a page at a time as it
drains. So memory does not grow with the backlog, a lane's order is the store's (earliest due
first), and a lane never knows of another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from bus.dispatch.pace import Pace
from bus.dispatch.turns import GOOD_FOR, SOON, Turns
from bus.metrics import RuleCounts
from bus.store import Lease
from bus.targets import Delivery, Outcome, Route, Slot, Target
from rules.arn import target_kind
from rules.retry import RetryPolicy
from rules.template import Input, WholeEvent, compile_input

PAGE = 128
"""Deliveries claimed at a time; small, because claiming runs in the event loop."""

ROOM_BYTES = 4 << 20


def retry_policy(members: Mapping[str, Any] | None) -> RetryPolicy:
    """A target's RetryPolicy member, with AWS's defaults for what it leaves out."""
    given = members or {}
    defaults = RetryPolicy()
    return RetryPolicy(
        max_attempts=given.get("MaximumRetryAttempts", defaults.max_attempts),
        max_age_s=given.get("MaximumEventAgeInSeconds", defaults.max_age_s),
    )


class Lane:
    """What one route has in hand."""

    __slots__ = (
        "_bytes",
        "behind",
        "counts",
        "dead_letter_arn",
        "deliver_now",
        "forwards",
        "input",
        "max_age_ms",
        "next_due",
        "pace",
        "policy",
        "ready",
        "room",
        "route",
        "running",
        "slot",
        "target",
        "tasks",
        "timer",
        "turn",
        "turns",
        "whole_event",
    )

    def __init__(self, route: Route, *, window: int, counts: RuleCounts, turns: Turns | None = None) -> None:
        self.route = route
        self.counts = counts
        self.pace = Pace(window)
        self.turns = turns
        """What limits how often the target may be called; None for targets without such a limit."""
        self.turn: float | None = None
        """The instant reserved for the next attempt (s of the loop's clock)."""
        self.room = max(PAGE, 4 * window)
        kind = target_kind(route.arn)
        # An archive's target shows a transformer that is AWS's own; what is kept is the event.
        self.input: Input = WholeEvent() if kind == "archive" else compile_input(route.target)
        self.whole_event = self.input.whole_event
        self.policy = retry_policy(route.target.get("RetryPolicy"))
        self.max_age_ms = self.policy.max_age_s * 1000
        self.dead_letter_arn: str | None = (route.target.get("DeadLetterConfig") or {}).get("Arn")
        self.forwards = kind == "event_bus"
        """Whether it hands events on to another bus, which is no attempt at anything in EventBridge's counting."""
        self.target: Target | None = None
        """Who delivers, once that has been looked up."""
        self.deliver_now: Callable[[Delivery], Outcome] | None = None
        """How the target delivers without waiting, if it can."""
        self.slot: Callable[[Route], Slot | None] | None = None
        """How to learn whether it takes events as they come, if it may."""
        self.ready: deque[Lease] = deque()
        self.running = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.behind = False
        """Whether the store may hold due deliveries of this route that nobody has leased."""
        self.next_due: int | None = None
        """When the earliest delivery that is not due yet will be (ms)."""
        self.timer: asyncio.TimerHandle | None = None
        self._bytes = 0

    def aim(self, target: Target) -> None:
        """Deliver to this target from now on."""
        self.target = target
        self.deliver_now = getattr(target, "deliver_now", None)
        self.slot = getattr(target, "slot", None)

    def has_room(self) -> bool:
        """Whether a new delivery may be leased into the lane instead of waiting in the store."""
        return not self.behind and len(self.ready) < self.room and self._bytes < ROOM_BYTES

    def wants_more(self) -> bool:
        """Whether it is time to claim another page."""
        return self.behind and len(self.ready) < PAGE // 2

    def put(self, lease: Lease) -> None:
        self.ready.append(lease)
        self._bytes += len(lease.body)

    def take(self) -> Lease:
        lease = self.ready.popleft()
        self._bytes -= len(lease.body)
        return lease

    def comes_up(self, now: float) -> bool:
        """Whether the next attempt may begin: at once, or in the turn that it has reserved."""
        return self.turn is None or self.turn <= now + SOON

    @property
    def takes_turns(self) -> bool:
        """Whether the target has a rate to keep."""
        return self.turns is not None and self.turns.limited

    def take_turn(self, now: float) -> bool:
        """Begin an attempt if its turn has come, and reserve one for the next; otherwise the lane has to wait."""
        if self.turns is None or not self.turns.limited:
            self.turn = None
            return True
        if self.turn is None or self.turn < now - GOOD_FOR:
            self.turn = self.turns.reserve(now)
        if self.turn > now + SOON:
            return False
        self.turn = self.turns.reserve(now) if len(self.ready) > 1 or self.behind else None
        return True

    def note_due(self, due: int) -> None:
        """Something in the store will be due at ``due``."""
        if self.next_due is None or due < self.next_due:
            self.next_due = due

    @property
    def idle(self) -> bool:
        """Whether nothing of the route is in memory, under way, or known to wait in the store."""
        return not self.ready and not self.running and not self.behind and self.next_due is None

    @property
    def crowded(self) -> bool:
        """Whether deliveries wait that their target does not take: more than a page's worth, or any while it fails."""
        return self.behind or len(self.ready) + self.running > PAGE or self.pace.failing

    @property
    def heavy(self) -> bool:
        """Whether large events, not their number, fill the lane."""
        return self._bytes >= ROOM_BYTES // 2
