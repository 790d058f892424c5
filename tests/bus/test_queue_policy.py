"""Queue policies: whom statements let in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bus.queues.policy import allows

ACCOUNT = "111111111111"
ALLOW = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "SQS:SendMessage", "Resource": "*"}


def without(member: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**ALLOW, **changes}.items() if name != member}


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([ALLOW], True),
        ([{**ALLOW, "Principal": "*", "Action": "*"}], True),
        ([without("Principal")], False),
        ([without("Action")], False),
        ([without("Principal"), ALLOW], True),
        ([ALLOW, without("Principal", Effect="Deny")], False),
        ([ALLOW, without("Action", Effect="Deny")], False),
        ([{**ALLOW, "Condition": {}}], False),
        ([], False),
    ],
)
def test_who_is_let_in(statements: list[dict[str, Any]], expected: bool) -> None:
    assert allows(json.dumps({"Statement": statements}), ACCOUNT, "SendMessage") is expected
