from __future__ import annotations

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from rules.errors import ScheduleError
from rules.schedule import LAST_MS, Rate, Schedule, parse_at, parse_schedule

CASES = Path(__file__).parent.parent / "cases" / "schedules"


def ms(text: str) -> int:
    """The instant of a time with its offset (UTC where it has none)."""
    return (
        int(datetime.fromisoformat(text if "+" in text[10:] or "-" in text[10:] else text + "+00:00").timestamp())
        * 1000
    )


def local(instant: int | None, zone: str = "UTC") -> str:
    return "never" if instant is None else datetime.fromtimestamp(instant / 1000, ZoneInfo(zone)).isoformat()


def following(schedule: Schedule, since: str, count: int, zone: str = "UTC") -> list[str]:
    """The next due instants as the zone shows them; ends with "never" when there are fewer."""
    found: list[str] = []
    instant: int | None = ms(since)
    while len(found) < count and instant is not None:
        instant = schedule.next_after(instant, start_ms=ms(since), zone=ZoneInfo(zone))
        found.append(local(instant, zone))
    return found


class TestGrammar:
    def test_what_is_accepted(self) -> None:
        texts = json.loads((CASES / "accepted.json").read_text())
        assert len(texts) > 20
        for text in texts:
            parse_schedule(text)

    @pytest.mark.parametrize("text", json.loads((CASES / "refused.json").read_text()))
    def test_what_is_refused(self, text: str) -> None:
        with pytest.raises(ScheduleError):
            parse_schedule(text)


class TestDaylightSaving:
    NEW_YORK = "America/New_York"

    def test_a_time_that_the_clock_skips_is_skipped(self) -> None:
        assert following(parse_schedule("cron(30 2 * * ? *)"), "2024-03-09T12:00:00", 2, self.NEW_YORK) == [
            "2024-03-11T02:30:00-04:00",
            "2024-03-12T02:30:00-04:00",
        ]

    def test_a_time_that_comes_twice_is_due_the_first_time(self) -> None:
        assert following(parse_schedule("cron(30 1 * * ? *)"), "2024-11-02T12:00:00", 2, self.NEW_YORK) == [
            "2024-11-03T01:30:00-04:00",
            "2024-11-04T01:30:00-05:00",
        ]

    def test_from_within_the_second_showing_it_goes_on_behind_it(self) -> None:
        schedule = parse_schedule("cron(0/30 * * * ? *)")
        assert following(schedule, "2024-11-03T01:10:00-05:00", 2, self.NEW_YORK) == [
            "2024-11-03T02:00:00-05:00",
            "2024-11-03T02:30:00-05:00",
        ]

    def test_what_is_always_skipped_is_never_due(self) -> None:
        schedule = parse_schedule("cron(30 2 ? 3 SUN#2 *)")
        assert following(schedule, "2024-01-01T00:00:00", 1, self.NEW_YORK) == ["never"]

    def test_a_rate_counts_time_that_passes(self) -> None:
        assert following(Rate(86_400_000), "2024-03-09T08:00:00-05:00", 2, self.NEW_YORK) == [
            "2024-03-10T09:00:00-04:00",
            "2024-03-11T09:00:00-04:00",
        ]

    @pytest.mark.parametrize(
        ("text", "due"),
        [
            ("at(2024-03-10T02:30:00)", "2024-03-10T03:30:00-04:00"),
            ("at(2024-11-03T01:30:00)", "2024-11-03T01:30:00-04:00"),
            ("at(2024-07-01T09:15:07)", "2024-07-01T09:15:07-04:00"),
        ],
    )
    def test_at_is_due_once(self, text: str, due: str) -> None:
        assert following(parse_at(text), "2024-01-01T00:00:00", 2, self.NEW_YORK) == [due, "never"]


class TestAt:
    @pytest.mark.parametrize(
        "text",
        [
            "at(2024-02-30T00:00:00)", "at(2024-01-01T24:00:00)", "at(2024-01-01T00:00:60)", "at(2024-01-01T00:00)",
            "at(2024-01-01 00:00:00)", "at(2024-01-01T00:00:00Z)", "AT(2024-01-01T00:00:00)", "at()", "rate(1 minute)",
            "at(0000-01-01T00:00:00)", " at(2024-01-01T00:00:00)",
        ],
    )  # fmt: skip
    def test_what_is_refused(self, text: str) -> None:
        with pytest.raises(ScheduleError):
            parse_at(text)


class TestRate:
    def test_it_is_due_at_its_start_and_after_each_interval(self) -> None:
        rate = Rate(60_000)
        assert rate.next_after(-1, start_ms=1000) == 1000
        assert rate.next_after(999, start_ms=1000) == 1000
        assert rate.next_after(1000, start_ms=1000) == 61_000
        assert rate.next_after(61_001, start_ms=1000) == 121_000

    def test_it_ends_with_the_calendar(self) -> None:
        assert parse_schedule("rate(2147483647 days)").next_after(0, start_ms=0) is None
        assert parse_schedule("rate(1 day)").next_after(LAST_MS, start_ms=0) is None


class TestBounds:
    @pytest.mark.parametrize("text", ["cron(* * * * ? *)", "cron(0 0 29 2 ? *)"])
    @pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
    def test_the_ends_of_the_calendar(self, text: str, zone: str) -> None:
        schedule = parse_schedule(text)
        assert schedule.next_after(LAST_MS + 1, start_ms=0, zone=ZoneInfo(zone)) is None
        assert schedule.next_after(10**20, start_ms=0, zone=ZoneInfo(zone)) is None
        first = schedule.next_after(-(10**20), start_ms=0, zone=ZoneInfo(zone))
        assert first is not None
        assert first < ms("1972-03-01T00:00:00")

    def test_instants_ascend_through_every_change_of_a_zone(self) -> None:
        schedule, zone = parse_schedule("cron(0/10 * * * ? *)"), ZoneInfo("Pacific/Apia")
        instants = [ms("2011-12-29T00:00:00")]  # this zone had no 30 December 2011
        for _ in range(600):
            found = schedule.next_after(instants[-1], start_ms=0, zone=zone)
            assert found is not None
            instants.append(found)
        assert {after - before for before, after in pairwise(instants[1:])} == {600_000}
        assert "2011-12-30" not in {local(each, "Pacific/Apia")[:10] for each in instants}
