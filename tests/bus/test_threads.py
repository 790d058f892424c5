"""Threads for blocking calls: results, limits, and an end that waits for nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from functools import partial

import pytest

from bus.targets.threads import Threads

DEADLINE = 10.0


async def test_results_and_errors_come_back() -> None:
    threads = Threads(2, name="t")

    def fail() -> None:
        raise ValueError("told")

    assert await asyncio.wait_for(threads.run(lambda: 7), DEADLINE) == 7
    with pytest.raises(ValueError, match="told"):
        await asyncio.wait_for(threads.run(fail), DEADLINE)
    threads.close()
    with pytest.raises(RuntimeError, match="closed"):
        await threads.run(lambda: 7)


async def test_no_more_threads_than_allowed() -> None:
    threads, free, names = Threads(2, name="t"), threading.Event(), set()

    def work() -> None:
        free.wait(DEADLINE)
        names.add(threading.current_thread().name)

    calls = [asyncio.create_task(threads.run(work)) for _ in range(6)]
    await asyncio.sleep(0)
    free.set()
    await asyncio.wait_for(asyncio.gather(*calls), DEADLINE)
    threads.close()
    assert len(names) <= 2


async def test_what_has_not_begun_is_cancelled_at_the_end() -> None:
    threads, begun, free = Threads(1, name="t"), threading.Event(), threading.Event()
    first = asyncio.create_task(threads.run(lambda: (begun.set(), free.wait(DEADLINE))))
    second = asyncio.create_task(threads.run(partial(pytest.fail, "begun after the end")))
    await asyncio.sleep(0)
    assert await asyncio.to_thread(begun.wait, DEADLINE)
    threads.close()
    with pytest.raises(asyncio.CancelledError):
        await second
    free.set()
    await asyncio.wait_for(first, DEADLINE)


def test_the_interpreter_exits_while_a_call_hangs() -> None:
    program = """
import asyncio, threading
from bus.targets.threads import Threads

async def main():
    threads, begun = Threads(1, name="t"), threading.Event()
    call = asyncio.create_task(threads.run(lambda: (begun.set(), threading.Event().wait())))
    await asyncio.to_thread(begun.wait)
    call.cancel()
    threads.close()

asyncio.run(main())
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "done\n"
