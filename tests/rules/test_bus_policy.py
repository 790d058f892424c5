"""Policies of buses: what is accepted, how it is kept, and what is refused in which words."""

from __future__ import annotations

import json
import re
from pathlib import Path as File
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.arn import parse
from rules.bus_policy import (
    ACTIONS,
    LONGEST,
    PolicyError,
    PolicyTooLong,
    normal_policy,
    statement_for,
    with_statement,
    without_statement,
)
from rules.policy import Policy
from rules.policy_conditions import is_operator
from tests.rules.test_policy import STATEMENT, cases, statement

BUS = parse("arn:aws:events:us-east-1:111111111111:event-bus/orders")
HEAD = {"Version": "2012-10-17"}


def text_of(case: dict[str, Any]) -> str:
    if "text" in case:
        return str(case["text"])
    document = case.get("document") or {**HEAD, "Statement": [statement(each) for each in case["statements"]]}
    return json.dumps(document, separators=(",", ":"))


def bus_of(case: dict[str, Any]) -> Any:
    return parse(f"arn:aws:events:us-east-1:111111111111:event-bus/{case.get('bus', 'orders')}")


@pytest.mark.parametrize("case", cases("documents_refused"))
def test_refused(case: dict[str, Any]) -> None:
    with pytest.raises(PolicyError) as refused:
        normal_policy(text_of(case), bus_of(case))
    assert str(refused.value) == case["message"]


@pytest.mark.parametrize("case", cases("documents_accepted"))
def test_accepted(case: dict[str, Any]) -> None:
    kept = normal_policy(text_of(case), bus_of(case))
    head = case.get("head", HEAD)
    assert kept == json.dumps({**head, "Statement": [statement(each) for each in case["kept"]]}, separators=(",", ":"))
    assert normal_policy(kept, bus_of(case)) == kept
    assert all(each.tests is not None for each in Policy.read(json.loads(kept)).statements)


def test_fifteen_actions_each_by_its_name() -> None:
    assert len(ACTIONS) == 15
    normal_policy(text_of({"statements": [{"Action": list(ACTIONS)}]}), BUS)


def test_the_short_form() -> None:
    first = statement_for(BUS, sid="first", action="events:PutEvents", principal="222222222222")
    policy = with_statement(None, first)
    assert policy == (
        '{"Version":"2012-10-17","Statement":[{"Sid":"first","Effect":"Allow","Principal":{"AWS":'
        '"arn:aws:iam::222222222222:root"},"Action":"events:PutEvents",'
        '"Resource":"arn:aws:events:us-east-1:111111111111:event-bus/orders"}]}'
    )
    condition = {"Type": "StringEquals", "Key": "aws:PrincipalOrgID", "Value": "o-1234567890"}
    anyone = statement_for(BUS, sid="org", action="events:PutEvents", principal="*", condition=condition)
    policy = with_statement(policy, anyone)
    assert policy.endswith('"Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-1234567890"}}}]}')
    assert '"Principal":"*"' in policy
    third = statement_for(BUS, sid="first", action="events:PutEvents", principal="333333333333")
    replaced = json.loads(with_statement(policy, third))["Statement"]
    assert [(each["Sid"], each["Principal"]) for each in replaced] == [
        ("first", {"AWS": "arn:aws:iam::333333333333:root"}),
        ("org", "*"),
    ]
    left = without_statement(policy, "first")
    assert [each["Sid"] for each in json.loads(left or "")["Statement"]] == ["org"]
    assert without_statement(left, "org") is None
    for absent in (policy, None):
        with pytest.raises(KeyError):
            without_statement(absent, "absent")


def test_roots_are_of_the_partition_of_the_bus() -> None:
    bus = parse("arn:aws-cn:events:cn-north-1:111111111111:event-bus/orders")
    made = statement_for(bus, sid="s", action="events:PutEvents", principal="222222222222")
    assert made["Principal"] == {"AWS": "arn:aws-cn:iam::222222222222:root"}


def test_the_size_is_counted_after_normalisation() -> None:
    def policy(sid: int, indent: int | None) -> str:
        document = {**HEAD, "Statement": [{**STATEMENT, "Sid": "s" * sid}]}
        return json.dumps(document, indent=indent, separators=(",", ":"))

    longest = LONGEST - len(policy(0, None))
    kept = normal_policy(policy(longest, 4), BUS)
    assert len(kept) == LONGEST
    with pytest.raises(PolicyTooLong):
        normal_policy(policy(longest + 1, None), BUS)
    with pytest.raises(PolicyTooLong):
        with_statement(kept, {**STATEMENT, "Sid": "t"})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from([*STATEMENT, "Version", "Statement", "Condition", "NotAction", "AWS", "x"]), inner
        )
    ),
)


@given(JSON_VALUES)
def test_whatever_is_sent_is_kept_or_refused(document: object) -> None:
    wrapped = {**HEAD, "Statement": document}
    for each in (document, wrapped, {**HEAD, "Statement": [{**STATEMENT, "Principal": document}]}):
        try:
            normal_policy(json.dumps(each), BUS)
        except PolicyError:
            continue


def test_a_document_too_deep_to_be_read_is_refused() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    with pytest.raises(PolicyError, match="invalid Json"):
        normal_policy(deep, BUS)
    with pytest.raises(PolicyError):
        normal_policy('{"Version":"2012-10-17","Statement":' + "[" * 900 + "]" * 900 + "}", BUS)


def test_the_policies_on_the_page_are_true() -> None:
    page = (File(__file__).parents[2] / "docs/permissions.md").read_text()
    of_bus, of_queue = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    kept = json.loads(normal_policy(of_bus, BUS))
    assert [each["Sid"] for each in kept["Statement"]] == ["orders-of-the-shop", "rules-of-their-own"]
    (statement,) = Policy.read(json.loads(of_queue)).statements
    assert statement.tests is not None
    for operator in re.findall(r"`((?:String|Arn|Numeric|Date|Bool|Null|Ip|Binary)[A-Za-z]*)`", page):
        assert is_operator(operator), operator
