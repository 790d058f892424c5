"""Policies: who is let in, by which statement, and under which conditions."""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.policy import Policy, Principal, Request, read_policy
from rules.policy_text import Text, wild

CASES = File(__file__).parents[1] / "cases/policies"
BUS = "arn:aws:events:us-east-1:111111111111:event-bus/orders"
STATEMENT = {"Sid": "s", "Effect": "Allow", "Principal": "*", "Action": "events:PutEvents", "Resource": "*"}
CALLER = {"arn": "arn:aws:iam::222222222222:root", "account": "222222222222", "services": []}


def cases(name: str) -> list[Any]:
    return [pytest.param(row, id=row["name"]) for row in json.loads((CASES / f"{name}.json").read_text())]


def statement(changes: dict[str, Any]) -> dict[str, Any]:
    """The statement that the cases start from, changed; null takes a member away."""
    return {member: value for member, value in {**STATEMENT, **changes}.items() if value is not None}


def request(**given: Any) -> Request:
    who = {**CALLER, **{name: given[name] for name in CALLER if name in given}}
    principal = Principal(who["arn"], who["account"], frozenset(who["services"]))
    return Request(
        principal, given.get("action", "events:PutEvents"), given.get("resources", [BUS]), given.get("context", {})
    )


@pytest.mark.parametrize("case", [*cases("principals"), *cases("actions_and_resources"), *cases("precedence")])
def test_verdict(case: dict[str, Any]) -> None:
    statements = [statement(changes) for changes in case["statements"]]
    document = case.get("document") or {"Version": "2012-10-17", "Statement": statements}
    verdict = Policy.read(document).judge(request(**case.get("request", {})))
    assert verdict.effect == case["is"]
    if "sid" in case:
        assert verdict.sid == case["sid"]


@pytest.mark.parametrize("case", cases("conditions"))
def test_condition(case: dict[str, Any]) -> None:
    document = {
        "Version": case.get("version", "2012-10-17"),
        "Statement": [statement({"Condition": case["condition"]})],
    }
    verdict = Policy.read(document).judge(request(context=case["context"]))
    assert verdict.allowed is case["holds"]


def test_whether_a_policy_can_deny() -> None:
    assert not Policy.read({"Statement": [STATEMENT]}).can_deny
    assert Policy.read({"Statement": [STATEMENT, {**STATEMENT, "Effect": "Deny"}]}).can_deny
    assert not Policy.read({}).can_deny


@pytest.mark.parametrize("text", ["{}", '{"Statement":null}', "[]", '"x"', '{"Statement":[[]]}'])
def test_what_is_no_policy_allows_nothing(text: str) -> None:
    assert not read_policy(text).judge(request()).allowed


@given(st.text(st.sampled_from("ab*?"), max_size=8), st.text(st.sampled_from("ab"), max_size=8))
def test_wildcards_equal_the_plain_reading_of_them(pattern: str, value: str) -> None:
    def matches(pattern: str, value: str) -> bool:
        if not pattern:
            return not value
        if pattern[0] == "*":
            return any(matches(pattern[1:], value[start:]) for start in range(len(value) + 1))
        return bool(value) and pattern[0] in ("?", value[0]) and matches(pattern[1:], value[1:])

    assert wild(((pattern, True),)).matches(value) == matches(pattern, value)


def test_many_stars_cost_no_more_than_their_number() -> None:
    pattern = "a*" * 3000 + "b"
    assert not wild(((pattern, True),)).matches("a" * 6000)
    assert wild(((pattern, True),)).matches("a" * 6000 + "b")


def test_a_text_without_an_end_of_its_variable_is_only_text() -> None:
    text = "${" + " " * 20_000
    assert Text.read(text).plain({}) == text
    assert Text.read("${a}${b").plain({"a": ["1"]}) == "1${b"


def test_a_long_value_stands_for_no_variable() -> None:
    assert Text.read("${a}").plain({"a": ["x" * 1024]}) == "x" * 1024
    assert Text.read("${a}").plain({"a": ["x" * 1025]}) is None
