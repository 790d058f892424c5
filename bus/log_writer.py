"""Lines that are appended to files a little later, by nobody who is waited for.

What is written here may be lost with the process: it tells of the work and is not the work. Lines gather while a write
is under way, in a thread; when they gather faster than the disk takes them, the newest are left out, and the log says
how many. Files are opened for each write, so that they may be moved or taken away at any time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import structlog

MOST_WAITING = 8 << 20
"""Bytes that may wait to be written."""

log = structlog.get_logger(__name__)


class LogWriter:
    """Appends to files below one folder."""

    def __init__(self, folder: Path, *, most_waiting: int = MOST_WAITING) -> None:
        self._folder = folder
        self._most_waiting = most_waiting
        self._texts: dict[Path, list[bytes]] = {}
        self._waiting = 0
        self._left_out = 0
        self._writing: asyncio.Task[None] | None = None

    def add(self, name: Path, line: bytes) -> None:
        """Append a line, with its line break, to the file of that name."""
        if self._waiting + len(line) > self._most_waiting:
            self._left_out += 1
            return
        self._texts.setdefault(self._folder / name, []).append(line)
        self._waiting += len(line)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def close(self) -> None:
        """Return when everything that was added has been written, or given up."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        try:
            while self._texts:
                texts, self._texts = self._texts, {}
                self._waiting = 0
                left_out, self._left_out = self._left_out, 0
                if left_out:
                    log.warning("log lines left out: they came faster than they could be written", lines=left_out)
                await asyncio.to_thread(_append_all, texts)
        finally:
            self._writing = None


def _append_all(texts: Mapping[Path, list[bytes]]) -> None:
    for path, lines in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(path, "ab", opener=_private) as file:
                file.write(b"".join(lines))
        except OSError as error:
            log.error("log lines could not be written", file=str(path), lines=len(lines), reason=error.strerror)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
