from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.cron import LAST_MS
from rules.errors import ScheduleError
from rules.schedule import Rate, Schedule, last_due, parse_at, parse_schedule
from tests.rules import minute_walk

CASES = Path(__file__).parent.parent / "cases" / "schedules"


def ms(text: str) -> int:
    """The instant of a time with its offset (UTC where it has none)."""
    time = datetime.fromisoformat(text)
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


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


class TestDue:
    """Rows of an expression, an instant (UTC), the next five times after it, and the zone they are told in."""

    ROWS = json.loads((CASES / "due.json").read_text())

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} after {row[1]}")
    def test_the_next_five(self, row: list[object]) -> None:
        text, since, due, *zone = row
        assert isinstance(due, list)
        found = following(parse_schedule(str(text)), str(since), 5, *map(str, zone))
        assert [each[: len(due[0])] for each in found] == due

    def test_there_are_a_hundred(self) -> None:
        assert len({(text, since) for text, since, *_ in self.ROWS}) >= 100


def numbers(low: int, high: int, called: Sequence[str] = ()) -> st.SearchStrategy[str]:
    """Items of a field: single values, ranges that may run over the end, stars, all with steps or without."""
    value = st.integers(low, high).map(str)
    if called:
        value |= st.sampled_from(called).map(lambda name: name.title()) | st.sampled_from(called).map(lambda n: n + "x")
    else:
        value |= value.map(lambda number: f"{number}h")
    step = st.sampled_from(["", "", "/0", "/1", "/2", "/3", "/7", "/61"])
    body = st.one_of(st.just("*"), value, value, st.tuples(value, value).map("-".join))
    return st.tuples(body, step).map("".join)


def listed(item: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(item, min_size=1, max_size=3).map(",".join)


days = st.one_of(
    listed(st.one_of(numbers(1, 31), st.sampled_from(["L", "LW", "L-3", "L-30", "1W", "15w", "31W", "28-2W", "30Wx"]))),
    st.just("*"),
).map(lambda day: (day, "?"))
weekdays = st.one_of(
    listed(numbers(1, 7, minute_walk.WEEKDAYS[1:])),
    listed(st.sampled_from(["L", "6L", "FRIL", "SAT-MONL", "2-4l", "tue"])),
    st.tuples(st.sampled_from([*"1234567", "MON", "sat"]), st.integers(1, 5)).map(lambda pair: f"{pair[0]}#{pair[1]}"),
).map(lambda weekday: ("?", weekday))
months = st.one_of(st.just("*"), listed(numbers(1, 12, minute_walk.MONTHS[1:])))
years = st.one_of(
    st.just("*"), st.sampled_from(["*/3", "*/0", "2023/4", "1970-2199/2", "2024,2028", "2020/0", "0-2147483647"])
)
starts = st.datetimes(datetime(1999, 1, 1), datetime(2030, 1, 1)).map(
    lambda start: start.replace(microsecond=start.microsecond // 1000 * 1000)
)


class TestAgainstTheMinuteWalk:
    @staticmethod
    def due(fields: str, since: datetime, until: datetime) -> list[datetime]:
        schedule, found = parse_schedule(f"cron({fields})"), []
        instant = schedule.next_after(ms(since.isoformat()), start_ms=0)
        while instant is not None and instant < ms(until.isoformat()):
            found.append(datetime.fromtimestamp(instant / 1000, UTC).replace(tzinfo=None))
            instant = schedule.next_after(instant, start_ms=0)
        return found

    @given(
        minute=listed(numbers(0, 59)), hour=listed(numbers(0, 23)), day=days | weekdays, month=months, year=years,
        since=starts,
    )  # fmt: skip
    @settings(max_examples=80, deadline=None)
    def test_two_days_of_minutes(
        self, minute: str, hour: str, day: tuple[str, str], month: str, year: str, since: datetime
    ) -> None:
        fields, until = f"{minute} {hour} {day[0]} {month} {day[1]} {year}", since + timedelta(hours=40)
        assert self.due(fields, since, until) == list(minute_walk.minutes_after(fields, since, until))

    @given(day=days | weekdays, month=months, year=years, since=starts)
    @settings(max_examples=80, deadline=None)
    def test_two_years_of_days(self, day: tuple[str, str], month: str, year: str, since: datetime) -> None:
        since = since.replace(hour=12, minute=0, second=0, microsecond=0)
        walked = [since + timedelta(days=number) for number in range(1, 800)]
        assert self.due(f"0 12 {day[0]} {month} {day[1]} {year}", since, walked[-1] + timedelta(minutes=1)) == [
            each for each in walked if minute_walk.names_date(day[0], month, day[1], year, each.date())
        ]

    @given(
        minute=listed(numbers(0, 59)),
        hour=listed(numbers(0, 23)),
        change=st.sampled_from(
            [
                ("America/New_York", datetime(2024, 3, 10, 7)),
                ("America/New_York", datetime(2024, 11, 3, 6)),
                ("Australia/Lord_Howe", datetime(2024, 4, 6, 15)),
                ("Australia/Lord_Howe", datetime(2024, 10, 5, 15, 30)),
                ("Africa/Cairo", datetime(2025, 4, 24, 22)),
                ("Asia/Kathmandu", datetime(2024, 1, 1)),
                ("Pacific/Apia", datetime(2011, 12, 30, 10)),
            ]
        ),
        before=st.integers(0, 600),
    )
    @settings(max_examples=60, deadline=None)
    def test_around_a_change_of_the_clock(
        self, minute: str, hour: str, change: tuple[str, datetime], before: int
    ) -> None:
        zone, at = ZoneInfo(change[0]), change[1].replace(tzinfo=UTC)
        since = at - timedelta(minutes=before)
        shown = [(since + timedelta(minutes=number)).astimezone(zone) for number in range(1, 1000)]
        fields = f"{minute} {hour} * * ? *"
        expected = [each for each in shown if each.fold == 0 and minute_walk.names(fields, each.replace(tzinfo=None))]
        schedule, found = parse_schedule(f"cron({fields})"), []
        instant = schedule.next_after(int(since.timestamp() * 1000), start_ms=0, zone=zone)
        while instant is not None and instant <= shown[-1].timestamp() * 1000:
            found.append(instant)
            instant = schedule.next_after(instant, start_ms=0, zone=zone)
        assert found == [int(each.timestamp() * 1000) for each in expected]


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

    def test_gaps_of_seconds_are_gaps(self) -> None:
        # Manaus went over to -04:00 at midnight by four seconds.
        schedule = parse_schedule("cron(* 0 * 1 ? 1914)")
        assert following(schedule, "1913-12-31T12:00:00", 2, "America/Manaus") == [
            "1914-01-01T00:01:00-04:00",
            "1914-01-01T00:02:00-04:00",
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


class TestHostile:
    @given(st.text(alphabet=" 0123456789*/-,?LW#lwxMONJAcrt()²\n", max_size=60))
    @settings(max_examples=300, deadline=None)
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        for form in (text, f"cron({text})", f"rate({text})", f"cron(0 0 {text} * ? *)", f"cron(0 0 ? * {text} *)"):
            with suppress(ScheduleError):
                parse_schedule(form).next_after(0, start_ms=0)

    @pytest.mark.parametrize(
        "text",
        [
            "cron(* * 31 2 ? *)",
            "cron(* * 29 2 ? 2023/4)",
            "cron(* * * * ? 2147483647)",
            "cron(* * * * ? 1970)",
            "cron(* 2 ? 3 SUN#2 *)",
            f"cron({','.join(['*'] * 100)} * ? 2 MON#5 2023/4)",
            f"cron(0 0 1 1 ? {'9' * 200})",
            f"cron({'1' * 5000} * * * ? *)",
            f"rate({'9' * 5000} days)",
        ],
    )
    def test_what_never_fires_is_found_out_with_little_work(self, text: str) -> None:
        zone = CountingZone("America/New_York")
        with suppress(ScheduleError):
            assert parse_schedule(text).next_after(ms("2024-01-01"), start_ms=0, zone=zone) is None
        assert zone.asked < 50_000


class CountingZone(tzinfo):
    """A zone that counts how often it is asked."""

    def __init__(self, key: str) -> None:
        self._zone = ZoneInfo(key)
        self.asked = 0

    def utcoffset(self, when: datetime | None, /) -> timedelta | None:
        self.asked += 1
        return self._zone.utcoffset(when)

    def fromutc(self, when: datetime, /) -> datetime:
        return self._zone.fromutc(when.replace(tzinfo=self._zone))


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

    @pytest.mark.parametrize("text", ["cron(59 23 31 12 ? 9999)", "at(9999-12-31T23:59:00)"])
    def test_what_only_a_zone_still_has_time_for_is_never_due(self, text: str) -> None:
        schedule = parse_at(text) if text.startswith("at") else parse_schedule(text)
        assert following(schedule, "2024-01-01", 1) == ["9999-12-31T23:59:00+00:00"]
        assert following(schedule, "2024-01-01", 1, "Pacific/Pago_Pago") == ["never"]

    def test_instants_ascend_through_every_change_of_a_zone(self) -> None:
        schedule, zone = parse_schedule("cron(0/10 * * * ? *)"), ZoneInfo("Pacific/Apia")
        instants = [ms("2011-12-29T00:00:00")]  # this zone had no 30 December 2011
        for _ in range(600):
            found = schedule.next_after(instants[-1], start_ms=0, zone=zone)
            assert found is not None
            instants.append(found)
        assert {after - before for before, after in pairwise(instants[1:])} == {600_000}
        assert "2011-12-30" not in {local(each, "Pacific/Apia")[:10] for each in instants}


class TestLastDue:
    @pytest.mark.parametrize(
        ("text", "after", "until", "last"),
        [
            ("rate(1 minute)", "2024-01-01T00:00:00", "2024-01-01T00:59:59", "2024-01-01T00:59:00+00:00"),
            ("rate(1 minute)", "2024-01-01T00:00:00", "2024-01-01T00:59:00", "2024-01-01T00:59:00+00:00"),
            ("rate(1 minute)", "2024-01-01T00:00:00", "2024-01-01T00:00:59", "never"),
            ("rate(1 minute)", "2024-01-01T00:00:00", "2024-01-01T00:00:00", "never"),
            ("rate(1 minute)", "2024-01-01T00:00:00", "2023-01-01T00:00:00", "never"),
            ("cron(* * * 1 ? *)", "2001-06-01T00:00:00", "2024-12-31T00:00:00", "2024-01-31T23:59:00+00:00"),
            ("cron(0 0 29 2 ? *)", "2001-06-01T00:00:00", "2024-02-28T23:59:59", "2020-02-29T00:00:00+00:00"),
            ("cron(0 0 29 2 ? *)", "2020-02-29T00:00:00", "2024-02-28T23:59:59", "never"),
        ],
    )
    def test_rows(self, text: str, after: str, until: str, last: str) -> None:
        assert local(last_due(parse_schedule(text), ms(after), ms(until), start_ms=ms(after))) == last

    @given(minute=listed(numbers(0, 59)), hour=listed(numbers(0, 23)), since=starts, hours=st.integers(0, 60))
    @settings(max_examples=40, deadline=None)
    def test_it_is_the_last_of_a_walk(self, minute: str, hour: str, since: datetime, hours: int) -> None:
        fields, until = f"{minute} {hour} * * ? *", since + timedelta(hours=hours)
        walked = list(minute_walk.minutes_after(fields, since, until + timedelta(milliseconds=1)))
        found = last_due(parse_schedule(f"cron({fields})"), ms(since.isoformat()), ms(until.isoformat()), start_ms=0)
        assert found == (ms(walked[-1].isoformat()) if walked else None)

    def test_it_asks_a_few_dozen_times(self) -> None:
        asked = []

        class Counting(Rate):
            def next_after(self, instant_ms: int, *, start_ms: int, zone: tzinfo = UTC) -> int | None:
                asked.append(instant_ms)
                return super().next_after(instant_ms, start_ms=start_ms, zone=zone)

        assert last_due(Counting(60_000), 0, ms("2024-01-01T00:00:30"), start_ms=0) == ms("2024-01-01T00:00:00")
        assert len(asked) < 60
