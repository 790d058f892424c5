"""Rules from outside: their states, what a change does, how they are listed, and that they outlive the process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Server
from tests.e2e.sink import Sink
from tests.e2e.tenant import Tenant
from tests.e2e.wire import request

pytestmark = pytest.mark.xdist_group("e2e_rules")

ALL_STATES = ("ENABLED", "DISABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS")
READ_ONLY = {"eventSource": "ec2.amazonaws.com", "eventName": "DescribeInstances", "readOnly": True}
WRITE = {"eventSource": "ec2.amazonaws.com", "eventName": "RunInstances", "readOnly": False}
VIA_CLOUDTRAIL = "AWS API Call via CloudTrail"
EVENT = {
    "id": "1", "detail-type": "T", "source": "shop", "account": "0", "time": "2024-01-01T00:00:00Z", "region": "r",
    "detail": {"n": 5},
}  # fmt: skip


def matched(server: Server, tenant: Tenant) -> dict[str, int]:
    """How many events each rule of an account has matched; matching is part of PutEvents, so this is never late."""
    rules = request(server.url, path="/_bus/rules").json["Rules"]
    return {rule["Name"]: rule["MatchedEvents"] for rule in rules if rule["Account"] == tenant.account}


class TestStates:
    @pytest.fixture
    def rules(self, tenant: Tenant, sink: Sink) -> None:
        """A rule in each state, for the same events."""
        for state in ALL_STATES:
            tenant.rule(state, {"Id": "hook", "Arn": sink.url + state}, pattern={"source": ["cloud"]}, state=state)

    @pytest.mark.parametrize(
        ("detail_type", "detail", "receivers"),
        [
            ("Anything", READ_ONLY, {"ENABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"}),
            (VIA_CLOUDTRAIL, WRITE, {"ENABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"}),
            (VIA_CLOUDTRAIL, READ_ONLY, {"ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"}),
            (
                VIA_CLOUDTRAIL,
                {"eventSource": "s3.amazonaws.com", "eventName": "ListBuckets"},
                {"ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"},
            ),
            (
                VIA_CLOUDTRAIL,
                {**READ_ONLY, "managementEvent": False},
                {"ENABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"},
            ),
        ],
        ids=["plain", "write", "read_only", "read_by_its_name", "data_event"],
    )
    @pytest.mark.usefixtures("rules")
    def test_who_receives(
        self,
        detail_type: str,
        detail: dict[str, Any],
        receivers: set[str],
        *,
        tenant: Tenant,
        sink: Sink,
        server: Server,
    ) -> None:
        tenant.put("cloud", detail, DetailType=detail_type)

        assert {post.path[1:] for post in sink.wait_for(len(receivers))} == receivers
        assert {name for name, count in matched(server, tenant).items() if count} == receivers

    def test_a_change_counts_for_the_very_next_event(self, tenant: Tenant, sink: Sink, server: Server) -> None:
        rule = {"Name": "flip", "EventPattern": '{"source":["flip"]}'}
        tenant.rule("flip", {"Id": "hook", "Arn": sink.url})
        expected = []
        for turn in range(20):
            tenant.events.disable_rule(Name="flip")
            tenant.put("flip", {"turn": turn, "state": "disabled"})
            tenant.events.enable_rule(Name="flip")
            tenant.put("flip", {"turn": turn, "state": "enabled"})
            tenant.events.put_rule(**rule, State="DISABLED")
            tenant.put("flip", {"turn": turn, "state": "put disabled"})
            tenant.events.put_rule(**rule, State=ALL_STATES[2])
            tenant.put("flip", {"turn": turn, "state": "put enabled"})
            expected += [(turn, "enabled"), (turn, "put enabled")]

        got = [(post.event["detail"]["turn"], post.event["detail"]["state"]) for post in sink.wait_for(len(expected))]

        assert sorted(got) == sorted(expected)
        assert matched(server, tenant) == {"flip": len(expected)}

    def test_targets_and_patterns_count_for_the_very_next_event_too(self, tenant: Tenant, sink: Sink) -> None:
        tenant.rule("moving", {"Id": "hook", "Arn": sink.url + "a"})
        tenant.put("moving", {"n": 1})
        tenant.events.put_targets(Rule="moving", Targets=[{"Id": "hook", "Arn": sink.url + "b"}])
        tenant.put("moving", {"n": 2})
        tenant.events.put_rule(Name="moving", EventPattern='{"detail":{"n":[4]}}')
        tenant.put("moving", {"n": 3})
        tenant.put("moving", {"n": 4})
        tenant.events.remove_targets(Rule="moving", Ids=["hook"])
        tenant.put("moving", {"n": 4, "after": True})
        tenant.rule("end", {"Id": "hook", "Arn": sink.url + "end"})
        tenant.put("end")

        paths = {(post.path, post.event["detail"].get("n")) for post in sink.wait_for(4)}

        assert paths == {("/a", 1), ("/b", 2), ("/b", 4), ("/end", None)}


class TestTestEventPattern:
    @pytest.mark.parametrize(
        ("pattern", "result"),
        [({"source": ["shop"], "detail": {"n": [{"numeric": [">", 4]}]}}, True), ({"detail": {"n": [4]}}, False)],
    )
    def test_the_result(self, pattern: Any, result: bool, tenant: Tenant) -> None:
        answer = tenant.events.test_event_pattern(EventPattern=json.dumps(pattern), Event=json.dumps(EVENT))

        assert answer["Result"] is result

    @pytest.mark.parametrize(
        ("event", "message"),
        [
            ("not JSON", "Parameter Event is not valid."),
            (json.dumps({**EVENT, "time": "noon"}), "Parameter Event is not valid. Reason: Invalid time."),
        ],
    )
    def test_an_event_that_is_none(self, event: str, message: str, tenant: Tenant) -> None:
        with pytest.raises(ClientError) as failed:
            tenant.events.test_event_pattern(EventPattern='{"source":["shop"]}', Event=event)

        assert failed.value.response["Error"] == {"Code": "ValidationException", "Message": message}

    def test_the_pattern_is_checked_first(self, tenant: Tenant) -> None:
        with pytest.raises(tenant.events.exceptions.InvalidEventPatternException):
            tenant.events.test_event_pattern(EventPattern="{", Event="{")


class TestPages:
    def test_paginators_see_each_thing_once_in_order(self, tenant: Tenant, sink: Sink) -> None:
        names = [f"r{n:02}" for n in range(23)]
        for name in reversed(names):
            tenant.rule(name, {"Id": "hook", "Arn": sink.url})
        tenant.rule("other", *({"Id": f"t{n}", "Arn": sink.url} for n in range(5)))
        small = {"PageSize": 4}

        def pages(operation: str, member: str, **members: Any) -> list[Any]:
            found = tenant.events.get_paginator(operation).paginate(PaginationConfig=small, **members)
            return [each for page in found for each in page[member]]

        assert [rule["Name"] for rule in pages("list_rules", "Rules", NamePrefix="r")] == names
        assert pages("list_rule_names_by_target", "RuleNames", TargetArn=sink.url) == ["other", *names]
        targets = pages("list_targets_by_rule", "Targets", Rule="other")
        assert [target["Id"] for target in targets] == [f"t{n}" for n in range(5)]

    def test_buses_by_page(self, tenant: Tenant) -> None:
        for n in range(7):
            tenant.events.create_event_bus(Name=f"b{n}")
        found: list[str] = []
        members: dict[str, Any] = {"Limit": 3}
        while True:
            page = tenant.events.list_event_buses(**members)
            found += [bus["Name"] for bus in page["EventBuses"]]
            if "NextToken" not in page:
                break
            members["NextToken"] = page["NextToken"]

        assert sorted(found) == ["b0", "b1", "b2", "b3", "b4", "b5", "b6", "default"]
        assert len(found) == 8


def test_tags_of_rules_and_buses(tenant: Tenant) -> None:
    rule = tenant.rule("tagged")
    bus = tenant.events.create_event_bus(Name="tagged", Tags=[{"Key": "team", "Value": "one"}])["EventBusArn"]

    tenant.events.tag_resource(ResourceARN=rule, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    tenant.events.untag_resource(ResourceARN=rule, TagKeys=["a", "absent"])

    assert tenant.events.list_tags_for_resource(ResourceARN=rule)["Tags"] == [{"Key": "b", "Value": "2"}]
    assert tenant.events.list_tags_for_resource(ResourceARN=bus)["Tags"] == [{"Key": "team", "Value": "one"}]
    tenant.events.delete_rule(Name="tagged")
    tenant.rule("tagged")
    assert tenant.events.list_tags_for_resource(ResourceARN=rule)["Tags"] == []


def test_tags_of_what_keeps_none_of_its_own(tenant: Tenant) -> None:
    """They stay with the resource, not with its name."""
    events = tenant.events
    bus = tenant.arn("events", "event-bus/default")
    secret = {"ApiKeyAuthParameters": {"ApiKeyName": "k", "ApiKeyValue": "v"}}
    connection = events.create_connection(Name="c", AuthorizationType="API_KEY", AuthParameters=secret)["ConnectionArn"]
    destination = events.create_api_destination(
        Name="d", ConnectionArn=connection, InvocationEndpoint="https://api.example.com/", HttpMethod="POST"
    )["ApiDestinationArn"]
    archive = events.create_archive(ArchiveName="a", EventSourceArn=bus)["ArchiveArn"]
    for arn in (connection, destination, archive):
        events.tag_resource(ResourceARN=arn, Tags=[{"Key": "team", "Value": "one"}])
        assert events.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "team", "Value": "one"}]
    events.delete_archive(ArchiveName="a")
    with pytest.raises(ClientError, match="Archive a does not exist"):
        events.list_tags_for_resource(ResourceARN=archive)
    events.create_archive(ArchiveName="a", EventSourceArn=bus)
    assert events.list_tags_for_resource(ResourceARN=archive)["Tags"] == []
    with pytest.raises(ClientError, match="does not exist"):
        events.tag_resource(ResourceARN=destination + "0", Tags=[{"Key": "k", "Value": "v"}])


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_everything_is_there_after_a_restart(ending: str, tenant: Tenant, sink: Sink, server: Server) -> None:
    owner = tenant
    queue = owner.queue("kept", VisibilityTimeout="7")
    owner.events.create_event_bus(Name="second", Tags=[{"Key": "k", "Value": "v"}])
    rule = owner.rule("kept", {"Id": "hook", "Arn": sink.url}, {"Id": "q", "Arn": queue.arn, "Input": '{"x":1}'})
    owner.rule("asleep", {"Id": "hook", "Arn": sink.url}, pattern={"source": ["kept"]}, state="DISABLED")
    owner.rule("kept", {"Id": "hook", "Arn": sink.url + "second"}, bus="second")
    owner.events.tag_resource(ResourceARN=rule, Tags=[{"Key": "a", "Value": "1"}])
    lambda_arn = owner.arn("lambda", "function:f")
    request(server.url, "PUT", "/_bus/wires", body=json.dumps({"Arn": lambda_arn, "Url": sink.url + "f"}).encode())
    owner.sqs.send_message(QueueUrl=queue.url, MessageBody="before")

    def everything() -> dict[str, Any]:
        events = owner.events
        return {
            "buses": events.list_event_buses()["EventBuses"],
            "rules": [events.list_rules(EventBusName=bus)["Rules"] for bus in ("default", "second")],
            "targets": events.list_targets_by_rule(Rule="kept")["Targets"],
            "asleep": events.describe_rule(Name="asleep")["State"],
            "tags": events.list_tags_for_resource(ResourceARN=rule)["Tags"],
            "queue": owner.sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["All"])["Attributes"],
            "wires": request(server.url, path="/_bus/wires").json,
        }

    before = everything()
    status = getattr(server, ending)()
    server.start()

    assert status == (0 if ending == "stop" else -9)
    assert everything() == before
    event_id = owner.put("kept")
    assert sink.next().event["id"] == event_id
    assert [each["Body"] for each in owner.receive(queue, 2)] == ["before", '{"x":1}']
    assert owner.put("kept", EventBusName="second")
    assert sink.next().path == "/second"
