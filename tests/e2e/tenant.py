"""One account of a bus, as its owner uses it through boto3; tests that share a server share nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

REGION = "us-east-1"
PAGE = 10
_accounts = count(410_000_000_001)


class Server(Protocol):
    """What is needed of the server under test."""

    url: str


@dataclass(frozen=True, slots=True)
class Queue:
    url: str
    arn: str


class Tenant:
    """The clients of one account, and what every test does with them."""

    def __init__(self, aws: Any, *, at: Server, account: str | None = None, region: str = REGION) -> None:
        self._aws = aws
        self._at = at
        self.account = account or str(next(_accounts))
        self.region = region
        self.events = aws("events", at=at, account=self.account, region=region)
        self.sqs = aws("sqs", at=at, account=self.account, region=region)

    def in_region(self, region: str) -> Tenant:
        """The same account elsewhere."""
        return Tenant(self._aws, at=self._at, account=self.account, region=region)

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"

    def queue(self, name: str, **attributes: str) -> Queue:
        url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return Queue(url, self.arn("sqs", name))

    def rule(
        self, name: str, *targets: dict[str, Any], pattern: Any = None, bus: str = "default", state: str = "ENABLED"
    ) -> str:
        """A rule with targets, by default for events whose source is the rule's name; its ARN."""
        text = json.dumps({"source": [name]} if pattern is None else pattern)
        made = self.events.put_rule(Name=name, EventPattern=text, EventBusName=bus, State=state)
        if targets:
            answer = self.events.put_targets(Rule=name, EventBusName=bus, Targets=list(targets))
            assert answer["FailedEntryCount"] == 0, answer
        return str(made["RuleArn"])

    def put(self, source: str, detail: Any = None, **members: Any) -> str:
        """One event; its id."""
        text = json.dumps({} if detail is None else detail)
        entry = {"Source": source, "DetailType": "Test", "Detail": text, **members}
        (result,) = self.events.put_events(Entries=[entry])["Entries"]
        return str(result["EventId"])

    def put_many(self, source: str, number: int) -> list[str]:
        """Events with details {"n": 0}, {"n": 1}...; their ids."""
        ids: list[str] = []
        for first in range(0, number, PAGE):
            details = [json.dumps({"n": n}) for n in range(first, min(first + PAGE, number))]
            entries = [{"Source": source, "DetailType": "Test", "Detail": detail} for detail in details]
            answer = self.events.put_events(Entries=entries)
            assert answer["FailedEntryCount"] == 0, answer
            ids += [entry["EventId"] for entry in answer["Entries"]]
        return ids

    def receive(self, queue: Queue, number: int = 1) -> list[Any]:
        """The next messages of a queue, waited for and deleted."""
        found: list[Any] = []
        while len(found) < number:
            found += self.page(queue, min(PAGE, number - len(found)), wait=20)
        return found

    def page(self, queue: Queue, size: int = PAGE, *, wait: int) -> list[Any]:
        """Some of the messages of a queue, deleted; at least one when it may ``wait`` (seconds)."""
        answer = self.sqs.receive_message(
            QueueUrl=queue.url,
            MaxNumberOfMessages=size,
            WaitTimeSeconds=wait,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )
        messages: list[Any] = answer.get("Messages", [])
        assert messages or not wait, f"nothing came to {queue.arn}"
        if messages:
            handles = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)]
            self.sqs.delete_message_batch(QueueUrl=queue.url, Entries=handles)
        return messages

    def drain(self, queue: Queue) -> list[Any]:
        """All that is in a queue now."""
        found: list[Any] = []
        while page := self.page(queue, wait=0):
            found += page
        return found


def letter(message: Any) -> dict[str, str]:
    """What a dead letter says of its death."""
    return {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}


def to_dead_letters(queue: Queue, *, retries: int | None = None) -> dict[str, Any]:
    """Target members: a dead-letter queue, and how often to try again."""
    members: dict[str, Any] = {"DeadLetterConfig": {"Arn": queue.arn}}
    if retries is not None:
        members["RetryPolicy"] = {"MaximumRetryAttempts": retries}
    return members
