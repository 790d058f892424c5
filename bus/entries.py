"""The entries of PutEvents as values, and the short way to them from a request's body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

MOST_ENTRIES = 10


class Entry(msgspec.Struct, gc=False):
    """One entry, its members under their names on the wire; ``Time`` is in epoch seconds, of the years 1 to 9999."""

    Source: str | None = None
    DetailType: str | None = None
    Detail: str | None = None
    EventBusName: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,256}$")] | None = None
    Resources: list[str] | None = None
    Time: Annotated[float, msgspec.Meta(ge=-62_135_596_800, le=253_402_300_799)] | None = None
    TraceHeader: Annotated[str, msgspec.Meta(min_length=1, max_length=500)] | None = None

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> Entry:
        """An entry whose members the service model has checked."""
        return cls(**{name: members[name] for name in cls.__struct_fields__ if name in members})


class _Plain(msgspec.Struct, gc=False):
    """A request without anything unusual about it."""

    Entries: Annotated[list[Entry], msgspec.Meta(min_length=1, max_length=MOST_ENTRIES)]
    EndpointId: None = None


_decode = msgspec.json.Decoder(_Plain).decode


def read_entries(body: bytes) -> Sequence[Entry] | None:
    """The entries of a request, decoded and checked in one go; None when it takes a closer look to say.

    What it answers the service model would have let pass; what it does not, may be right or wrong.
    """
    try:
        return _decode(body).Entries
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
