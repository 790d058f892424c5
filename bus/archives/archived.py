"""Archived events: what of an event an archive goes by, and the event taken apart again for a replay.

What is archived is the envelope as `rules.event.render_envelope` writes it: the detail comes last, and quotes within
texts are escaped, so that the first ``,"detail":`` is the member and everything behind it the detail. Only the part
before it is parsed; the detail is carried over byte for byte.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from bus.arrival import Arrival
from bus.scope import Scope

OVERHEAD = 20
"""Bytes that an event counts for in SizeBytes beyond its detail, source and detail-type."""

_DETAIL = b',"detail":'


class _Head(msgspec.Struct):
    """An envelope without its detail."""

    source: str
    account: str
    time: str
    region: str
    detail_type: str = msgspec.field(name="detail-type")
    resources: list[str] = []


_read_head = msgspec.json.Decoder(_Head).decode


class Measure(NamedTuple):
    """An event's own time (epoch seconds), and its size as SizeBytes counts it."""

    time: int
    size: int


def measure(body: bytes) -> Measure:
    """What an archive wants to know of an envelope."""
    head, detail = _parted(body)
    named = _utf8_length(head.source) + _utf8_length(head.detail_type)
    return Measure(_seconds(head.time), len(detail) + named + OVERHEAD)


def arrival_of(body: bytes, event_id: str, replay_name: str) -> Arrival:
    """An archived event on its way in again: with an id of its own and the replay's name, otherwise as it was."""
    head, detail = _parted(body)
    return Arrival(
        event_id, head.time, head.source, head.detail_type, detail.decode(), head.resources,
        Scope(head.account, head.region), replay_name, compact=detail,
    )  # fmt: skip


def _parted(body: bytes) -> tuple[_Head, bytes]:
    head, _, detail = body.partition(_DETAIL)
    head += b"}"
    try:
        return _read_head(head), detail[:-1]
    except (msgspec.DecodeError, UnicodeDecodeError):
        # msgspec refuses the escapes of lone surrogates, which a source or detail-type may hold.
        return msgspec.convert(json.loads(head), _Head), detail[:-1]


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


@lru_cache(1024)
def _seconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp())
