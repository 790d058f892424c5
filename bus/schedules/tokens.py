"""Client tokens: a request that is sent again after its answer was lost is answered like the first time.

What created or changed a resource is remembered in the resource itself. What deleted one can only be remembered apart:
in memory, and so many of the latest.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from hashlib import blake2b
from typing import Any

import orjson

REMEMBERED = 10_000


def made_by(operation: str, request: Mapping[str, Any]) -> tuple[str, str] | None:
    """The client token of a request and a digest of all it asks for; None for one without a token."""
    token = request.get("ClientToken")
    if token is None:
        return None
    asked = {name: value for name, value in request.items() if value is not None}
    text = orjson.dumps([operation, asked], option=orjson.OPT_SORT_KEYS)
    return token, blake2b(text, digest_size=16).hexdigest()


class Tokens:
    """The tokens of the latest deletions, each with what it deleted."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Hashable], None] = {}

    def knows(self, token: str | None, deleted: Hashable) -> bool:
        return token is not None and (token, deleted) in self._known

    def remember(self, token: str | None, deleted: Hashable) -> None:
        if token is None:
            return
        self._known[token, deleted] = None
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
