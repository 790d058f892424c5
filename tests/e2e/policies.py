"""Accounts that open their buses to each other, as the tests of permissions see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.e2e.tenant import Queue, Tenant

PATTERN = '{"source":["shop"]}'
ORGANIZATION = "o-1a2b3c4d5e"
"""Of all accounts of the server that these tests share."""

names = count(1)


def name_of(bus: str) -> str:
    return bus.partition("event-bus/")[2]


def rules_of(bus: str) -> str:
    return bus.replace("event-bus/", "rule/") + "/*"


def statement(bus: str, **changes: Any) -> dict[str, Any]:
    made = {"Sid": "s", "Effect": "Allow", "Principal": "*", "Action": "events:PutEvents", "Resource": bus, **changes}
    return {member: value for member, value in made.items() if value is not None}


def put_policy(owner: Tenant, bus: str, *statements: dict[str, Any]) -> None:
    text = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    owner.events.put_permission(EventBusName=name_of(bus), Policy=text)


def policy_of(owner: Tenant, bus: str) -> Any:
    text = owner.events.describe_event_bus(Name=bus).get("Policy")
    return None if text is None else json.loads(text)


def error(attempt: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(ClientError) as failed:
        attempt()
    response = failed.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return response["Error"]["Code"], response["Error"]["Message"]


def denied(who: Tenant, action: str, resource: str, *, explicit: bool = False) -> tuple[str, str]:
    why = (
        "with an explicit deny in a resource-based policy"
        if explicit
        else f"because no resource-based policy allows the {action} action"
    )
    who_arn = f"arn:aws:iam::{who.account}:root"
    return (
        "AccessDeniedException",
        f"User: {who_arn} is not authorized to perform: {action} on resource: {resource} {why}",
    )


def entry(bus: str, source: str = "shop", detail_type: str = "Test", detail: str = "{}") -> dict[str, str]:
    return {"Source": source, "DetailType": detail_type, "Detail": detail, "EventBusName": bus}


def collecting(owner: Tenant, bus: str) -> Queue:
    """A queue of the owner that gets everything put on the bus."""
    queue = owner.queue(f"all-{next(names)}")
    owner.rule("all", {"Id": "q", "Arn": queue.arn}, pattern={"account": [{"exists": True}]}, bus=bus)
    return queue
