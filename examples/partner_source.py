"""Both sides of a partner event source: a partner offers it, a customer makes a bus for it, events pass.

On AWS the two are different accounts, and so they may be here; in this example one account plays both.

python -m examples.partner_source
"""

from __future__ import annotations

import json
from typing import Any

from examples.running import Webhook, client, endpoint

SOURCE = "aws.partner/example.com/orders/eu"
ACCOUNT = "000000000000"


def order(number: int) -> dict[str, Any]:
    return {"Source": SOURCE, "DetailType": "OrderPlaced", "Detail": json.dumps({"order": number})}


def main() -> None:
    with endpoint() as url, Webhook() as webhook:
        events = client("events", url)

        def state() -> str:
            return str(events.describe_event_source(Name=SOURCE)["State"])

        offered = events.create_partner_event_source(Name=SOURCE, Account=ACCOUNT)
        print(f"partner:  offers {offered['EventSourceArn']}; it is {state()}")
        events.put_partner_events(Entries=[order(1)])
        print("partner:  sends order 1, which is lost: nobody has made a bus for it yet")

        events.create_event_bus(Name=SOURCE, EventSourceName=SOURCE)
        events.put_rule(Name="orders", EventBusName=SOURCE, EventPattern='{"detail-type":["OrderPlaced"]}')
        target = {"Id": "hook", "Arn": f"{webhook.url}/orders"}
        events.put_targets(Rule="orders", EventBusName=SOURCE, Targets=[target])
        print(f"customer: makes the bus of that name, with a rule; the source is {state()}")

        events.put_partner_events(Entries=[order(2)])
        arrived = webhook.next()
        print(f"customer: receives {json.dumps(arrived.event['detail'])} from {arrived.event['source']}")
        assert arrived.event["detail"] == {"order": 2}

        events.delete_partner_event_source(Name=SOURCE, Account=ACCOUNT)
        print(f"partner:  deletes the source; the bus remains, and the source is {state()}")

        events.remove_targets(Rule="orders", EventBusName=SOURCE, Ids=["hook"])
        events.delete_rule(Name="orders", EventBusName=SOURCE)
        events.delete_event_bus(Name=SOURCE)


if __name__ == "__main__":
    main()
