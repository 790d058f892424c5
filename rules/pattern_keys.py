"""What an event pattern names, as the condition keys of PutRule see it.

A key such as `events:source` has the texts that the pattern lists for the field. What matches more than one text (a
prefix, anything-but), and a branch of `$or` that leaves the field open, count as a value that equals no text and that
only a bare star is like: a policy that allows certain sources allows no rule that could match others.
"""

from __future__ import annotations

from collections.abc import Mapping

from rules.operators import Address, Alternative, Text
from rules.pattern import Pattern

KEYS: Mapping[str, str] = {
    "events:source": "source",
    "events:detail-type": "detail-type",
    "events:detail.service": "detail.service",
    "events:detail.eventtypecode": "detail.eventTypeCode",
    "events:detail.useridentity.principalid": "detail.userIdentity.principalId",
}
"""Condition keys, in lower case, and the paths they are about."""

OPEN = "\x00"
"""Stands for more texts than a pattern names."""


def pattern_keys(pattern: Pattern) -> dict[str, list[str]]:
    """The condition keys of a rule with this pattern; a key whose field no branch names is absent."""
    named = {path for fork in pattern.forks for path in fork}
    return {key: _texts(pattern, path) for key, path in KEYS.items() if path in named}


def _texts(pattern: Pattern, path: str) -> list[str]:
    texts: dict[str, None] = {}
    for fork in pattern.forks:
        texts |= dict.fromkeys(_named(each) for each in fork[path]) if path in fork else {OPEN: None}
    return list(texts)


def _named(alternative: Alternative) -> str:
    return alternative.text if isinstance(alternative, Text | Address) else OPEN
