"""An adapter for a service of your own, whose durable events reach the default bus although it goes away meanwhile.

python -m examples.service_source
"""

from __future__ import annotations

import asyncio
import json

from bus.sources import ServiceSource
from examples.running import Bus, client, own_bus

OBJECTS = [f"invoice-{number}.pdf" for number in (1, 2, 3)]


async def adapt(bus: Bus) -> None:
    """Tell the bus of three objects; it is down when the second and the third are put."""
    async with ServiceSource("aws.s3", endpoint=bus.url) as s3:
        await put(s3, OBJECTS[0])
        bus.kill()
        print("while the bus is down, two more are put")
        waiting = [asyncio.create_task(put(s3, key)) for key in OBJECTS[1:]]
        await asyncio.sleep(0)
        await asyncio.to_thread(bus.start)
        await asyncio.gather(*waiting)
        s3.send("Object Access Tier Changed", {"object": {"key": OBJECTS[0]}})  # one that may be lost


async def put(s3: ServiceSource, key: str) -> None:
    event_id = await s3.put("Object Created", {"object": {"key": key}}, resources=["arn:aws:s3:::invoices"])
    print(f"on disk: {event_id}  {key}")


def main() -> None:
    with own_bus() as bus:
        # A queue keeps the order in which events come.
        sqs, events = client("sqs", bus.url), client("events", bus.url)
        url = sqs.create_queue(QueueName="invoices")["QueueUrl"]
        events.put_rule(Name="created", EventPattern='{"source":["aws.s3"],"detail-type":["Object Created"]}')
        arn = "arn:aws:sqs:us-east-1:000000000000:invoices"
        events.put_targets(Rule="created", Targets=[{"Id": "queue", "Arn": arn}])
        asyncio.run(adapt(bus))
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20)["Messages"]
        details = [json.loads(message["Body"])["detail"] for message in messages]
        for detail in details:
            print(f"arrived: {json.dumps(detail)}")
        assert [detail["object"]["key"] for detail in details] == OBJECTS
        print(f"{len(details)} of {len(OBJECTS)} arrived, in their order")


if __name__ == "__main__":
    main()
