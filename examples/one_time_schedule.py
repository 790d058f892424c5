"""EventBridge Scheduler: a reminder that is sent once, by a wall clock of your choice; the schedule goes with it.

python -m examples.one_time_schedule
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from examples.running import Webhook, client, endpoint

ROLE = "arn:aws:iam::000000000000:role/any"  # clients ask for one; a bus of your own assumes none
ZONE = "Europe/Berlin"
REMINDER = {"order": 17, "due": "<aws.scheduler.scheduled-time>", "attempt": "<aws.scheduler.attempt-number>"}


def main() -> None:
    with endpoint() as url, Webhook() as webhook:
        scheduler = client("scheduler", url)
        scheduler.create_schedule_group(Name="reminders")
        soon = datetime.now(ZoneInfo(ZONE)) + timedelta(seconds=1)

        made = scheduler.create_schedule(
            Name="order-17",
            GroupName="reminders",
            ScheduleExpression=f"at({soon:%Y-%m-%dT%H:%M:%S})",
            ScheduleExpressionTimezone=ZONE,
            FlexibleTimeWindow={"Mode": "OFF"},
            ActionAfterCompletion="DELETE",
            Target={"Arn": f"{webhook.url}/remind", "RoleArn": ROLE, "Input": json.dumps(REMINDER)},
        )
        print(f"{made['ScheduleArn']} is due at {soon:%H:%M:%S} in {ZONE}")

        arrived = webhook.next()
        print("sent:", json.dumps(arrived.event))
        assert arrived.event["attempt"] == "1"

        while scheduler.list_schedules(GroupName="reminders")["Schedules"]:
            pass  # it goes once the note of its invocation is on disk
        print("and the schedule is gone")
        scheduler.delete_schedule_group(Name="reminders")


if __name__ == "__main__":
    main()
