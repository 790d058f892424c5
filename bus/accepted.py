"""An event the bus has taken, and what travels beside it without being part of it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

LEASE_MS = 2 * 3600 * 1000
"""How long a delivery is held by whoever claimed it: longer than any attempt."""


class Luggage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What goes with an event from bus to target and survives a restart, but is not in the envelope.

    ``trace`` is the normalised trace header; ``hops`` counts forwardings (same region, other region).
    ``rendered`` says that the body is already what the target is to receive, as in a redriven dead letter.
    ``scheduled`` is the nominal instant (ms) of a schedule's invocation.
    """

    trace: str | None = None
    hops: tuple[int, int] = (0, 0)
    rendered: bool = False
    scheduled: int | None = None


NOTHING = Luggage()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Luggage).decode


def pack(luggage: Luggage) -> bytes | None:
    """As stored; None when there is nothing to carry."""
    return None if luggage is NOTHING or luggage == NOTHING else _encode(luggage)


def unpack(attrs: bytes | None) -> Luggage:
    return NOTHING if attrs is None else _decode(attrs)


class Accepted(NamedTuple):
    """An event on a bus: its id, the bus's number, the instant of acceptance (ms), and the envelope."""

    event_id: str
    bus: int
    ts: int
    body: bytes
    luggage: Luggage = NOTHING
    attrs: bytes | None = None
    """The luggage, packed."""
