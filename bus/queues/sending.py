"""Sending: from a request to checked messages, alone or in a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bus.errors import ApiError
from bus.queues import batch, message
from bus.queues.errors import missing
from bus.queues.queue import Queue
from bus.store import NewMessage
from bus.store.messages import Stored


class Send(NamedTuple):
    """One checked message, and what its answer says of it."""

    queue: Queue
    new: NewMessage
    digests: dict[str, Any]

    def answered(self, stored: Stored) -> dict[str, Any]:
        """The answer, once it is known under which id the message is kept."""
        answer = {**self.digests, "MessageId": stored.message_id}
        if self.queue.fifo:
            answer["SequenceNumber"] = message.sequence_number(stored.number)
        return answer


class Sending:
    """What all messages of one request share: queue, instant (ms), and whose request it is."""

    def __init__(
        self, queue: Queue, now: int, new_id: Callable[[], str], *, trace: str | None, access_key: str | None
    ) -> None:
        self._queue = queue
        self._now = now
        self._new_id = new_id
        self._trace = trace
        self._sender = message.sender_of(access_key) if access_key else None

    def checked(self, given: Mapping[str, Any], *, in_batch: bool = False) -> Send:
        """One message; ApiError for the first rule it breaks."""
        queue = self._queue
        body = given.get("MessageBody") or ""
        if not body:
            raise missing("MessageBody")
        size = message.byte_length(body)
        held = message.given_attributes(given.get("MessageAttributes"))
        trace = message.given_trace(given.get("MessageSystemAttributes"))
        if size + message.size_of(held) > queue.max_bytes:
            raise message.too_long(queue.max_bytes, in_batch=in_batch)
        delay_ms = message.delay_of(queue, given.get("DelaySeconds"))
        group, dedup_id = given.get("MessageGroupId"), given.get("MessageDeduplicationId")
        message.check_ids(queue, group, dedup_id)
        attrs = message.packed(held, trace or self._trace, self._sender)
        now, message_id = self._now, self._new_id()
        if queue.fifo:
            new = message.for_fifo(queue, body, now, message_id, attrs=attrs, group=group, dedup_id=dedup_id)
        else:
            new = NewMessage(queue.number, message_id, now + delay_ms, now, body, attrs, group)
        return Send(queue, new, message.digests(body, held, trace))

    def checked_batch(
        self, entries: Sequence[batch.Entry]
    ) -> tuple[list[tuple[batch.Entry, Send]], list[dict[str, Any]]]:
        """The entries that can be sent, and the answers of those that cannot; ApiError when the whole cannot."""
        batch.check_total(sum(_size(entry) for entry in entries))
        if self._queue.fifo:
            self._check_fifo(entries)
        sends: list[tuple[batch.Entry, Send]] = []
        refused: list[dict[str, Any]] = []
        for entry in entries:
            try:
                sends.append((entry, self.checked(entry, in_batch=True)))
            except ApiError as error:
                refused.append(batch.failed(entry, error))
        return sends, refused

    def _check_fifo(self, entries: Sequence[batch.Entry]) -> None:
        """An entry without the ids that a FIFO queue needs fails the batch, and always as a wrong value."""
        for entry in entries:
            try:
                message.check_fifo_ids(self._queue, entry.get("MessageGroupId"), entry.get("MessageDeduplicationId"))
            except ApiError as error:
                raise ApiError("InvalidParameterValueException", error.message) from None


def _size(entry: batch.Entry) -> int:
    """Bytes of a batch entry as far as it can be measured; what is wrong with it is found when its turn comes."""
    body = len((entry.get("MessageBody") or "").encode(errors="replace"))
    try:
        return body + message.size_of(message.given_attributes(entry.get("MessageAttributes")))
    except ApiError:
        return body
