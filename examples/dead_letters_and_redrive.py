"""An event that could not be delivered: why it died, and sending it again once the target is mended.

python -m examples.dead_letters_and_redrive
"""

from __future__ import annotations

import json

from examples.running import Webhook, call, client, endpoint


def main() -> None:
    healthy = False
    with endpoint() as url, Webhook(lambda path: 200 if healthy else 500) as webhook:
        events, sqs = client("events", url), client("sqs", url)
        queue_url = sqs.create_queue(QueueName="billing-dead-letters")["QueueUrl"]
        queue_arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

        events.put_rule(Name="billing", EventPattern='{"source":["shop"]}')
        events.put_targets(
            Rule="billing",
            Targets=[
                {
                    "Id": "hook",
                    "Arn": f"{webhook.url}/billing",
                    "RetryPolicy": {"MaximumRetryAttempts": 1},
                    "DeadLetterConfig": {"Arn": queue_arn},
                }
            ],
        )
        events.put_events(Entries=[{"Source": "shop", "DetailType": "OrderPlaced", "Detail": json.dumps({"id": 1})}])
        for _ in range(2):
            print(f"attempt answered with {webhook.next().status}")

        # Receiving leaves the message in the queue: it is only hidden for the visibility timeout.
        (letter,) = sqs.receive_message(
            QueueUrl=queue_url, MessageAttributeNames=["All"], VisibilityTimeout=0, WaitTimeSeconds=20
        )["Messages"]
        for name, attribute in sorted(letter["MessageAttributes"].items()):
            print(f"  {name}: {attribute['StringValue']}")

        healthy = True
        # The same as: busbar dlq redrive --queue billing-dead-letters --all
        result = call(url, "POST", "/_bus/dead-letters/redrive", {"Queue": queue_arn})
        print(f"sent again: {result['Redriven']}")
        again = webhook.next()
        print(f"attempt answered with {again.status}; the event is {json.dumps(again.event['detail'])}")
        assert again.status == 200

        events.remove_targets(Rule="billing", Ids=["hook"])
        events.delete_rule(Name="billing")
        sqs.delete_queue(QueueUrl=queue_url)


if __name__ == "__main__":
    main()
