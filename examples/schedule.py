"""Rules that fire by the clock: what an expression means, a rule that has one, and four days in a moment.

A schedule's first event is a minute away at best. So this asks `busbar schedule` when an expression is due, gives a
rule of a running bus its schedule, and then lets a bus inside this process live through four days by moving its clock.

python -m examples.schedule
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

from bus.app import App, open_app
from bus.clock import ManualClock
from bus.config import Settings
from bus.scope import Call, Scope
from examples.running import call, client, endpoint

WORKDAYS = "cron(30 8 ? * MON-FRI *)"
FRIDAY = datetime(2030, 3, 1, 8, 0, tzinfo=UTC)
QUEUE = "arn:aws:sqs:us-east-1:000000000000:reports"


def ask_when() -> None:
    """The same as: busbar schedule 'cron(30 8 ? * MON-FRI *)' --since 2030-03-01T08:00 --count 3"""
    words = ["schedule", WORKDAYS, "--since", f"{FRIDAY:%Y-%m-%dT%H:%M}", "--count", "3"]
    print(f"{WORKDAYS} is due at")
    print(subprocess.run([sys.executable, "-m", "bus", *words], check=True, capture_output=True, text=True).stdout)


def make_a_rule(url: str) -> None:
    """As on AWS; what comes of it is one minute or more away."""
    events = client("events", url)
    events.put_rule(Name="every-minute", ScheduleExpression="rate(1 minute)")
    (rule,) = [each for each in call(url, "GET", "/_bus/rules")["Rules"] if each["Name"] == "every-minute"]
    print(f"rule {rule['Name']}: {rule['ScheduleExpression']}, next at {rule['NextDue']}")
    events.delete_rule(Name="every-minute")


async def live_through_four_days() -> None:
    """A bus with a clock of its own: how to test what your schedules lead to, without waiting for them."""
    clock = ManualClock(int(FRIDAY.timestamp() * 1000))
    app = await open_app(Settings(data_dir=":memory:"), clock)
    here = Call(Scope("000000000000", "us-east-1"))
    try:
        url = (await app.queues.create_queue(here, {"QueueName": "reports"}))["QueueUrl"]
        await app.catalog.put_rule(here, {"Name": "reports", "ScheduleExpression": WORKDAYS})
        await app.catalog.put_targets(here, {"Rule": "reports", "Targets": [{"Id": "queue", "Arn": QUEUE}]})
        for _ in range(4 * 24):
            clock.advance(3600)
            await app.scheduler.settle()
        for event in await received(app, here, url):
            print(f"{event['time']}  {event['detail-type']}  {event['resources'][0]}")
    finally:
        await app.close()


async def received(app: App, here: Call, url: str) -> list[Any]:
    answer = await app.queues.receive_message(here, {"QueueUrl": url, "MaxNumberOfMessages": 10})
    return [json.loads(message["Body"]) for message in answer["Messages"]]


def main() -> None:
    ask_when()
    with endpoint() as url:
        make_a_rule(url)
    asyncio.run(live_through_four_days())


if __name__ == "__main__":
    main()
