"""Requests answered together at the end of a turn of the event loop.

Theory of operation. uvicorn gives every request a task, and an answer goes back in messages; for a request whose work
is a tenth of a millisecond that is a third of all. A request that may take a short cut (`bus.api.rpc.ShortCut`) is
collected here instead, and those that one turn of the loop brought are worked through one behind the other, so that
code and data stay in the processor's caches. It is answered by a call, once it can be. What is unusual about a request,
or has to be refused, sends it the usual way as if nothing had happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

import structlog

from bus.api.rpc import Reply, Rpc

log = structlog.get_logger(__name__)


class Offered(NamedTuple):
    """A whole POST to ``/``: ``headers`` has the last of those with one name, ``pairs`` all of them.

    ``reply`` sends its answer, ``leave`` sends the request the usual way; one of them is called, once.
    """

    headers: Mapping[bytes, bytes]
    pairs: list[tuple[bytes, bytes]]
    body: bytes
    reply: Reply
    leave: Callable[[], None]


class Turn:
    """The requests of the current turn."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._offered: list[Offered] = []

    def wants(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a POST to ``/`` with these headers may be answered here."""
        return self._rpc.may_take_short_cut(headers)

    def offer(self, offered: Offered) -> None:
        """Take a request that is wanted."""
        self._offered.append(offered)
        if len(self._offered) == 1:
            asyncio.get_running_loop().call_soon(self._answer_all)

    def _answer_all(self) -> None:
        all_offered, self._offered = self._offered, []
        for offered in all_offered:
            try:
                self._answer(offered)
            except Exception:  # the others must not suffer
                log.exception("a request could not be answered")

    def _answer(self, offered: Offered) -> None:
        headers, pairs, body, reply, leave = offered
        try:
            taken = self._rpc.answer_soon(headers, pairs, body, reply)
        except Exception:  # it goes wrong again on the usual way, which tells of it
            taken = False
        if not taken:
            leave()
