"""Conditions of policy statements: operators over what is known of a request.

A condition is an operator, a key and values. An operator's name is made of up to three parts:

    ForAnyValue: StringEquals IfExists

* The base compares one value of the request with one of the policy; one match is enough, and the negated ones
  (`StringNotEquals`) hold when there is none.
* Without `ForAnyValue:` or `ForAllValues:` a key is taken to have one value. A key with several equals nothing then,
  which is how a rule with two sources is kept out by a policy that allows either alone.
* A key that the request does not have fails the condition, except where the operator is negated, ends in `IfExists`,
  or asks for all values of none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from rules.policy_text import Context, Marked, Text, split, wild

Compare = Callable[[Marked, str], bool]
"""(value of the policy with its variables filled in, value of the request) to whether they match."""

ANY, ALL = "ForAnyValue", "ForAllValues"
IF_EXISTS = "IfExists"
NULL = "Null"


@dataclass(frozen=True, slots=True)
class Base:
    """What an operator compares, and whether it holds when nothing matches."""

    compare: Compare
    negated: bool = False


def _plain(marked: Marked) -> str:
    return "".join(text for text, _ in marked)


def _equals(wanted: Marked, value: str) -> bool:
    return _plain(wanted) == value


def _equals_ignoring_case(wanted: Marked, value: str) -> bool:
    return _plain(wanted).lower() == value.lower()


def _like(wanted: Marked, value: str) -> bool:
    return wild(wanted).matches(value)


def _arn(wanted: Marked, value: str) -> bool:
    """The six parts of an ARN are compared one by one, each with wildcards; a star at the end may stand for several."""
    parts, found = split(wanted, ":", 6), value.split(":", 5)
    if len(found) < 6:
        return False
    if len(parts) < 6:
        return _plain(wanted).endswith("*") and wild(wanted).matches(value)
    return all(wild(part).matches(text) for part, text in zip(parts, found, strict=True))


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _instant(text: str) -> datetime | None:
    try:
        if text.isascii() and text.isdigit():
            return datetime.fromtimestamp(int(text), UTC)
        instant = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _ordered(read: Callable[[str], Any], holds: Callable[[Any, Any], bool]) -> Compare:
    def compare(wanted: Marked, value: str) -> bool:
        limit, found = read(_plain(wanted)), read(value)
        return limit is not None and found is not None and holds(found, limit)

    return compare


def _address(wanted: Marked, value: str) -> bool:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(_plain(wanted), strict=False)
    except ValueError:
        return False


_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "LessThan": lambda found, limit: found < limit,
    "LessThanEquals": lambda found, limit: found <= limit,
    "GreaterThan": lambda found, limit: found > limit,
    "GreaterThanEquals": lambda found, limit: found >= limit,
}


def _same(found: Any, limit: Any) -> bool:
    return bool(found == limit)


def _scale(name: str, read: Callable[[str], Any]) -> dict[str, Base]:
    """The operators over what has an order."""
    equal = _ordered(read, _same)
    scale = {name + order: Base(_ordered(read, holds)) for order, holds in _ORDERS.items()}
    return {f"{name}Equals": Base(equal), f"{name}NotEquals": Base(equal, negated=True), **scale}


OPERATORS: Mapping[str, Base] = {
    "StringEquals": Base(_equals),
    "StringNotEquals": Base(_equals, negated=True),
    "StringEqualsIgnoreCase": Base(_equals_ignoring_case),
    "StringNotEqualsIgnoreCase": Base(_equals_ignoring_case, negated=True),
    "StringLike": Base(_like),
    "StringNotLike": Base(_like, negated=True),
    "ArnEquals": Base(_arn),
    "ArnNotEquals": Base(_arn, negated=True),
    "ArnLike": Base(_arn),
    "ArnNotLike": Base(_arn, negated=True),
    "Bool": Base(_equals_ignoring_case),
    "BinaryEquals": Base(_equals),
    "IpAddress": Base(_address),
    "NotIpAddress": Base(_address, negated=True),
    **_scale("Numeric", _number),
    **_scale("Date", _instant),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One key under one operator; ``quantifier`` is ForAnyValue, ForAllValues or empty."""

    base: Base
    key: str
    values: tuple[Text, ...]
    quantifier: str = ""
    if_exists: bool = False

    def holds(self, context: Context) -> bool:
        """Whether a request satisfies it."""
        found = context.get(self.key, ())
        if not found:
            return self.if_exists or self.quantifier == ALL or (self.base.negated and not self.quantifier)
        wanted = [marked for text in self.values if (marked := text.filled(context)) is not None]
        if self.quantifier == ALL:
            return all(self._accepts(value, wanted) for value in found)
        if self.quantifier == ANY:
            return any(self._accepts(value, wanted) for value in found)
        return self._accepts(found[0], wanted) if len(found) == 1 else self.base.negated

    def _accepts(self, value: str, wanted: Sequence[Marked]) -> bool:
        return any(self.base.compare(each, value) for each in wanted) != self.base.negated


@dataclass(frozen=True, slots=True)
class Absence:
    """`Null`: whether the request lacks the key (``true``) or has it (``false``)."""

    key: str
    values: tuple[Text, ...]

    def holds(self, context: Context) -> bool:
        absent = "false" if context.get(self.key) else "true"
        return any(text.plain(context) == absent for text in self.values)


def read_condition(operator: str, key: str, values: object, *, variables: bool) -> Condition | Absence | None:
    """A condition from its document form; None when the operator or the values are none that there are."""
    texts = _texts(values, variables=variables)
    quantifier, colon, name = operator.rpartition(":")
    if texts is None or (colon and quantifier not in (ANY, ALL)):
        return None
    if name == NULL:
        lowered = tuple(Text.read(each.lower()) for each in _strings(values) or ())
        return Absence(key.lower(), lowered)
    base = OPERATORS.get(name.removesuffix(IF_EXISTS))
    if base is None:
        return None
    return Condition(base, key.lower(), texts, quantifier, name.endswith(IF_EXISTS))


def is_operator(operator: str) -> bool:
    """Whether there is a condition operator of that name."""
    return read_condition(operator, "aws:any", "", variables=False) is not None


def _texts(values: object, *, variables: bool) -> tuple[Text, ...] | None:
    strings = _strings(values)
    return None if strings is None else tuple(Text.read(each, variables=variables) for each in strings)


def _strings(values: object) -> list[str] | None:
    """A value or a list of them as texts; JSON's true and 5 are written as `"true"` and `"5"`."""
    many = values if isinstance(values, list) else [values]
    if not all(isinstance(each, str | bool | int | float) for each in many):
        return None
    return [str(each).lower() if isinstance(each, bool) else str(each) for each in many]
