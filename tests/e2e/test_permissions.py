"""The policies of buses: what is refused, what is kept, and who may put events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.e2e.policies import (
    ORGANIZATION,
    PATTERN,
    collecting,
    denied,
    entry,
    error,
    name_of,
    policy_of,
    put_policy,
    statement,
)
from tests.e2e.tenant import Tenant
from tests.e2e.wire import rule_metrics, scrape, until
from tests.rules.test_bus_policy import text_of
from tests.rules.test_policy import cases

pytestmark = pytest.mark.xdist_group("e2e_permissions")

ERRORS = Path(__file__).parent.parent / "cases/errors/permissions.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The module's server, whose accounts are of one organisation."""
    made = Server(tmp_path_factory.mktemp("permissions"), {"organization": ORGANIZATION}, {})
    yield made
    made.stop()


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
    def test_an_account_that_is_allowed(self, server: Server, tenant: Tenant, other: Tenant, bus: str) -> None:
        queue = collecting(tenant, bus)
        put_policy(tenant, bus, statement(bus, Principal={"AWS": other.account}))

        event_id = other.put("shop", {"n": 1}, EventBusName=bus)

        event = json.loads(tenant.receive(queue)[0]["Body"])
        assert (event["id"], event["account"], event["detail"]) == (event_id, other.account, {"n": 1})
        until(lambda: rule_metrics(server.url, tenant.account, "all").get("MatchedEvents") == 1, "the count")

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

    def test_a_request_that_is_denied_is_a_call_that_failed(self, server: Server, other: Tenant, bus: str) -> None:
        def counters() -> list[float]:
            found = scrape(server.url)
            kinds = ("CallCount", "FailedCount", "SuccessCount")
            return [
                *(found.get(f"PutEventsApproximate{kind}_total", 0) for kind in kinds),
                found.get("PutEventsEntriesCount_total", 0),
                found.get("PutEventsRequestSize_count", 0),
                found.get("PutEventsRequestSize_sum", 0),
            ]

        before = counters()
        error(lambda: other.events.put_events(Entries=[entry("default"), entry(bus)]))
        size = 2 * len("shop" + "Test" + "{}")
        assert [after - then for after, then in zip(counters(), before, strict=True)] == [1, 1, 0, 0, 1, size]
