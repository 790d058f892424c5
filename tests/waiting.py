"""Waiting for something to become true, without sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

DEADLINE_S = 20.0


async def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Give the loop turns until ``condition`` holds; fail when it does not within a generous time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while not condition():
        if loop.time() > deadline:
            raise AssertionError(f"{what} never came true")
        await asyncio.sleep(0)
