"""Policies of event buses: the documents that may be put, and the form in which they are kept.

A document is refused with AWS's text for the first thing wrong with it, statement by statement. Where a text names a
place, it is that of the statement's opening brace in the document as it was sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from rules.arn import DEFAULT_BUS, Arn, partition_of
from rules.errors import RulesError
from rules.policy import ACCOUNT, MEMBERS, VERSION_WITH_VARIABLES, read_conditions
from rules.policy_conditions import is_operator
from rules.policy_text import wild

ACTIONS: Sequence[str] = (
    "events:DeleteRule",
    "events:DescribeEventBus",
    "events:DescribeRule",
    "events:DisableRule",
    "events:EnableRule",
    "events:ListRuleNamesByTarget",
    "events:ListRules",
    "events:ListTagsForResource",
    "events:ListTargetsByRule",
    "events:PutEvents",
    "events:PutRule",
    "events:PutTargets",
    "events:RemoveTargets",
    "events:TagResource",
    "events:UntagResource",
)
"""What the policy of a bus decides about; nothing else is ever asked of it."""

LONGEST = 10_240
"""Bytes of a policy as it is kept."""

VERSIONS = ("2008-10-17", VERSION_WITH_VARIABLES)

_VENDOR = "events"
_PRINCIPAL_ARN = re.compile(
    r"arn:aws[a-z\-]*:(?:iam::[0-9]{12}:(?:root|(?:user|role)/[\x21-\x7e]+)"
    r"|sts::[0-9]{12}:(?:assumed-role/[^/\s]+/[^/\s]+|federated-user/[^\s]+))"
)
_SERVICE = re.compile(r"[a-z0-9\-]+(?:\.[a-z0-9\-]+)*\.amazonaws\.com(?:\.cn)?")
_DIGITS = re.compile(r"[0-9]{12}")

Statement = dict[str, Any]


class PolicyError(RulesError):
    """A policy was refused; the message is AWS's."""


class PolicyTooLong(PolicyError):
    """A policy is longer than `LONGEST`."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a statement begins in the text, counted from 1."""

    line: int
    column: int


def normal_policy(text: str, bus: Arn) -> str:
    """The policy of a bus as it is kept, from the document as it was sent; PolicyError."""
    document = _document(text)
    _dumped(document)  # what is too long is not looked at further
    found = document["Statement"]
    statements = found if isinstance(found, list) else [found]
    if not statements:
        raise PolicyError("Could not parse the policy: Statement is empty!")
    places = _places(text)
    normal = [_checked(each, bus, place) for each, place in zip(statements, places, strict=True)]
    if len({statement["Sid"] for statement in normal}) < len(normal):
        raise PolicyError("The Statement Ids in the policy are not unique")
    return _dumped({**document, "Statement": normal})


def with_statement(policy: str | None, statement: Statement) -> str:
    """The policy with one more statement, in the place of the one with the same Sid."""
    document: dict[str, Any] = orjson.loads(policy) if policy else {"Version": VERSION_WITH_VARIABLES, "Statement": []}
    statements = document["Statement"]
    sids = [each["Sid"] for each in statements]
    if statement["Sid"] in sids:
        statements[sids.index(statement["Sid"])] = statement
    else:
        statements.append(statement)
    return _dumped(document)


def without_statement(policy: str | None, sid: str) -> str | None:
    """The policy without one statement, None when that was the last; KeyError when there is none of that Sid."""
    document = orjson.loads(policy) if policy else {"Statement": []}
    left = [each for each in document["Statement"] if each["Sid"] != sid]
    if len(left) == len(document["Statement"]):
        raise KeyError(sid)
    return _dumped({**document, "Statement": left}) if left else None


def statement_for(
    bus: Arn, *, sid: str, action: str, principal: str, condition: Mapping[str, str] | None = None
) -> Statement:
    """The statement that PutPermission's short form stands for; ``condition`` has Type, Key and Value."""
    statement: Statement = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": "*" if principal == "*" else {"AWS": _root(principal, bus)},
        "Action": action,
        "Resource": str(bus),
    }
    if condition is not None:
        statement["Condition"] = {condition["Type"]: {condition["Key"]: condition["Value"]}}
    return statement


def _dumped(document: Mapping[str, Any]) -> str:
    text = orjson.dumps(document)
    if len(text) > LONGEST:
        raise PolicyTooLong(f"Maximum policy size of {LONGEST} bytes exceeded")
    return text.decode()


# --- the text --------------------------------------------------------------------------------------------------------


def _document(text: str) -> dict[str, Any]:
    try:
        orjson.loads(text)
        document = json.loads(text, object_pairs_hook=_without_repeats)
        orjson.dumps(document)  # what cannot be written again cannot be kept
    except (ValueError, TypeError, RecursionError):
        raise PolicyError("This policy contains invalid Json") from None
    if document is None:
        raise PolicyError("This text appears not to be a policy")
    if not isinstance(document, dict):
        raise PolicyError("This policy contains invalid Json")
    for member in ("Version", "Statement"):
        if member not in document:
            raise PolicyError(f"Missing required field {member}")
    if document.keys() - {"Version", "Id", "Statement"} or not isinstance(document.get("Id", ""), str):
        raise _syntax(_Place(1, 1))
    if document["Version"] not in VERSIONS:
        raise PolicyError("The policy must contain a valid version string")
    return document


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members all count: of one that is given twice, half would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member is given twice")
    return found


def _syntax(place: _Place) -> PolicyError:
    return PolicyError(f"Syntax error at position ({place.line},{place.column})")


_SPACE = re.compile(r"[ \t\r\n]*")


def _places(text: str) -> Iterator[_Place]:
    """Where each statement of a document begins; the text is known to be JSON."""
    decoder = json.JSONDecoder()

    def skip(position: int) -> int:
        found = _SPACE.match(text, position)
        return found.end() if found else position

    position = skip(skip(0) + 1)
    while text[position] != "}":
        member, position = decoder.raw_decode(text, position)
        start = skip(skip(position) + 1)
        if member == "Statement":
            yield from _elements(text, start, decoder, skip)
        _, position = decoder.raw_decode(text, start)
        position = skip(position)
        position = skip(position + 1) if text[position] == "," else position


def _elements(text: str, start: int, decoder: json.JSONDecoder, skip: Any) -> Iterator[_Place]:
    if text[start] != "[":
        yield _place(text, start)
        return
    position = skip(start + 1)
    while text[position] != "]":
        yield _place(text, position)
        _, position = decoder.raw_decode(text, position)
        position = skip(position)
        position = skip(position + 1) if text[position] == "," else position


def _place(text: str, position: int) -> _Place:
    before = text[:position]
    return _Place(before.count("\n") + 1, position - before.rfind("\n"))


# --- one statement ---------------------------------------------------------------------------------------------------


def _checked(statement: object, bus: Arn, place: _Place) -> Statement:
    """A statement as it is kept."""
    if not isinstance(statement, dict):
        raise _syntax(place)
    _check_members(statement, place)
    _check_actions(statement, place)
    _check_resources(statement, bus, place)
    _check_condition(statement, place)
    member = "Principal" if "Principal" in statement else "NotPrincipal"
    return {**statement, member: _principal(statement[member], bus)}


def _check_members(statement: Statement, place: _Place) -> None:
    if not statement.get("Sid"):
        raise PolicyError("Missing required field Sid")
    if "Effect" not in statement:
        raise PolicyError("Missing required field Effect")
    for member in ("Principal", "Action", "Resource"):
        given = (member in statement) + (f"Not{member}" in statement)
        if given == 0:
            raise PolicyError(f"Missing required field {member}")
        if given == 2:
            raise _syntax(place)
    if statement.keys() - MEMBERS or not isinstance(statement["Sid"], str):
        raise _syntax(place)
    if statement["Effect"] not in ("Allow", "Deny"):
        raise PolicyError(f"Invalid effect: {statement['Effect']}")


def _texts(statement: Statement, member: str, place: _Place) -> list[str]:
    """The value of a member or of its negation, as the list it stands for."""
    value = statement[member if member in statement else f"Not{member}"]
    many = value if isinstance(value, list) else [value]
    if not many or not all(isinstance(each, str) for each in many):
        raise _syntax(place)
    return many


def _check_actions(statement: Statement, place: _Place) -> None:
    actions = [action for action in _texts(statement, "Action", place) if action != "*"]
    where = f"Invalid statement at line {place.line} column {place.column}"
    if any(action.partition(":")[0].lower() != _VENDOR for action in actions):
        raise PolicyError(f"{where}: Action field includes AWS services that are inconsistent with specified vendor")
    unknown = [action for action in actions if not _is_action(action)]
    if unknown:
        names = ", ".join(f'"{action}"' for action in unknown)
        raise PolicyError(f"{where}: The following action names are invalid: {names}")


def _is_action(text: str) -> bool:
    wanted = wild(((text, True),), ignore_case=True)
    return any(wanted.matches(action) for action in ACTIONS)


def _check_resources(statement: Statement, bus: Arn, place: _Place) -> None:
    for text in _texts(statement, "Resource", place):
        if text != "*":
            _check_resource(text, bus)


def _check_resource(text: str, bus: Arn) -> None:
    """Refuse what can name neither the bus nor a rule; wildcards and variables may stand anywhere."""
    parts = text.split(":", 5)
    if len(parts) < 6 or parts[0] != "arn":
        raise PolicyError(f'Resource {text} must be in ARN format or "*".')
    own = {"partition": bus.partition, "vendor": bus.service, "region": bus.region, "namespace": bus.account}
    for (name, value), part in zip(own.items(), parts[1:5], strict=True):
        if "${" not in part and not wild(((part, True),)).matches(value):
            raise PolicyError(f'The {name} "{part}" is invalid for ARN "{text}"')
    if not _may_name(parts[5], bus.resource.removeprefix("event-bus/")):
        raise PolicyError(f'The relative-id "{parts[5]}" is invalid for ARN "{text}"')


def _may_name(relative: str, bus: str) -> bool:
    """Whether the last part of an ARN can be that of the bus or of a rule on it."""
    literal = re.split(r"[*?]|\$\{", relative, maxsplit=1)[0]
    if literal.startswith("rule/"):
        # A rule of another bus has that bus's name before its own. One word alone may be any rule's name.
        name = literal.removeprefix("rule/")
        return relative != "rule/" and ("/" not in name or _on(bus, name))
    if literal != relative and ("${" in relative or "rule/".startswith(literal)):
        return True
    return wild(((relative, True),)).matches(f"event-bus/{bus}")


def _on(bus: str, rule: str) -> bool:
    return bus != DEFAULT_BUS and rule.startswith(f"{bus}/")


def _check_condition(statement: Statement, place: _Place) -> None:
    condition = statement.get("Condition", {})
    if isinstance(condition, dict):
        for operator in condition:
            if not is_operator(operator):
                raise PolicyError(f"Invalid Condition type : {operator}.")
    if read_conditions(condition, variables=True) is None:
        raise _syntax(place)


def _principal(value: object, bus: Arn) -> object:
    """A principal as it is kept: accounts by the ARN of their root."""
    if value == "*":
        return value
    if not isinstance(value, dict) or not value:
        raise _no_principal()
    return {kind: _principals(kind, names, bus) for kind, names in value.items()}


def _principals(kind: str, names: object, bus: Arn) -> str | list[str]:
    if isinstance(names, list) and names:
        return [_one_principal(kind, name, bus) for name in names]
    return _one_principal(kind, names, bus)


def _one_principal(kind: str, name: object, bus: Arn) -> str:
    if not isinstance(name, str) or not _is_principal(kind, name):
        raise _no_principal()
    return _root(name, bus) if kind == "AWS" and _DIGITS.fullmatch(name) else name


def _is_principal(kind: str, name: str) -> bool:
    if kind == "Service":
        return _SERVICE.fullmatch(name) is not None
    return kind == "AWS" and (name == "*" or bool(ACCOUNT.fullmatch(name) or _PRINCIPAL_ARN.fullmatch(name)))


def _root(account: str, bus: Arn) -> str:
    return f"arn:{partition_of(bus.region)}:iam::{account}:root"


def _no_principal() -> PolicyError:
    return PolicyError("Policy contains an invalid principal")
