"""Pages of every list of EventBridge, and every token and limit that is refused, through boto3."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.e2e.tenant import Tenant

pytestmark = pytest.mark.xdist_group("e2e_pages")

NAMES = [f"n{number}" for number in range(7)]
PATTERN = '{"source":["s"]}'
NOT_VALID = "Parameter NextToken is not valid."


def make_buses(tenant: Tenant) -> dict[str, Any]:
    for name in NAMES:
        tenant.events.create_event_bus(Name=name)
    return {"NamePrefix": "n"}


def make_rules(tenant: Tenant) -> dict[str, Any]:
    tenant.events.create_event_bus(Name="b")
    for name in NAMES:
        tenant.events.put_rule(Name=name, EventPattern=PATTERN, EventBusName="b")
    return {"EventBusName": "b"}


def make_targets(tenant: Tenant) -> dict[str, Any]:
    tenant.events.create_event_bus(Name="b")
    tenant.events.put_rule(Name="r", EventPattern=PATTERN, EventBusName="b")
    targets = [{"Id": name, "Arn": tenant.arn("sqs", name)} for name in NAMES[:5]]
    tenant.events.put_targets(Rule="r", EventBusName="b", Targets=targets)
    return {"Rule": "r", "EventBusName": "b"}


def make_names(tenant: Tenant) -> dict[str, Any]:
    request = make_rules(tenant)
    for name in NAMES:
        tenant.events.put_targets(Rule=name, EventBusName="b", Targets=[{"Id": "t", "Arn": tenant.arn("sqs", "q")}])
    return {**request, "TargetArn": tenant.arn("sqs", "q")}


def make_endpoints(tenant: Tenant) -> dict[str, Any]:
    failover = {
        "Primary": {"HealthCheck": "arn:aws:route53:::healthcheck/h"},
        "Secondary": {"Route": "us-west-2"},
    }
    buses = [
        {"EventBusArn": f"arn:aws:events:{region}:{tenant.account}:event-bus/default"}
        for region in ("us-east-1", "us-west-2")
    ]
    for name in NAMES:
        tenant.events.create_endpoint(Name=name, RoutingConfig={"FailoverConfig": failover}, EventBuses=buses)
    return {"NamePrefix": "n"}


@dataclass(frozen=True)
class List:
    """A list: its operation, what fills it, where the items are and what they are called, the member that limits."""

    operation: str
    fill: Callable[[Tenant], dict[str, Any]]
    items: str
    name: Callable[[Any], str] = lambda item: str(item["Name"])
    limit: str = "Limit"
    prefixed: bool = True


LISTS = [
    List("list_event_buses", make_buses, "EventBuses"),
    List("list_rules", make_rules, "Rules"),
    List("list_targets_by_rule", make_targets, "Targets", name=lambda item: str(item["Id"]), prefixed=False),
    List("list_rule_names_by_target", make_names, "RuleNames", name=str, prefixed=False),
    List("list_endpoints", make_endpoints, "Endpoints", limit="MaxResults"),
]


@pytest.fixture(params=LISTS, ids=lambda each: each.operation)
def each(request: pytest.FixtureRequest) -> List:
    found: List = request.param
    return found


@pytest.fixture
def unchecked(aws: Any, tenant: Tenant) -> Any:
    """The tenant's client without boto3's own checks."""
    return aws("events", account=tenant.account, check=False)


def refusal(unchecked: Any, operation: str, request: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(ClientError) as failed:
        getattr(unchecked, operation)(**request)
    error = failed.value.response["Error"]
    return error["Code"], error["Message"]


def test_every_item_once_and_in_order(tenant: Tenant, each: List) -> None:
    request = each.fill(tenant)
    ask = getattr(tenant.events, each.operation)
    everything = ask(**request)
    assert "NextToken" not in everything
    wanted = [each.name(item) for item in everything[each.items]]
    assert wanted == NAMES[: len(wanted)]
    for limit in (1, 2, 3, len(wanted)):
        found, token = [], {}
        while True:
            page = ask(**request, **{each.limit: limit}, **token)
            assert 1 <= len(page[each.items]) <= limit
            found += [each.name(item) for item in page[each.items]]
            if "NextToken" not in page:
                break
            token = {"NextToken": page["NextToken"]}
        assert found == wanted


def test_a_token_is_good_again_and_with_another_limit(tenant: Tenant, each: List) -> None:
    request = each.fill(tenant)
    ask = getattr(tenant.events, each.operation)
    token = ask(**request, **{each.limit: 2})["NextToken"]
    for limit in (2, 2, 1, 3):
        page = ask(**request, NextToken=token, **{each.limit: limit})
        assert [each.name(item) for item in page[each.items]] == NAMES[2 : 2 + limit]


@pytest.mark.parametrize("each", [one for one in LISTS if "rule" in one.operation], ids=lambda one: one.operation)
def test_a_token_is_good_with_the_arn_of_the_bus(tenant: Tenant, each: List) -> None:
    request = each.fill(tenant)
    ask = getattr(tenant.events, each.operation)
    by_arn = {**request, "EventBusName": tenant.arn("events", "event-bus/b")}
    for first, second in ((request, by_arn), (by_arn, request)):
        token = ask(**first, Limit=2)["NextToken"]
        assert next(each.name(item) for item in ask(**second, NextToken=token)[each.items]) == NAMES[2]


def test_an_item_that_goes_does_not_disturb(tenant: Tenant) -> None:
    request = make_rules(tenant)
    token = tenant.events.list_rules(**request, Limit=3)["NextToken"]
    tenant.events.delete_rule(Name=NAMES[2], EventBusName="b")
    tenant.events.delete_rule(Name=NAMES[3], EventBusName="b")
    assert [rule["Name"] for rule in tenant.events.list_rules(**request, NextToken=token)["Rules"]] == NAMES[4:]


def test_limits_that_are_refused(tenant: Tenant, unchecked: Any, each: List) -> None:
    request = each.fill(tenant)
    at = each.limit[0].lower() + each.limit[1:]
    for limit, words in ((0, "greater than or equal to 1"), (101, "less than or equal to 100")):
        assert refusal(unchecked, each.operation, {**request, each.limit: limit}) == (
            "ValidationException",
            f"1 validation error detected: Value '{limit}' at '{at}' failed to satisfy constraint:"
            f" Member must have value {words}",
        )
    assert getattr(unchecked, each.operation)(**{**request, each.limit: 100})[each.items]


def test_tokens_that_are_refused(tenant: Tenant, unchecked: Any, each: List) -> None:
    request = each.fill(tenant)
    token = getattr(tenant.events, each.operation)(**request, **{each.limit: 2})["NextToken"]
    lengths = {"": "greater than or equal to 1", "x" * 2049: "less than or equal to 2048"}
    for text, words in lengths.items():
        assert refusal(unchecked, each.operation, {**request, "NextToken": text}) == (
            "ValidationException",
            f"1 validation error detected: Value '{text}' at 'nextToken' failed to satisfy constraint:"
            f" Member must have length {words}",
        )
    forged = base64.b64encode(json.dumps(["0" * 18, "n0"]).encode()).decode()
    for text in ("nonsense", token[:-4], token + "A", forged, "é"):
        assert refusal(unchecked, each.operation, {**request, "NextToken": text}) == ("ValidationException", NOT_VALID)


def test_a_token_of_another_list_is_refused(tenant: Tenant, unchecked: Any) -> None:
    request = make_names(tenant)
    events = tenant.events
    token = events.list_rule_names_by_target(**request, Limit=2)["NextToken"]
    events.create_event_bus(Name="other")
    events.put_rule(Name="n0", EventPattern=PATTERN, EventBusName="other")
    for operation, changed in (
        ("list_rule_names_by_target", {**request, "TargetArn": tenant.arn("sqs", "other")}),
        ("list_rule_names_by_target", {**request, "EventBusName": "other"}),
        ("list_rules", {"EventBusName": "b"}),
        ("list_targets_by_rule", {"EventBusName": "b", "Rule": "n0"}),
        ("list_event_buses", {}),
        ("list_endpoints", {}),
    ):
        assert refusal(unchecked, operation, {**changed, "NextToken": token}) == ("ValidationException", NOT_VALID)


@pytest.mark.parametrize("each", [one for one in LISTS if one.prefixed], ids=lambda one: one.operation)
def test_prefixes(tenant: Tenant, unchecked: Any, each: List) -> None:
    request = {**each.fill(tenant), "NamePrefix": "n3"}
    found = getattr(tenant.events, each.operation)(**request)[each.items]
    assert [each.name(item) for item in found] == ["n3"]
    assert getattr(tenant.events, each.operation)(**{**request, "NamePrefix": "absent"})[each.items] == []
    code, message = refusal(unchecked, each.operation, {**request, "NamePrefix": ""})
    assert code == "ValidationException"
    assert message.startswith("2 validation errors detected: Value '' at 'namePrefix' failed to satisfy constraint: ")
    assert "Member must have length greater than or equal to 1" in message
    assert "Member must satisfy regular expression pattern: " in message
