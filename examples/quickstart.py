"""A rule, a target, an event: EventBridge through boto3, delivered to a local webhook.

python -m examples.quickstart
"""

from __future__ import annotations

import json

from examples.running import Webhook, client, endpoint


def main() -> None:
    with endpoint() as url, Webhook() as webhook:
        events = client("events", url)
        events.put_rule(
            Name="large-orders",
            EventPattern=json.dumps({"source": ["shop"], "detail": {"total": [{"numeric": [">=", 100]}]}}),
        )
        events.put_targets(Rule="large-orders", Targets=[{"Id": "hook", "Arn": f"{webhook.url}/orders"}])

        answer = events.put_events(
            Entries=[
                {"Source": "shop", "DetailType": "OrderPlaced", "Detail": json.dumps({"id": 1, "total": 250})},
                {"Source": "shop", "DetailType": "OrderPlaced", "Detail": json.dumps({"id": 2, "total": 20})},
            ]
        )
        print("accepted:", *(entry["EventId"] for entry in answer["Entries"]))

        arrived = webhook.next()
        print("delivered:", json.dumps(arrived.event, indent=2))
        assert arrived.event["detail"]["id"] == 1, "only the first order is large enough for the rule"

        events.remove_targets(Rule="large-orders", Ids=["hook"])
        events.delete_rule(Name="large-orders")


if __name__ == "__main__":
    main()
