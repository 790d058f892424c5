"""Who holds which delivery: in memory, because one process owns the database and a crash voids every lease."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

Held = tuple[int, int]
"""A lease: (fence, until)."""

NONE: Mapping[int, Held] = MappingProxyType({})


class Leases:
    """Leases by route and sequence number. One that ran out stays until it is settled or taken anew."""

    def __init__(self, first_fence: int) -> None:
        self._routes: dict[int, dict[int, Held]] = {}
        self._fence = first_fence

    def next_fence(self) -> int:
        """A fence above every earlier one of this process."""
        self._fence += 1
        return self._fence

    def of(self, route: int) -> Mapping[int, Held]:
        """The leases of a route by sequence number."""
        return self._routes.get(route, NONE)

    def take(self, seq: int, route: int, held: Held) -> None:
        """Record a lease; it replaces one that ran out."""
        leases = self._routes.get(route)
        if leases is None:
            leases = self._routes[route] = {}
        leases[seq] = held

    def give_up(self, seq: int, route: int, fence: int) -> Held | None:
        """End the lease when ``fence`` is its current one; None when it is stale."""
        leases = self._routes.get(route)
        held = leases.get(seq) if leases else None
        if leases is None or held is None or held[0] != fence:
            return None
        del leases[seq]
        if not leases:
            del self._routes[route]
        return held

    def earliest_free(self, waiting: Iterable[tuple[int, int, int]]) -> int | None:
        """The first instant at which a delivery can be claimed.

        ``waiting`` yields (instant, seq, route), earliest first. A delivery that is held can be
        claimed when its lease has run out, if nobody settles it before.
        """
        found: int | None = None
        for at, seq, route in waiting:
            if found is not None and at >= found:
                break
            held = self._routes.get(route, NONE).get(seq)
            if held is None:
                return at
            until = max(at, held[1])
            found = until if found is None else min(found, until)
        return found
