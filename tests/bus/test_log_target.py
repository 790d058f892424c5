"""Log groups: the lines, the files they land in, and what is promised of them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus.config import Settings
from bus.scope import Scope
from bus.targets import Delivered, Delivery, Failed, Route
from bus.targets.log import REMEMBERED_LINES, LogFiles, LogGroup, RecentLines, append_durably, file_name, lines_for
from rules.arn import parse

GROUP = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/events/orders"
EVENT = b'{"version":"0","id":"i","time":"2026-01-02T03:04:05Z","detail":{"name":"\xc5\xbdofie"}}'
EVENT_MS = 1_767_323_045_000


def delivery(body: bytes = EVENT, *, arn: str = GROUP, transformed: bool = False) -> Delivery:
    target: dict[str, Any] = {"Id": "log", "Arn": arn}
    if transformed:
        target["InputTransformer"] = {"InputTemplate": "{}"}
    route = Route(1, Scope("123456789012", "us-east-1"), "default", "r", "arn:rule", target)
    return Delivery(route, "i", body, EVENT, 1, 0)


async def one_line(sent: Delivery) -> dict[str, Any]:
    lines = RecentLines()
    assert await LogGroup(lines).deliver(sent) == Delivered()
    ((line,),) = lines.groups.values()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    made: dict[str, Any] = json.loads(line)
    return made


async def test_without_a_transformer_the_message_is_the_event() -> None:
    line = await one_line(delivery())
    assert list(line) == ["timestamp", "logStream", "message"]
    assert line["message"].encode() == EVENT
    assert line["timestamp"] == EVENT_MS


async def test_each_line_has_a_stream_of_its_own() -> None:
    first, second = await one_line(delivery()), await one_line(delivery())
    assert first["logStream"] != second["logStream"]


@pytest.mark.parametrize(
    ("body", "message", "timestamp"),
    [
        (
            b'{"timestamp":1700000000123,"message":"plain \\"text\\"\\nsecond"}',
            'plain "text"\nsecond',
            1_700_000_000_123,
        ),
        (b'{"timestamp":"1700000000123","message":""}', "", 1_700_000_000_123),
        (b'{"timestamp":"2026-01-02T03:04:05Z","message":"m"}', "m", EVENT_MS),
        (b'{"timestamp":"2026-01-02T04:04:05+01:00","message":"m"}', "m", EVENT_MS),
        (b'{"timestamp":"2026-01-02T03:04:05","message":"m"}', "m", EVENT_MS),
        (b'{"timestamp":1.7e12,"message":"m"}', "m", 1_700_000_000_000),
        (b'{"message":"m"}', "m", EVENT_MS),
        (b'{"message":{"a":[1,null]}}', '{"a":[1,null]}', EVENT_MS),
    ],
)
async def test_a_transformer_makes_message_and_timestamp(body: bytes, message: str, timestamp: int) -> None:
    line = await one_line(delivery(body, transformed=True))
    assert (line["message"], line["timestamp"]) == (message, timestamp)


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b'"text"',
        b"[]",
        b"{}",
        b'{"timestamp":1}',
        b'{"timestamp":"yesterday","message":"m"}',
        b'{"timestamp":null,"message":"m"}',
        b'{"timestamp":true,"message":"m"}',
        b'{"timestamp":-5,"message":"m"}',
        b'{"timestamp":1e300,"message":"m"}',
        b'{"timestamp":[1],"message":"m"}',
        b'"two"\n"lines"',
    ],
)
async def test_what_is_no_log_event_is_final(body: bytes) -> None:
    lines = RecentLines()
    outcome = await LogGroup(lines).deliver(delivery(body, transformed=True))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("INVALID_PARAMETER", False)
    assert not lines.groups


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "path"),
    [
        ("/aws/events/orders", "123456789012/us-east-1/+aws+events+orders.jsonl"),
        ("/aws/events/orders:*", "123456789012/us-east-1/+aws+events+orders.jsonl"),
        ("orders", "123456789012/us-east-1/orders.jsonl"),
        ("../../../etc/passwd", "123456789012/us-east-1/..+..+..+etc+passwd.jsonl"),
        ("..", "123456789012/us-east-1/...jsonl"),
        ("a+b", "123456789012/us-east-1/a%2Bb.jsonl"),
        ("a\\b%2F#", "123456789012/us-east-1/a%5Cb%252F#.jsonl"),
    ],
)
def test_file_names(group: str, path: str) -> None:
    assert file_name(parse(f"arn:aws:logs:us-east-1:123456789012:log-group:{group}")) == Path(path)


def test_long_names_stay_apart() -> None:
    names = {file_name(parse(GROUP + "x" * 500 + end)) for end in ("a", "b", "/a")}
    assert len(names) == 3
    assert all(len(name.name.encode()) <= 255 for name in names)


async def test_lines_of_many_deliveries_are_whole_and_all_there(tmp_path: Path) -> None:
    target = LogGroup(LogFiles(tmp_path))
    groups = [GROUP, GROUP + "2"]
    outcomes = await asyncio.gather(
        *(target.deliver(delivery(b'{"message":"%d"}' % n, arn=groups[n % 2], transformed=True)) for n in range(200))
    )
    assert set(outcomes) == {Delivered()}
    for remainder, arn in enumerate(groups):
        texts = [json.loads(line)["message"] for line in (tmp_path / file_name(parse(arn))).read_text().splitlines()]
        assert sorted(map(int, texts)) == list(range(remainder, 200, 2))


async def test_an_event_is_delivered_only_after_its_line_was_forced_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / file_name(parse(GROUP))
    target = LogGroup(LogFiles(tmp_path))
    await target.deliver(delivery())
    sizes_at_sync: list[int] = []
    fsync = os.fsync

    def watched(file: int) -> None:
        sizes_at_sync.append(os.fstat(file).st_size)
        fsync(file)

    monkeypatch.setattr(os, "fsync", watched)
    await target.deliver(delivery())
    assert sizes_at_sync == [path.stat().st_size]


async def test_a_full_disk_is_tried_again_and_leaves_nothing_half_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = LogGroup(LogFiles(tmp_path))
    path = tmp_path / file_name(parse(GROUP))
    await target.deliver(delivery())
    before = path.read_bytes()
    write = os.write

    def short_then_full(file: int, data: Any) -> int:
        if len(data) < 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[: len(data) - 20])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", short_then_full)
        outcome = await target.deliver(delivery())
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("INTERNAL_ERROR", True)
    assert path.read_bytes() == before
    assert await target.deliver(delivery()) == Delivered()
    assert len(path.read_bytes().splitlines()) == 2


async def test_one_group_that_cannot_be_written_does_not_hinder_another(tmp_path: Path) -> None:
    (tmp_path / file_name(parse(GROUP))).mkdir(parents=True)
    target = LogGroup(LogFiles(tmp_path))
    bad, good = await asyncio.gather(target.deliver(delivery()), target.deliver(delivery(arn=GROUP + "2")))
    assert isinstance(bad, Failed)
    assert good == Delivered()


def test_a_line_cut_short_by_a_power_cut_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "group.jsonl"
    path.write_bytes(b'{"whole":1}\n{"cut')
    append_durably(path, b'{"next":2}\n')
    assert path.read_bytes().splitlines() == [b'{"whole":1}', b'{"cut', b'{"next":2}']


async def test_a_file_that_was_taken_away_is_made_again(tmp_path: Path) -> None:
    target = LogGroup(LogFiles(tmp_path))
    path = tmp_path / file_name(parse(GROUP))
    await target.deliver(delivery())
    path.rename(path.with_suffix(".1"))
    await target.deliver(delivery())
    assert len(path.read_bytes().splitlines()) == 1
    assert path.stat().st_mode & 0o077 == 0


async def test_a_cancelled_delivery_does_not_hold_up_the_others(tmp_path: Path) -> None:
    target = LogGroup(LogFiles(tmp_path))
    given_up = asyncio.create_task(target.deliver(delivery()))
    kept = asyncio.create_task(target.deliver(delivery()))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await kept == Delivered()
    with pytest.raises(asyncio.CancelledError):
        await given_up


async def test_memory_keeps_the_latest_lines() -> None:
    lines = RecentLines()
    for number in range(REMEMBERED_LINES + 5):
        await lines.add(parse(GROUP), b"%d\n" % number)
    (kept,) = lines.groups.values()
    assert len(kept) == REMEMBERED_LINES
    assert kept[-1] == b"%d\n" % (REMEMBERED_LINES + 4)


def test_nothing_is_kept_on_disk_in_memory(tmp_path: Path) -> None:
    assert isinstance(lines_for(Settings(data_dir=":memory:")), RecentLines)
    assert isinstance(lines_for(replace(Settings(), data_dir=str(tmp_path))), LogFiles)


@pytest.mark.parametrize("event", [b'{"message":"m"}', b"plain", b'{"time":1}', b'{"time":"noon"}'])
async def test_a_letter_sent_again_that_holds_no_event_has_the_time_of_its_acceptance(event: bytes) -> None:
    again = msgspec.structs.replace(delivery(b'{"message":"m"}', transformed=True), event=event, accepted=1234)
    line = await one_line(again)
    assert (line["message"], line["timestamp"]) == ("m", 1234)
