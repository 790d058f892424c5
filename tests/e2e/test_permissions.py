"""Resource policies of buses and queues, between accounts, as boto3 meets them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.conftest import Server
from tests.e2e.tenant import Queue, Tenant, letter
from tests.e2e.wire import rule_metrics, until
from tests.rules.test_bus_policy import text_of
from tests.rules.test_policy import cases

pytestmark = pytest.mark.xdist_group("e2e_permissions")

ERRORS = Path(__file__).parent.parent / "cases/errors/permissions.json"
PATTERN = '{"source":["shop"]}'
ORGANIZATION = "o-1a2b3c4d5e"
NO_BUS = "Lack of permissions to invoke cross account target."
_names = count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The module's server, whose accounts are of one organisation."""
    made = Server(tmp_path_factory.mktemp("permissions"), {"organization": ORGANIZATION}, {})
    yield made
    made.stop()


@pytest.fixture
def other(server: Server, aws: Any) -> Tenant:
    """A second account."""
    return Tenant(aws, at=server)


@pytest.fixture
def bus(tenant: Tenant) -> str:
    """The ARN of a bus in the first account."""
    name = f"orders-{next(_names)}"
    return str(tenant.events.create_event_bus(Name=name)["EventBusArn"])


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
    queue = owner.queue(f"all-{next(_names)}")
    owner.rule("all", {"Id": "q", "Arn": queue.arn}, pattern={"account": [{"exists": True}]}, bus=bus)
    return queue


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", json.loads(ERRORS.read_text()), ids=lambda case: case["name"])
def test_errors(case: dict[str, Any], tenant: Tenant, server: Server, aws: Any) -> None:
    case = json.loads(json.dumps(case).replace("ACCOUNT", tenant.account))
    unchecked = aws("events", at=server, account=tenant.account, check=False)
    for operation, request in case.get("before", ()):
        getattr(unchecked, operation)(**request)
    operation, request = case["call"]
    assert error(lambda: getattr(unchecked, operation)(**request)) == (case["code"], case["message"])


@pytest.mark.parametrize("case", cases("documents_refused"))
def test_refused_documents(case: dict[str, Any], tenant: Tenant) -> None:
    name = case.get("bus", "orders")
    if name != "default":
        tenant.events.create_event_bus(Name=name)

    def put(text: str) -> None:
        tenant.events.put_permission(EventBusName=name, Policy=text.replace("111111111111", tenant.account))

    expected = ("ValidationException", case["message"].replace("111111111111", tenant.account))
    assert error(lambda: put(text_of(case))) == expected
    assert "Policy" not in tenant.events.describe_event_bus(Name=name)


# --- the documents ----------------------------------------------------------------------------------------------------


class TestDocuments:
    def test_the_short_form_writes_the_document_of_aws(self, tenant: Tenant, bus: str) -> None:
        shorthand = {"EventBusName": name_of(bus), "Action": "events:PutEvents"}

        tenant.events.put_permission(**shorthand, Principal="222222222222", StatementId="first")

        expected = (
            '{"Version":"2012-10-17","Statement":[{"Sid":"first","Effect":"Allow","Principal":'
            '{"AWS":"arn:aws:iam::222222222222:root"},"Action":"events:PutEvents","Resource":"' + bus + '"}]}'
        )
        assert tenant.events.describe_event_bus(Name=bus)["Policy"] == expected
        listed = tenant.events.list_event_buses(NamePrefix=name_of(bus))["EventBuses"]
        assert listed[0]["Policy"] == expected
        condition = {"Type": "StringEquals", "Key": "aws:PrincipalOrgID", "Value": ORGANIZATION}
        tenant.events.put_permission(**shorthand, Principal="*", StatementId="all", Condition=condition)
        tenant.events.put_permission(**shorthand, Principal="333333333333", StatementId="first")
        assert policy_of(tenant, bus)["Statement"] == [
            statement(bus, Sid="first", Principal={"AWS": "arn:aws:iam::333333333333:root"}),
            statement(bus, Sid="all", Condition={"StringEquals": {"aws:PrincipalOrgID": ORGANIZATION}}),
        ]

    def test_the_same_call_again_changes_nothing(self, tenant: Tenant, bus: str) -> None:
        name = name_of(bus)

        def modified() -> Any:
            return tenant.events.describe_event_bus(Name=bus)["LastModifiedTime"]

        for request in (
            {"Action": "events:PutEvents", "Principal": "222222222222", "StatementId": "s"},
            {"Policy": json.dumps({"Version": "2012-10-17", "Statement": [statement(bus)]})},
        ):
            before = tenant.events.describe_event_bus(Name=bus)
            tenant.events.put_permission(EventBusName=name, **request)
            once = modified()
            assert once > before["LastModifiedTime"]
            tenant.events.put_permission(EventBusName=name, **request)
            assert modified() == once

    def test_a_whole_policy_takes_the_place_of_the_one_before(self, tenant: Tenant, bus: str) -> None:
        put_policy(tenant, bus, statement(bus, Sid="one"), statement(bus, Sid="two", Effect="Deny"))
        put_policy(tenant, bus, statement(bus, Sid="three", Principal={"AWS": "222222222222"}))

        assert policy_of(tenant, bus)["Statement"] == [
            statement(bus, Sid="three", Principal={"AWS": "arn:aws:iam::222222222222:root"})
        ]

    def test_statements_are_removed_one_by_one_or_all_at_once(self, tenant: Tenant, bus: str) -> None:
        events, name = tenant.events, name_of(bus)
        put_policy(tenant, bus, statement(bus, Sid="one"), statement(bus, Sid="two"))

        events.remove_permission(EventBusName=name, StatementId="one")
        assert [each["Sid"] for each in policy_of(tenant, bus)["Statement"]] == ["two"]
        events.remove_permission(EventBusName=name, StatementId="two")
        assert "Policy" not in events.describe_event_bus(Name=bus)
        put_policy(tenant, bus, statement(bus, Sid="one"), statement(bus, Sid="two"))
        events.remove_permission(EventBusName=name, RemoveAllPermissions=True)
        events.remove_permission(EventBusName=name, RemoveAllPermissions=True)
        assert "Policy" not in events.describe_event_bus(Name=bus)

    def test_an_update_keeps_the_policy_and_deletion_takes_it_along(self, tenant: Tenant, bus: str) -> None:
        put_policy(tenant, bus, statement(bus))
        tenant.events.update_event_bus(Name=name_of(bus), Description="d")
        assert policy_of(tenant, bus)["Statement"] == [statement(bus)]
        tenant.events.delete_event_bus(Name=name_of(bus))
        tenant.events.create_event_bus(Name=name_of(bus))
        assert policy_of(tenant, bus) is None

    def test_a_policy_may_be_ten_thousand_bytes_long(self, tenant: Tenant, bus: str) -> None:
        def policy(sid: int, indent: int | None = None) -> str:
            document = {"Version": "2012-10-17", "Statement": [statement(bus, Sid="s" * sid)]}
            return json.dumps(document, indent=indent, separators=(",", ":"))

        longest = 10_240 - len(policy(0))
        tenant.events.put_permission(EventBusName=name_of(bus), Policy=policy(longest, indent=8))
        code, _ = error(lambda: tenant.events.put_permission(EventBusName=name_of(bus), Policy=policy(longest + 1)))
        assert code == "PolicyLengthExceededException"
        more = {"Action": "events:PutEvents", "Principal": "*", "StatementId": "more"}
        code, _ = error(lambda: tenant.events.put_permission(EventBusName=name_of(bus), **more))
        assert code == "PolicyLengthExceededException"

    def test_policies_and_who_made_a_rule_survive_a_kill(self, start_server: Any, aws: Any) -> None:
        made = start_server()
        owner, guest = Tenant(aws, at=made), Tenant(aws, at=made)
        bus = owner.arn("events", "event-bus/default")
        allowed = statement(
            bus, Action="events:*", Resource="*", Principal={"AWS": f"arn:aws:iam::{guest.account}:root"}
        )
        put_policy(owner, bus, allowed)
        guest.events.put_rule(Name="theirs", EventPattern=PATTERN, EventBusName=bus)

        made.kill()
        made.start()

        assert policy_of(owner, bus)["Statement"] == [allowed]
        assert owner.events.describe_rule(Name="theirs")["CreatedBy"] == guest.account
        assert guest.events.put_events(Entries=[entry(bus)])["FailedEntryCount"] == 0


# --- putting events ---------------------------------------------------------------------------------------------------


class TestPuttingEvents:
    def test_an_account_that_is_allowed(self, tenant: Tenant, other: Tenant, bus: str) -> None:
        queue = collecting(tenant, bus)
        put_policy(tenant, bus, statement(bus, Principal={"AWS": other.account}))

        event_id = other.put("shop", {"n": 1}, EventBusName=bus)

        event = json.loads(tenant.receive(queue)[0]["Body"])
        assert (event["id"], event["account"], event["detail"]) == (event_id, other.account, {"n": 1})
        until(lambda: rule_metrics(tenant_url(tenant), tenant.account, "all").get("MatchedEvents") == 1, "the count")

    def test_one_denied_entry_rejects_the_whole_request(self, tenant: Tenant, other: Tenant, bus: str) -> None:
        queue, own = collecting(tenant, bus), other.queue("own")
        other.rule("shop", {"Id": "q", "Arn": own.arn})
        only_shop = {"StringEquals": {"events:source": "shop"}}
        put_policy(tenant, bus, statement(bus, Principal={"AWS": other.account}, Condition=only_shop))
        entries = [entry("default"), entry(bus), entry(bus, source="bank")]

        assert error(lambda: other.events.put_events(Entries=entries)) == denied(other, "events:PutEvents", bus)

        assert other.events.put_events(Entries=entries[:2])["FailedEntryCount"] == 0
        other.receive(own)
        tenant.receive(queue)
        assert (other.drain(own), tenant.drain(queue)) == ([], [])

    @pytest.mark.parametrize(
        ("condition", "allowed"),
        [
            ({"StringEquals": {"events:source": "shop", "events:detail-type": "Test"}}, True),
            ({"StringEquals": {"events:detail-type": "Other"}}, False),
            ({"StringLike": {"events:source": ["sh*", "x"]}}, True),
            ({"Bool": {"events:eventBusInvocation": "false"}}, True),
            ({"Bool": {"events:eventBusInvocation": "true"}}, False),
            ({"StringEquals": {"aws:PrincipalOrgID": ORGANIZATION}}, True),
            ({"StringEquals": {"aws:PrincipalOrgID": "o-0000000000"}}, False),
            ({"Null": {"aws:SourceArn": "true"}}, True),
            ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:root"}}, True),
            ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, True),
            ({"NumericLessThan": {"aws:EpochTime": 1600000000}}, False),
        ],
    )
    def test_conditions(self, condition: Any, allowed: bool, tenant: Tenant, other: Tenant, bus: str) -> None:
        put_policy(tenant, bus, statement(bus, Condition=condition))
        if allowed:
            assert other.events.put_events(Entries=[entry(bus)])["FailedEntryCount"] == 0
        else:
            assert error(lambda: other.put("shop", EventBusName=bus)) == denied(other, "events:PutEvents", bus)

    def test_without_an_organisation_nobody_belongs_to_one(self, start_server: Any, aws: Any) -> None:
        made = start_server()
        owner, guest = Tenant(aws, at=made), Tenant(aws, at=made)
        bus = owner.arn("events", "event-bus/default")
        asks = {"StringEquals": {"aws:PrincipalOrgID": ORGANIZATION}}
        put_policy(owner, bus, statement(bus, Condition=asks))
        assert error(lambda: guest.put("shop", EventBusName=bus)) == denied(guest, "events:PutEvents", bus)

    def test_a_denial_wins_and_also_binds_the_owner(self, tenant: Tenant, other: Tenant, bus: str) -> None:
        bank = {"StringEquals": {"events:source": "bank"}}
        put_policy(tenant, bus, statement(bus), statement(bus, Sid="d", Effect="Deny", Condition=bank))
        for who in (tenant, other):
            assert who.put("shop", EventBusName=bus)
            assert error(lambda who=who: who.put("bank", EventBusName=bus)) == denied(
                who, "events:PutEvents", bus, explicit=True
            )
        tenant.events.remove_permission(EventBusName=name_of(bus), StatementId="d")
        assert other.put("bank", EventBusName=bus)

    def test_the_owner_needs_no_permission(self, tenant: Tenant, bus: str) -> None:
        put_policy(tenant, bus, statement(bus, Principal={"AWS": "222222222222"}))
        assert tenant.put("shop", EventBusName=bus)
        assert tenant.put("shop", EventBusName=name_of(bus))

    def test_a_bus_that_is_not_there_denies_in_the_same_words(self, tenant: Tenant, other: Tenant) -> None:
        for bus in ("absent", "default"):
            arn = tenant.arn("events", f"event-bus/{bus}")
            assert error(lambda arn=arn: other.put("shop", EventBusName=arn)) == denied(other, "events:PutEvents", arn)
        assert tenant.put("shop", EventBusName=tenant.arn("events", "event-bus/absent"))

    def test_a_policy_of_another_region_is_another_policy(self, tenant: Tenant, other: Tenant, bus: str) -> None:
        put_policy(tenant, bus, statement(bus))
        abroad = other.in_region("eu-west-1")
        assert error(lambda: abroad.put("shop", EventBusName=bus)) == denied(other, "events:PutEvents", bus)


def tenant_url(tenant: Tenant) -> str:
    return str(tenant.events.meta.endpoint_url)


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


# --- from bus to bus --------------------------------------------------------------------------------------------------


def forwarding(sender: Tenant, bus: str, *, role: str | None = None) -> tuple[str, Queue]:
    """A rule of the sender's default bus that sends on to a bus, with a dead-letter queue."""
    letters = sender.queue(f"letters-{next(_names)}")
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
