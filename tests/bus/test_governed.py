"""The gate before capabilities: what it knows, and that nobody slips through while another changes something."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bus.config import Settings
from bus.errors import ApiError
from bus.permissions import Permissions
from bus.permissions.admission import Admission
from bus.permissions.governed import OPERATIONS, Gate, Governed, governed
from bus.permissions.principals import Principals
from bus.scope import Call
from rules.bus_policy import ACTIONS
from tests.bus.configuration import OTHER, PATTERN, SCOPE, Configuration, configuration

BUS = "arn:aws:events:us-east-1:111111111111:event-bus/b"
OWN = {"StringEqualsIfExists": {"events:creatorAccount": "${aws:PrincipalAccount}"}}


@pytest.fixture
async def conf() -> AsyncIterator[Configuration]:
    conf = await configuration()
    yield conf
    await conf.store.close()


def gated(conf: Configuration) -> tuple[Governed, Governed, Governed]:
    principals = Principals(Settings(), conf.clock)
    admission = Admission(principals, find=conf.buses.find, find_foreign=conf.buses.find_foreign)
    gate = Gate(
        admission,
        find_bus=conf.buses.find,
        find_rule=lambda number, name: conf.catalog.ruleset(number).rules.get(name),
    )
    buses, catalog, tags = governed([conf.buses, conf.catalog, conf.tags], gate)
    return buses, catalog, tags


async def allow(conf: Configuration, **changes: Any) -> None:
    statement = {"Sid": "s", "Effect": "Allow", "Principal": "*", "Action": "events:*", "Resource": "*", **changes}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    await Permissions(conf.buses.change_policy).put_permission(Call(SCOPE), {"EventBusName": "b", "Policy": policy})


def test_the_gate_knows_what_policies_know() -> None:
    assert {action for action, _ in OPERATIONS.values()} | {"events:PutEvents"} == set(ACTIONS)


async def test_whatever_is_not_governed_passes(conf: Configuration) -> None:
    buses, catalog, _ = gated(conf)
    assert await buses.create_event_bus(Call(SCOPE), {"Name": "b"}) == {"EventBusArn": BUS}
    assert catalog.ruleset is not None
    assert not hasattr(catalog, "create_event_bus")
    assert repr(buses).startswith("<Governed <bus.buses.Buses")


async def test_an_arn_that_is_none_is_for_the_operation_to_refuse(conf: Configuration) -> None:
    _, _, tags = gated(conf)
    for arn in ("x", "arn:aws:sqs:us-east-1:222222222222:q", "arn:aws:events:us-east-1:222222222222:archive/a"):
        with pytest.raises(ApiError, match="Provided Arn is not in correct format"):
            await tags.list_tags_for_resource(Call(SCOPE), {"ResourceARN": arn})


async def test_two_guests_cannot_both_make_a_rule_of_one_name(conf: Configuration) -> None:
    _, catalog, _ = gated(conf)
    await conf.call("create_event_bus", Name="b")
    await allow(conf, Condition=OWN)
    request = {"Name": "r", "EventPattern": PATTERN, "EventBusName": BUS}
    third = OTHER._replace(account="333333333333")

    async with conf.buses.lock(SCOPE):
        attempts = [asyncio.ensure_future(catalog.put_rule(Call(scope), dict(request))) for scope in (OTHER, third)]
        await asyncio.wait(attempts, timeout=0)
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [dict, ApiError]
    described = await conf.call("describe_rule", Name="r", EventBusName="b")
    assert described["CreatedBy"] == OTHER.account


async def test_a_guest_acts_in_the_scope_of_the_bus(conf: Configuration) -> None:
    _, catalog, tags = gated(conf)
    await conf.call("create_event_bus", Name="b")
    await allow(conf)
    await catalog.put_rule(Call(OTHER), {"Name": "r", "EventPattern": PATTERN, "EventBusName": BUS})
    rule = "arn:aws:events:us-east-1:111111111111:rule/b/r"
    await tags.tag_resource(Call(OTHER), {"ResourceARN": rule, "Tags": [{"Key": "k", "Value": "v"}]})
    await tags.tag_resource(Call(OTHER), {"ResourceARN": BUS, "Tags": [{"Key": "b", "Value": "v"}]})
    (made,) = conf.catalog.rules()
    assert (made.scope, made.creator, made.tags) == (SCOPE, OTHER.account, {"k": "v"})
    assert conf.buses.require(SCOPE, "b").tags == {"b": "v"}


async def test_no_bus_is_made_for_an_account_that_is_only_named(conf: Configuration) -> None:
    _, catalog, _ = gated(conf)
    for number in range(3):
        arn = f"arn:aws:events:us-east-1:{number:012}:event-bus/default"
        with pytest.raises(ApiError, match="AccessDeniedException"):
            await catalog.list_rules(Call(SCOPE), {"EventBusName": arn})
        found = conf.buses.find_foreign(SCOPE, arn)
        assert found is not None
        assert found[1] is None
