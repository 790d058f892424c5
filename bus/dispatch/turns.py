"""Turns: the rate at which one API destination may be invoked, kept by handing out instants.

Whoever wants to invoke reserves a turn and waits for it. Turns lie an equal distance apart on one line, which all share
who invoke the same destination: nobody is passed over, and nobody has to look again before the turn comes. A turn that
was not used is lost; it must not be used much later together with others, see `GOOD_FOR`.
"""

from __future__ import annotations

GOOD_FOR = 1.0
"""Seconds that a turn may be used late. Timers are late by milliseconds; what is later than this was forgotten."""

SOON = 0.001
"""Seconds that a turn may be used early: timers have no finer grain."""


class Turns:
    """The turns of one destination; instants are seconds of a monotonic clock."""

    __slots__ = ("__weakref__", "_next", "_per_second")

    def __init__(self, per_second: int | None = None) -> None:
        self._per_second = per_second
        self._next = 0.0

    def change(self, per_second: int | None) -> None:
        """Another rate, or none at all; turns that were handed out stay as they are."""
        if per_second != self._per_second:
            self._per_second = per_second
            self._next = 0.0

    @property
    def limited(self) -> bool:
        """Whether there is a rate to keep."""
        return self._per_second is not None

    def reserve(self, now: float) -> float:
        """The next free turn: ``now``, or the instant to wait for."""
        if self._per_second is None:
            return now
        turn = max(now, self._next)
        self._next = turn + 1 / self._per_second
        return turn
