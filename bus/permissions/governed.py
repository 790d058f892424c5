"""Operations that the policy of an event bus governs: asked about first, then done in the bus's own account.

`Governed` stands before a capability. Of a call that names a bus, or a rule on it, it asks `bus.permissions.admission`;
a caller of another account who is let in goes on as a guest of the bus's scope, so that the capability itself knows one
account only. Callers from inside the process go to the capability and are not asked.

Changes of one scope take turns from the question to the end of the change, so that what was asked about is what is
changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from bus.api import Method
from bus.permissions.admission import Admission
from bus.resources import Bus, Rule, rule_members
from bus.scope import Call, Scope
from rules.arn import DEFAULT_BUS, Arn, ArnError, bus_arn, parse, rule_arn
from rules.errors import PatternError
from rules.pattern import Pattern
from rules.pattern_keys import pattern_keys

Members = Mapping[str, Any]
Keys = dict[str, str | list[str]]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request is about: a bus by name or ARN, and a rule on it or None; ``listing`` stands for all its rules."""

    bus: str | None
    rule: str | None = None
    listing: bool = False

    def resources(self, scope: Scope, bus: str) -> list[str]:
        """The ARNs under which a policy knows it; ``bus`` is the plain name."""
        of_bus = bus_arn(bus, region=scope.region, account=scope.account)
        if self.listing:
            return [rule_arn("*", bus=bus, region=scope.region, account=scope.account), of_bus]
        if self.rule is not None:
            return [rule_arn(self.rule, bus=bus, region=scope.region, account=scope.account)]
        return [of_bus]


@dataclass(frozen=True, slots=True)
class Operation:
    """How an operation names its subject, and which condition keys its request adds."""

    subject: Callable[[Members], Subject | None]
    keys: Callable[[Members], Keys] = lambda request: {}
    changes: bool = True


def _bus(request: Members) -> Subject:
    return Subject(request.get("Name"))


def _rules(request: Members) -> Subject:
    return Subject(request.get("EventBusName"), listing=True)


def _rule_by(member: str) -> Callable[[Members], Subject]:
    return lambda request: Subject(request.get("EventBusName"), request[member])


def _tagged(request: Members) -> Subject | None:
    """The bus or rule of an ARN; None for what is neither."""
    try:
        arn = parse(request["ResourceARN"])
    except ArnError:
        return None
    kind, _, name = arn.resource.partition("/")
    if arn.service != "events" or kind not in ("rule", "event-bus"):
        return None
    if kind == "event-bus":
        return Subject(str(arn))
    bus, _, rule = name.rpartition("/")
    return Subject(str(replace(arn, resource=f"event-bus/{bus or DEFAULT_BUS}")), rule)


def _pattern_keys(request: Members) -> Keys:
    try:
        named = pattern_keys(Pattern.parse(request.get("EventPattern") or "{}"))
    except PatternError:
        named = {}  # refused a moment later, or before, for what it is
    return {**named, **_tag_keys(request)}


def _target_keys(request: Members) -> Keys:
    return {"events:targetarn": [target["Arn"] for target in request["Targets"]]}


def _tag_keys(request: Members) -> Keys:
    tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags") or ()}
    names = [*tags, *(request.get("TagKeys") or ())]
    keys: Keys = {f"aws:requesttag/{key.lower()}": value for key, value in tags.items()}
    return {**keys, "aws:tagkeys": names} if names else keys


def _look(subject: Callable[[Members], Subject | None]) -> Operation:
    return Operation(subject, changes=False)


OPERATIONS: Mapping[str, tuple[str, Operation]] = {
    "describe_event_bus": ("events:DescribeEventBus", _look(_bus)),
    "put_rule": ("events:PutRule", Operation(_rule_by("Name"), _pattern_keys)),
    "describe_rule": ("events:DescribeRule", _look(_rule_by("Name"))),
    "delete_rule": ("events:DeleteRule", Operation(_rule_by("Name"))),
    "enable_rule": ("events:EnableRule", Operation(_rule_by("Name"))),
    "disable_rule": ("events:DisableRule", Operation(_rule_by("Name"))),
    "list_rules": ("events:ListRules", _look(_rules)),
    "list_rule_names_by_target": ("events:ListRuleNamesByTarget", _look(_rules)),
    "put_targets": ("events:PutTargets", Operation(_rule_by("Rule"), _target_keys)),
    "remove_targets": ("events:RemoveTargets", Operation(_rule_by("Rule"))),
    "list_targets_by_rule": ("events:ListTargetsByRule", _look(_rule_by("Rule"))),
    "tag_resource": ("events:TagResource", Operation(_tagged, _tag_keys)),
    "untag_resource": ("events:UntagResource", Operation(_tagged, _tag_keys)),
    "list_tags_for_resource": ("events:ListTagsForResource", _look(_tagged)),
}
"""The methods of capabilities that a policy decides about, with their actions; PutEvents asks for itself. Changing and
deleting a bus, and permissions themselves, take names only, and so stay with the account."""


class Gate:
    """What all governed capabilities share. ``find_rule`` looks up a rule by the number of its bus and its name."""

    def __init__(
        self,
        admission: Admission,
        *,
        find_bus: Callable[[Scope, str | None], Bus | None],
        find_rule: Callable[[int, str], Rule | None],
    ) -> None:
        self._admission = admission
        self._find_bus = find_bus
        self._find_rule = find_rule
        self._turns: dict[Scope, asyncio.Lock] = {}

    def before(self, name: str, method: Method) -> Method:
        """The method of that name, asked about first."""
        action, operation = OPERATIONS[name]

        async def governed(call: Call, request: dict[str, Any]) -> dict[str, Any] | None:
            subject = operation.subject(request)
            if subject is None:
                return await method(call, request)
            async with self._turn(call, subject) if operation.changes else nullcontext():
                return await method(self._let_in(call, action, operation, subject, request), request)

        return governed

    def _turn(self, call: Call, subject: Subject) -> asyncio.Lock:
        foreign = self._admission.foreign(call, subject.bus)
        bus = None if foreign is None else foreign[1]
        return self._turns.setdefault(call.scope if bus is None else bus.scope, asyncio.Lock())

    def _let_in(self, call: Call, action: str, operation: Operation, subject: Subject, request: Members) -> Call:
        """The call as the capability is to see it; AccessDeniedException."""
        foreign = self._admission.foreign(call, subject.bus)
        if foreign is None:
            bus = self._find_bus(call.scope, subject.bus)
            if bus is not None and bus.policy is not None:
                self._demand(call, bus, action, operation, subject, request)
            return call
        arn, bus = foreign
        if bus is None:
            raise self._admission.refusal(call, action, subject.resources(*_place(arn))[0])
        self._demand(call, bus, action, operation, subject, request)
        return replace(call, scope=bus.scope, guest=call.scope.account)

    def _demand(
        self, call: Call, bus: Bus, action: str, operation: Operation, subject: Subject, request: Members
    ) -> None:
        rule = None if subject.rule is None else self._find_rule(bus.number, subject.rule)
        creator = rule.creator if rule is not None else _creator_to_be(call, action, subject, bus)
        context: Keys = {
            "aws:resourceaccount": bus.scope.account,
            **_resource_tags(rule, bus, subject),
            **operation.keys(request),
            **({} if creator is None else {"events:creatoraccount": creator}),
            **({} if rule is None else _service_of(rule)),
        }
        self._admission.demand(call, bus, action, subject.resources(bus.scope, bus.name), context)


class Governed:
    """A capability behind the gate; what `OPERATIONS` does not name passes as it is."""

    def __init__(self, capability: object, gate: Gate) -> None:
        self._capability = capability
        self._gate = gate

    def __repr__(self) -> str:
        return f"<Governed {self._capability!r}>"

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._capability, name)
        return self._gate.before(name, method) if name in OPERATIONS else method


def governed(capabilities: Sequence[object], gate: Gate) -> list[Governed]:
    """Several capabilities behind one gate."""
    return [Governed(each, gate) for each in capabilities]


def _place(arn: Arn) -> tuple[Scope, str]:
    return Scope(arn.account, arn.region), arn.resource.removeprefix("event-bus/")


def _creator_to_be(call: Call, action: str, subject: Subject, bus: Bus) -> str | None:
    """A rule that is not there yet is made by its caller; a bus is its account's."""
    if action == "events:PutRule":
        return call.account
    return bus.scope.account if subject.rule is None and action in _TAGGING else None


_TAGGING = frozenset(("events:TagResource", "events:UntagResource", "events:ListTagsForResource"))


def _service_of(rule: Rule) -> Keys:
    """The service that a managed rule belongs to."""
    service = rule_members(rule).get("ManagedBy")
    return {} if service is None else {"events:managedby": service}


def _resource_tags(rule: Rule | None, bus: Bus, subject: Subject) -> Keys:
    tags = rule.tags if rule is not None else {} if subject.rule is not None else bus.tags
    return {f"aws:resourcetag/{key.lower()}": value for key, value in tags.items()}
