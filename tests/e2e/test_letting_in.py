"""Rules that send to what has a policy: buses of other accounts, and queues."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Server
from tests.e2e.policies import (
    collecting,
    names,
    put_policy,
    statement,
)
from tests.e2e.tenant import Queue, Tenant, letter
from tests.e2e.wire import rule_metrics, until

pytestmark = pytest.mark.xdist_group("e2e_permissions")

NO_BUS = "Lack of permissions to invoke cross account target."

# --- from bus to bus --------------------------------------------------------------------------------------------------


def forwarding(sender: Tenant, bus: str, *, role: str | None = None) -> tuple[str, Queue]:
    """A rule of the sender's default bus that sends on to a bus, with a dead-letter queue."""
    letters = sender.queue(f"letters-{next(names)}")
    target = {"Id": "bus", "Arn": bus, "DeadLetterConfig": {"Arn": letters.arn}}
    return sender.rule("shop", {**target, **({} if role is None else {"RoleArn": role})}), letters


class TestForwarding:
    def test_a_bus_that_allows_it(self, tenant: Tenant, other: Tenant, bus: str) -> None:
        queue = collecting(tenant, bus)
        rule, _ = forwarding(other, bus)
        condition = {
            "ArnEquals": {"aws:SourceArn": rule},
            "StringEquals": {"aws:SourceAccount": other.account, "events:source": "shop", "events:detail-type": "Test"},
            "Bool": {"events:eventBusInvocation": "true"},
        }
        put_policy(tenant, bus, statement(bus, Principal={"AWS": other.account}, Condition=condition))

        event_id = other.put("shop")

        event = json.loads(tenant.receive(queue)[0]["Body"])
        assert (event["id"], event["account"]) == (event_id, other.account)

    @pytest.mark.parametrize(
        "changes",
        [
            None,
            {"Principal": {"AWS": "999999999999"}},
            {"Action": "events:PutRule"},
            {"Condition": {"Bool": {"events:eventBusInvocation": "false"}}},
            {"Condition": {"StringEquals": {"events:source": "bank"}}},
            {"Condition": {"ArnEquals": {"aws:SourceArn": "arn:aws:events:us-west-2:*:*"}}},
            {"Effect": "Deny"},
        ],
        ids=json.dumps,
    )
    def test_a_bus_that_does_not(self, changes: dict[str, Any] | None, tenant: Tenant, other: Tenant, bus: str) -> None:
        rule, letters = forwarding(other, bus)
        if changes is not None:
            put_policy(tenant, bus, statement(bus, **changes))

        other.put("shop", {"n": 1})

        (message,) = other.receive(letters)
        assert json.loads(message["Body"])["detail"] == {"n": 1}
        assert letter(message) == {
            "RULE_ARN": rule,
            "TARGET_ARN": bus,
            "ERROR_CODE": "NO_PERMISSIONS",
            "ERROR_MESSAGE": NO_BUS,
        }

    def test_an_account_that_nobody_knows(self, other: Tenant) -> None:
        _, letters = forwarding(other, "arn:aws:events:us-east-1:999999999999:event-bus/default")
        other.put("shop")
        assert letter(other.receive(letters)[0])["ERROR_MESSAGE"] == NO_BUS

    def test_the_targets_role_is_who_asks(self, tenant: Tenant, other: Tenant, bus: str) -> None:
        role = f"arn:aws:iam::{other.account}:role/forward"
        queue = collecting(tenant, bus)
        put_policy(tenant, bus, statement(bus, Principal={"AWS": role}))
        _, letters = forwarding(other, bus)
        other.put("shop", {"role": False})
        assert letter(other.receive(letters)[0])["ERROR_CODE"] == "NO_PERMISSIONS"

        forwarding(other, bus, role=role)
        other.put("shop", {"role": True})

        assert json.loads(tenant.receive(queue)[0]["Body"])["detail"] == {"role": True}

    def test_within_an_account_a_denial_counts(self, tenant: Tenant, bus: str) -> None:
        queue = collecting(tenant, bus)
        _, letters = forwarding(tenant, bus)
        tenant.put("shop", {"n": 1})
        tenant.receive(queue)
        forwarded = {"Bool": {"events:eventBusInvocation": "true"}}
        put_policy(tenant, bus, statement(bus, Effect="Deny", Condition=forwarded))

        tenant.put("shop", {"n": 2})

        assert letter(tenant.receive(letters)[0])["ERROR_MESSAGE"] == NO_BUS
        assert tenant.put("shop", EventBusName=bus)
        tenant.receive(queue)
        assert tenant.drain(queue) == []

    def test_into_another_region_of_another_account(self, tenant: Tenant, other: Tenant) -> None:
        abroad = tenant.in_region("eu-west-1")
        bus = str(abroad.events.create_event_bus(Name="abroad")["EventBusArn"])
        queue = collecting(abroad, bus)
        put_policy(abroad, bus, statement(bus, Principal={"AWS": other.account}))
        forwarding(other, bus)

        other.put("shop", {"n": 1})

        event = json.loads(abroad.receive(queue)[0]["Body"])
        assert (event["account"], event["region"], event["detail"]) == (other.account, "us-east-1", {"n": 1})


# --- queues -----------------------------------------------------------------------------------------------------------


class TestQueues:
    def test_a_queue_whose_policy_does_not_let_a_rule_in(self, tenant: Tenant) -> None:
        rule = tenant.arn("events", "rule/shop")
        allow = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
        policies = {
            "other": {**allow, "Condition": {"ArnEquals": {"aws:SourceArn": rule + "2"}}},
            "right": {**allow, "Condition": {"ArnEquals": {"aws:SourceArn": rule}}},
            "denies": {**allow, "Effect": "Deny"},
        }
        queues = {}
        for name, allowed in policies.items():
            document = {"Version": "2012-10-17", "Statement": [{**allowed, "Resource": tenant.arn("sqs", name)}]}
            queues[name] = tenant.queue(name, Policy=json.dumps(document))
        letters = tenant.queue("letters")
        dead = {"DeadLetterConfig": {"Arn": letters.arn}}
        tenant.rule("shop", *({"Id": name, "Arn": queue.arn, **dead} for name, queue in queues.items()))

        tenant.put("shop", {"n": 1})

        assert json.loads(tenant.receive(queues["right"])[0]["Body"])["detail"] == {"n": 1}
        told = {letter(message)["TARGET_ARN"]: letter(message) for message in tenant.receive(letters, 2)}
        for name, reason in (
            ("other", "because no resource-based policy allows the sqs:sendmessage action"),
            ("denies", "with an explicit deny in a resource-based policy"),
        ):
            said = told[queues[name].arn]
            assert said["ERROR_CODE"] == "NO_PERMISSIONS"
            assert said["ERROR_MESSAGE"].startswith(
                "User: events.amazonaws.com is not authorized to perform: sqs:sendmessage on resource: "
                f"{queues[name].arn} {reason} (Service: AmazonSQS; Status Code: 403; Error Code: AccessDenied; "
            )
            assert said["ERROR_MESSAGE"].endswith("; Proxy: null)")
            assert tenant.drain(queues[name]) == []

    def test_a_dead_letter_queue_may_refuse_too(self, tenant: Tenant, server: Server) -> None:
        nobody = {"Version": "2012-10-17", "Statement": []}
        letters = tenant.queue("letters", Policy=json.dumps(nobody))
        target = {"Id": "t", "Arn": tenant.arn("sqs", "absent"), "DeadLetterConfig": {"Arn": letters.arn}}
        tenant.rule("lost", target)

        tenant.put("lost")

        counts = until(
            lambda: (found := rule_metrics(server.url, tenant.account, "lost")).get("FailedInvocations") and found,
            "the end of the delivery",
        )
        assert counts["InvocationsFailedToBeSentToDlq"] == 1
        assert tenant.drain(letters) == []
