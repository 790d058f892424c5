"""What dead letters say of their death."""

from __future__ import annotations

from bus.accepted import Luggage, pack
from bus.dispatch.letters import letter_attributes
from bus.scope import Scope
from bus.store import Lease
from bus.targets import Failed, Route
from rules.retry import Exhausted

SCOPE = Scope("000000000000", "us-east-1")
LEASE = Lease(
    1, 2, 3, 4, 0, 0, "d6b06d1a-9335-5931-9f78-77910cccdae9", 1_700_000_000_000, b"{}",
    pack(Luggage(rendered=True, scheduled=1_699_999_980_000)),
)  # fmt: skip


def route(bus: str, arn: str, owner: str) -> Route:
    return Route(2, SCOPE, bus, "r", owner, {"Id": "t", "Arn": arn})


RULE = route("default", "arn:aws:sqs:us-east-1:000000000000:q", "arn:aws:events:us-east-1:000000000000:rule/r")
SCHEDULE = route(
    "", "arn:aws:lambda:us-east-1:000000000000:function:f", "arn:aws:scheduler:us-east-1:000000000000:schedule/g/s"
)


def test_of_a_rule() -> None:
    assert letter_attributes(RULE, LEASE, Failed("NO_RESOURCE", ""), None) == {
        "RULE_ARN": RULE.rule_arn,
        "TARGET_ARN": RULE.arn,
        "ERROR_CODE": "NO_RESOURCE",
        "ERROR_MESSAGE": "NO_RESOURCE",
    }
    ended = Exhausted("MaximumRetryAttempts", 7)
    assert letter_attributes(RULE, LEASE, Failed("TIMEOUT", "late"), ended) == {
        "RULE_ARN": RULE.rule_arn,
        "TARGET_ARN": RULE.arn,
        "ERROR_CODE": "TIMEOUT",
        "ERROR_MESSAGE": "late",
        "EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts",
        "RETRY_ATTEMPTS": "7",
    }


def test_of_a_schedule() -> None:
    facts = {
        "SCHEDULE_ARN": SCHEDULE.rule_arn,
        "TARGET_ARN": "arn:aws:scheduler:::aws-sdk:lambda:invoke",
        "SCHEDULED_TIME": "2023-11-14T22:13:00Z",
        "EXECUTION_ID": "d6b06d1a93355931",
        "IS_PAYLOAD_TRUNCATED": "false",
    }
    final = letter_attributes(SCHEDULE, LEASE, Failed("ResourceNotFoundException", "no function"), None)
    assert final == {
        **facts,
        "ERROR_CODE": "ResourceNotFoundException",
        "ERROR_MESSAGE": "no function",
        "RETRY_ATTEMPTS": "4",
    }
    ended = letter_attributes(
        SCHEDULE, LEASE, Failed("INTERNAL_ERROR", "odd"), Exhausted("MaximumEventAgeInSeconds", 9)
    )
    assert ended == {
        **facts,
        "ERROR_CODE": "AWS.Scheduler.InternalServerError",
        "ERROR_MESSAGE": "odd",
        "RETRY_ATTEMPTS": "9",
        "EXHAUSTED_RETRY_CONDITION": "MaximumEventAgeInSeconds",
    }
