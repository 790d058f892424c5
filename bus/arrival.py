"""An event on its way in: matched as it stands, rendered only when somebody wants it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bus.scope import Scope
from bus.store import message_rows
from rules.event import compact_detail
from rules.flatten import EventError


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
    replay_name: str | None = msgspec.field(name="replay-name", default=None)


open_envelope = msgspec.json.Decoder(Envelope).decode


class Arrival(msgspec.Struct, gc=False):
    """The members of an event before it has an envelope; ``detail`` is its JSON text, not yet compact.

    ``time`` is as the envelope shows it; ``scope`` is where the event comes from.
    """

    event_id: str
    time: str
    source: str
    detail_type: str
    detail: str
    resources: Sequence[str]
    scope: Scope
    replay_name: str | None = None
    compact: bytes | None = None
    """The detail as targets receive it, once that is known."""
    loose: bytes | None = None
    """The detail as it came, if nothing but white space sets it apart from the compact one, once it was matched."""

    @classmethod
    def of_envelope(cls, envelope: Envelope, event_id: str, time: str) -> Arrival:
        """An event that was on a bus before; account and region stay those of its origin."""
        return cls(
            event_id, time, envelope.source, envelope.detail_type, bytes(envelope.detail).decode(), envelope.resources,
            Scope(envelope.account, envelope.region), envelope.replay_name,
        )  # fmt: skip

    def fields(self) -> dict[str, object]:
        """The envelope without its detail, as the index takes it."""
        account, region = self.scope
        fields: dict[str, object] = {
            "version": "0",
            "id": self.event_id,
            "detail-type": self.detail_type,
            "source": self.source,
            "account": account,
            "time": self.time,
            "region": region,
            "resources": self.resources,
        }
        if self.replay_name is not None:
            fields["replay-name"] = self.replay_name
        return fields

    def detail_bytes(self) -> bytes:
        """The detail for matching: as it was given, or compact where it spells characters as escapes.

        An index looks for names in the text, and an escape would hide one from it; clients that write JSON in ASCII
        send many, nearly all of them in values. EventError for some texts that are no JSON object, which matching
        would not notice.
        """
        # The one-character search is ten times as fast as the other, and settles most texts.
        if self.detail[:1] == "\ufeff":
            raise EventError("the detail begins with a byte order mark")
        escapes = "\\" in self.detail
        if not escapes or "\\u" not in self.detail:
            try:
                data = self.detail.encode()
            except UnicodeEncodeError:
                pass  # a lone surrogate has no UTF-8 form; compacting writes it as an escape
            else:
                if not escapes:
                    self.loose = data
                return data
        self.compact = compact_detail(self.detail)
        if self.compact is None:
            raise EventError("the detail is not a JSON object")
        return self.compact

    def compact_detail(self) -> bytes:
        """The detail as targets receive it."""
        if self.compact is None:
            self.compact = compact_detail(self.detail) or b"{}"
        return self.compact

    def message_part(self) -> tuple[bytes, bytes]:
        """The detail as part of a message's row, and the row's letter; see `bus.store.message_rows`."""
        if self.loose is not None and len(self.loose) <= message_rows.LONGEST_LOOSE:
            return self.loose, message_rows.LOOSE
        return self.compact_detail(), message_rows.AS_IT_IS
