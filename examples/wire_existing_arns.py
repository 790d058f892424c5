"""Production rules against local code: their targets keep the ARNs of Lambda, SNS and Step Functions.

A wire sends the deliveries for an ARN, or for a pattern of ARNs, to a local URL; what you deploy stays as it is.

python -m examples.wire_existing_arns
"""

from __future__ import annotations

import json

from examples.running import Webhook, call, client, endpoint

TARGETS = {
    "charge": "arn:aws:lambda:eu-west-1:123456789012:function:charge",
    "notify": "arn:aws:sns:eu-west-1:123456789012:orders",
    "fulfil": "arn:aws:states:eu-west-1:123456789012:stateMachine:fulfilment",
}
WIRES = {
    "arn:aws:lambda:*:*:function:charge": "/charge",
    "arn:aws:sns:*:*:orders": "/notify",
    "arn:aws:states:*:*:stateMachine:*": "/fulfil",
}


def main() -> None:
    with endpoint() as url, Webhook() as webhook:
        for arn, path in WIRES.items():
            # The same as: busbar wire ARN URL
            wire = call(url, "PUT", "/_bus/wires", {"Arn": arn, "Url": webhook.url + path})
            print(f"wire  {wire['Arn']} -> {wire['Url']}")

        events = client("events", url)
        events.put_rule(Name="order-placed", EventPattern='{"detail-type":["OrderPlaced"]}')
        events.put_targets(Rule="order-placed", Targets=[{"Id": name, "Arn": arn} for name, arn in TARGETS.items()])
        events.put_events(Entries=[{"Source": "shop", "DetailType": "OrderPlaced", "Detail": json.dumps({"id": 7})}])

        arrived = sorted((webhook.next() for _ in TARGETS), key=lambda each: each.path)
        for each in arrived:
            print(f"event {each.event['id']} at {each.path}: {json.dumps(each.event['detail'])}")
        assert [each.path for each in arrived] == ["/charge", "/fulfil", "/notify"]

        events.remove_targets(Rule="order-placed", Ids=list(TARGETS))
        events.delete_rule(Name="order-placed")
        for arn in WIRES:
            call(url, "DELETE", "/_bus/wires", {"Arn": arn})


if __name__ == "__main__":
    main()
