"""CloudWatch log groups as targets: each group is a file of JSON lines in the data directory.

Theory of operation. ``logs/ACCOUNT/REGION/GROUP.jsonl`` grows by one line per event:

    {"timestamp":1700000000000,"logStream":"<uuid>","message":"..."}

A delivery is done when its line would survive a power cut, and one fsync costs as much as a thousand lines. So lines
gather while a flush is under way, and the next flush writes them all: one `write` and one `fsync` per group, in a
thread. A write that fails is taken back to the last whole line, so that a full disk leaves nothing half said; a line
cut short by a power cut stays, ends where the next one begins, and its event is delivered again.

Files are opened for each flush: rotating them or taking them away needs no word to the bus.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote
from uuid import uuid4

import msgspec
import orjson
import structlog

from bus.config import Settings
from bus.targets import Delivered, Delivery, Failed, Outcome
from rules import arn as arns

REMEMBERED_LINES = 1000
"""Lines kept per group when nothing is kept on disk."""

LONGEST_NAME = 200
"""Bytes of a file name before the rest of it becomes a hash; file systems stop at 255."""

LAST_MILLISECOND = 253_402_300_799_999
"""The end of the year 9999."""

_NUMBER = re.compile(r"[0-9]+([.][0-9]+)?([eE][+]?[0-9]+)?")

log = structlog.get_logger(__name__)


class Lines(Protocol):
    """Where lines go. `add` returns when they are durable; OSError when they are not there."""

    async def add(self, group: arns.Arn, line: bytes) -> None: ...


class LogGroup:
    """Delivers to log groups."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    async def deliver(self, delivery: Delivery) -> Outcome:
        try:
            group = arns.parse(delivery.route.arn)
            line = log_line(delivery)
        except (arns.ArnError, ValueError) as error:
            return Failed("INVALID_PARAMETER", str(error))
        try:
            await self._lines.add(group, line)
        except OSError as error:
            return Failed("INTERNAL_ERROR", f"The log file could not be written: {error.strerror}.", retry=True)
        except Exception as error:
            log.exception("a log line could not be written", target=delivery.route.arn)
            return Failed("INTERNAL_ERROR", f"Writing the log ended with {type(error).__name__}.", retry=True)
        return Delivered()

    async def close(self) -> None:
        """Whatever was promised is on disk already."""


def lines_for(settings: Settings) -> Lines:
    """Files in the data directory, or memory when nothing is to be kept."""
    return RecentLines() if settings.in_memory else LogFiles(Path(settings.data_dir) / "logs")


# --- what is logged --------------------------------------------------------------------------------------------------


class _Envelope(msgspec.Struct):
    time: str


_open = msgspec.json.Decoder(_Envelope).decode


def log_line(delivery: Delivery) -> bytes:
    """The line of a delivery; ValueError when a transformer made something that is no log event."""
    if "InputTransformer" in delivery.route.target:
        message, timestamp = _transformed(delivery.body)
    else:
        message, timestamp = delivery.event.decode(), None
    if timestamp is None:
        timestamp = _event_time(delivery)
    return orjson.dumps({"timestamp": timestamp, "logStream": str(uuid4()), "message": message}) + b"\n"


def _event_time(delivery: Delivery) -> int:
    """When the event happened; of a letter sent again that holds no event, when the bus took it."""
    try:
        return _milliseconds(_open(delivery.event).time)
    except (msgspec.MsgspecError, ValueError):
        return delivery.accepted


def _transformed(body: bytes) -> tuple[str, int | None]:
    """The message and timestamp of a transformer's object."""
    try:
        made = orjson.loads(body)
    except orjson.JSONDecodeError:
        made = None
    if not isinstance(made, dict) or "message" not in made:
        raise ValueError("The input of a log group must be a JSON object with a message.")
    message = made["message"]
    text = message if isinstance(message, str) else orjson.dumps(message).decode()
    return text, _milliseconds(made["timestamp"]) if "timestamp" in made else None


def _milliseconds(instant: Any) -> int:
    """Milliseconds, as a number or in digits, or an instant in ISO 8601."""
    text = orjson.dumps(instant).decode().strip('"')
    try:
        milliseconds = int(float(text)) if _NUMBER.fullmatch(text) else int(_timestamp(text) * 1000)
    except (ValueError, OverflowError):
        milliseconds = -1
    if not 0 <= milliseconds <= LAST_MILLISECOND:
        raise ValueError("The timestamp of a log event must be milliseconds or an ISO 8601 instant.")
    return milliseconds


def _timestamp(text: str) -> float:
    """Seconds since the epoch; an instant without an offset is in UTC."""
    instant = datetime.fromisoformat(text)
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


# --- where it is kept ------------------------------------------------------------------------------------------------


def file_name(group: arns.Arn) -> Path:
    """The path of a group's file below the folder of all logs.

    ``/`` becomes ``+``, which no group name may hold; what else no group name may hold is percent-encoded. A name too
    long for the file system keeps its beginning and ends in a hash of the whole.
    """
    name = group_name(group)
    safe = "+".join(quote(part, safe="#") for part in name.split("/"))
    if len(safe) > LONGEST_NAME:
        safe = f"{safe[: LONGEST_NAME - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return Path(group.account or "-", group.region or "-", safe + ".jsonl")


def group_name(group: arns.Arn) -> str:
    """The group an ARN names; ``:*`` at its end means the group too."""
    return group.resource.removeprefix("log-group:").removesuffix(":*")


class RecentLines:
    """The latest lines of each group, in memory."""

    def __init__(self) -> None:
        self.groups: dict[Path, deque[bytes]] = {}

    async def add(self, group: arns.Arn, line: bytes) -> None:
        self.groups.setdefault(file_name(group), deque(maxlen=REMEMBERED_LINES)).append(line)


@dataclass(slots=True)
class _Batch:
    """Lines that one flush will write, and who waits for each file."""

    texts: dict[Path, list[bytes]] = field(default_factory=dict)
    waiting: dict[Path, list[asyncio.Future[None]]] = field(default_factory=dict)


class LogFiles:
    """Files below one folder, flushed by whoever comes first for all who came meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batch = _Batch()
        self._flushing: asyncio.Task[None] | None = None

    async def add(self, group: arns.Arn, line: bytes) -> None:
        path = self._folder / file_name(group)
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batch.texts.setdefault(path, []).append(line)
        self._batch.waiting.setdefault(path, []).append(durable)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await durable

    async def _flush(self) -> None:
        try:
            while self._batch.texts:
                batch, self._batch = self._batch, _Batch()
                _answer(batch, await asyncio.to_thread(_write_all, batch.texts))
        finally:
            self._flushing = None


def _answer(batch: _Batch, errors: Mapping[Path, Exception]) -> None:
    for path, waiting in batch.waiting.items():
        error = errors.get(path)
        for durable in waiting:
            if durable.done():
                continue
            if error is None:
                durable.set_result(None)
            else:
                durable.set_exception(error)


def _write_all(texts: Mapping[Path, list[bytes]]) -> dict[Path, Exception]:
    """Append to every file; the errors of those that could not be written."""
    errors: dict[Path, Exception] = {}
    for path, lines in texts.items():
        try:
            append_durably(path, b"".join(lines))
        except Exception as error:
            errors[path] = error
    return errors


def append_durably(path: Path, text: bytes) -> None:
    """Append whole lines so that they survive a power cut; OSError when the file is as it was."""
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND)
    except FileNotFoundError:
        file = _create(path)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            text = b"\n" + text
        try:
            _write(file, text)
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def _write(file: int, text: bytes) -> None:
    left = memoryview(text)
    while left:
        left = left[os.write(file, left) :]


def _create(path: Path) -> int:
    """Create a file whose name is durable too."""
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    for folder in (path.parent, *(each.parent for each in made)):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return file
