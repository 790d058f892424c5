"""The Policy attribute: the statements that AddPermission writes, and whom they let in.

Only callers of another account need a policy. What is evaluated is what AddPermission writes and what people write by
hand in its likeness: effect, principal, action. A statement with conditions, NotAction or NotPrincipal cannot be
decided here, and neither can one that names no principal or no action: it never allows, and as a denial it always
denies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
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


def allows(policy: str | None, account: str, action: str) -> bool:
    """Whether the policy lets an account do something."""
    statements = [s for s in _statements(_document(policy)) if _concerns(s, account, action)]
    if any(statement.get("Effect") != "Allow" for statement in statements):
        return False
    return any(_is_decidable(statement) for statement in statements)


def _is_decidable(statement: dict[str, Any]) -> bool:
    """Whether a statement says all that it says in words that are understood here."""
    return statement.keys() >= {"Principal", "Action"} and not statement.keys() & {
        "Condition",
        "NotAction",
        "NotPrincipal",
    }


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


def _concerns(statement: dict[str, Any], account: str, action: str) -> bool:
    principal = statement.get("Principal", "*")
    names = _many(principal.get("AWS", ()) if isinstance(principal, dict) else principal)
    if not {"*", account, f"arn:aws:iam::{account}:root"} & set(names):
        return False
    wanted = f"sqs:{action}".lower()
    return any(fnmatchcase(wanted, str(pattern).lower()) for pattern in _many(statement.get("Action", "*")))


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _one_or_many(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values
