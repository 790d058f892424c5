"""Pages of a sorted list, and the opaque tokens that lead from one to the next.

A token is base64 of the JSON array ``[digest, key]``: ``key`` is the sort key of the last item
already given, so a page goes on at the right place although items came and went in between; ``digest``
stands for the list the token was issued for, so that a token of another list is refused. The digest
replaces the list's own name because that may be an ARN longer than a token is allowed to be.
Only characters of plain base64 occur in it, which some lists of AWS demand.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

import orjson

from bus.errors import ApiError, validation

Item = TypeVar("Item")

DEFAULT_LIMIT = 100


def page(
    items: Sequence[Item],
    request: Mapping[str, Any],
    *,
    key: Callable[[Item], str],
    of: Sequence[str],
    limit: str = "Limit",
) -> tuple[list[Item], dict[str, str]]:
    """The items that ``Limit`` and ``NextToken`` of the request ask for, and the NextToken member of the answer.

    ``items`` are sorted by ``key``, which is unique among them; ``of`` names the list. The second
    value is empty on the last page. ``limit`` is the member that limits a page. Raises ValidationException for a
    token that was not issued for this list.
    """
    token = request.get("NextToken")
    start = 0 if token is None else bisect_right(items, _last_key(token, of), key=key)
    end = start + (request.get(limit) or DEFAULT_LIMIT)
    found = list(items[start:end])
    return found, {"NextToken": _token(key(found[-1]), of)} if end < len(items) else {}


def _digest(of: Sequence[str]) -> str:
    return blake2b("\0".join(of).encode(), digest_size=9).hexdigest()


def _token(last_key: str, of: Sequence[str]) -> str:
    return b64encode(orjson.dumps([_digest(of), last_key])).decode()


def _last_key(token: str, of: Sequence[str]) -> str:
    try:
        digest, last_key = orjson.loads(b64decode(token.encode(), validate=True))
    except (binascii.Error, ValueError, TypeError):
        raise _not_valid() from None
    if digest != _digest(of) or not isinstance(last_key, str):
        raise _not_valid()
    return last_key


def _not_valid() -> ApiError:
    return validation("Parameter NextToken is not valid.")
