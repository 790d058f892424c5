"""What guests do with rules, targets and tags on the bus of another account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.e2e.policies import (
    PATTERN,
    denied,
    entry,
    error,
    name_of,
    put_policy,
    rules_of,
    statement,
)
from tests.e2e.tenant import Tenant

pytestmark = pytest.mark.xdist_group("e2e_permissions")


# --- rules, targets and tags ------------------------------------------------------------------------------------------


def guest_calls(bus: str, queue: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(action, method, request) of everything a policy may allow, in an order in which it works."""
    rule = rules_of(bus).replace("*", "theirs")
    named, of_rule = {"Name": "theirs", "EventBusName": bus}, {"Rule": "theirs", "EventBusName": bus}
    return [
        ("events:DescribeEventBus", "describe_event_bus", {"Name": bus}),
        ("events:PutEvents", "put_events", {"Entries": [entry(bus)]}),
        ("events:PutRule", "put_rule", {**named, "EventPattern": PATTERN}),
        ("events:DescribeRule", "describe_rule", named),
        ("events:PutTargets", "put_targets", {**of_rule, "Targets": [{"Id": "t", "Arn": queue}]}),
        ("events:ListTargetsByRule", "list_targets_by_rule", of_rule),
        ("events:ListRules", "list_rules", {"EventBusName": bus}),
        ("events:ListRuleNamesByTarget", "list_rule_names_by_target", {"TargetArn": queue, "EventBusName": bus}),
        ("events:DisableRule", "disable_rule", named),
        ("events:EnableRule", "enable_rule", named),
        ("events:TagResource", "tag_resource", {"ResourceARN": rule, "Tags": [{"Key": "k", "Value": "v"}]}),
        ("events:ListTagsForResource", "list_tags_for_resource", {"ResourceARN": rule}),
        ("events:UntagResource", "untag_resource", {"ResourceARN": rule, "TagKeys": ["k"]}),
        ("events:RemoveTargets", "remove_targets", {**of_rule, "Ids": ["t"]}),
        ("events:DeleteRule", "delete_rule", named),
    ]


def resource_of(action: str, bus: str) -> str:
    if action in ("events:PutEvents", "events:DescribeEventBus"):
        return bus
    return rules_of(bus) if action.startswith("events:ListRule") else rules_of(bus).replace("*", "theirs")


class TestOperations:
    def test_each_of_the_fifteen_actions_is_asked_about(self, tenant: Tenant, other: Tenant, bus: str) -> None:
        """Every action is denied without its own name in the policy, and allowed by that name alone."""
        queue = tenant.queue("q")
        calls = guest_calls(bus, queue.arn)
        assert len(calls) == 15
        for action, method, request in calls:
            rest = [each for each, _, _ in calls if each != action]
            put_policy(tenant, bus, statement(bus, Action=rest, Resource="*"))
            attempt = getattr(other.events, method)
            assert error(lambda attempt=attempt, request=request: attempt(**request)) == denied(
                other, action, resource_of(action, bus)
            )
            put_policy(tenant, bus, statement(bus, Action=action, Resource=resource_of(action, bus)))
            answer = attempt(**request)
            if action == "events:ListTagsForResource":
                assert answer["Tags"] == [{"Key": "k", "Value": "v"}]
            if action == "events:ListRuleNamesByTarget":
                assert answer["RuleNames"] == ["theirs"]
        assert tenant.events.list_rules(EventBusName=bus)["Rules"] == []

    def test_a_rule_of_a_guest_is_the_owners_to_see_and_the_guests_to_have_made(
        self, tenant: Tenant, other: Tenant, bus: str
    ) -> None:
        manage = ["events:PutRule", "events:PutTargets", "events:DescribeRule"]
        put_policy(tenant, bus, statement(bus, Action=manage, Resource=rules_of(bus)))

        queue = tenant.queue("q")
        arn = other.events.put_rule(Name="theirs", EventPattern=PATTERN, EventBusName=bus)["RuleArn"]
        other.events.put_targets(Rule="theirs", EventBusName=bus, Targets=[{"Id": "q", "Arn": queue.arn}])

        assert arn == rules_of(bus).replace("*", "theirs")
        for who in (tenant, other):
            described = who.events.describe_rule(Name="theirs", EventBusName=bus)
            assert (described["CreatedBy"], described["Arn"]) == (other.account, arn)
        (listed,) = tenant.events.list_rules(EventBusName=bus)["Rules"]
        assert listed["Arn"] == arn
        assert "CreatedBy" not in listed
        assert other.events.list_rules()["Rules"] == []
        tenant.put("shop", EventBusName=bus)
        tenant.receive(queue)
        tenant.events.put_rule(Name="theirs", EventPattern='{"source":["x"]}', EventBusName=bus)
        assert tenant.events.describe_rule(Name="theirs", EventBusName=bus)["CreatedBy"] == other.account

    def test_guests_may_be_held_to_the_rules_they_made(self, tenant: Tenant, other: Tenant, bus: str) -> None:
        own = {"StringEqualsIfExists": {"events:creatorAccount": "${aws:PrincipalAccount}"}}
        manage = [
            "events:PutRule",
            "events:DeleteRule",
            "events:DescribeRule",
            "events:PutTargets",
            "events:TagResource",
        ]
        put_policy(tenant, bus, statement(bus, Action=manage, Resource=rules_of(bus), Condition=own))
        tenant.rule("ours", bus=bus)

        other.events.put_rule(Name="theirs", EventPattern=PATTERN, EventBusName=bus)
        other.events.put_rule(Name="theirs", EventPattern='{"source":["x"]}', EventBusName=bus)

        ours = rules_of(bus).replace("*", "ours")
        for action, attempt in {
            "events:PutRule": lambda: other.events.put_rule(Name="ours", EventPattern=PATTERN, EventBusName=bus),
            "events:DeleteRule": lambda: other.events.delete_rule(Name="ours", EventBusName=bus),
            "events:DescribeRule": lambda: other.events.describe_rule(Name="ours", EventBusName=bus),
            "events:TagResource": lambda: other.events.tag_resource(
                ResourceARN=ours, Tags=[{"Key": "k", "Value": "v"}]
            ),
        }.items():
            assert error(attempt) == denied(other, action, ours)
        other.events.delete_rule(Name="theirs", EventBusName=bus)
        assert error(lambda: other.events.describe_rule(Name="theirs", EventBusName=bus)) == (
            "ResourceNotFoundException",
            f"Rule theirs does not exist on EventBus {name_of(bus)}.",
        )

    @pytest.mark.parametrize(
        ("condition", "pattern", "allowed"),
        [
            ({"StringEquals": {"events:source": "shop"}}, {"source": ["shop"]}, True),
            ({"StringEquals": {"events:source": "shop"}}, {"source": ["bank"]}, False),
            ({"StringEquals": {"events:source": "shop"}}, {"source": ["shop", "bank"]}, False),
            ({"StringEquals": {"events:source": "shop"}}, {"source": ["shop"], "detail-type": ["T"]}, True),
            ({"StringEquals": {"events:source": "shop"}}, {"detail-type": ["T"]}, False),
            ({"StringEquals": {"events:source": ["shop", "bank"]}}, {"source": ["bank"]}, True),
            ({"StringEquals": {"events:source": ["shop", "bank"]}}, {"source": ["shop", "bank"]}, False),
            ({"ForAllValues:StringEquals": {"events:source": ["shop", "bank"]}}, {"source": ["shop", "bank"]}, True),
            ({"ForAllValues:StringEquals": {"events:source": ["shop"]}}, {"source": ["shop", "bank"]}, False),
            ({"ForAllValues:StringEquals": {"events:source": ["shop"]}}, {"detail-type": ["T"]}, True),
            ({"Null": {"events:source": "false"}}, {"source": ["shop", "bank"]}, True),
            ({"Null": {"events:source": "false"}}, {"detail-type": ["T"]}, False),
            ({"StringLike": {"events:source": "sh*"}}, {"source": [{"prefix": "sh"}]}, False),
            ({"StringLike": {"events:source": "*shop*"}}, {"source": [{"anything-but": "shop"}]}, False),
            ({"ForAllValues:StringEquals": {"events:source": "shop"}},
             {"$or": [{"source": ["shop"]}, {"detail-type": ["T"]}]}, False),
            ({"StringEquals": {"events:detail-type": "T"}}, {"detail-type": ["T"]}, True),
            ({"StringEquals": {"events:detail.service": "ABUSE"}}, {"detail": {"service": ["ABUSE"]}}, True),
            ({"StringEquals": {"events:detail.service": "ABUSE"}}, {"detail": {"service": ["EC2"]}}, False),
        ],
    )  # fmt: skip
    def test_which_events_a_guests_rule_may_be_about(
        self, condition: Any, pattern: Any, allowed: bool, tenant: Tenant, other: Tenant, bus: str
    ) -> None:
        put_policy(tenant, bus, statement(bus, Action="events:PutRule", Resource=rules_of(bus), Condition=condition))
        request = {"Name": "theirs", "EventPattern": json.dumps(pattern), "EventBusName": bus}
        if allowed:
            assert other.events.put_rule(**request)["RuleArn"]
        else:
            rule = rules_of(bus).replace("*", "theirs")
            assert error(lambda: other.events.put_rule(**request)) == denied(other, "events:PutRule", rule)

    def test_where_a_guests_rule_may_lead_to(self, tenant: Tenant, other: Tenant, bus: str) -> None:
        queue = tenant.queue("allowed")
        targets = {"ForAllValues:ArnLike": {"events:TargetArn": queue.arn}, "Null": {"events:TargetArn": "false"}}
        put_policy(
            tenant,
            bus,
            statement(bus, Sid="r", Action="events:PutRule", Resource="*"),
            statement(bus, Sid="t", Action="events:PutTargets", Resource="*", Condition=targets),
        )
        other.events.put_rule(Name="theirs", EventPattern=PATTERN, EventBusName=bus)

        def put(*arns: str) -> Any:
            made = [{"Id": str(number), "Arn": arn} for number, arn in enumerate(arns)]
            return other.events.put_targets(Rule="theirs", EventBusName=bus, Targets=made)

        put(queue.arn)
        rule = rules_of(bus).replace("*", "theirs")
        assert error(lambda: put(queue.arn, queue.arn + "2")) == denied(other, "events:PutTargets", rule)

    def test_tags_are_condition_keys(self, tenant: Tenant, other: Tenant, bus: str) -> None:
        asks = {"StringEquals": {"aws:RequestTag/team": "shop"}, "ForAllValues:StringEquals": {"aws:TagKeys": "team"}}
        shops = {"StringEquals": {"aws:ResourceTag/team": "shop"}}
        put_policy(
            tenant,
            bus,
            statement(bus, Sid="make", Action="events:PutRule", Resource="*", Condition=asks),
            statement(bus, Sid="see", Action="events:DescribeRule", Resource="*", Condition=shops),
        )
        tenant.rule("ours", bus=bus)
        request = {"Name": "theirs", "EventPattern": PATTERN, "EventBusName": bus}
        rule = rules_of(bus).replace("*", "theirs")

        for tags in (
            [],
            [{"Key": "team", "Value": "bank"}],
            [{"Key": "team", "Value": "shop"}, {"Key": "x", "Value": ""}],
        ):
            assert error(lambda tags=tags: other.events.put_rule(**request, Tags=tags)) == denied(
                other, "events:PutRule", rule
            )
        other.events.put_rule(**request, Tags=[{"Key": "team", "Value": "shop"}])
        assert other.events.describe_rule(Name="theirs", EventBusName=bus)["Name"] == "theirs"
        assert error(lambda: other.events.describe_rule(Name="ours", EventBusName=bus))[0] == "AccessDeniedException"

    def test_a_denial_binds_the_owner_too_but_never_in_changing_the_policy(self, tenant: Tenant, bus: str) -> None:
        put_policy(tenant, bus, statement(bus, Effect="Deny", Action="*", Resource="*"))
        rule = rules_of(bus).replace("*", "r")
        assert error(lambda: tenant.rule("r", bus=bus)) == denied(tenant, "events:PutRule", rule, explicit=True)
        assert error(lambda: tenant.events.describe_event_bus(Name=bus)) == denied(
            tenant, "events:DescribeEventBus", bus, explicit=True
        )
        assert name_of(bus) in [each["Name"] for each in tenant.events.list_event_buses()["EventBuses"]]
        tenant.events.update_event_bus(Name=name_of(bus), Description="d")
        tenant.events.remove_permission(EventBusName=name_of(bus), StatementId="s")
        tenant.rule("r", bus=bus)

    def test_a_user_is_the_key_where_keys_are_verified(self, tmp_path: Path, start_server: Any) -> None:
        keys = [
            {"access_key": "AKIDOWNER", "secret": "owner-secret", "account": "111122223333"},
            {"access_key": "AKIDADA", "secret": "ada-secret", "account": "444455556666"},
            {"access_key": "AKIDBOB", "secret": "bob-secret", "account": "444455556666"},
        ]
        (tmp_path / "keys.json").write_text(json.dumps(keys))
        (tmp_path / "keys.json").chmod(0o600)
        made = start_server(credentials=tmp_path / "keys.json")
        owner, ada, bob = (
            boto3.client(
                "events", endpoint_url=made.url, region_name="us-east-1",
                aws_access_key_id=key["access_key"], aws_secret_access_key=key["secret"],
            )
            for key in keys
        )  # fmt: skip
        bus = "arn:aws:events:us-east-1:111122223333:event-bus/default"
        user = "arn:aws:iam::444455556666:user/AKIDADA"
        text = json.dumps({"Version": "2012-10-17", "Statement": [statement(bus, Principal={"AWS": user})]})
        owner.put_permission(Policy=text)

        assert ada.put_events(Entries=[entry(bus)])["FailedEntryCount"] == 0
        code, message = error(lambda: bob.put_events(Entries=[entry(bus)]))
        assert code == "AccessDeniedException"
        assert message.startswith("User: arn:aws:iam::444455556666:user/AKIDBOB is not authorized to perform: ")
