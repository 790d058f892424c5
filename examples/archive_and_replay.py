"""A consumer that was wrong gets its events again: archived when they came, replayed once it is mended.

python -m examples.archive_and_replay
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from examples.running import PATIENCE_S, Webhook, client, endpoint


def finished(events: Any, name: str) -> Any:
    """The replay once it is over."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        replay = events.describe_replay(ReplayName=name)
        if replay["State"] in ("COMPLETED", "CANCELLED", "FAILED"):
            return replay
        time.sleep(0.1)
    raise SystemExit(f"{name} did not end within {PATIENCE_S:.0f} s")


def main() -> None:
    with endpoint() as url, Webhook() as webhook:
        events = client("events", url)
        bus = events.describe_event_bus()["Arn"]
        archive = events.create_archive(
            ArchiveName="orders", EventSourceArn=bus, EventPattern='{"source":["shop"]}', RetentionDays=30
        )["ArchiveArn"]
        billing = events.put_rule(Name="billing", EventPattern='{"source":["shop"]}')["RuleArn"]
        events.put_targets(Rule="billing", Targets=[{"Id": "hook", "Arn": f"{webhook.url}/wrong"}])

        began = datetime.now(UTC)
        for number in range(3):
            detail = json.dumps({"order": number})
            events.put_events(Entries=[{"Source": "shop", "DetailType": "OrderPlaced", "Detail": detail}])
            arrived = webhook.next()
            print(f"{arrived.path}  order {arrived.event['detail']['order']}")

        kept = events.describe_archive(ArchiveName="orders")
        print(f"archived: {kept['EventCount']} events, {kept['SizeBytes']} bytes")

        # The consumer is mended, and only its rule is to have the events again.
        events.put_targets(Rule="billing", Targets=[{"Id": "hook", "Arn": f"{webhook.url}/mended"}])
        # The same as: busbar replay orders --from 1m --rule billing --name second-try
        events.start_replay(
            ReplayName="second-try",
            EventSourceArn=archive,
            EventStartTime=began - timedelta(seconds=1),
            EventEndTime=datetime.now(UTC) + timedelta(seconds=1),
            Destination={"Arn": bus, "FilterArns": [billing]},
        )
        again = [webhook.next() for _ in range(3)]
        for arrived in sorted(again, key=lambda each: int(each.event["detail"]["order"])):
            print(f"{arrived.path}  order {arrived.event['detail']['order']}  from {arrived.event['replay-name']}")

        print(f"the replay is {finished(events, 'second-try')['State']}")
        still = events.describe_archive(ArchiveName="orders")["EventCount"]
        print(f"archived: {still} events still, because replayed events are not archived again")
        assert still == kept["EventCount"] == 3

        events.delete_archive(ArchiveName="orders")
        events.remove_targets(Rule="billing", Ids=["hook"])
        events.delete_rule(Name="billing")


if __name__ == "__main__":
    main()
