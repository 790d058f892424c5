"""CloudTrail's log files: unpacked, taken apart into records, and put on the default bus as the events they stand for.

A file is ``{"Records": [...]}``, gzipped or not. Records that are no events are told by their place and reason, and
keep none of the others back. They are put in slices, so that a long file neither holds the loop nor becomes one
transaction. Whoever sends a file again because the answer was lost repeats nothing: the id of an event is made from
that of its record, and the store knows it for a while.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from bus.arrival import Arrival, Envelope
from bus.clock import IdSource
from bus.errors import ApiError, validation
from bus.metrics import Metrics
from bus.origins.service_events import Put, dedup_key
from bus.scope import Scope
from rules.arn import DEFAULT_BUS
from rules.cloudtrail import RecordError, read_record
from rules.event import load_json

LARGEST = 64 << 20
"""Most bytes that a request's file may have when it is unpacked."""

MOST_VALUES = LARGEST // 16
"""Most commas of a file. Records have one in thirty characters or so; a file of ``0,0,0`` becomes thirty times as much
memory as it has bytes."""

SLICE = 200
MOST_REASONS = 1000
"""Refused records that an answer tells of; the others are counted."""

_LONG = 1 << 16
"""Bytes from which on a file is unpacked beside the loop."""

_GZIP = b"\x1f\x8b"
_PIECE = 1 << 20
_MOUTHFUL = 1 << 12
"""Packed bytes that are looked at in one go: what lies behind the end of a member is copied each time."""


class File(msgspec.Struct):
    """A log file, its records as they stand in it."""

    Records: list[msgspec.Raw]


_read_file = msgspec.json.Decoder(File).decode


class Refused(NamedTuple):
    """A record that is no event: its place in the file, from 0, and the end of a sentence that begins with it."""

    place: int
    reason: str


class Loaded(NamedTuple):
    """What became of a file; of very many refused records only the first are told."""

    accepted: int
    refused: int
    reasons: Sequence[Refused]


class CloudTrail:
    """The way in. ``max_bytes`` bounds one record."""

    def __init__(self, ids: IdSource, *, metrics: Metrics, put: Put, max_bytes: int) -> None:
        self._ids = ids
        self._counts = metrics.services
        self._put = put
        self._max_bytes = max_bytes

    async def load(self, scope: Scope, body: bytes) -> Loaded:
        """Put a file's events on the scope's default bus, durably.

        ApiError when it is no log file or too long. Raises StoreError when not all could be stored; those that were
        are known when the file is sent again.
        """
        beside = len(body) > _LONG or is_packed(body)  # what is packed may be a thousand times as long
        records = await asyncio.to_thread(read_file, body) if beside else read_file(body)
        accepted, refused = 0, 0
        reasons: list[Refused] = []
        for start in range(0, len(records), SLICE):
            arrivals, keys = [], []
            for index in range(start, min(start + SLICE, len(records))):
                try:
                    arrival, key = self._arrival(scope, bytes(records[index]))
                except RecordError as error:
                    refused += 1
                    if refused <= MOST_REASONS:
                        reasons.append(Refused(index, error.reason))
                else:
                    arrivals.append(arrival)
                    keys.append(key)
            if arrivals:
                await self._put(scope, DEFAULT_BUS, arrivals, keys=keys)
            else:
                await asyncio.sleep(0)  # let others have their turn
            accepted += len(arrivals)
        self._counts.CloudTrailRecordsCount += len(records)
        self._counts.CloudTrailFailedRecordsCount += refused
        return Loaded(accepted, refused, reasons)

    def _arrival(self, scope: Scope, text: bytes) -> tuple[Arrival, str | None]:
        """The event of a record, and what it is known by; the detail is the record to the letter."""
        if len(text) > self._max_bytes:
            raise RecordError(f"is larger than {self._max_bytes} bytes")
        record = _parse(text)
        event = read_record(record)
        event_id = event.event_id or self._ids.new()
        envelope = Envelope(
            event_id, event.source, event.account or scope.account, event.time, event.region, msgspec.Raw(text),
            event.detail_type, list(event.resources),
        )  # fmt: skip
        return Arrival.of_envelope(envelope, event_id, event.time), dedup_key(event.source, event.event_id)


def _parse(text: bytes) -> object:
    try:
        return load_json(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"cannot be read: {error}") from None


def read_file(body: bytes, *, limit: int = LARGEST) -> list[msgspec.Raw]:
    """The records of a log file as they stand in it.

    ApiError when it is none, when it nests to a thousand levels, or when it is longer than ``limit`` unpacked.
    """
    text = unpack(body, limit=limit)
    if text.count(b",") > MOST_VALUES:
        raise ApiError("RequestEntityTooLargeException", f"The log file has more than {MOST_VALUES} values.", 413)
    try:
        return _read_file(text.decode("utf-8-sig")).Records
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise validation(f'The body is not a log file of CloudTrail, {{"Records": [...]}}: {error}.') from None


def is_packed(body: bytes) -> bool:
    """Whether the bytes are gzip, as their first two tell."""
    return body.startswith(_GZIP)


def unpack(body: bytes, *, limit: int) -> bytes:
    """The bytes behind gzip, if it is that; ApiError beyond ``limit`` or when it is damaged."""
    if not is_packed(body):
        if len(body) > limit:
            raise _too_long(limit)
        return body
    pieces, length = [], 0
    for piece in _inflate(body):
        length += len(piece)
        if length > limit:
            raise _too_long(limit)
        pieces.append(piece)
    return b"".join(pieces)


def _inflate(packed: bytes) -> Iterator[bytes]:
    """Unpack piece by piece, member after member, never more of it than is asked for."""
    place, waiting = 0, b""
    while waiting or place < len(packed):
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if not waiting:
                waiting = packed[place : place + _MOUTHFUL]
                place += len(waiting)
            ended = not waiting
            try:
                piece = member.decompress(waiting, _PIECE)
            except zlib.error as error:
                raise validation(f"The body is not gzip: {error}.") from None
            waiting = member.unconsumed_tail
            if ended and not piece and not member.eof:
                raise validation("The body is gzip that breaks off.")
            yield piece
        waiting = member.unused_data


def _too_long(limit: int) -> ApiError:
    return ApiError("RequestEntityTooLargeException", f"The log file is longer than {limit} bytes unpacked.", 413)
