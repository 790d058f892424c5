"""Ingest: what is answered, what is stored, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.accepted import Accepted, Luggage
from bus.arrival import Arrival, Envelope
from bus.bus_logs import BusLogs, Logging
from bus.clock import IdSource, ManualClock
from bus.errors import ApiError, StoreUnavailable
from bus.ingest import NOT_STORED, Ingest
from bus.metrics import Metrics
from bus.scope import Call, Scope
from bus.store import Append, Appended, NewArchived, NewDelivery, NewMessage
from bus.targets import Route
from rules.event import check_entry, entry_size
from rules.index import MatchIndex
from rules.narrowing import SIGHTINGS
from rules.pattern import Pattern

SCOPE = Scope("123456789012", "eu-west-1")
CALL = Call(SCOPE)
ENTRY = {"Source": "shop", "DetailType": "OrderPlaced", "Detail": '{ "id": 1.50 }'}


@dataclass
class FakeBus:
    number: int = 7
    name: str = "default"
    scope: Scope = SCOPE
    policy: str | None = None


@dataclass
class FakeRule:
    name: str
    state: str = "ENABLED"
    routes: tuple[Route, ...] = ()
    arn: str = "arn:rule"
    managed_by: str | None = None


class FakeRules:
    def __init__(self, patterns: dict[str, str], states: dict[str, str]) -> None:
        self.index: MatchIndex[Any] = MatchIndex({name: Pattern.parse(text) for name, text in patterns.items()})
        self._states = states

    def rule(self, name: str) -> FakeRule:
        target = {"Id": "t", "Arn": f"http://127.0.0.1:9/{name}"}
        route = Route(1, SCOPE, "default", name, f"arn:{name}", target)
        return FakeRule(name, self._states.get(name, "ENABLED"), (route,))


@dataclass
class FakePlan:
    deliveries: list[NewDelivery] = field(default_factory=list)
    messages: list[NewMessage] = field(default_factory=list)
    archives: list[NewArchived] = field(default_factory=list)


@dataclass
class FakeDispatch:
    planned: list[tuple[Accepted, list[str]]] = field(default_factory=list)
    handed_over: list[Accepted] = field(default_factory=list)

    def plan(self, event: Accepted, routes: Iterable[Route]) -> FakePlan:
        names = [route.rule for route in routes]
        self.planned.append((event, names))
        return FakePlan([NewDelivery(1, event.ts, event.ts + 1000) for _ in names])

    def accepted(self, events: Sequence[tuple[Accepted, FakePlan, Appended]]) -> None:
        self.handed_over.extend(event for event, _, _ in events)

    def straight(self, routes: Iterable[Route]) -> None:
        return None

    def went_straight(self, straight: Any, number: int, ts: int) -> None:
        raise AssertionError("nothing goes straight")


class FakeStore:
    """Commits when told to."""

    def __init__(self) -> None:
        self.appends: list[Append] = []
        self.known: set[str] = set()
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def append(
        self, batch: list[Append], *, messages: Sequence[NewMessage] = (), lease_until: int = 0
    ) -> list[Appended]:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.appends.extend(batch)
        return [Appended(number, (), each.dedup_key in self.known) for number, each in enumerate(batch, start=1)]


class Bench:
    def __init__(self, patterns: dict[str, str] | None = None, *, max_bytes: int = 1000, **states: str) -> None:
        self.clock = ManualClock(1_700_000_000_999)
        self.store = FakeStore()
        self.dispatch = FakeDispatch()
        self.metrics = Metrics()
        self.watched: list[bytes] = []
        self.watching = False
        self.logging: dict[tuple[Scope, str], Logging] = {}
        self.lines: list[bytes] = []
        bus = FakeBus()
        self.find: Callable[[str | None], Any] = lambda name: None if name == "absent" else bus
        self.write: Callable[[Any, bytes], None] = lambda name, line: self.lines.append(line)
        rules = FakeRules(patterns or {"all": '{"source":[{"prefix":""}]}'}, states)
        self.ingest = Ingest(
            self.store,  # type: ignore[arg-type]
            self.clock,
            IdSource(self.clock),
            metrics=self.metrics,
            find_bus=lambda scope, name: self.find(name),
            rule_set=lambda number: rules,
            dispatch=self.dispatch,
            max_bytes=max_bytes,
            watched=lambda: self.watching,
            watch=lambda scope, bus, event: self.watched.append(event),
            logs=BusLogs(self.clock, buses=self.logging, write=lambda name, line: self.write(name, line)),  # noqa: PLW0108 - it may be replaced
        )

    async def put(self, *entries: dict[str, Any], call: Call = CALL) -> dict[str, Any]:
        return await self.ingest.put_events(call, {"Entries": list(entries)})


async def test_the_envelope_is_aws_form() -> None:
    bench = Bench()
    answer = await bench.put({**ENTRY, "Resources": ["arn:a"]})
    (event, names) = bench.dispatch.planned[0]
    assert names == ["all"]
    assert event.body == (
        b'{"version":"0","id":"%s","detail-type":"OrderPlaced","source":"shop","account":"123456789012",'
        b'"time":"2023-11-14T22:13:20Z","region":"eu-west-1","resources":["arn:a"],"detail":{"id":1.50}}'
        % answer["Entries"][0]["EventId"].encode()
    )
    assert answer["FailedEntryCount"] == 0


async def test_the_time_given_is_the_time_of_the_event() -> None:
    bench = Bench()
    await bench.put({**ENTRY, "Time": 1.9})
    assert orjson.loads(bench.dispatch.planned[0][0].body)["time"] == "1970-01-01T00:00:01Z"


async def test_an_absurd_time_fails_its_entry_only() -> None:
    bench = Bench()
    answer = await bench.put({**ENTRY, "Time": 1e300}, ENTRY)
    assert answer["Entries"][0]["ErrorCode"] == "InvalidArgument"
    assert "EventId" in answer["Entries"][1]


async def test_entries_are_answered_in_their_places() -> None:
    bench = Bench()
    bad = {"DetailType": "x", "Detail": "{}"}
    answer = await bench.put(ENTRY, bad, {**ENTRY, "Detail": "[]"}, {**ENTRY, "Source": "aws.s3"}, ENTRY)
    assert answer["FailedEntryCount"] == 3
    codes = [result.get("ErrorCode") for result in answer["Entries"]]
    assert codes == [None, "InvalidArgument", "MalformedDetail", "NotAuthorizedForSourceException", None]
    assert len(bench.store.appends) == 2


async def test_nothing_is_answered_before_the_commit() -> None:
    bench = Bench()
    bench.store.gate = asyncio.Event()
    putting = asyncio.ensure_future(bench.put(ENTRY))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not putting.done()
    assert bench.dispatch.handed_over == []
    bench.store.gate.set()
    await putting
    assert len(bench.dispatch.handed_over) == 1


def told(bench: Bench) -> list[str]:
    return [orjson.loads(line)["message_type"] for line in bench.lines]


async def test_kinds_with_long_names_are_not_kept() -> None:
    bench = Bench()
    for _ in range(2 * SIGHTINGS):
        await bench.put(ENTRY, {**ENTRY, "DetailType": "x" * 600})
    (view,) = bench.ingest.views.kept.values()
    assert list(view.kinds) == [("shop", "OrderPlaced")]
    assert list(view.index._narrowings) == [("shop", "OrderPlaced")]
    assert [len(event.body) > 600 for event, _ in bench.dispatch.planned] == [False, True] * 2 * SIGHTINGS


async def test_the_views_of_many_buses_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.event_kinds.MOST_VIEWS", 4)
    bench = Bench()
    bench.find = lambda name: FakeBus(int(name or "0"))
    for number in range(10):
        await bench.put({**ENTRY, "EventBusName": str(number)})
        assert len(bench.ingest.views.kept) <= 4
    assert len(bench.dispatch.planned) == 10


async def test_selections_are_kept_up_to_a_number_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.event_kinds.REMEMBERED_SELECTIONS", 3)
    bench = Bench({name: f'{{"detail":{{"{name}":[1]}}}}' for name in "ab"})
    for kind in "xyz":
        for detail in ("{}", '{"a":1}', '{"b":1}', '{"a":1,"b":1}'):
            await bench.put({**ENTRY, "DetailType": kind, "Detail": detail})
    (view,) = bench.ingest.views.kept.values()
    assert sum(len(kind._selections) for kind in view.kinds.values()) == 3
    assert sorted(names for _, names in bench.dispatch.planned) == [["a"]] * 3 + [["a", "b"]] * 3 + [["b"]] * 3


async def test_what_is_told_of_an_event_does_not_keep_it_from_its_targets() -> None:
    bench = Bench()
    bench.logging[SCOPE, "default"] = Logging(level=3, full=False)

    def write(name: object, line: bytes) -> None:
        raise OSError("nobody reads what this process writes")

    bench.write = write
    with pytest.raises(OSError, match="nobody reads"):
        await bench.put(ENTRY, ENTRY)
    assert len(bench.store.appends) == len(bench.dispatch.handed_over) == 2


async def test_a_bus_that_logs_tells_of_events_after_their_commit() -> None:
    bench = Bench({"shop": '{"source":["shop"]}'})
    await bench.put(ENTRY, {**ENTRY, "Source": "other"})
    assert told(bench) == []
    bench.logging[SCOPE, "default"] = Logging(level=2, full=False)
    await bench.put(ENTRY)
    assert told(bench) == ["EVENT_INGEST_SUCCESS", "RULE_MATCH"]
    await bench.put({**ENTRY, "Source": "other"})
    assert told(bench)[2:] == ["EVENT_INGEST_SUCCESS", "NO_STANDARD_RULES_MATCHED"]
    bench.store.error = StoreUnavailable("full")
    await bench.put(ENTRY)
    assert told(bench)[4:] == ["EVENT_INGEST_FAILURE"]
    assert orjson.loads(bench.lines[-1])["error"] == {"error_message": "full", "aws_service": "events"}


async def test_what_the_disk_refuses_is_a_failure_of_those_entries() -> None:
    bench = Bench({"shop": '{"source":["shop"]}'})
    bench.store.error = StoreUnavailable("full")
    answer = await bench.put(ENTRY, {**ENTRY, "Source": "nobody"}, {**ENTRY, "Source": ""})
    assert answer["Entries"][0] == NOT_STORED
    assert "EventId" in answer["Entries"][1], "an event nobody waits for needs no disk"
    assert answer["Entries"][2]["ErrorCode"] == "InvalidArgument"
    assert answer["FailedEntryCount"] == 2
    assert bench.dispatch.handed_over == []


async def test_an_event_nobody_waits_for_is_not_stored() -> None:
    bench = Bench({"other": '{"source":["other"]}'})
    answer = await bench.put(ENTRY)
    assert "EventId" in answer["Entries"][0]
    assert bench.store.appends == []


async def test_an_absent_bus_takes_the_event_and_drops_it() -> None:
    bench = Bench()
    answer = await bench.put({**ENTRY, "EventBusName": "absent"})
    assert "EventId" in answer["Entries"][0]
    assert bench.store.appends == []
    assert bench.metrics.requests.DroppedNoSuchBus == 1


async def test_a_request_that_is_too_large_is_refused_whole() -> None:
    bench = Bench()
    entry = {**ENTRY, "Detail": '{"a":"' + "x" * 481 + '"}'}
    assert len(entry["Detail"]) + len("shop") + len("OrderPlaced") == 504
    with pytest.raises(ApiError, match=r"Total size of the entries in the request is over the limit\."):
        await bench.put(entry, entry)
    assert bench.store.appends == []
    counts = bench.metrics.requests
    assert (counts.PutEventsApproximateCallCount, counts.PutEventsApproximateFailedCount) == (1, 1)
    assert counts.PutEventsEntriesCount == 0
    await bench.put({**entry, "Detail": entry["Detail"] + " " * 496})


async def test_a_read_only_call_reaches_only_the_rule_that_asks_for_all() -> None:
    pattern = '{"source":["cloud"]}'
    bench = Bench(
        {"plain": pattern, "all": pattern}, plain="ENABLED", all="ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
    )
    call = {"Source": "cloud", "DetailType": "AWS API Call via CloudTrail"}
    await bench.put({**call, "Detail": '{"eventSource":"s3.amazonaws.com","eventName":"ListBuckets"}'})
    await bench.put({**call, "Detail": '{"eventSource":"s3.amazonaws.com","eventName":"CreateBucket"}'})
    assert [sorted(names) for _, names in bench.dispatch.planned] == [["all"], ["all", "plain"]]


@pytest.mark.parametrize(
    ("own", "header", "carried"),
    [
        ("Root=1-5759e988-bd862e3fe1be46a994272793", None, "Root=1-5759e988-bd862e3fe1be46a994272793"),
        (None, "Root=1-5759e988-bd862e3fe1be46a994272793", "Root=1-5759e988-bd862e3fe1be46a994272793"),
        ("garbage", "Root=1-5759e988-bd862e3fe1be46a994272793", None),
        (None, None, None),
    ],
)
async def test_the_trace_header_of_the_entry_wins(own: str | None, header: str | None, carried: str | None) -> None:
    bench = Bench()
    entry = ENTRY if own is None else {**ENTRY, "TraceHeader": own}
    await bench.put(entry, call=Call(SCOPE, trace=header))
    assert bench.dispatch.planned[0][0].luggage.trace == carried


async def test_what_is_refused_is_neither_shown_nor_counted() -> None:
    bench = Bench()
    bench.watching = True
    bench.store.error = StoreUnavailable("full")
    await bench.put(ENTRY)
    assert bench.watched == []
    assert bench.metrics.matched == 0
    bench.store.error = None
    await bench.put(ENTRY)
    assert len(bench.watched) == 1
    assert bench.metrics.matched == 1


async def test_watchers_see_events_that_no_rule_wants() -> None:
    bench = Bench({"other": '{"source":["other"]}'})
    bench.watching = True
    await bench.put(ENTRY)
    assert [orjson.loads(event)["source"] for event in bench.watched] == ["shop"]
    assert bench.store.appends == []


async def test_forwarding_keeps_the_event_as_it_was() -> None:
    bench = Bench()
    await bench.put(ENTRY)
    body = bench.dispatch.planned[0][0].body
    luggage = Luggage(trace="Root=1-5759e988-bd862e3fe1be46a994272793", hops=(1, 0))
    assert await bench.ingest.forward(SCOPE, "default", body, new_identity=False, luggage=luggage)
    forwarded = bench.dispatch.planned[1][0]
    assert forwarded.body == body
    assert forwarded.luggage == luggage
    assert forwarded.event_id == bench.dispatch.planned[0][0].event_id


async def test_crossing_regions_gives_a_new_id_and_time() -> None:
    bench = Bench()
    await bench.put({**ENTRY, "Time": 5})
    first = orjson.loads(bench.dispatch.planned[0][0].body)
    elsewhere = Scope(SCOPE.account, "us-east-1")
    body = bench.dispatch.planned[0][0].body
    assert await bench.ingest.forward(elsewhere, "default", body, new_identity=True, luggage=Luggage(hops=(0, 1)))
    second = orjson.loads(bench.dispatch.planned[1][0].body)
    assert second["id"] != first["id"]
    assert second["time"] == "2023-11-14T22:13:20Z"
    assert {**second, "id": 0, "time": 0} == {**first, "id": 0, "time": 0}


@pytest.mark.parametrize("new_identity", [False, True])
async def test_forwarding_does_not_hide_that_an_event_was_replayed(new_identity: bool) -> None:
    bench = Bench({"live": '{"replay-name":[{"exists":false}]}', "replayed": '{"replay-name":["again"]}'})
    arrival = Arrival("i", "2026-03-02T09:00:00Z", "shop", "OrderPlaced", "{}", (), SCOPE, "again")
    await bench.ingest.put(SCOPE, "default", [arrival])
    body = bench.dispatch.planned[0][0].body
    assert await bench.ingest.forward(SCOPE, "default", body, new_identity=new_identity, luggage=Luggage())
    assert [names for _, names in bench.dispatch.planned] == [["replayed"], ["replayed"]]
    assert orjson.loads(bench.dispatch.planned[1][0].body)["replay-name"] == "again"


async def test_forwarding_to_an_absent_bus_says_so() -> None:
    bench = Bench()
    await bench.put(ENTRY)
    body = bench.dispatch.planned[0][0].body
    assert not await bench.ingest.forward(SCOPE, "absent", body, new_identity=False, luggage=Luggage())


def inside(replay_name: str | None = None) -> Arrival:
    return Arrival("e-1", "2023-11-14T22:13:20Z", "shop", "OrderPlaced", '{"id":1}', (), SCOPE, replay_name)


async def test_an_event_of_the_bus_itself_is_matched_and_planned_like_any_other() -> None:
    bench = Bench()
    assert await bench.ingest.put(SCOPE, "default", [inside()])
    assert orjson.loads(bench.dispatch.planned[0][0].body)["id"] == "e-1"


async def test_a_replayed_event_shows_its_replay_between_region_and_resources() -> None:
    bench = Bench()
    assert await bench.ingest.put(SCOPE, "default", [inside("again")])
    members = list(orjson.loads(bench.dispatch.planned[0][0].body))
    assert members[members.index("replay-name") - 1 : members.index("replay-name") + 2] == [
        "region",
        "replay-name",
        "resources",
    ]


async def test_whoever_puts_an_event_may_choose_among_the_rules_that_match() -> None:
    bench = Bench()
    assert await bench.ingest.put(SCOPE, "default", [inside()], choose=lambda rules: [])
    assert bench.dispatch.planned == []


async def test_putting_on_an_absent_bus_says_so() -> None:
    assert not await Bench().ingest.put(SCOPE, "absent", [inside()])


async def test_an_event_that_comes_again_is_neither_counted_nor_handed_over() -> None:
    bench = Bench()
    bench.store.known = {"known"}
    envelope = Envelope("i", "aws.s3", SCOPE.account, "t", SCOPE.region, msgspec.Raw(b"{}"), "Object Created")
    arrivals = [Arrival.of_envelope(envelope, each, "2026-03-02T09:00:00Z") for each in ("first", "again", "third")]
    assert await bench.ingest.put(SCOPE, "default", arrivals, keys=["new", "known", None])
    assert [each.dedup_key for each in bench.store.appends] == ["new", "known", None]
    assert [event.event_id for event in bench.dispatch.handed_over] == ["first", "third"]
    assert bench.metrics.matched == 2


FAULTY = st.fixed_dictionaries(
    {},
    optional={
        "Source": st.sampled_from(["", "shop", "aws.s3", "aws.", None]),
        "DetailType": st.sampled_from(["", "T", "AWS API Call via CloudTrail", None]),
        "Detail": st.sampled_from(
            ["", None, "{}", '{"a":1}', "[]", "1", "{", '{"a":1}x', '{"a":"\\ud800"}', '{"a":"\\u00e4"}', "{'a':1}",
             '{"a":1,"a":2}', '{"b":' * 1001 + "1" + "}" * 1001, '{"a":1e999}', '{"a":"\t"}'],
        ),
        "EventBusName": st.sampled_from(["absent", "default", None]),
        "Resources": st.lists(st.sampled_from(["x", "ä"]), max_size=2),
    },
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.lists(FAULTY, min_size=1, max_size=10), st.sampled_from(['{"source":["shop"]}', '{"detail":{"a":[1]}}']))
def test_an_entry_is_judged_as_by_the_rules_one_by_one(entries: list[dict[str, Any]], pattern: str) -> None:
    """What is kept of an event's kind changes neither the answer nor the size, however often the kind is met."""
    bench = Bench({"some": pattern}, max_bytes=1 << 20)
    for _ in range(SIGHTINGS + 2):
        bench.metrics.put_size.total = 0
        answer = asyncio.run(bench.put(*entries))
        expected = [check_entry(entry) for entry in entries]
        assert [result.get("ErrorMessage") for result in answer["Entries"]] == [
            fault and fault.message for fault in expected
        ]
        assert bench.metrics.put_size.total == sum(map(entry_size, entries))


@pytest.mark.parametrize("levels", [900, 960, 1000])
async def test_a_detail_is_matched_however_deep_it_may_nest(levels: int) -> None:
    """The interpreter's stack has no room for it, which is no fault of the event's."""
    bench = Bench({"deep": '{"detail":{"b":[{"exists":false}]}}', "other": '{"detail":{"b":[1]}}'}, max_bytes=1 << 20)
    detail = '{"a":' * levels + "1" + "}" * levels
    for number in range(SIGHTINGS + 2):
        answer = await bench.put({**ENTRY, "Detail": detail})
        assert answer["FailedEntryCount"] == 0
        assert bench.dispatch.planned[number][1] == ["deep"]


@pytest.mark.parametrize(
    "text", ['{"name":"Zo\\u00eb"', '{"a":\\u0031}', '\ufeff{"a":1}', "\ufeff{}", '{"a":"\\ud800"', '["\\u0041"]']
)
async def test_a_malformed_detail_is_refused_however_often_its_kind_has_come(text: str) -> None:
    """Once the rules are narrowed to the pair, the detail is validated by matching it."""
    bench = Bench({"all": '{"source":["shop"],"detail":{"id":[{"exists":false}]}}'})
    for _ in range(2 * SIGHTINGS + 2):
        answer = await bench.put({**ENTRY, "Detail": "{}"}, {**ENTRY, "Detail": text})
        assert answer["Entries"][1]["ErrorCode"] == "MalformedDetail"
    assert all(event.body.endswith(b'"detail":{}}') for event, _ in bench.dispatch.planned)
    assert len(bench.dispatch.planned) == 2 * SIGHTINGS + 2
