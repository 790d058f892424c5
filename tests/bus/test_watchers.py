"""Live events: filtered, bounded, ended when told."""

from __future__ import annotations

import orjson

from bus.scope import Scope
from bus.watchers import QUEUE_BYTES, QUEUE_LENGTH, Filter, Watchers
from rules.pattern import Pattern

SCOPE = Scope("000000000000", "us-east-1")
EVENT = b'{"source":"shop","detail":{"id":1}}'


async def test_nobody_looks_until_somebody_does() -> None:
    watchers = Watchers()
    assert not watchers.any()
    with watchers.watching(Filter()):
        assert watchers.any()
    assert not watchers.any()


async def test_a_watcher_sees_place_and_event() -> None:
    watchers = Watchers()
    with watchers.watching(Filter()) as watcher:
        watchers.show(SCOPE, "default", EVENT)
        lines = watcher.lines(heartbeat_s=60)
        shown = orjson.loads(await anext(lines))
    place = {"account": "000000000000", "region": "us-east-1", "bus": "default"}
    assert shown == {**place, "event": {"source": "shop", "detail": {"id": 1}}}


async def test_filters() -> None:
    cases = {
        Filter(bus="other"): False,
        Filter(bus="default"): True,
        Filter(account="111111111111"): False,
        Filter(pattern=Pattern.parse('{"source":["shop"]}')): True,
        Filter(pattern=Pattern.parse('{"source":["shed"]}')): False,
    }
    for wanted, admitted in cases.items():
        assert wanted.admits(SCOPE, "default", EVENT) is admitted


async def test_a_slow_watcher_is_told_what_it_missed() -> None:
    watchers = Watchers()
    with watchers.watching(Filter()) as watcher:
        for _ in range(QUEUE_LENGTH + 5):
            watchers.show(SCOPE, "default", EVENT)
        lines = watcher.lines(heartbeat_s=60)
        shown = [orjson.loads(await anext(lines)) for _ in range(QUEUE_LENGTH + 1)]
    assert shown[-1] == {"missed": 5}


async def test_a_watcher_that_is_always_behind_is_told_before_the_next_line() -> None:
    watchers = Watchers()
    with watchers.watching(Filter()) as watcher:
        lines = watcher.lines(heartbeat_s=60)
        for _ in range(QUEUE_LENGTH + 5):
            watchers.show(SCOPE, "default", EVENT)
        await anext(lines)
        watchers.show(SCOPE, "default", b'{"source":"later"}')
        shown = [orjson.loads(await anext(lines)) for _ in range(QUEUE_LENGTH + 1)]
    assert shown[-2] == {"missed": 5}
    assert shown[-1]["event"] == {"source": "later"}


async def test_what_waits_is_bounded_in_bytes() -> None:
    watchers = Watchers()
    large = b'"' + b"x" * (QUEUE_BYTES // 4) + b'"'
    with watchers.watching(Filter()) as watcher:
        for _ in range(6):
            watchers.show(SCOPE, "default", large)
        lines = watcher.lines(heartbeat_s=60)
        shown = [orjson.loads(await anext(lines)) for _ in range(4)]
        assert shown[-1] == {"missed": 3}
        watchers.show(SCOPE, "default", large)
        assert "event" in orjson.loads(await anext(lines))


async def test_one_event_always_has_room() -> None:
    watchers = Watchers()
    with watchers.watching(Filter()) as watcher:
        watchers.show(SCOPE, "default", b'"' + b"x" * QUEUE_BYTES + b'"')
        assert "event" in orjson.loads(await anext(watcher.lines(heartbeat_s=60)))


async def test_silence_is_filled_with_heartbeats() -> None:
    watchers = Watchers()
    with watchers.watching(Filter()) as watcher:
        assert await anext(watcher.lines(heartbeat_s=0)) == b"{}\n"


async def test_hanging_up_ends_the_lines_even_of_one_who_is_behind() -> None:
    watchers = Watchers()
    with watchers.watching(Filter()) as watcher:
        for _ in range(QUEUE_LENGTH):
            watchers.show(SCOPE, "default", EVENT)
        watchers.hang_up()
        assert len([line async for line in watcher.lines(heartbeat_s=60)]) == QUEUE_LENGTH
