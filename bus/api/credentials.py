"""The credentials file: who may call, and what each key may do.

A JSON list of objects: ``access_key``, ``secret``, ``account`` (12 digits), and optionally ``actions``, a list of
IAM action patterns such as ``events:PutEvents`` or ``sqs:*``; without it a key may do everything.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import translate
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import structlog

from bus.errors import ConfigError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """One access key; the secret is in no printed form of it."""

    access_key: str
    secret: str = field(repr=False)
    account: str
    actions: tuple[str, ...] = ("*",)

    def allows(self, action: str) -> bool:
        """Whether one of the patterns covers an action, upper and lower case alike, as IAM compares them."""
        return any(_compiled(pattern).match(action) for pattern in self.actions)


def read_credentials(path: Path) -> Mapping[str, Key]:
    """The keys of a file by access key id; ConfigError says what is wrong and where, never a secret."""
    try:
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"credentials file {path} cannot be read: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f"credentials file {path} is not JSON: {error.msg} ({where})") from None
    if not isinstance(document, list) or not document:
        raise ConfigError(f"credentials file {path} must hold a JSON list with at least one key")
    keys: dict[str, Key] = {}
    for number, entry in enumerate(document, 1):
        complaint = next(_complaints(entry), None)
        if complaint is None and entry["access_key"] in keys:
            complaint = f"access_key {entry['access_key']!r} is there twice"
        if complaint is not None:
            raise ConfigError(f"credentials file {path}, entry {number}: {complaint}")
        keys[entry["access_key"]] = _key(entry)
    _warn_when_exposed(path)
    return keys


def _key(entry: dict[str, Any]) -> Key:
    return Key(entry["access_key"], entry["secret"], entry["account"], tuple(entry.get("actions", ("*",))))


_MEMBERS = ("access_key", "secret", "account", "actions")


def _complaints(entry: Any) -> Iterator[str]:
    """What is wrong with an entry, the first problem first."""
    if not isinstance(entry, dict):
        yield "must be an object with access_key, secret and account"
        return
    for name in entry:
        if name not in _MEMBERS:
            near = get_close_matches(name, _MEMBERS, 1)
            yield f"{name!r} is not known" + (f"; did you mean {near[0]!r}?" if near else "")
    for name in _MEMBERS[:3]:
        if name not in entry:
            yield f"{name} is missing"
        elif not isinstance(entry[name], str) or not entry[name]:
            yield f"{name} must be a text that is not empty"
    if not re.fullmatch(r"[\w+=,.@-]+", entry["access_key"], re.ASCII):
        yield "access_key may have letters, digits and _+=,.@- only"
    if not re.fullmatch(r"[0-9]{12}", entry["account"]):
        yield f"account must be 12 digits, not {entry['account']!r}"
    yield from _action_complaints(entry.get("actions", ["*"]))


def _action_complaints(actions: Any) -> Iterator[str]:
    if not isinstance(actions, list):
        yield 'actions must be a list such as ["events:PutEvents", "sqs:*"]'
        return
    for action in actions:
        if not isinstance(action, str) or not re.fullmatch(r"\*|[a-z0-9-]+:[\w*?]+", action, re.ASCII | re.IGNORECASE):
            yield f"action {action!r} must look like events:PutEvents, events:* or *"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # The patterns have no brackets, so the shell's wildcards and IAM's are the same.
    return re.compile(translate(pattern), re.IGNORECASE)


def _warn_when_exposed(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning(
            "credentials file can be read by others", path=str(path), mode=oct(stat.S_IMODE(mode)), remedy="chmod 600"
        )
