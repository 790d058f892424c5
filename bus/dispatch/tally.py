"""What deliveries add to EventBridge's metrics, case by case.

A target that hands events on to another bus makes no attempt in EventBridge's counting: only the
invocation counts, and, when a hop is refused, the dead letter as its one successful attempt.
"""

from __future__ import annotations

from collections.abc import Sequence

from bus.clock import Clock
from bus.dispatch.lane import Lane
from bus.metrics import Metrics
from bus.store import Lease


class Tally:
    """Counts for one dispatcher."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock

    def created(self, number: int) -> None:
        self._metrics.requests.InvocationsCreated += number

    def delivered_now(self, lanes: Sequence[Lane], took: int, times: int = 1) -> None:
        """The whole life of deliveries that were over with their event's commit, ``took`` ms after it came.

        Each of the lanes had so many.
        """
        for lane in lanes:
            counts = lane.counts
            counts.Invocations += times
            counts.InvocationAttempts += times
            counts.SuccessfulInvocationAttempts += times
        number = len(lanes) * times
        self._metrics.start_latency.observe(0, number)
        self._metrics.complete_latency.observe(took, number)
        self._metrics.success_latency.observe(took, number)

    def attempt(self, lane: Lane, lease: Lease) -> None:
        """An attempt begins."""
        if lane.forwards:
            return
        lane.counts.InvocationAttempts += 1
        if lease.attempts:
            lane.counts.RetryInvocationAttempts += 1
        else:
            self._metrics.start_latency.observe(self._clock.now_ms() - lease.ts)

    def attempted(self, lane: Lane, lease: Lease) -> None:
        """An attempt ended, well or not."""
        if not lease.attempts and not lane.forwards:
            self._metrics.complete_latency.observe(self._clock.now_ms() - lease.ts)

    def succeeded(self, lane: Lane, lease: Lease) -> None:
        lane.counts.Invocations += 1
        if not lane.forwards:
            lane.counts.SuccessfulInvocationAttempts += 1
            self._metrics.success_latency.observe(self._clock.now_ms() - lease.ts)

    def failed(self, lane: Lane) -> None:
        lane.counts.Invocations += 1
        lane.counts.FailedInvocations += 1

    def letter_sent(self, lane: Lane) -> None:
        lane.counts.InvocationsSentToDlq += 1
        if lane.forwards:
            lane.counts.InvocationAttempts += 1
            lane.counts.SuccessfulInvocationAttempts += 1

    def letter_refused(self, lane: Lane) -> None:
        lane.counts.InvocationsFailedToBeSentToDlq += 1

    def dropped(self, lane: Lane) -> None:
        """There is no dead-letter queue to send to."""
        lane.counts.InvocationsFailedToBeSentToDlq += not lane.forwards
