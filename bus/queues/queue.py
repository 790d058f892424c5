"""A queue: its name, its settings as numbers, and the record of it that is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import orjson

from bus.queues import attributes
from bus.queues.errors import invalid, missing
from bus.scope import Scope
from bus.store.message_moves import Destination
from bus.store.messages import Source
from rules.arn import queue_arn
from rules.policy import Policy, read_policy

DEDUP_WINDOW_MS = 300_000
"""How long a FIFO queue remembers a deduplication id."""


class Record(msgspec.Struct, frozen=True):
    """What is kept of a queue beside its messages.

    ``number`` names its messages in the store and changes with a purge; ``uid`` is the number it
    began with. ``created``, ``modified`` and ``purged`` are instants (ms).
    """

    number: int
    uid: int
    created: int
    modified: int
    purged: int = 0
    attributes: dict[str, str] = {}
    tags: dict[str, str] = {}


class Redrive(NamedTuple):
    """A redrive policy: where exhausted messages go, after how many receives."""

    arn: str
    after: int


class Queue:
    """A queue as it is now; the object lives as long as the queue and follows its changes."""

    __slots__ = (
        "arn", "by_group", "content_dedup", "delay_ms", "fifo", "gone", "max_bytes", "name", "number", "policy",
        "record", "redrive", "retention_ms", "scope", "visibility", "wait",
    )  # fmt: skip

    def __init__(self, scope: Scope, name: str, record: Record) -> None:
        self.scope = scope
        self.name = name
        self.arn = arn_of(name, scope)
        self.fifo = name.endswith(".fifo")
        self.gone = False
        self.follow(record)

    def follow(self, record: Record) -> None:
        """Take over a new record."""
        self.record = record
        self.number = record.number
        self.delay_ms = int(self._value("DelaySeconds")) * 1000
        self.max_bytes = int(self._value("MaximumMessageSize"))
        self.retention_ms = int(self._value("MessageRetentionPeriod")) * 1000
        self.wait = int(self._value("ReceiveMessageWaitTimeSeconds"))
        self.visibility = int(self._value("VisibilityTimeout"))
        self.content_dedup = self._value("ContentBasedDeduplication") == "true"
        self.by_group = self._value("DeduplicationScope") == "messageGroup"
        self.redrive = redrive_of(record.attributes)
        policy = record.attributes.get("Policy")
        self.policy: Policy | None = None if policy is None else read_policy(policy)

    def _value(self, name: str) -> str:
        return attributes.value_of(self.record.attributes, name, fifo=self.fifo) or "0"

    @property
    def key(self) -> str:
        """The key of its record."""
        return f"{self.scope.account}/{self.scope.region}/{self.name}"

    def url(self, host: str) -> str:
        """The URL under which a client of ``host`` reaches it."""
        return f"http://{host}/{self.scope.account}/{self.name}"

    def attributes(self) -> dict[str, str | None]:
        """All attributes but the counts; one that has no value is None."""
        stored = self.record.attributes
        values = {name: attributes.value_of(stored, name, fifo=self.fifo) for name in attributes.ATTRIBUTES}
        return {
            **values,
            "CreatedTimestamp": str(self.record.created // 1000),
            "LastModifiedTimestamp": str(self.record.modified // 1000),
            "QueueArn": self.arn,
        }

    def source(self, now: int) -> Source:
        """The queue as one to take from."""
        return Source(self.number, self.fifo, now - self.retention_ms)

    def destination(self, now: int) -> Destination:
        """The queue as one to send to."""
        return Destination(self.number, self.fifo, now + self.delay_ms, self.by_group, now - DEDUP_WINDOW_MS)

    def takes_dead_letters_of(self, source: Queue) -> bool:
        """Whether it has the kind, the place and the redrive allow policy to be the dead-letter queue of another."""
        if self.fifo != source.fifo or self.scope != source.scope:
            return False
        policy = orjson.loads(self.record.attributes.get("RedriveAllowPolicy", "{}"))
        permission = policy.get("redrivePermission", "allowAll")
        return permission == "allowAll" or source.arn in policy.get("sourceQueueArns", ())


def redrive_of(stored: Mapping[str, str]) -> Redrive | None:
    """The redrive policy among a queue's attributes."""
    text = stored.get("RedrivePolicy")
    if text is None:
        return None
    policy: dict[str, Any] = orjson.loads(text)
    return Redrive(policy["deadLetterTargetArn"], int(policy["maxReceiveCount"]))


def arn_of(name: str, scope: Scope) -> str:
    """The ARN of a queue."""
    return queue_arn(name, region=scope.region, account=scope.account)


_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_FIFO_NAME = re.compile(r"(?=.{6,80}\Z)[A-Za-z0-9_-]+\.fifo")


def check_name(name: str, *, fifo: bool) -> None:
    """Raise for a name that a queue of the kind cannot have."""
    if not name:
        raise missing("QueueName")
    if fifo and not _FIFO_NAME.fullmatch(name):
        raise invalid(
            "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, "
            "must end with .fifo suffix and be 1 to 80 in length"
        )
    if not fifo and not _NAME.fullmatch(name):
        raise invalid("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")


def arn_in_url(url: str, scope: Scope) -> str:
    """The ARN of the queue that a QueueUrl means: a URL with any host, a path, or a bare name."""
    if not url:
        raise missing("QueueUrl")
    *front, name = url.rstrip("/").split("/")
    account = front[-1] if front and re.fullmatch(r"[0-9]{12}", front[-1]) else scope.account
    return arn_of(name, Scope(account, scope.region))
