"""Threads for calls that block, which nobody has to wait for.

The executors of the standard library are joined when the interpreter exits, so that one call that hangs would hold up a
stop for as long as it hangs. These threads are daemons: what is under way at the end is left to itself, as a stop with
attempts under way leaves it everywhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

_Work = tuple[Callable[[], Any], asyncio.Future[Any]]


class Threads:
    """Up to ``most`` threads, each started when the others are busy."""

    def __init__(self, most: int, *, name: str) -> None:
        self._most = most
        self._name = name
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._started = 0
        self._unfinished = 0
        self._closed = False

    async def run(self, call: Callable[[], Result]) -> Result:
        """What ``call`` returns or raises in a thread; RuntimeError when nothing is begun any more.

        Who is cancelled here does not stop it there.
        """
        if self._closed:
            raise RuntimeError("the threads are closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._unfinished += 1
        if self._started < min(self._unfinished, self._most):
            self._started += 1
            name = f"{self._name}-{self._started}"
            threading.Thread(target=self._serve, args=(loop,), name=name, daemon=True).start()
        self._work.put((call, future))
        return await future

    def close(self) -> None:
        """Begin nothing that has not begun, and let the threads end with what they are at."""
        self._closed = True
        with contextlib.suppress(Empty):
            while (work := self._work.get_nowait()) is not None:
                work[1].cancel()
        for _ in range(self._started):
            self._work.put(None)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while (work := self._work.get()) is not None:
            call, future = work
            result, error = None, None
            try:
                result = call()
            except Exception as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(self._finish, future, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody wants to know

    def _finish(self, future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        self._unfinished -= 1
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
