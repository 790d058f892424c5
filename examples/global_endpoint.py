"""An application that survives the loss of a region: one endpoint, two buses, and an operator who pulls the plug.

python -m examples.global_endpoint
"""

from __future__ import annotations

import json

from examples.running import Webhook, call, client, endpoint

ACCOUNT = "000000000000"
REGIONS = ("us-east-1", "us-west-2")


def main() -> None:
    with endpoint() as url, Webhook() as webhook:
        for region in REGIONS:
            # The same bus, rule and target in both regions, as one stack deployed twice.
            events = client("events", url, region=region)
            events.create_event_bus(Name="orders")
            events.put_rule(Name="placed", EventBusName="orders", EventPattern='{"detail-type":["OrderPlaced"]}')
            target = {"Id": "hook", "Arn": f"{webhook.url}/{region}"}
            events.put_targets(Rule="placed", EventBusName="orders", Targets=[target])

        events = client("events", url)
        buses = [f"arn:aws:events:{region}:{ACCOUNT}:event-bus/orders" for region in REGIONS]
        health_check = {"HealthCheck": "arn:aws:route53:::healthcheck/orders"}
        made = events.create_endpoint(
            Name="orders",
            RoutingConfig={"FailoverConfig": {"Primary": health_check, "Secondary": {"Route": REGIONS[1]}}},
            ReplicationConfig={"State": "DISABLED"},
            EventBuses=[{"EventBusArn": bus} for bus in buses],
        )
        endpoint_id = events.describe_endpoint(Name="orders")["EndpointId"]
        print(f"endpoint {made['Arn']} is {endpoint_id}")

        # SigV4A, which clients choose for an endpoint, needs the package awscrt; SigV4 is taken too.
        producer = client("events", url, signature_version="v4")

        def put(number: int) -> str:
            entry = {"Source": "shop", "DetailType": "OrderPlaced", "EventBusName": "orders"}
            producer.put_events(EndpointId=endpoint_id, Entries=[{**entry, "Detail": json.dumps({"id": number})}])
            arrived = webhook.next()
            print(f"order {arrived.event['detail']['id']} came to {arrived.path} of region {arrived.event['region']}")
            return str(arrived.event["region"])

        assert put(1) == REGIONS[0]
        # The same as: busbar endpoint fail-over ARN
        state = call(url, "PUT", "/_bus/endpoints", {"Endpoint": made["Arn"], "Primary": "failed-over"})
        print(f"failed over: {state['ActiveRegion']} is active")
        assert put(2) == REGIONS[1]
        state = call(url, "PUT", "/_bus/endpoints", {"Endpoint": made["Arn"], "Primary": "healthy"})
        print(f"recovered: {state['ActiveRegion']} is active")
        assert put(3) == REGIONS[0]

        events.delete_endpoint(Name="orders")
        for region in REGIONS:
            events = client("events", url, region=region)
            events.remove_targets(Rule="placed", EventBusName="orders", Ids=["hook"])
            events.delete_rule(Name="placed", EventBusName="orders")
            events.delete_event_bus(Name="orders")


if __name__ == "__main__":
    main()
