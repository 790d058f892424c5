from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus.quotas import Quotas
from bus.scope import Scope
from tests.bus.configuration import OTHER, PATTERN, SCOPE, Configuration, configuration

ARN = "arn:aws:events:us-east-1:111111111111:event-bus/"


@pytest.fixture
async def conf() -> AsyncIterator[Configuration]:
    conf = await configuration()
    yield conf
    await conf.store.close()


async def test_create_answers_only_what_was_given(conf: Configuration) -> None:
    assert await conf.call("create_event_bus", Name="orders") == {"EventBusArn": ARN + "orders"}
    given = {
        "Description": "d",
        "KmsKeyIdentifier": "k",
        "DeadLetterConfig": {"Arn": "arn:aws:sqs:us-east-1:111111111111:d"},
        "LogConfig": {"Level": "OFF"},
    }
    assert await conf.call("create_event_bus", Name="full", **given) == {"EventBusArn": ARN + "full", **given}
    described = await conf.call("describe_event_bus", Name="full")
    assert described == {
        "Name": "full",
        "Arn": ARN + "full",
        "CreationTime": 1_700_000_000.0,
        "LastModifiedTime": 1_700_000_000.0,
        **given,
    }


async def test_the_default_bus_is_there_in_every_scope(conf: Configuration) -> None:
    for scope in (SCOPE, OTHER):
        for name in (None, "default", f"arn:aws:events:us-east-1:{scope.account}:event-bus/default"):
            request = {} if name is None else {"Name": name}
            assert (await conf.call("describe_event_bus", scope, **request))["Name"] == "default"
    first, second = conf.buses.require(SCOPE, None), conf.buses.require(OTHER, None)
    assert first.number != second.number
    assert conf.buses.find(SCOPE, first.arn) is first


async def test_update_replaces_all_that_describes_a_bus(conf: Configuration) -> None:
    await conf.call("create_event_bus", Name="b", Description="old", KmsKeyIdentifier="k")
    conf.clock.advance(1.5)
    answer = await conf.call("update_event_bus", Name="b", LogConfig={"Level": "INFO"})
    assert answer == {"Arn": ARN + "b", "Name": "b", "LogConfig": {"Level": "INFO"}}
    described = await conf.call("describe_event_bus", Name="b")
    assert "Description" not in described
    assert "KmsKeyIdentifier" not in described
    assert (described["CreationTime"], described["LastModifiedTime"]) == (1_700_000_000.0, 1_700_000_001.5)


async def test_list_is_sorted_filtered_and_paged(conf: Configuration) -> None:
    for name in ("zeta", "alpha", "orders-b", "orders-a"):
        await conf.call("create_event_bus", Name=name)
    await conf.call("create_event_bus", OTHER, Name="hidden")
    listed = await conf.call("list_event_buses")
    assert [bus["Name"] for bus in listed["EventBuses"]] == ["alpha", "default", "orders-a", "orders-b", "zeta"]
    assert "NextToken" not in listed
    named = await conf.call("list_event_buses", NamePrefix="orders")
    assert [bus["Name"] for bus in named["EventBuses"]] == ["orders-a", "orders-b"]
    first = await conf.call("list_event_buses", Limit=3)
    rest = await conf.call("list_event_buses", Limit=2, NextToken=first["NextToken"])
    assert [bus["Name"] for bus in first["EventBuses"] + rest["EventBuses"]] == [
        "alpha",
        "default",
        "orders-a",
        "orders-b",
        "zeta",
    ]
    assert "NextToken" not in rest


async def test_errors(conf: Configuration) -> None:
    await conf.call("create_event_bus", Name="taken")
    for name in ("taken", "default"):
        assert await conf.error("create_event_bus", Name=name) == (
            "ResourceAlreadyExistsException",
            f"Event bus {name} already exists.",
        )
    assert await conf.error("create_event_bus", Name="a/b") == (
        "ValidationException",
        "Event bus name must not contain '/'.",
    )
    source = "aws.partner/shop/orders"
    assert await conf.error("create_event_bus", Name=source, EventSourceName=source) == (
        "ResourceNotFoundException",
        f"Event source {source} does not exist.",
    )
    for operation in ("describe_event_bus", "update_event_bus"):
        for name in ("absent", ARN + "absent"):
            assert await conf.error(operation, Name=name) == (
                "ResourceNotFoundException",
                "Event bus absent does not exist.",
            )
    for name in ("default", ARN + "default"):
        assert await conf.error("delete_event_bus", Name=name) == (
            "ValidationException",
            "Cannot delete event bus default.",
        )


async def test_another_scopes_bus_is_absent_even_by_its_arn(conf: Configuration) -> None:
    await conf.call("create_event_bus", Name="b")
    for scope in (OTHER, Scope(SCOPE.account, "eu-west-1")):
        for name in ("b", ARN + "b"):
            code, _ = await conf.error("describe_event_bus", scope, Name=name)
            assert code == "ResourceNotFoundException"
        assert await conf.call("delete_event_bus", scope, Name=ARN + "b") is None
    assert conf.buses.find(SCOPE, "b") is not None


async def test_regions_that_are_only_named_leave_little_behind(
    conf: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.buses.MOST_UNTOUCHED", 3)
    for number in range(10):
        scope = Scope("111111111111", f"region-{number}")
        first, second = conf.buses.find(scope, None), conf.buses.find(scope, "default")
        assert first == second
        async with conf.buses.lock(scope):
            pass
    assert len(conf.buses._known) == 6, "three buses, each under its name and its ARN"
    assert len(conf.buses._locks) == 0
    await conf.call("update_event_bus", Scope("111111111111", "region-9"), Name="default", Description="ours")
    found = conf.buses.find(Scope("111111111111", "region-9"), None)
    assert found is not None
    assert found.described == {"Description": "ours"}


async def test_delete_takes_the_tags_along_and_refuses_while_there_are_rules(conf: Configuration) -> None:
    tag = [{"Key": "k", "Value": "v"}]
    await conf.call("create_event_bus", Name="b", Tags=tag)
    assert await conf.call("list_tags_for_resource", ResourceARN=ARN + "b") == {"Tags": tag}
    await conf.call("put_rule", Name="r", EventBusName="b", EventPattern=PATTERN)
    refused = ("ValidationException", "EventBus can't be deleted since it has rules.")
    assert await conf.error("delete_event_bus", Name="b") == refused
    await conf.call("delete_rule", Name="r", EventBusName="b")
    number = conf.buses.require(SCOPE, "b").number
    assert await conf.call("delete_event_bus", Name=ARN + "b") is None
    assert await conf.call("delete_event_bus", Name="b") is None
    for name in ("b", ARN + "b"):
        assert conf.buses.find(SCOPE, name) is None
    await conf.call("create_event_bus", Name="b")
    assert await conf.call("list_tags_for_resource", ResourceARN=ARN + "b") == {"Tags": []}
    assert conf.buses.require(SCOPE, "b").number != number


async def test_a_rule_and_the_deletion_of_its_bus_cannot_cross(conf: Configuration) -> None:
    await conf.call("create_event_bus", Name="b")
    outcomes = await asyncio.gather(
        conf.call("delete_event_bus", Name="b"),
        conf.call("put_rule", Name="r", EventBusName="b", EventPattern=PATTERN),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert (conf.buses.find(SCOPE, "b") is None) == (not list(conf.catalog.rules()))


async def test_two_creations_of_one_name_do_not_both_succeed(conf: Configuration) -> None:
    outcomes = await asyncio.gather(
        *(conf.call("create_event_bus", Name="b") for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Exception) for outcome in outcomes) == 4


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    conf = await configuration(str(tmp_path))
    await conf.call("create_event_bus", Name="b", Description="d", Tags=[{"Key": "k", "Value": "v"}])
    await conf.call("update_event_bus", Name="default", Description="ours")
    before = [await conf.call("describe_event_bus", Name=name) for name in ("b", "default")]
    other = await conf.call("describe_event_bus", OTHER)
    known = ((SCOPE, "b"), (SCOPE, None), (OTHER, None))
    numbers = [conf.buses.require(*bus).number for bus in known]
    await conf.store.close()

    conf = await configuration(str(tmp_path))
    conf.clock.advance(3600)
    assert [await conf.call("describe_event_bus", Name=name) for name in ("b", "default")] == before
    assert await conf.call("describe_event_bus", OTHER) == other
    assert numbers == [conf.buses.require(*bus).number for bus in known]
    assert await conf.call("list_tags_for_resource", ResourceARN=ARN + "b") == {"Tags": [{"Key": "k", "Value": "v"}]}
    await conf.store.close()


async def test_the_number_of_buses_is_limited_per_scope() -> None:
    conf = await configuration(quotas=Quotas(event_buses=3))
    for name in ("a", "b"):
        await conf.call("create_event_bus", Name=name)
        await conf.call("create_event_bus", OTHER, Name=name)
    assert await conf.error("create_event_bus", Name="c") == (
        "LimitExceededException",
        "The requested resource exceeds the maximum number allowed.",
    )
    await conf.store.close()
