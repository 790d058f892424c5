"""When schedules are due: zones, starts and ends, flexible windows, and what was missed."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.schedules.timing import MINUTE_MS, Planned, Timing, find_zone, parse_expression
from rules.errors import ScheduleError

CASES = Path(__file__).parent.parent / "cases" / "schedules" / "zones.json"
NOON = int(datetime.fromisoformat("2024-06-03T12:00:00Z").timestamp()) * 1000
HOUR = 60 * MINUTE_MS


def ms(text: str | None) -> int | None:
    return None if text is None else int(datetime.fromisoformat(text).timestamp()) * 1000


def timing(expression: str, *, zone: str = "UTC", anchor: int = 0, **rest: Any) -> Timing:
    return Timing(parse_expression(expression), find_zone(zone), anchor, **rest)


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in json.loads(CASES.read_text())])
def test_due_instants(case: dict[str, Any]) -> None:
    made = timing(case["expression"], zone=case["zone"], start=ms(case.get("start")), end=ms(case.get("end")))
    instant = ms(case["from"])
    for due in case["due"]:
        assert instant is not None
        instant = made.next_after(instant)
        assert instant == ms(due)


@pytest.mark.parametrize(
    "name",
    ["", "Mars/Olympus", "../UTC", "/etc/localtime", "Europe", "Europe/", "europe\0", "localtime", "Factory", "UTC\n"],
)
def test_what_is_no_zone(name: str) -> None:
    with pytest.raises(ScheduleError):
        find_zone(name)


@pytest.mark.parametrize("name", ["UTC", "Etc/GMT+5", "America/Argentina/Buenos_Aires", "US/Pacific", "EST5EDT"])
def test_what_is_a_zone(name: str) -> None:
    assert find_zone(name).key == name


class TestPlan:
    def test_the_next_one_waits(self) -> None:
        made = timing("rate(1 hour)", anchor=NOON)
        assert made.plan(NOON, NOON + 1, fraction=lambda: 0.9) == Planned(NOON + HOUR, NOON + HOUR)

    def test_one_that_is_due_now_is_not_late(self) -> None:
        made = timing("rate(1 hour)", anchor=NOON)
        assert made.plan(NOON - 1, NOON, fraction=lambda: 0.9) == Planned(NOON, NOON)

    def test_of_many_missed_only_the_latest_is_made(self) -> None:
        made = timing("cron(0/5 * * * ? *)")
        later = NOON + 90 * 24 * HOUR + 1234
        assert made.plan(NOON, later, fraction=lambda: 0.9) == Planned(NOON + 90 * 24 * HOUR, later)

    def test_what_was_missed_once_is_still_made(self) -> None:
        made = timing("at(2024-06-03T12:00:00)")
        later = NOON + 400 * 24 * HOUR
        assert made.plan(NOON - 1, later, fraction=lambda: 0.9) == Planned(NOON, later)
        assert made.plan(NOON, later, fraction=lambda: 0.9) is None

    def test_nothing_is_missed_after_the_end(self) -> None:
        made = timing("rate(1 hour)", anchor=NOON, end=NOON + HOUR)
        later = NOON + 10 * HOUR
        assert made.plan(NOON, later, fraction=lambda: 0.0) == Planned(NOON + HOUR, later)
        assert made.plan(NOON + HOUR, later, fraction=lambda: 0.0) is None

    def test_a_clock_that_was_far_ahead_does_not_silence_it(self) -> None:
        made = timing("cron(0 * * * ? *)")
        year = 365 * 24 * HOUR
        assert made.plan(NOON + year, NOON + 1, fraction=lambda: 0.0) == Planned(NOON + HOUR, NOON + HOUR)
        assert made.plan(NOON + HOUR, NOON + 1, fraction=lambda: 0.0) == Planned(NOON + 2 * HOUR, NOON + 2 * HOUR)

    def test_a_window_is_drawn_from(self) -> None:
        made = timing("rate(1 hour)", anchor=NOON, window=20 * MINUTE_MS)
        assert made.plan(NOON - 1, NOON - 1, fraction=lambda: 0.0) == Planned(NOON, NOON)
        assert made.plan(NOON - 1, NOON - 1, fraction=lambda: 0.5) == Planned(NOON, NOON + 10 * MINUTE_MS)

    def test_while_its_window_is_open_an_invocation_is_not_missed(self) -> None:
        made = timing("rate(1 hour)", anchor=NOON, window=20 * MINUTE_MS)
        within = NOON + 15 * MINUTE_MS
        assert made.plan(NOON - 1, within, fraction=lambda: 0.9) == Planned(NOON, NOON + 18 * MINUTE_MS)
        assert made.plan(NOON - 1, within, fraction=lambda: 0.1) == Planned(NOON, within)

    def test_windows_longer_than_the_interval_lose_no_invocation(self) -> None:
        made = timing("rate(1 minute)", anchor=NOON, window=10 * MINUTE_MS)
        done, now, nominal = NOON - 1, NOON, []
        for _ in range(30):
            planned = made.plan(done, now, fraction=lambda: 0.99)
            assert planned is not None
            done, now = planned
            assert done <= now <= done + 10 * MINUTE_MS
            nominal.append(done)
        assert nominal == [NOON + n * MINUTE_MS for n in range(30)]


EXPRESSIONS = st.sampled_from(
    ["rate(1 minute)", "rate(7 minutes)", "rate(5 hours)", "cron(0/7 * * * ? *)", "cron(30 2 * * ? *)",
     "cron(0 0 ? * MON *)", "cron(0 12 L * ? *)", "at(2024-06-03T12:00:00)", "at(2024-10-27T02:30:00)"]
)  # fmt: skip
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, ZONES, st.integers(-30 * 24 * 60, 200 * 24 * 60), st.integers(0, 3000))
def test_the_latest_is_the_last_of_all_in_between(expression: str, zone: str, begin: int, length: int) -> None:
    made = timing(expression, zone=zone, anchor=NOON)
    after = NOON + begin * MINUTE_MS
    until = after + length * MINUTE_MS
    last, due = None, made.next_after(after)
    while due is not None and due <= until:
        last, due = due, made.next_after(due)
    assert made.latest(after, until) == last
