"""The Policy attribute: the statements that AddPermission writes and takes away.

`rules.policy` reads and judges policies, those of people's own writing too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from bus.errors import ApiError
from bus.queues.errors import invalid_value, missing

_LABEL = re.compile(r"[A-Za-z0-9_-]{1,80}")
_ACCOUNT = re.compile(r"[0-9]{12}")

SHARED = frozenset(
    ("SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes", "GetQueueUrl",
     "ListDeadLetterSourceQueues", "PurgeQueue")
)  # fmt: skip
"""Actions that another account can be allowed; a batch goes under the name of its single form."""

MAX_ACTIONS = 7


def with_permission(
    policy: str | None, *, arn: str, label: str, accounts: Sequence[str], actions: Sequence[str]
) -> str:
    """The policy with one more statement."""
    _check(label, accounts, actions)
    document = _document(policy) or {"Version": "2008-10-17", "Id": f"{arn}/SQSDefaultPolicy", "Statement": []}
    statements = _statements(document)
    if any(statement.get("Sid") == label for statement in statements):
        raise invalid_value(label, "Label", "Already exists.")
    added = {
        "Sid": label,
        "Effect": "Allow",
        "Principal": {"AWS": _one_or_many([f"arn:aws:iam::{account}:root" for account in accounts])},
        "Action": _one_or_many([f"SQS:{action}" for action in actions]),
        "Resource": arn,
    }
    return orjson.dumps({**document, "Statement": [*statements, added]}).decode()


def without_permission(policy: str | None, label: str) -> str:
    """The policy without the statement of that label; empty when it was the last."""
    document = _document(policy)
    statements = _statements(document)
    left = [statement for statement in statements if statement.get("Sid") != label]
    if len(left) == len(statements):
        raise invalid_value(label, "Label", "can't find label.")
    return orjson.dumps({**document, "Statement": left}).decode() if left else ""


def _check(label: str, accounts: Sequence[str], actions: Sequence[str]) -> None:
    if not _LABEL.fullmatch(label):
        reason = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length."
        raise invalid_value(label, "Label", reason)
    if not accounts:
        raise missing("AWSAccountIds")
    if not actions:
        raise missing("Actions")
    for account in accounts:
        if not _ACCOUNT.fullmatch(account):
            raise invalid_value(f"[{account}]", "PrincipalId", "Unable to verify.")
    if len(actions) > MAX_ACTIONS:
        raise ApiError("OverLimit", f"{len(actions)} Actions were found, maximum allowed is {MAX_ACTIONS}.")
    for action in actions:
        if action != "*" and action not in SHARED:
            reason = "Only the queue owner is allowed to invoke this action."
            raise invalid_value(f"SQS:{action}", "ActionName", reason)


def _document(policy: str | None) -> dict[str, Any]:
    document = orjson.loads(policy) if policy else {}
    assert isinstance(document, dict), "checked when it was set"
    return document


def _statements(document: dict[str, Any]) -> list[dict[str, Any]]:
    found = document.get("Statement", [])
    return [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, dict)]


def _one_or_many(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values
