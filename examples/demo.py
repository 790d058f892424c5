"""A tour of the bus in ten seconds: deliveries, retries, a dead letter, and a crash.

python -m examples.demo
"""

from __future__ import annotations

import json
import os
import sys
from itertools import count
from typing import Any

from examples.running import Arrived, Bus, Webhook, call, client, own_bus

FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:orders"
QUEUE = "dead-letters"
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ

_steps = count(1)


def main() -> None:
    broken = {"/billing"}
    with own_bus() as bus, Webhook(lambda path: 503 if path in broken else 200) as webhook:
        step("A bus, with an empty data directory")
        shell(f"busbar serve --port 0 --data-dir {bus.directory / 'data'}")
        say(f"listening on {bus.url}")
        shell(f"export AWS_ENDPOINT_URL={bus.url} BUSBAR_ENDPOINT_URL={bus.url}")
        events, sqs = client("events", bus.url), client("sqs", bus.url)
        dead_letters = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]

        step("A rule whose target is a Lambda function, and a wire that leads to code on this machine")
        add_rule(events, "orders", ["OrderPlaced"], {"Id": "function", "Arn": FUNCTION})
        wire(bus, "arn:aws:lambda:*:*:function:orders", f"{webhook.url}/orders")

        step("Three events; two match the rule")
        for detail_type, detail in (("OrderPlaced", {"id": 1}), ("CartEmptied", {"id": 9}), ("OrderPlaced", {"id": 2})):
            put(events, detail_type, detail)
        for _ in range(2):
            show(webhook.next())

        step("A webhook that answers 503: two retries, then the dead-letter queue")
        target = {
            "Id": "hook",
            "Arn": f"{webhook.url}/billing",
            "RetryPolicy": {"MaximumRetryAttempts": 2},
            "DeadLetterConfig": {"Arn": arn_of(sqs, dead_letters)},
        }
        add_rule(events, "billing", ["PaymentDue"], target)
        put(events, "PaymentDue", {"id": 3, "amount": 42})
        for attempt in range(1, 4):
            show(webhook.next(), f"attempt {attempt}")
        show_letter(sqs, dead_letters)

        step("The webhook is mended, and the dead letter sent again")
        broken.clear()
        shell("busbar dlq redrive --all")
        sent = call(bus.url, "POST", "/_bus/dead-letters/redrive", {"Queue": QUEUE})
        say(f"{sent['Redriven']} sent again")
        show(webhook.next())

        step("kill -9 with an event accepted and not delivered yet; after a restart it arrives")
        broken.add("/billing")
        put(events, "PaymentDue", {"id": 4, "amount": 7})
        show(webhook.next(), "attempt 1")
        bus.kill()
        broken.clear()
        bus.start()
        say("the bus was killed, and has started again")
        while (arrived := webhook.next()).status != 200:
            show(arrived, "made before the kill")
        show(arrived, "the next attempt")

    print("\nThat was all; nothing is left behind. To keep a bus: make serve. To read on: README.md")


def add_rule(events: Any, name: str, detail_types: list[str], target: dict[str, Any]) -> None:
    pattern = json.dumps({"source": ["shop"], "detail-type": detail_types})
    shell(f"aws events put-rule --name {name} --event-pattern '{pattern}'")
    events.put_rule(Name=name, EventPattern=pattern)
    shell(f"aws events put-targets --rule {name} --targets Id={target['Id']},Arn={target['Arn']}" + more(target))
    events.put_targets(Rule=name, Targets=[target])


def more(target: dict[str, Any]) -> str:
    """What else the target has, as the AWS command line writes it."""
    members = {name: value for name, value in target.items() if isinstance(value, dict)}
    return "".join(f",{name}={{{next(iter(v))}={next(iter(v.values()))}}}" for name, v in members.items())


def wire(bus: Bus, arn: str, url: str) -> None:
    shell(f"busbar wire '{arn}' {url}")
    call(bus.url, "PUT", "/_bus/wires", {"Arn": arn, "Url": url})


def put(events: Any, detail_type: str, detail: dict[str, Any]) -> None:
    entry = {"Source": "shop", "DetailType": detail_type, "Detail": json.dumps(detail)}
    (answer,) = events.put_events(Entries=[entry])["Entries"]
    shell(f"busbar put shop {detail_type} '{entry['Detail']}'")
    say(f"accepted as {answer['EventId']}")


def arn_of(sqs: Any, queue_url: str) -> str:
    answer = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    return str(answer["Attributes"]["QueueArn"])


def show(arrived: Arrived, note: str = "") -> None:
    event = arrived.event
    colour = "32" if arrived.status < 300 else "31"
    text = f"-> {arrived.path}  {event['detail-type']} {json.dumps(event['detail'])}  answered {arrived.status}"
    say(painted(text, colour) + (f"  ({note})" if note else ""))


def show_letter(sqs: Any, queue_url: str) -> None:
    """Wait for the dead letter; receiving it only hides it, here for no time at all."""
    shell(f"aws sqs receive-message --queue-url {queue_url} --message-attribute-names All")
    (letter,) = sqs.receive_message(
        QueueUrl=queue_url, MessageAttributeNames=["All"], WaitTimeSeconds=20, VisibilityTimeout=0
    )["Messages"]
    for name, attribute in sorted(letter["MessageAttributes"].items()):
        say(f"{name}: {attribute['StringValue']}")


def step(title: str) -> None:
    print("\n" + painted(f"{next(_steps)}. {title}", "1"))


def shell(line: str) -> None:
    say(painted(f"$ {line}", "2"))


def say(line: str) -> None:
    print(f"   {line}", flush=True)


def painted(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if COLOUR else text


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
