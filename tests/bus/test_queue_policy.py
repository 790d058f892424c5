"""Queue policies: whom they let in, with what the request says of itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bus.clock import IdSource, ManualClock
from bus.config import Settings
from bus.errors import ApiError
from bus.permissions.principals import Principals, sender_name
from bus.queues import Queues
from bus.scope import Call, Scope
from bus.store.sqlite import SqliteStore, open_store

OWNER, ACCOUNT = "000000000000", "111111111111"
ARN = f"arn:aws:sqs:us-east-1:{OWNER}:q"
RULE = f"arn:aws:events:us-east-1:{OWNER}:rule/r"
ROLE = f"arn:aws:iam::{OWNER}:role/path/send"
ALLOW: dict[str, Any] = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "SQS:SendMessage", "Resource": ARN}
SERVICE: dict[str, Any] = {**ALLOW, "Principal": {"Service": "events.amazonaws.com"}}


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    made = await open_store(":memory:", ManualClock())
    yield made
    await made.close()


async def queues_with(store: SqliteStore, statements: list[dict[str, Any]] | None, **settings: Any) -> Queues:
    clock = ManualClock()
    queues = Queues(store, clock, IdSource(clock), principals=Principals(Settings(**settings), clock))
    await queues.load()
    attributes = {}
    if statements is not None:
        attributes["Policy"] = json.dumps({"Version": "2012-10-17", "Statement": statements})
    await queues.create_queue(caller(OWNER), {"QueueName": "q", "Attributes": attributes})
    return queues


def caller(account: str) -> Call:
    return Call(Scope(account, "us-east-1"), host="localhost:4010")


async def may_send(queues: Queues, account: str) -> bool:
    request = {"QueueUrl": f"http://localhost:4010/{OWNER}/q", "MessageBody": "x"}
    try:
        await queues.send_message(caller(account), request)
    except ApiError as error:
        refusal = error
    else:
        return True
    assert refusal.code == "AccessDeniedException"
    assert refusal.message == f"Access to the resource http://localhost:4010/{OWNER}/q is denied."
    return False


def without(member: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**ALLOW, **changes}.items() if name != member}


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([ALLOW], True),
        ([{**ALLOW, "Principal": "*", "Action": "*", "Resource": "*"}], True),
        ([{**ALLOW, "Resource": ARN + "2"}], False),
        ([{**ALLOW, "Action": "SQS:ReceiveMessage"}], False),
        ([{**ALLOW, "Condition": {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}}], True),
        ([{**ALLOW, "Condition": {"StringEquals": {"aws:PrincipalAccount": OWNER}}}], False),
        ([{**ALLOW, "Condition": {"ArnEquals": {"aws:SourceArn": RULE}}}], False),
        ([ALLOW, {**ALLOW, "Effect": "Deny", "Resource": ARN + "2"}], True),
        ([ALLOW, {**ALLOW, "Effect": "Deny"}], False),
        ([without("Principal")], False),
        ([without("Action")], False),
        ([without("Resource")], False),
        ([without("Principal"), ALLOW], True),
        ([ALLOW, without("Principal", Effect="Deny")], False),
        ([ALLOW, without("Action", Effect="Deny")], False),
        ([], False),
        (None, False),
    ],
)
async def test_which_other_account_is_let_in(
    statements: list[dict[str, Any]] | None, expected: bool, store: SqliteStore
) -> None:
    assert await may_send(await queues_with(store, statements), ACCOUNT) is expected


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (None, True),
        ([], True),
        ([ALLOW], True),
        ([{**ALLOW, "Effect": "Deny"}], True),
        ([{**ALLOW, "Effect": "Deny", "Principal": "*"}], False),
        ([{**ALLOW, "Effect": "Deny", "Principal": {"AWS": OWNER}, "Action": "SQS:DeleteMessage"}], True),
    ],
)
async def test_the_owner_needs_no_policy_and_can_be_denied(
    statements: list[dict[str, Any]] | None, expected: bool, store: SqliteStore
) -> None:
    queues = await queues_with(store, statements)
    assert await may_send(queues, OWNER) is expected
    url = {"QueueUrl": f"http://localhost:4010/{OWNER}/q"}
    await queues.set_queue_attributes(caller(OWNER), {**url, "Attributes": {"Policy": ""}})
    assert await may_send(queues, OWNER)


NO_ALLOW = "because no resource-based policy allows the sqs:sendmessage action"
DENY = "with an explicit deny in a resource-based policy"


def when(**condition: Any) -> dict[str, Any]:
    return {**SERVICE, "Condition": condition}


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (None, None),
        ([], NO_ALLOW),
        ([SERVICE], None),
        ([ALLOW], NO_ALLOW),
        ([{**SERVICE, "Principal": "*"}], None),
        ([{**SERVICE, "Principal": {"Service": "sns.amazonaws.com"}}], NO_ALLOW),
        ([{**SERVICE, "Effect": "Deny"}], DENY),
        ([when(ArnEquals={"aws:SourceArn": RULE})], None),
        ([when(ArnEquals={"aws:SourceArn": RULE + "2"})], NO_ALLOW),
        ([when(StringEquals={"aws:SourceAccount": OWNER})], None),
        ([when(StringEquals={"aws:SourceAccount": ACCOUNT})], NO_ALLOW),
        ([when(StringEquals={"aws:PrincipalServiceName": "events.amazonaws.com"})], None),
        ([when(Bool={"aws:PrincipalIsAWSService": "true"})], None),
        ([when(StringEquals={"aws:PrincipalType": "User"})], None),
        ([when(StringEquals={"aws:PrincipalType": ["AWSService", "Service", "AssumedRole"]})], NO_ALLOW),
        ([when(Null={"aws:PrincipalType": "true"})], NO_ALLOW),
        ([when(Null={"aws:SourceOwner": "true"})], None),
        ([when(Null={"aws:PrincipalAccount": "true"})], None),
        ([when(StringEquals={"aws:SourceOrgID": "o-1234567890"})], None),
        ([when(StringEquals={"aws:SourceOrgID": "o-0000000000"})], NO_ALLOW),
    ],
)
async def test_a_rule_without_a_role_sends_as_the_service(
    statements: list[dict[str, Any]] | None, reason: str | None, store: SqliteStore
) -> None:
    queues = await queues_with(store, statements, organization="o-1234567890")
    queue = queues.find(ARN)
    assert queue is not None
    assert queues.refuses(queue, RULE, None) == reason


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        ([], None),
        ([SERVICE], None),
        ([{**SERVICE, "Effect": "Deny"}], None),
        ([{**ALLOW, "Effect": "Deny", "Principal": {"AWS": ROLE}}], DENY),
        ([{**ALLOW, "Effect": "Deny", "Principal": {"AWS": OWNER}}], DENY),
        ([{**ALLOW, "Effect": "Deny", "Principal": "*", "Condition": {"Bool": {"aws:PrincipalIsAWSService": "false"}}}],
         DENY),
        ([{**ALLOW, "Effect": "Deny", "Principal": "*",
           "Condition": {"StringEquals": {"aws:PrincipalType": "AssumedRole"}}}], DENY),
        ([{**ALLOW, "Effect": "Deny", "Principal": "*", "Condition": {"ArnEquals": {"aws:SourceArn": RULE}}}], None),
    ],
)  # fmt: skip
async def test_a_rule_with_a_role_sends_as_the_role(
    statements: list[dict[str, Any]], reason: str | None, store: SqliteStore
) -> None:
    queues = await queues_with(store, statements)
    queue = queues.find(ARN)
    assert queue is not None
    assert queues.refuses(queue, RULE, ROLE) == reason


def test_how_a_refusal_names_the_sender() -> None:
    assert sender_name(RULE, None) == "events.amazonaws.com"
    assert sender_name(RULE, ROLE).startswith(f"arn:aws:sts::{OWNER}:assumed-role/send/")
