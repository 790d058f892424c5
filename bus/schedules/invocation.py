"""What one invocation sends: the target's Input with the context attributes filled in, or EventBridge Scheduler's
own notification where there is no Input.

The number of the attempt differs from attempt to attempt, so that its attribute stays in what is stored and is filled
in by whoever makes the attempt.
"""

from __future__ import annotations

import orjson

from bus.accepted import Accepted, Luggage, pack
from bus.schedules.schedule import Execution, Schedule, instant_text

NO_BUS = 0
"""The number under which the store keeps what no bus is involved in."""

ATTEMPT = b"<aws.scheduler.attempt-number>"


def invocation(schedule: Schedule, nominal: int, now: int) -> Accepted:
    """The event that is stored for an invocation of a nominal instant (ms), made ``now``."""
    execution = schedule.execution(nominal)
    luggage = Luggage(rendered=True, scheduled=nominal)
    return Accepted(execution.event_id, NO_BUS, now, _body(schedule, execution), luggage, pack(luggage))


def fill_attempt(body: bytes, attempt: int) -> bytes:
    """The body of one attempt, counted from 1."""
    return body.replace(ATTEMPT, b"%d" % attempt)


def _body(schedule: Schedule, execution: Execution) -> bytes:
    text = schedule.route.target.get("Input")
    if text is None:
        return _notification(schedule, execution)
    for attribute, value in (
        ("<aws.scheduler.schedule-arn>", schedule.arn),
        ("<aws.scheduler.scheduled-time>", instant_text(execution.nominal)),
        ("<aws.scheduler.execution-id>", execution.execution_id),
    ):
        text = text.replace(attribute, value)
    return bytes(text.encode("utf-8", "replace"))


def _notification(schedule: Schedule, execution: Execution) -> bytes:
    """AWS's default notification; its detail is a text."""
    return orjson.dumps(
        {
            "version": "0",
            "id": execution.event_id,
            "detail-type": "Scheduled Event",
            "source": "aws.scheduler",
            "account": schedule.scope.account,
            "time": instant_text(execution.nominal),
            "region": schedule.scope.region,
            "resources": [schedule.arn],
            "detail": "{}",
        }
    )
