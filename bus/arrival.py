"""An event on its way in: matched as it stands, rendered only when somebody wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bus.scope import Scope
from rules.event import compact_detail, render_envelope


class Envelope(msgspec.Struct):
    """What is read of an event that comes back in from another bus."""

    id: str
    source: str
    account: str
    time: str
    region: str
    detail: msgspec.Raw
    detail_type: str = msgspec.field(name="detail-type")
    resources: list[str] = []


open_envelope = msgspec.json.Decoder(Envelope).decode


class Arrival:
    """The members of an event before it has an envelope; ``detail`` is its JSON text, not yet compact."""

    __slots__ = (
        "_compact", "account", "detail", "detail_type", "event_id", "region", "replay_name", "resources", "source",
        "time",
    )  # fmt: skip

    def __init__(
        self, event_id: str, time: str, entry: Mapping[str, Any], scope: Scope, *, replay_name: str | None = None
    ) -> None:
        self.event_id = event_id
        self.time = time
        self.account, self.region = scope
        self.source: str = entry["Source"]
        self.detail_type: str = entry["DetailType"]
        self.resources: Sequence[str] = entry.get("Resources") or []
        self.detail: str = entry["Detail"]
        self.replay_name = replay_name
        self._compact: bytes | None = None

    @classmethod
    def of_envelope(cls, envelope: Envelope, event_id: str, time: str, *, replay_name: str | None = None) -> Arrival:
        """An event that was on a bus before; account and region stay those of its origin."""
        members = {
            "Source": envelope.source,
            "DetailType": envelope.detail_type,
            "Resources": envelope.resources,
            "Detail": bytes(envelope.detail).decode(),
        }
        return cls(event_id, time, members, Scope(envelope.account, envelope.region), replay_name=replay_name)

    def fields(self) -> dict[str, object]:
        """The envelope without its detail, as the index takes it."""
        fields: dict[str, object] = {
            "version": "0",
            "id": self.event_id,
            "detail-type": self.detail_type,
            "source": self.source,
            "account": self.account,
            "time": self.time,
            "region": self.region,
            "resources": self.resources,
        }
        if self.replay_name is not None:
            fields["replay-name"] = self.replay_name
        return fields

    def detail_bytes(self) -> bytes:
        """The detail for matching: as it was given, or compact where it spells characters as escapes.

        An index looks for names in the text, and an escape would hide one from it; clients that write JSON in ASCII
        send many, nearly all of them in values.
        """
        if "\\u" not in self.detail:
            try:
                return self.detail.encode()
            except UnicodeEncodeError:
                pass  # a lone surrogate has no UTF-8 form; compacting writes it as an escape
        return self.compact_detail()

    def compact_detail(self) -> bytes:
        """The detail as targets receive it."""
        if self._compact is None:
            self._compact = compact_detail(self.detail) or b"{}"
        return self._compact

    def envelope(self) -> bytes:
        """The event as every target receives it."""
        return render_envelope(
            event_id=self.event_id,
            detail_type=self.detail_type,
            source=self.source,
            account=self.account,
            time=self.time,
            region=self.region,
            resources=self.resources,
            detail=self.compact_detail(),
            replay_name=self.replay_name,
        )
