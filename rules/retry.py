"""Retries: from (attempts made, age, outcome) to the next instant or an end.

The strategies are tenacity's, evaluated one at a time on a state we fill in, so that nothing has to stay in memory
between two attempts: the number of attempts made and the instant of acceptance say it all, after a restart as before.

* A delay is drawn from 0 up to 1 s, 2 s, 4 s … 300 s: full jitter, lest waiting deliveries all return at once.
* `max_attempts` counts retries: the first attempt is not one of them.
* A delivery ends when its next attempt could only come once the event has reached its maximum age: at once then, since
  waiting would change nothing.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Literal

from tenacity import RetryCallState
from tenacity.stop import stop_after_attempt, stop_after_delay, stop_base
from tenacity.wait import wait_base, wait_exponential

Condition = Literal["MaximumRetryAttempts", "MaximumEventAgeInSeconds"]

_LONGEST_WAIT_S = 1e9


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a delivery is retried; the defaults are those of a target without a RetryPolicy."""

    max_attempts: int = 185
    max_age_s: int = 86_400


DEFAULT_POLICY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at this instant (epoch milliseconds)."""

    due_ms: int


@dataclass(frozen=True, slots=True)
class Exhausted:
    """No further attempt; both members are attributes of the dead letter. `retries` leaves the first attempt out."""

    condition: Condition
    retries: int


class _Attempt(RetryCallState):
    """What strategies read of a call: its number and its age. The parent's constructor would read a clock."""

    def __init__(self, number: int, age_s: float) -> None:
        self.attempt_number = number
        self.start_time = 0.0
        self.outcome_timestamp = age_s


class _FullJitter(wait_base):
    """A wait between nothing and what another strategy says."""

    def __init__(self, ceiling: wait_base, fraction: Callable[[], float]) -> None:
        self._ceiling = ceiling
        self._fraction = fraction

    def __call__(self, retry_state: RetryCallState) -> float:
        return self._fraction() * self._ceiling(retry_state)


_BACKOFF = wait_exponential(multiplier=1, exp_base=2, max=300)


@lru_cache(1024)
def _stops(policy: RetryPolicy) -> tuple[tuple[stop_base, Condition], ...]:
    return (
        (stop_after_attempt(policy.max_attempts + 1), "MaximumRetryAttempts"),
        (stop_after_delay(policy.max_age_s), "MaximumEventAgeInSeconds"),
    )


def decide(
    policy: RetryPolicy,
    attempt: int,
    accepted_at_ms: int,
    now_ms: int,
    retry_after_s: float | None = None,
    *,
    jitter: Callable[[], float],
) -> RetryAt | Exhausted:
    """Say what follows the failed attempt number `attempt` (the first is 1).

    `retry_after_s` is what the target asked for: the longer of it and the normal delay is waited; a negative one
    means that the target wants no more, and ends as if its retries were used up. `jitter` gives the fraction of the
    full delay to wait, in [0, 1); `random.random` outside of tests.
    """
    made = _Attempt(attempt, (now_ms - accepted_at_ms) / 1000)
    for stop, condition in _stops(policy):
        if stop(made):
            return Exhausted(condition, attempt - 1)
    if retry_after_s is not None and retry_after_s < 0:
        return Exhausted("MaximumRetryAttempts", attempt - 1)
    delay_s = max(_FullJitter(_BACKOFF, jitter)(made), retry_after_s or 0)
    due_ms = now_ms + math.ceil(delay_s * 1000)
    if is_too_old(policy, accepted_at_ms=accepted_at_ms, now_ms=due_ms):
        return Exhausted("MaximumEventAgeInSeconds", attempt - 1)
    return RetryAt(due_ms)


def is_too_old(policy: RetryPolicy, *, accepted_at_ms: int, now_ms: int) -> bool:
    """Tell whether an event has reached its maximum age, as one may have while the bus was not running."""
    return now_ms - accepted_at_ms >= policy.max_age_s * 1000


_SECONDS = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")


def parse_retry_after(header: str, now_ms: int) -> float | None:
    """Read a Retry-After header as seconds from now; None when it is neither a number nor an HTTP date.

    Negative numbers stay negative, since they end retries; a date gone by is 0. At most 1e9, some thirty years.
    """
    text = header.strip()
    if _SECONDS.fullmatch(text):
        return max(-_LONGEST_WAIT_S, min(float(text), _LONGEST_WAIT_S))
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    epoch_s = date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    return max(0.0, min(epoch_s - now_ms / 1000, _LONGEST_WAIT_S))
