"""Wires: an ARN, or a pattern of ARNs, whose deliveries go to a local URL instead.

A rule keeps its production ARNs and runs against local code. In a pattern ``*`` stands for any run of characters.
Where several patterns match, the most specific one wins: the ARN itself before any pattern, then the pattern with more
literal text, then the one that comes first in order of name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from bus.errors import validation
from bus.store import ConfChange, ConfEntry, Store

KIND = "wire"
REMEMBERED_ARNS = 10_000
LONGEST_PATTERN = 1600
"""The longest ARN that a target may have."""


class Wire(msgspec.Struct, frozen=True):
    """One wire, as it is stored and listed."""

    pattern: str
    url: str


@dataclass(frozen=True, slots=True)
class ArnPattern:
    """A pattern cut at its asterisks; matching takes time proportional to the ARN, whatever the pattern."""

    text: str
    parts: tuple[str, ...]

    @property
    def precedence(self) -> tuple[bool, int, str]:
        """Sorts the more specific pattern first."""
        return len(self.parts) > 1, -sum(map(len, self.parts)), self.text

    def matches(self, arn: str) -> bool:
        """Whether the pattern covers ``arn`` from its first to its last character."""
        first, *rest = self.parts
        if not rest:
            return arn == first
        *middle, last = rest
        at, end = len(first), len(arn) - len(last)
        if at > end or not arn.startswith(first) or not arn.endswith(last):
            return False
        for part in middle:
            found = arn.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


def read_pattern(text: str) -> ArnPattern:
    """Check and cut an ARN or a pattern of ARNs; ApiError when it can match no ARN."""
    complete = text.count(":") >= 5 or "*" in text
    if not text.startswith("arn:") or not complete or len(text) > LONGEST_PATTERN or any(c.isspace() for c in text):
        raise validation(
            f"{text!r} is not an ARN or a pattern of ARNs such as arn:aws:lambda:*:*:function:orders, "
            "where * stands for any run of characters."
        )
    return ArnPattern(text, tuple(text.split("*")))


class Wires:
    """The wires of this bus; ``check_url`` says why a URL may not be delivered to, or None."""

    def __init__(self, store: Store, check_url: Callable[[str], str | None]) -> None:
        self._store = store
        self._check_url = check_url
        self._wires: dict[str, tuple[ArnPattern, str]] = {}
        self._ranked: list[tuple[ArnPattern, str]] = []
        self._matches: dict[str, str | None] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called when a wire was laid, moved or removed."""

    async def load(self) -> None:
        """Read the wires out of the store."""
        _, entries = await self._store.conf_list(KIND)
        for entry in entries:
            self.apply(entry)

    async def put(self, pattern: str, url: str) -> Wire:
        """Lay a wire, or lead the one with this pattern elsewhere; ApiError when either is not usable."""
        read_pattern(pattern)
        reason = self._check_url(url)
        if reason is not None:
            raise validation(f"{reason} A wire leads to a URL such as http://127.0.0.1:9001/.")
        wire = Wire(pattern, url)
        await self._change(pattern, msgspec.json.encode(wire))
        return wire

    async def remove(self, pattern: str) -> bool:
        """Take a wire away; False when there was none with exactly this pattern."""
        if pattern not in self._wires:
            return False
        await self._change(pattern, None)
        return True

    def list(self) -> Sequence[Wire]:
        """All wires in order of their patterns."""
        return [Wire(text, url) for text, (_, url) in sorted(self._wires.items())]

    def match(self, arn: str) -> str | None:
        """The URL that deliveries for ``arn`` go to; None when no wire covers it."""
        try:
            return self._matches[arn]
        except KeyError:
            pass
        if len(self._matches) >= REMEMBERED_ARNS:
            self._matches.clear()
        url = next((url for pattern, url in self._ranked if pattern.matches(arn)), None)
        self._matches[arn] = url
        return url

    def apply(self, entry: ConfEntry) -> None:
        """Take over a change that the store reports."""
        if entry.value is None:
            self._wires.pop(entry.key, None)
        else:
            wire = msgspec.json.decode(entry.value, type=Wire)
            self._wires[entry.key] = (read_pattern(entry.key), wire.url)
        self._ranked = sorted(self._wires.values(), key=lambda each: each[0].precedence)
        self._matches.clear()
        self.changed()

    async def _change(self, pattern: str, value: bytes | None) -> None:
        revision = await self._store.conf_put([ConfChange(KIND, pattern, value)])
        self.apply(ConfEntry(KIND, pattern, value, revision))
