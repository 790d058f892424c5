"""Resource policies: who may do what with a resource, and who may not.

A policy is a list of statements. A statement applies to a request when its principal, action, resource and all of its
conditions do. One `Deny` that applies decides; otherwise one `Allow` does; otherwise the policy says nothing.

Reading never fails, since what is stored has to be decided upon somehow: a statement with members that are missing or
not understood allows nothing, and as a denial it denies everything. `rules.bus_policy` refuses such documents where
they come in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import orjson

from rules.policy_conditions import Absence, Condition, read_condition
from rules.policy_text import Context, Text, wild

VERSION_WITH_VARIABLES = "2012-10-17"
MEMBERS = frozenset(
    ("Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition")
)

ACCOUNT = re.compile(r"(?:arn:aws[a-z\-]*:iam::)?([0-9]{12})(?::root)?")
"""An account as a principal: twelve digits, or the ARN of its root."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: an ARN, the account it belongs to, and the services it acts as."""

    arn: str
    account: str | None = None
    services: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. ``resources`` are names for the same thing, any of which a statement may use.

    ``context`` has condition keys in lower case.
    """

    principal: Principal
    action: str
    resources: Sequence[str]
    context: Context


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says of a request: Allow, Deny or nothing, and the Sid of the statement that decided."""

    effect: Literal["Allow", "Deny"] | None = None
    sid: str | None = None

    @property
    def allowed(self) -> bool:
        return self.effect == "Allow"

    @property
    def denied(self) -> bool:
        return self.effect == "Deny"


Test = Callable[[Request], bool]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement; ``tests`` is None when it cannot be understood."""

    sid: str | None
    allows: bool
    tests: tuple[Test, ...] | None

    def applies(self, request: Request) -> bool:
        if self.tests is None:
            return not self.allows
        return all(test(request) for test in self.tests)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, read once. ``can_deny`` says whether any statement is a denial."""

    statements: tuple[Statement, ...]
    can_deny: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "can_deny", any(not statement.allows for statement in self.statements))

    @staticmethod
    def read(document: Mapping[str, Any]) -> Policy:
        """A policy from its document."""
        found = document.get("Statement", [])
        variables = document.get("Version") == VERSION_WITH_VARIABLES
        statements = found if isinstance(found, list) else [found]
        return Policy(tuple(_statement(each, variables=variables) for each in statements))

    def judge(self, request: Request) -> Verdict:
        """What the policy says of a request."""
        verdict = Verdict()
        for statement in self.statements:
            if (not statement.allows or verdict.effect is None) and statement.applies(request):
                if not statement.allows:
                    return Verdict("Deny", statement.sid)
                verdict = Verdict("Allow", statement.sid)
        return verdict


@lru_cache(1000)
def read_policy(text: str) -> Policy:
    """A policy from the text of its document, a JSON object."""
    document = orjson.loads(text)
    return Policy.read(document if isinstance(document, dict) else {"Statement": [document]})


def _statement(raw: object, *, variables: bool) -> Statement:
    if not isinstance(raw, dict):
        return Statement(None, allows=False, tests=None)
    sid = raw.get("Sid")
    tests = _tests(raw, variables=variables)
    return Statement(sid if isinstance(sid, str) else None, raw.get("Effect") == "Allow", tests)


def _tests(raw: Mapping[str, Any], *, variables: bool) -> tuple[Test, ...] | None:
    if raw.keys() - MEMBERS or raw.get("Effect") not in ("Allow", "Deny"):
        return None
    tests = [
        _either(raw, "Principal", _principal_test),
        _either(raw, "Action", _action_test),
        _either(raw, "Resource", lambda value: _resource_test(value, variables=variables)),
        _condition_test(raw.get("Condition", {}), variables=variables),
    ]
    return None if None in tests else tuple(test for test in tests if test is not None)


def _either(raw: Mapping[str, Any], member: str, make: Callable[[Any], Test | None]) -> Test | None:
    """The test of a member or of its negation; exactly one of them has to be there."""
    negation = f"Not{member}"
    if (member in raw) == (negation in raw):
        return None
    test = make(raw[member if member in raw else negation])
    if test is None or member in raw:
        return test
    return lambda request: not test(request)


def _strings(value: object) -> list[str] | None:
    many = value if isinstance(value, list) else [value]
    texts = [each for each in many if isinstance(each, str)]
    return texts if texts and len(texts) == len(many) else None


def _principal_test(value: object) -> Test | None:
    named = value if isinstance(value, dict) else {"AWS": value}
    tests: list[Test] = []
    for kind, names in named.items():
        texts = _strings(names)
        if texts is None or (texts != ["*"] and not isinstance(value, dict)):
            return None
        tests += [_one_principal(kind, text) for text in texts]
    return lambda request: any(test(request) for test in tests)


def _one_principal(kind: str, name: str) -> Test:
    if kind == "AWS" and name == "*":
        return lambda request: True
    if kind == "AWS" and (account := ACCOUNT.fullmatch(name)) is not None:
        return lambda request: request.principal.account == account[1]
    if kind == "AWS":
        return lambda request: request.principal.arn == name
    # Of the other kinds (Federated, CanonicalUser) nobody comes here.
    return lambda request: kind == "Service" and name in request.principal.services


def _action_test(value: object) -> Test | None:
    texts = _strings(value)
    if texts is None:
        return None
    wanted = [wild(((text, True),), ignore_case=True) for text in texts]
    return lambda request: any(each.matches(request.action) for each in wanted)


def _resource_test(value: object, *, variables: bool) -> Test | None:
    texts = _strings(value)
    if texts is None:
        return None
    wanted = [Text.read(text, variables=variables) for text in texts]
    return lambda request: any(each.like(name, request.context) for each in wanted for name in request.resources)


def _condition_test(value: object, *, variables: bool) -> Test | None:
    conditions = read_conditions(value, variables=variables)
    if conditions is None:
        return None
    return lambda request: all(condition.holds(request.context) for condition in conditions)


def read_conditions(value: object, *, variables: bool) -> list[Condition | Absence] | None:
    """The conditions of a statement; None when one cannot be understood."""
    if not isinstance(value, dict):
        return None
    found = []
    for operator, keys in value.items():
        if not isinstance(keys, dict):
            return None
        found += [read_condition(operator, key, values, variables=variables) for key, values in keys.items()]
    return None if None in found else [each for each in found if each is not None]
