"""A queues capability over a store in memory and a clock that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from botocore import xform_name

from bus.clock import IdSource, ManualClock
from bus.queues import Queue, Queues
from bus.scope import Call, Scope
from bus.store.sqlite import SqliteStore, open_store

SCOPE = Scope("000000000000", "us-east-1")
CALL = Call(SCOPE, host="localhost:4010")


class Rig:
    """Calls operations by their API names; ``call`` is who asks."""

    def __init__(self, store: SqliteStore, queues: Queues, clock: ManualClock) -> None:
        self.store = store
        self.queues = queues
        self.clock = clock
        self.call = CALL

    async def do(self, operation: str, /, **request: Any) -> dict[str, Any]:
        return await getattr(self.queues, xform_name(operation))(self.call, request) or {}

    async def create(self, name: str, **attributes: str) -> str:
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        return (await self.do("CreateQueue", QueueName=name, Attributes=attributes))["QueueUrl"]

    async def send(self, url: str, body: str, **more: Any) -> dict[str, Any]:
        return await self.do("SendMessage", QueueUrl=url, MessageBody=body, **more)

    async def receive(self, url: str, limit: int = 10, **more: Any) -> list[dict[str, Any]]:
        request = {"QueueUrl": url, "MaxNumberOfMessages": limit, "AttributeNames": ["All"], **more}
        return (await self.do("ReceiveMessage", **request)).get("Messages", [])

    async def bodies(self, url: str, limit: int = 10, **more: Any) -> list[str]:
        return [message["Body"] for message in await self.receive(url, limit, **more)]

    async def counts(self, url: str) -> tuple[int, int, int]:
        """Visible, in flight, delayed."""
        answer = await self.do("GetQueueAttributes", QueueUrl=url, AttributeNames=["All"])
        names = ("", "NotVisible", "Delayed")
        visible, in_flight, delayed = (int(answer["Attributes"][f"ApproximateNumberOfMessages{n}"]) for n in names)
        return visible, in_flight, delayed

    def queue(self, name: str) -> Queue:
        found = self.queues.find(f"arn:aws:sqs:{SCOPE.region}:{SCOPE.account}:{name}")
        assert found is not None
        return found

    async def wait(self, seconds: float) -> None:
        """Time passes, and whatever became due is done."""
        self.clock.advance(seconds)
        self.queues.tick()
        await turns()


async def turns(count: int = 20) -> None:
    """Let the loop run what is ready, several times over."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def rig(path: str = ":memory:", clock: ManualClock | None = None, **options: Any) -> AsyncIterator[Rig]:
    """A rig over the store at ``path``, closed in reverse order."""
    clock = clock or ManualClock()
    store = await open_store(path, clock)
    queues = Queues(store, clock, IdSource(clock), **options)
    store.on_messages = queues.arrived
    await queues.load()
    try:
        yield Rig(store, queues, clock)
    finally:
        await queues.close()
        await store.close()
