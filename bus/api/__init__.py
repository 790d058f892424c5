"""The AWS wire: bytes to operations and back.

Nothing here knows what an operation does. A *capability* is any object whose public coroutine
methods are operations of a service, under the operation's snake_case name::

    async def put_events(self, call: Call, request: dict[str, Any]) -> dict[str, Any] | None

``request`` is the JSON object of the body: its members have the JSON types and satisfy the
constraints of the service model, members the model does not know may be present, null means
absent, times are numbers of epoch seconds, binary members are base64 text. The result becomes the
answer's JSON object as it is (None stands for no members). A method refuses by raising
``bus.errors.ApiError``; ``StoreUnavailable`` becomes the service's own fault.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from bus.scope import Call

Method = Callable[[Call, dict[str, Any]], Coroutine[Any, Any, dict[str, Any] | None]]
"""A bound operation of a capability."""

__all__ = ["Method"]
