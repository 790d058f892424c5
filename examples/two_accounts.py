"""One account opens its bus to another: for events of one source, and for rules of the other's own.

python -m examples.two_accounts
"""

from __future__ import annotations

import json

from botocore.exceptions import ClientError

from examples.running import Webhook, client, endpoint

OWNER, GUEST = "111111111111", "222222222222"


def main() -> None:
    with endpoint() as url, Webhook() as webhook:
        owner, guest = client("events", url, account=OWNER), client("events", url, account=GUEST)
        bus = owner.create_event_bus(Name="orders")["EventBusArn"]
        order = {"Source": "shop", "DetailType": "OrderPlaced", "Detail": json.dumps({"id": 1}), "EventBusName": bus}

        try:
            guest.put_events(Entries=[order])
        except ClientError as error:
            print(f"without a policy: {error.response['Error']['Message']}")

        statements = [
            {
                "Sid": "events",
                "Effect": "Allow",
                "Principal": {"AWS": GUEST},
                "Action": "events:PutEvents",
                "Resource": bus,
                "Condition": {"StringEquals": {"events:source": "shop"}},
            },
            {
                "Sid": "rules",
                "Effect": "Allow",
                "Principal": {"AWS": GUEST},
                "Action": ["events:*Rule", "events:*Targets"],
                "Resource": f"arn:aws:events:us-east-1:{OWNER}:rule/orders/*",
                "Condition": {"StringEqualsIfExists": {"events:creatorAccount": "${aws:PrincipalAccount}"}},
            },
        ]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        owner.put_permission(EventBusName="orders", Policy=policy)

        guest.put_rule(Name="watch", EventBusName=bus, EventPattern='{"source":["shop"]}')
        guest.put_targets(Rule="watch", EventBusName=bus, Targets=[{"Id": "hook", "Arn": f"{webhook.url}/watch"}])
        rule = owner.describe_rule(Name="watch", EventBusName="orders")
        print(f"the owner sees {rule['Arn']}, made by {rule['CreatedBy']}")

        guest.put_events(Entries=[order])
        event = webhook.next().event
        print(f"an event of account {event['account']} on the bus of {OWNER}: {json.dumps(event['detail'])}")

        guest.remove_targets(Rule="watch", EventBusName=bus, Ids=["hook"])
        guest.delete_rule(Name="watch", EventBusName=bus)
        owner.delete_event_bus(Name="orders")


if __name__ == "__main__":
    main()
