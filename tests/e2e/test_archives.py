"""Archives through boto3: what they answer, what they keep, the rule that feeds them, and how they go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import StartServer
from tests.e2e.tenant import Tenant
from tests.e2e.wire import request, scrape, until

MANAGED_BY = "prod.vhs.events.aws.internal"
PATTERN = '{"source":["shop"]}'
EVENT_BYTES = len("shop") + len("Test") + len("{}") + 20


def error(attempt: Any, **members: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as failed:
        attempt(**members)
    found: Mapping[str, str] = failed.value.response["Error"]
    return found["Code"], found["Message"]


def bus_arn(tenant: Tenant, name: str = "default") -> str:
    return tenant.arn("events", f"event-bus/{name}")


def archive(tenant: Tenant, name: str = "orders", *, bus: str = "default", **members: Any) -> str:
    """An archive; its ARN."""
    given = {"EventPattern": PATTERN, **members}
    return str(
        tenant.events.create_archive(ArchiveName=name, EventSourceArn=bus_arn(tenant, bus), **given)["ArchiveArn"]
    )


def size(tenant: Tenant, name: str = "orders") -> tuple[int, int]:
    found = tenant.events.describe_archive(ArchiveName=name)
    return found["EventCount"], found["SizeBytes"]


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what boto3 adds and without its times."""
    return {name: value for name, value in answer.items() if name not in ("ResponseMetadata", "CreationTime")}


# --- operations -------------------------------------------------------------------------------------------------------


def test_create_describe_list_update_delete(tenant: Tenant) -> None:
    arn = tenant.arn("events", "archive/orders")
    source = bus_arn(tenant)
    made = tenant.events.create_archive(
        ArchiveName="orders", EventSourceArn=source, EventPattern=PATTERN, Description="d", RetentionDays=3
    )
    assert plain(made) == {"ArchiveArn": arn, "State": "ENABLED"}
    item = {
        "ArchiveName": "orders",
        "EventSourceArn": source,
        "State": "ENABLED",
        "RetentionDays": 3,
        "SizeBytes": 0,
        "EventCount": 0,
    }
    described = tenant.events.describe_archive(ArchiveName="orders")
    assert plain(described) == {**item, "ArchiveArn": arn, "Description": "d", "EventPattern": PATTERN}
    assert [plain(each) for each in tenant.events.list_archives()["Archives"]] == [item]

    updated = tenant.events.update_archive(ArchiveName="orders", Description="", EventPattern="", RetentionDays=0)
    assert plain(updated) == {"ArchiveArn": arn, "State": "ENABLED"}
    assert updated["CreationTime"] == made["CreationTime"] == described["CreationTime"]
    described = tenant.events.describe_archive(ArchiveName="orders")
    assert plain(described) == {**item, "ArchiveArn": arn, "RetentionDays": 0}

    tenant.events.delete_archive(ArchiveName="orders")
    assert tenant.events.list_archives()["Archives"] == []
    assert tenant.events.list_rules()["Rules"] == []


def test_an_update_leaves_what_it_does_not_name(tenant: Tenant) -> None:
    archive(tenant, Description="d", RetentionDays=3)
    tenant.events.update_archive(ArchiveName="orders", RetentionDays=7)
    described = tenant.events.describe_archive(ArchiveName="orders")
    assert (described["Description"], described["EventPattern"], described["RetentionDays"]) == ("d", PATTERN, 7)


def test_a_retention_beyond_the_largest_is_the_largest(tenant: Tenant) -> None:
    archive(tenant, RetentionDays=99_999_999_999)
    assert tenant.events.describe_archive(ArchiveName="orders")["RetentionDays"] == 2_147_483_647


def test_lists_are_filtered_and_paged_by_name(tenant: Tenant) -> None:
    tenant.events.create_event_bus(Name="other")
    for name in ("b", "ab", "aa"):
        archive(tenant, name)
    archive(tenant, "c", bus="other")
    rule = "Events-Archive-b"
    tenant.events.remove_targets(Rule=rule, Ids=[rule], Force=True)

    def names(**members: Any) -> list[str]:
        return [each["ArchiveName"] for each in tenant.events.list_archives(**members)["Archives"]]

    assert names() == ["aa", "ab", "b", "c"]
    assert names(NamePrefix="a") == ["aa", "ab"]
    assert names(State="DISABLED") == ["b"]
    assert names(EventSourceArn=bus_arn(tenant, "other")) == ["c"]
    first = tenant.events.list_archives(Limit=3)
    assert names(NextToken=first["NextToken"]) == ["c"]


def test_an_arn_is_no_name(tenant: Tenant, aws: Any, server: Any) -> None:
    client = aws("events", at=server, account=tenant.account, check=False)
    code, message = error(client.describe_archive, ArchiveName=tenant.arn("events", "archive/" + "a" * 20))
    assert code == "ValidationException"
    assert message.startswith("2 validation errors detected: Value 'arn:aws:events:")


def test_a_failed_update_changes_nothing(tenant: Tenant) -> None:
    archive(tenant, Description="d")
    before = tenant.events.describe_archive(ArchiveName="orders")
    code, _ = error(tenant.events.update_archive, ArchiveName="orders", Description="new", EventPattern='{"source":1}')
    assert code == "InvalidEventPatternException"
    assert plain(tenant.events.describe_archive(ArchiveName="orders")) == plain(before)


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_what_matches_is_kept_and_counted(tenant: Tenant) -> None:
    archive(tenant)
    archive(tenant, "everything", EventPattern="")
    tenant.put_many("shop", 3)
    tenant.put("elsewhere")
    details = sum(len(json.dumps({"n": n})) - 1 for n in range(3))  # kept without the space
    fixed = len("shop") + len("Test") + 20
    assert size(tenant) == (3, 3 * fixed + details)
    assert size(tenant, "everything")[0] == 4


def test_the_size_of_an_event_is_that_which_aws_reports(tenant: Tenant) -> None:
    archive(tenant, EventPattern="")
    detail = json.dumps({"text": "x" * 74}, separators=(",", ":"))
    entry = {"Source": "s" * 27, "DetailType": "t" * 27, "Detail": detail}
    assert len(detail) == 85
    tenant.events.put_events(Entries=[entry])
    assert size(tenant) == (1, 159)


def test_odd_texts_are_kept_and_measured(tenant: Tenant) -> None:
    archive(tenant, EventPattern="")
    tenant.events.put_events(
        Entries=[
            {"Source": 'a,"detail":{', "DetailType": "é\\", "Detail": r'{"a":"\ud800","b":1.00}', "Resources": ["x"]}
        ]
    )
    detail = r'{"a":"\ud800","b":1.00}'
    assert size(tenant) == (1, len('a,"detail":{') + len("é\\".encode()) + len(detail) + 20)


def test_an_update_of_the_pattern_holds_for_the_next_event(tenant: Tenant) -> None:
    archive(tenant)
    tenant.events.update_archive(ArchiveName="orders", EventPattern='{"source":["other"]}')
    tenant.put("shop")
    tenant.put("other")
    tenant.put("other")
    assert size(tenant)[0] == 2


def test_accounts_and_regions_do_not_see_each_other(tenant: Tenant) -> None:
    archive(tenant)
    elsewhere = tenant.in_region("eu-west-1")
    assert elsewhere.events.list_archives()["Archives"] == []
    elsewhere.put("shop")
    assert size(tenant)[0] == 0


def test_archives_and_what_they_hold_survive_a_crash(start_server: StartServer, aws: Any) -> None:
    server = start_server()
    tenant = Tenant(aws, at=server)
    archive(tenant, RetentionDays=2)
    tenant.put_many("shop", 25)
    server.kill()
    server.start()
    assert size(tenant)[0] == 25
    tenant.put("shop")
    assert size(tenant)[0] == 26
    described = tenant.events.describe_archive(ArchiveName="orders")
    assert (described["RetentionDays"], described["State"]) == (2, "ENABLED")


def test_a_deleted_archive_leaves_nothing_and_its_name_begins_anew(start_server: StartServer, aws: Any) -> None:
    server = start_server()
    tenant = Tenant(aws, at=server)
    archive(tenant)
    tenant.put_many("shop", 300)
    assert scrape(server.url)["busbar_archived_events"] == 300
    tenant.events.delete_archive(ArchiveName="orders")
    archive(tenant)
    tenant.put("shop")
    assert size(tenant)[0] == 1
    until(lambda: scrape(server.url)["busbar_archived_events"] == 1, "only the new archive's event")


def test_what_a_crash_left_of_a_deleted_archive_goes_too(start_server: StartServer, aws: Any) -> None:
    server = start_server()
    tenant = Tenant(aws, at=server)
    archive(tenant)
    archive(tenant, "kept")
    tenant.put_many("shop", 500)
    tenant.events.delete_archive(ArchiveName="orders")
    server.kill()
    server.start()
    until(lambda: scrape(server.url)["busbar_archived_events"] == 500, "the other archive's events alone")
    assert size(tenant, "kept")[0] == 500


def test_a_wire_that_covers_everything_does_not_take_an_archives_events(tenant: Tenant, server: Any) -> None:
    archive(tenant)
    wire = json.dumps({"Arn": "arn:aws:events:*", "Url": "http://127.0.0.1:9/"}).encode()
    assert request(server.url, "PUT", "/_bus/wires", body=wire).status == 200
    try:
        tenant.put("shop")
    finally:
        request(server.url, "DELETE", "/_bus/wires?arn=arn:aws:events:*")
    assert size(tenant)[0] == 1


# --- the managed rule -------------------------------------------------------------------------------------------------

RULE = "Events-Archive-orders"


def test_the_managed_rule_is_as_aws_makes_it(tenant: Tenant) -> None:
    arn = archive(
        tenant, EventPattern='{"source": ["shop"], "replay-name": ["mine"], "detail": {"n": [{"numeric": ["=", 1.0]}]}}'
    )
    rule = tenant.events.describe_rule(Name=RULE)
    assert (
        rule["EventPattern"]
        == '{"replay-name":[{"exists":false}],"source":["shop"],"detail":{"n":[{"numeric":["=",1.0]}]}}'
    )
    assert (rule["ManagedBy"], rule["CreatedBy"], rule["State"]) == (MANAGED_BY, tenant.account, "ENABLED")
    (listed,) = tenant.events.list_rules(NamePrefix=RULE)["Rules"]
    assert listed["ManagedBy"] == MANAGED_BY
    (target,) = tenant.events.list_targets_by_rule(Rule=RULE)["Targets"]
    assert (target["Id"], target["Arn"]) == (RULE, "arn:aws:events:us-east-1:::")
    transformer = target["InputTransformer"]
    assert transformer["InputPathsMap"] == {}
    assert transformer["InputTemplate"].startswith('{"archive-arn": "' + arn + ":")
    assert transformer["InputTemplate"].endswith(
        '","event": <aws.events.event.json>,"ingestion-time": <aws.events.event.ingestion-time>}'
    )


def test_a_managed_rule_has_no_tags_and_no_namesakes(tenant: Tenant) -> None:
    archive(tenant)
    assert tenant.events.list_tags_for_resource(ResourceARN=tenant.arn("events", f"rule/{RULE}"))["Tags"] == []
    target = "arn:aws:events:us-east-1:::"
    assert tenant.events.list_rule_names_by_target(TargetArn=target)["RuleNames"] == [RULE]


def disabled(tenant: Tenant) -> bool:
    found = tenant.events.describe_archive(ArchiveName="orders")
    forced = "Managed rule for the archive was forcefully deleted."
    return (found["State"], found.get("StateReason")) == ("DISABLED", forced)


def test_a_target_removed_by_force_disables_until_an_update_mends_it(tenant: Tenant) -> None:
    archive(tenant)
    tenant.put("shop")
    tenant.events.remove_targets(Rule=RULE, Ids=[RULE], Force=True)
    assert disabled(tenant)
    tenant.put("shop")
    assert size(tenant)[0] == 1
    answer = tenant.events.update_archive(ArchiveName="orders", Description="mended")
    assert answer["State"] == "ENABLED"
    assert not disabled(tenant)
    tenant.put("shop")
    assert size(tenant)[0] == 2


def test_a_rule_deleted_by_force_disables_until_an_update_mends_it(start_server: StartServer, aws: Any) -> None:
    server = start_server()
    tenant = Tenant(aws, at=server)
    archive(tenant)
    tenant.events.remove_targets(Rule=RULE, Ids=[RULE], Force=True)
    tenant.events.delete_rule(Name=RULE, Force=True)
    server.restart()
    assert disabled(tenant)
    tenant.events.update_archive(ArchiveName="orders", RetentionDays=9)
    tenant.put("shop")
    assert size(tenant)[0] == 1


def test_an_archive_outlives_its_bus(tenant: Tenant) -> None:
    tenant.events.create_event_bus(Name="b")
    archive(tenant, bus="b")
    tenant.put("shop", EventBusName="b")
    in_use = ("ValidationException", "EventBus can't be deleted since it has rules.")
    assert error(tenant.events.delete_event_bus, Name="b") == in_use
    tenant.events.remove_targets(Rule=RULE, EventBusName="b", Ids=[RULE], Force=True)
    tenant.events.delete_rule(Name=RULE, EventBusName="b", Force=True)
    tenant.events.delete_event_bus(Name="b")
    assert disabled(tenant)
    assert size(tenant) == (1, EVENT_BYTES)
    gone = ("ResourceNotFoundException", "Archive orders managed rule does not exist.")
    assert error(tenant.events.update_archive, ArchiveName="orders", RetentionDays=9) == gone
    tenant.events.delete_archive(ArchiveName="orders")
    assert tenant.events.list_archives()["Archives"] == []


def test_a_users_rule_in_the_managed_rules_place_is_left_alone(tenant: Tenant) -> None:
    archive(tenant)
    tenant.events.remove_targets(Rule=RULE, Ids=[RULE], Force=True)
    tenant.events.delete_rule(Name=RULE, Force=True)
    tenant.events.put_rule(Name=RULE, EventPattern=PATTERN)
    assert disabled(tenant)
    assert (
        error(tenant.events.update_archive, ArchiveName="orders", RetentionDays=9)[0]
        == "ResourceAlreadyExistsException"
    )
    tenant.events.delete_archive(ArchiveName="orders")
    assert tenant.events.describe_rule(Name=RULE)["State"] == "ENABLED"
