from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.config import Settings
from bus.errors import StoreUnavailable, StoreUnusable
from bus.quotas import Quotas
from bus.store import ConfChange
from tests.bus.configuration import OTHER, PATTERN, QUEUE, SCOPE, Configuration, configuration

RULE_ARN = "arn:aws:events:us-east-1:111111111111:rule/"
BUS_ARN = "arn:aws:events:us-east-1:111111111111:event-bus/"
ROLE = "arn:aws:iam::111111111111:role/r"
OK = {"FailedEntryCount": 0, "FailedEntries": []}
LIMIT = ("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
NO_RULE = ("ResourceNotFoundException", "Rule absent does not exist on EventBus default.")
NO_BUS = ("ResourceNotFoundException", "Event bus absent does not exist.")
BAD_TOKEN = ("ValidationException", "Parameter NextToken is not valid.")


@pytest.fixture
async def conf() -> AsyncIterator[Configuration]:
    conf = await configuration()
    yield conf
    await conf.store.close()


def target(ident: str, arn: str = QUEUE, **members: Any) -> dict[str, Any]:
    return {"Id": ident, "Arn": arn, **members}


# -- rules


async def test_put_describe_and_list(conf: Configuration) -> None:
    await conf.call("create_event_bus", Name="b")
    assert await conf.call("put_rule", Name="r", EventPattern=PATTERN) == {"RuleArn": RULE_ARN + "r"}
    request = {"Name": "r", "EventBusName": BUS_ARN + "b", "EventPattern": PATTERN, "Description": "d", "RoleArn": ROLE}
    assert await conf.call("put_rule", **request) == {"RuleArn": RULE_ARN + "b/r"}
    plain = {
        "Name": "r",
        "Arn": RULE_ARN + "r",
        "EventPattern": PATTERN,
        "State": "ENABLED",
        "EventBusName": "default",
    }
    assert await conf.call("describe_rule", Name="r") == {**plain, "CreatedBy": SCOPE.account}
    assert await conf.call("list_rules") == {"Rules": [plain]}
    full = {**plain, "Arn": RULE_ARN + "b/r", "EventBusName": "b", "Description": "d", "RoleArn": ROLE}
    assert await conf.call("list_rules", EventBusName="b") == {"Rules": [full]}
    assert await conf.call("list_rules", OTHER) == {"Rules": []}


async def test_an_update_clears_what_it_omits_and_keeps_targets_and_tags(conf: Configuration) -> None:
    tags = [{"Key": "k", "Value": "v"}]
    await conf.call(
        "put_rule", Name="r", EventPattern=PATTERN, Description="d", RoleArn=ROLE, State="DISABLED", Tags=tags
    )
    await conf.call("put_targets", Rule="r", Targets=[target("t")])
    await conf.call("put_rule", Name="r", EventPattern='{"source":["other"]}', Tags=[{"Key": "new", "Value": "x"}])
    assert await conf.call("describe_rule", Name="r") == {
        "Name": "r",
        "Arn": RULE_ARN + "r",
        "EventPattern": '{"source":["other"]}',
        "State": "ENABLED",
        "EventBusName": "default",
        "CreatedBy": SCOPE.account,
    }
    assert (await conf.call("list_targets_by_rule", Rule="r"))["Targets"] == [target("t")]
    assert await conf.call("list_tags_for_resource", ResourceARN=RULE_ARN + "r") == {"Tags": tags}


async def test_empty_texts_are_kept_and_given_back(conf: Configuration) -> None:
    await conf.call("put_rule", Name="r", EventPattern=PATTERN, ScheduleExpression="", Description="")
    described = await conf.call("describe_rule", Name="r")
    assert (described["ScheduleExpression"], described["Description"]) == ("", "")


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        ({}, "ValidationException", "Parameter(s) EventPattern or ScheduleExpression must be specified."),
        (
            {"EventPattern": "", "ScheduleExpression": ""},
            "ValidationException",
            "Parameter(s) EventPattern or ScheduleExpression must be specified.",
        ),
        (
            {"ScheduleExpression": "", "EventPattern": PATTERN, "EventBusName": "b"},
            "ValidationException",
            "ScheduleExpression is supported only on the default event bus.",
        ),
        (
            {"ScheduleExpression": "rate(1 minute)", "EventBusName": BUS_ARN + "b"},
            "ValidationException",
            "ScheduleExpression is supported only on the default event bus.",
        ),
        (
            {"ScheduleExpression": "rate(1 minutes)"},
            "ValidationException",
            "Parameter ScheduleExpression is not valid.",
        ),
        (
            {"ScheduleExpression": "rate(1 minute)", "State": "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"},
            "ValidationException",
            "Parameter State is not valid. Reason: ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS is not for rules"
            " with a ScheduleExpression.",
        ),
        (
            {"EventPattern": "[]"},
            "InvalidEventPatternException",
            "Event pattern is not valid. Reason: Filter is not an object",
        ),
        ({"EventPattern": PATTERN, "EventBusName": "absent"}, *NO_BUS),
        (
            {"EventPattern": PATTERN, "RoleArn": "r"},
            "ValidationException",
            "Parameter r is not valid. Reason: Provided Arn is not in correct format.",
        ),
        (
            {"EventPattern": PATTERN, "RoleArn": QUEUE},
            "ValidationException",
            f"Provided role '{QUEUE}' cannot be assumed by principal 'events.amazonaws.com'.",
        ),
        (
            {"EventPattern": PATTERN, "Tags": [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]},
            "ValidationException",
            "Invalid parameter: Duplicated keys are not allowed.",
        ),
    ],
)
async def test_put_rule_errors_change_nothing(
    conf: Configuration, request_: dict[str, Any], code: str, message: str
) -> None:
    await conf.call("create_event_bus", Name="b")
    found = await conf.error("put_rule", Name="r", **request_)
    assert (found[0], found[1].partition("\n")[0]) == (code, message)
    assert list(conf.catalog.rules()) == []


async def test_errors_of_the_other_operations(conf: Configuration) -> None:
    for operation, request in (
        ("describe_rule", {"Name": "absent"}),
        ("enable_rule", {"Name": "absent"}),
        ("disable_rule", {"Name": "absent"}),
        ("list_targets_by_rule", {"Rule": "absent"}),
        ("put_targets", {"Rule": "absent", "Targets": [target("t")]}),
        ("remove_targets", {"Rule": "absent", "Ids": ["t"]}),
    ):
        assert await conf.error(operation, **request) == NO_RULE
        assert await conf.error(operation, EventBusName="absent", **request) == NO_BUS
    assert await conf.error("list_rules", EventBusName="absent") == NO_BUS
    assert await conf.error("delete_rule", Name="r", EventBusName="absent") == NO_BUS
    assert await conf.error("list_rule_names_by_target", TargetArn=QUEUE, EventBusName="absent") == NO_BUS
    assert await conf.call("delete_rule", Name="absent") is None


async def test_a_pattern_longer_than_the_quota(conf: Configuration) -> None:
    pattern = '{"source":["' + "x" * 2048 + '"]}'
    assert await conf.error("put_rule", Name="r", EventPattern=pattern) == (
        "ValidationException",
        f"1 validation error detected: Value '{pattern}' at 'eventPattern' failed to satisfy constraint:"
        " Member must have length less than or equal to 2048",
    )
    longer = await configuration(settings=Settings(max_event_pattern=4096))
    await longer.call("put_rule", Name="r", EventPattern=pattern)
    await longer.store.close()


async def test_list_rules_is_sorted_filtered_and_paged(conf: Configuration) -> None:
    for name in ("c", "a1", "b", "a2"):
        await conf.call("put_rule", Name=name, EventPattern=PATTERN)
    names: list[str] = []
    request: dict[str, Any] = {"Limit": 1}
    while True:
        answer = await conf.call("list_rules", **request)
        names += [rule["Name"] for rule in answer["Rules"]]
        if "NextToken" not in answer:
            break
        request = {"Limit": 2, "NextToken": answer["NextToken"], "EventBusName": BUS_ARN + "default"}
    assert names == ["a1", "a2", "b", "c"]
    listed = await conf.call("list_rules", NamePrefix="a")
    assert [rule["Name"] for rule in listed["Rules"]] == ["a1", "a2"]


async def test_a_page_goes_on_although_its_last_item_went(conf: Configuration) -> None:
    for name in ("a", "b", "c"):
        await conf.call("put_rule", Name=name, EventPattern=PATTERN)
    token = (await conf.call("list_rules", Limit=2))["NextToken"]
    await conf.call("delete_rule", Name="b")
    rest = await conf.call("list_rules", NextToken=token)
    assert [rule["Name"] for rule in rest["Rules"]] == ["c"]


# -- state and matching


async def test_the_index_follows_every_change_at_once(conf: Configuration) -> None:
    assert conf.matches() == []
    await conf.call("put_rule", Name="r", EventPattern=PATTERN)
    assert conf.matches() == ["r"]
    await conf.call("disable_rule", Name="r")
    assert conf.matches() == []
    assert (await conf.call("describe_rule", Name="r"))["State"] == "DISABLED"
    await conf.call("enable_rule", Name="r")
    assert conf.matches() == ["r"]
    await conf.call("put_rule", Name="r", EventPattern='{"source":["else"]}')
    assert conf.matches() == []
    assert conf.matches(source="else") == ["r"]
    await conf.call("put_rule", Name="r", EventPattern=PATTERN, State="DISABLED")
    assert conf.matches() == conf.matches(source="else") == []
    await conf.call("put_rule", Name="r", EventPattern=PATTERN)
    await conf.call("delete_rule", Name="r")
    assert conf.matches() == []


async def test_buses_and_scopes_do_not_share_rules(conf: Configuration) -> None:
    await conf.call("create_event_bus", Name="b")
    await conf.call("put_rule", Name="mine", EventPattern=PATTERN)
    await conf.call("put_rule", Name="bs", EventPattern=PATTERN, EventBusName="b")
    await conf.call("put_rule", OTHER, Name="others", EventPattern=PATTERN)
    assert conf.matches() == ["mine"]
    assert conf.matches(bus="b") == ["bs"]
    number = conf.buses.require(SCOPE, None).number
    assert conf.catalog.ruleset(number).rule("mine").arn == RULE_ARN + "mine"


async def test_enabling_after_the_third_state_leaves_plain_enabled(conf: Configuration) -> None:
    third = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
    await conf.call("put_rule", Name="r", EventPattern=PATTERN, ScheduleExpression="", State=third)
    assert conf.matches() == ["r"]
    assert (await conf.call("describe_rule", Name="r"))["State"] == third
    await conf.call("disable_rule", Name="r")
    await conf.call("enable_rule", Name="r")
    assert (await conf.call("describe_rule", Name="r"))["State"] == "ENABLED"


# -- targets


async def test_targets_are_added_replaced_whole_and_listed_by_id(conf: Configuration) -> None:
    await conf.call("put_rule", Name="r", EventPattern=PATTERN)
    put = [target("b", InputPath="$.detail"), target("a", "http://127.0.0.1:9000/x")]
    assert await conf.call("put_targets", Rule="r", Targets=put) == OK
    assert (await conf.call("list_targets_by_rule", Rule="r"))["Targets"] == [put[1], put[0]]
    await conf.call("put_targets", Rule="r", Targets=[target("b")])
    assert (await conf.call("list_targets_by_rule", Rule="r"))["Targets"] == [put[1], target("b")]
    first = await conf.call("list_targets_by_rule", Rule="r", Limit=1)
    rest = await conf.call("list_targets_by_rule", Rule="r", NextToken=first["NextToken"])
    assert [found["Id"] for found in first["Targets"] + rest["Targets"]] == ["a", "b"]
    assert await conf.call("remove_targets", Rule="r", Ids=["a", "unknown"]) == OK
    assert (await conf.call("list_targets_by_rule", Rule="r"))["Targets"] == [target("b")]


async def test_one_bad_target_refuses_the_whole_call(conf: Configuration) -> None:
    await conf.call("put_rule", Name="r", EventPattern=PATTERN)
    await conf.call("put_targets", Rule="r", Targets=[target("t", Input="1")])
    code, _ = await conf.error("put_targets", Rule="r", Targets=[target("t"), target("u", "nonsense")])
    assert code == "ValidationException"
    assert await conf.error("put_targets", Rule="r", Targets=[target("t"), target("t")]) == (
        "ValidationException",
        "Invalid parameter: Duplicated target ids are not allowed.",
    )
    assert (await conf.call("list_targets_by_rule", Rule="r"))["Targets"] == [target("t", Input="1")]


async def test_five_targets_and_no_more(conf: Configuration) -> None:
    await conf.call("put_rule", Name="r", EventPattern=PATTERN)
    assert await conf.error("put_targets", Rule="r", Targets=[target(str(n)) for n in range(6)]) == LIMIT
    await conf.call("put_targets", Rule="r", Targets=[target(str(n)) for n in range(5)])
    assert await conf.error("put_targets", Rule="r", Targets=[target("5")]) == LIMIT
    await conf.call("put_targets", Rule="r", Targets=[target("0", Input="1")])


async def test_a_rule_with_targets_cannot_be_deleted(conf: Configuration) -> None:
    await conf.call("put_rule", Name="r", EventPattern=PATTERN)
    await conf.call("put_targets", Rule="r", Targets=[target("t")])
    for force in (False, True):
        assert await conf.error("delete_rule", Name="r", Force=force) == (
            "ValidationException",
            "Rule can't be deleted since it has targets.",
        )
    await conf.call("remove_targets", Rule="r", Ids=["t"])
    await conf.call("delete_rule", Name="r")
    assert (await conf.error("describe_rule", Name="r"))[0] == "ResourceNotFoundException"


async def test_concurrent_changes_of_one_rule_all_count(conf: Configuration) -> None:
    await conf.call("put_rule", Name="r", EventPattern=PATTERN)
    await asyncio.gather(
        *(conf.call("put_targets", Rule="r", Targets=[target(str(n))]) for n in range(5)),
        conf.call("disable_rule", Name="r"),
        conf.call("tag_resource", ResourceARN=RULE_ARN + "r", Tags=[{"Key": "k", "Value": "v"}]),
    )
    rule = conf.catalog.find_rule(SCOPE, None, "r")
    assert rule is not None
    assert [route.target["Id"] for route in rule.routes] == ["0", "1", "2", "3", "4"]
    assert (rule.state, rule.tags) == ("DISABLED", {"k": "v"})


async def test_rule_names_by_target(conf: Configuration) -> None:
    await conf.call("create_event_bus", Name="b")
    for name, bus in (("z", "default"), ("a", "default"), ("m", "default"), ("elsewhere", "b")):
        await conf.call("put_rule", Name=name, EventPattern=PATTERN, EventBusName=bus)
        await conf.call("put_targets", Rule=name, EventBusName=bus, Targets=[target("1"), target("2")])
    await conf.call("disable_rule", Name="m")
    assert await conf.call("list_rule_names_by_target", TargetArn=QUEUE) == {"RuleNames": ["a", "m", "z"]}
    assert await conf.call("list_rule_names_by_target", TargetArn=QUEUE + "x") == {"RuleNames": []}
    assert await conf.call("list_rule_names_by_target", TargetArn="http://h/") == {"RuleNames": []}
    first = await conf.call("list_rule_names_by_target", TargetArn=QUEUE, Limit=2)
    again = await conf.call("list_rule_names_by_target", TargetArn=QUEUE, Limit=1, NextToken=first["NextToken"])
    assert (first["RuleNames"], again) == (["a", "m"], {"RuleNames": ["z"]})
    token = first["NextToken"]
    for request in (
        {"TargetArn": QUEUE + "x", "NextToken": token},
        {"TargetArn": QUEUE, "EventBusName": "b", "NextToken": token},
        {"TargetArn": QUEUE, "NextToken": "nonsense"},
        {"TargetArn": QUEUE, "NextToken": "☃"},
    ):
        assert await conf.error("list_rule_names_by_target", **request) == BAD_TOKEN
    assert await conf.error("list_rule_names_by_target", TargetArn="not-an-arn") == (
        "ValidationException",
        "Parameter not-an-arn is not valid. Reason: Provided Arn is not in correct format.",
    )
    await conf.call("remove_targets", Rule="a", Ids=["1", "2"])
    assert await conf.call("list_rule_names_by_target", TargetArn=QUEUE) == {"RuleNames": ["m", "z"]}


# -- routes


async def test_a_target_put_again_as_it_is_keeps_its_route(conf: Configuration) -> None:
    await conf.call("put_rule", Name="r", EventPattern=PATTERN)
    await conf.call("put_targets", Rule="r", Targets=[target("a"), target("b")])
    rule = conf.catalog.find_rule(SCOPE, None, "r")
    assert rule is not None
    before = {route.target["Id"]: route.number for route in rule.routes}
    await conf.call("put_targets", Rule="r", Targets=[target("a"), target("b", Input="1")])
    rule = conf.catalog.find_rule(SCOPE, None, "r")
    assert rule is not None
    after = {route.target["Id"]: route.number for route in rule.routes}
    assert after["a"] == before["a"]
    assert after["b"] != before["b"]


async def test_a_replaced_route_stays_until_nothing_uses_it(conf: Configuration) -> None:
    def routes() -> dict[str, int]:
        rule = conf.catalog.find_rule(SCOPE, None, "r")
        assert rule is not None
        return {str(route.target["Id"]): route.number for route in rule.routes}

    await conf.call("put_rule", Name="r", EventPattern=PATTERN)
    await conf.call("put_targets", Rule="r", Targets=[target("a"), target("b"), target("c")])
    old = routes()
    await conf.call("put_targets", Rule="r", Targets=[target("a", Input="1"), target("b", Input="1")])
    new = routes()
    assert new["c"] == old["c"]
    assert len({*old.values(), *new.values()}) == 5
    replaced = conf.catalog.route(old["a"])
    assert replaced is not None
    assert (replaced.target, replaced.rule_arn) == (target("a"), RULE_ARN + "r")

    # What was replaced only since the last round stays, whatever the count of deliveries says.
    assert await conf.catalog.forget_routes(set()) == 0
    assert await conf.catalog.forget_routes({old["a"]}) == 1
    assert conf.catalog.route(old["a"]) is replaced
    assert conf.catalog.route(old["b"]) is None
    assert all(conf.catalog.route(number) for number in new.values())
    assert await conf.catalog.forget_routes(set()) == 1
    _, stored = await conf.store.conf_list("route")
    assert {int(entry.key) for entry in stored} == set(new.values())


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    conf = await configuration(str(tmp_path))
    await conf.call("create_event_bus", Name="b")
    await conf.call("put_rule", Name="r", EventPattern=PATTERN, EventBusName="b", Tags=[{"Key": "k", "Value": "v"}])
    await conf.call("put_targets", Rule="r", EventBusName="b", Targets=[target("a"), target("b")])
    rule = conf.catalog.find_rule(SCOPE, "b", "r")
    assert rule is not None
    gone = rule.routes[1].number
    await conf.call("remove_targets", Rule="r", EventBusName="b", Ids=["b"])
    await conf.call("put_rule", Name="off", EventPattern=PATTERN, State="DISABLED")
    await conf.call("put_rule", Name="dropped", EventPattern=PATTERN)
    await conf.call("delete_rule", Name="dropped")
    summary = conf.catalog.rules_summary()
    await conf.store.close()

    conf = await configuration(str(tmp_path))
    assert conf.catalog.rules_summary() == summary
    assert [(line["EventBusName"], line["Name"]) for line in summary] == [("b", "r"), ("default", "off")]
    assert (conf.matches(), conf.matches(bus="b")) == ([], ["r"])
    assert conf.catalog.route(gone) is not None
    assert await conf.catalog.forget_routes(set()) == 1
    assert conf.catalog.route(gone) is None
    await conf.store.close()


async def test_a_stored_pattern_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    conf = await configuration(str(tmp_path))
    await conf.call("put_rule", Name="r", EventPattern=PATTERN)
    _, [entry] = await conf.store.conf_list("rule")
    assert entry.value is not None
    await conf.store.conf_put([ConfChange("rule", entry.key, entry.value.replace(b"shop", b"shop\\\\"))])
    with pytest.raises(StoreUnusable, match="111111111111/us-east-1/default"):
        await configuration(store=conf.store)
    await conf.store.close()


async def test_what_cannot_be_written_is_not_in_effect(conf: Configuration, monkeypatch: pytest.MonkeyPatch) -> None:
    await conf.call("put_rule", Name="r", EventPattern=PATTERN)

    async def full(changes: object) -> int:
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(conf.store, "conf_put", full)
        for operation, request in (
            ("put_rule", {"Name": "new", "EventPattern": PATTERN}),
            ("disable_rule", {"Name": "r"}),
            ("put_targets", {"Rule": "r", "Targets": [target("t")]}),
            ("delete_rule", {"Name": "r"}),
            ("create_event_bus", {"Name": "b"}),
        ):
            with pytest.raises(StoreUnavailable):
                await conf.call(operation, **request)
    assert conf.matches() == ["r"]
    assert (await conf.call("list_targets_by_rule", Rule="r"))["Targets"] == []
    await conf.call("create_event_bus", Name="b")


# -- quotas


async def test_rules_per_bus_are_limited() -> None:
    conf = await configuration(quotas=Quotas(rules_per_bus=2))
    await conf.call("create_event_bus", Name="b")
    for name in ("a", "b", "a"):
        await conf.call("put_rule", Name=name, EventPattern=PATTERN)
    assert await conf.error("put_rule", Name="c", EventPattern=PATTERN) == LIMIT
    await conf.call("put_rule", Name="c", EventPattern=PATTERN, EventBusName="b")
    await conf.store.close()


async def test_rules_with_wildcards_are_limited() -> None:
    conf = await configuration(quotas=Quotas(wildcard_rules_per_bus=2))
    wild = ['{"a":[{"wildcard":"x*"}]}', '{"$or":[{"a":[{"anything-but":{"wildcard":"x*"}}]},{"b":[1]}]}']
    for name, pattern in enumerate(wild):
        await conf.call("put_rule", Name=str(name), EventPattern=pattern)
    assert await conf.error("put_rule", Name="2", EventPattern=wild[0]) == LIMIT
    await conf.call("put_rule", Name="0", EventPattern=wild[1])
    await conf.call("put_rule", Name="2", EventPattern='{"wildcard":["x*"]}')
    await conf.store.close()


# -- TestEventPattern

EVENT = '"id":"1","detail-type":"T","source":"shop","account":"1","region":"r"'


@pytest.mark.parametrize(
    ("event", "result"),
    [
        (f'{{{EVENT},"time":"2024-01-01T00:00:00Z"}}', True),
        (f'{{{EVENT},"time":"2024-01-01T00:00:00.123+02:00","extra":[1],"detail":null}}', True),
        ('{"id":1,"detail-type":2,"source":"other","account":null,"region":{},"time":0}', False),
    ],
)
async def test_test_event_pattern(conf: Configuration, event: str, result: bool) -> None:
    assert await conf.call("test_event_pattern", EventPattern=PATTERN, Event=event) == {"Result": result}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("", ""),
        ("[]", ""),
        ("{", ""),
        ("{}", ""),
        (f"{{{EVENT}}}", ""),
        (f'{{{EVENT},"time":"yesterday"}}', " Reason: Invalid time."),
        (f'{{{EVENT},"time":""}}', " Reason: Invalid time."),
        (f'{{{EVENT},"time":null}}', " Reason: Invalid time."),
        (f'{{{EVENT},"time":"2024-01-01T00:00:00Z","time":"x"}}', " Reason: Invalid time."),
    ],
)
async def test_test_event_pattern_refuses_the_event(conf: Configuration, event: str, reason: str) -> None:
    assert await conf.error("test_event_pattern", EventPattern=PATTERN, Event=event) == (
        "ValidationException",
        f"Parameter Event is not valid.{reason}",
    )


async def test_test_event_pattern_looks_at_the_pattern_first(conf: Configuration) -> None:
    code, message = await conf.error("test_event_pattern", EventPattern="{}", Event="nonsense")
    assert code == "InvalidEventPatternException"
    assert message.startswith("Event pattern is not valid. Reason: Empty objects are not allowed")
