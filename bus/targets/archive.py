"""Archives as targets: an event is archived in the transaction that accepts it.

All managed rules of archives have the same target ARN; which archive is meant follows from the rule.
"""

from __future__ import annotations

from collections.abc import Callable

from bus.archives.archived import measure
from bus.store import NewArchived
from bus.targets import Delivered, Delivery, Failed, Outcome


class ArchiveTarget:
    """Takes events for archives: ``find`` knows an archive's number by the ARN of its managed rule."""

    def __init__(self, find: Callable[[str], int | None]) -> None:
        self._find = find

    def deliver_now(self, delivery: Delivery) -> Outcome:
        number = self._find(delivery.route.rule_arn)
        if number is None:
            return Delivered()  # the archive was deleted a moment ago, and what it held goes with it
        time, size = measure(delivery.event)
        return Delivered(archives=(NewArchived(number, time, size),))

    async def deliver(self, delivery: Delivery) -> Outcome:
        """Not how an archive takes events: the dispatcher calls `deliver_now`, which always takes them."""
        return Failed("INTERNAL_ERROR", "An archive takes an event when it is accepted, and only then.")

    async def close(self) -> None:
        """Nothing is held."""
