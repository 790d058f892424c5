"""Replays through boto3: what comes again and how, what does not, and what a crash in the middle leaves undone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import ACCOUNT, StartServer
from tests.e2e.load import Load
from tests.e2e.sink import Sink
from tests.e2e.tenant import PAGE, Queue, Tenant
from tests.e2e.wire import request, until

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
FINAL = {"COMPLETED", "CANCELLED", "FAILED"}


class Player:
    """A tenant with an archive of everything on a bus, a rule, and a queue that the rule leads to."""

    def __init__(self, tenant: Tenant, bus: str = "default") -> None:
        self.tenant = tenant
        self.events = tenant.events
        self.bus = bus
        self.bus_arn = tenant.arn("events", f"event-bus/{bus}")
        self.queue = tenant.queue("copies")
        if bus != "default":
            self.events.create_event_bus(Name=bus)
        self.archive = self.events.create_archive(ArchiveName="all", EventSourceArn=self.bus_arn)["ArchiveArn"]
        self.rule = tenant.rule("shop", {"Id": "q", "Arn": self.queue.arn}, bus=bus)

    def put_at(self, *times: datetime) -> None:
        """Events of these times."""
        entry = {"Source": "shop", "DetailType": "Test", "Detail": "{}", "EventBusName": self.bus}
        for first in range(0, len(times), PAGE):
            entries = [{**entry, "Time": time} for time in times[first : first + PAGE]]
            answer = self.events.put_events(Entries=entries)
            assert answer["FailedEntryCount"] == 0, answer

    def start(
        self, name: str = "again", *, start: datetime = NOON, end: datetime = NOON + 60 * MINUTE, **members: Any
    ) -> None:
        filters = {"FilterArns": members.pop("FilterArns")} if "FilterArns" in members else {}
        answer = self.events.start_replay(
            ReplayName=name,
            EventSourceArn=self.archive,
            EventStartTime=start,
            EventEndTime=end,
            Destination={"Arn": self.bus_arn, **filters},
            **members,
        )
        assert answer["ReplayArn"] == self.tenant.arn("events", f"replay/{name}")
        assert answer["State"] == "STARTING"

    def state(self, name: str = "again") -> str:
        return str(self.events.describe_replay(ReplayName=name)["State"])

    def finish(self, name: str = "again") -> dict[str, Any]:
        """The replay once it is over."""
        until(lambda: self.state(name) in FINAL, f"the end of {name}")
        return dict(self.events.describe_replay(ReplayName=name))

    def replay(self, name: str = "again", **members: Any) -> dict[str, Any]:
        self.start(name, **members)
        return self.finish(name)

    def received(self, queue: Queue | None = None) -> list[dict[str, Any]]:
        """The events in the queue now, taken out."""
        return [json.loads(message["Body"]) for message in self.tenant.drain(queue or self.queue)]

    def count(self) -> int:
        return int(self.events.describe_archive(ArchiveName="all")["EventCount"])


@pytest.fixture
def player(tenant: Tenant) -> Player:
    return Player(tenant)


def times(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["time"] for event in events]


# --- what comes again -------------------------------------------------------------------------------------------------


def test_an_event_comes_again_as_it_was_but_for_its_id_and_the_replays_name(player: Player) -> None:
    other = player.tenant.queue("other")
    player.tenant.rule("second", {"Id": "q", "Arn": other.arn}, pattern={"source": ["shop"]})
    detail = '{ "text": "\\u00e9", "n": 1.50 }'
    entry = {"Source": "shop", "DetailType": "T", "Detail": detail, "Time": NOON, "Resources": ["arn:a"]}
    player.events.put_events(Entries=[{**entry, "TraceHeader": "Root=1-67891233-abcdef012345678912345678"}])
    (first,) = player.received()
    player.received(other)

    assert player.replay()["State"] == "COMPLETED"
    (message,) = player.tenant.drain(player.queue)
    again = json.loads(message["Body"])
    assert message["Body"] == (
        f'{{"version":"0","id":"{again["id"]}","detail-type":"T","source":"shop","account":"{player.tenant.account}",'
        '"time":"2026-01-31T12:00:00Z","region":"us-east-1","replay-name":"again","resources":["arn:a"],'
        '"detail":{"text":"é","n":1.50}}'
    )
    assert "AWSTraceHeader" not in message["Attributes"]
    assert again["id"] != first["id"]
    assert [event["id"] for event in player.received(other)] == [again["id"]]

    player.replay("once-more")
    (third,) = player.received()
    assert third["id"] not in (first["id"], again["id"])
    assert third["replay-name"] == "once-more"


def test_the_window_is_half_open_and_goes_by_the_events_own_time(player: Player) -> None:
    player.put_at(NOON + 2 * MINUTE, NOON - SECOND, NOON, NOON + 3 * MINUTE, NOON + MINUTE)
    player.received()
    player.replay(end=NOON + 3 * MINUTE)
    assert times(player.received()) == ["2026-01-31T12:00:00Z", "2026-01-31T12:01:00Z", "2026-01-31T12:02:00Z"]


def test_replayed_events_are_never_archived_again(player: Player) -> None:
    player.put_at(NOON, NOON)
    player.replay()
    player.replay("again-2")
    assert player.count() == 2
    assert len(player.received()) == 6


def test_only_the_rules_in_filter_arns_receive(player: Player) -> None:
    wanted, off = player.tenant.queue("wanted"), player.tenant.queue("off")
    arn = player.tenant.rule("wanted", {"Id": "q", "Arn": wanted.arn}, pattern={"source": ["shop"]})
    disabled = player.tenant.rule("off", {"Id": "q", "Arn": off.arn}, pattern={"source": ["shop"]}, state="DISABLED")
    player.put_at(NOON)
    player.received()
    player.received(wanted)
    described = player.replay(FilterArns=[arn, disabled])
    assert described["State"] == "COMPLETED"
    assert described["Destination"]["FilterArns"] == [arn, disabled]
    assert len(player.received(wanted)) == 1
    assert player.received() == player.received(off) == []


def test_an_empty_filter_is_none(player: Player) -> None:
    player.put_at(NOON)
    described = player.replay(FilterArns=[])
    assert described["Destination"] == {"Arn": player.bus_arn}
    assert len(player.received()) == 2


def test_rules_receive_as_they_stand_at_the_replay(player: Player) -> None:
    player.put_at(NOON)
    player.received()
    new = player.tenant.queue("new")
    player.tenant.rule("replays", {"Id": "q", "Arn": new.arn}, pattern={"replay-name": [{"exists": True}]})
    player.events.put_rule(Name="shop", EventPattern='{"source":["nothing"]}')
    player.replay()
    assert player.received() == []
    assert len(player.received(new)) == 1


def test_a_custom_bus_is_replayed_on_itself(tenant: Tenant) -> None:
    player = Player(tenant, "orders")
    player.put_at(NOON)
    player.received()
    assert player.replay()["State"] == "COMPLETED"
    assert [event["replay-name"] for event in player.received()] == ["again"]


def test_an_event_from_another_bus_keeps_where_it_comes_from(tenant: Tenant) -> None:
    origin = tenant.in_region("eu-west-1")
    player = Player(tenant)
    origin.rule("shop", {"Id": "b", "Arn": player.bus_arn})
    origin.put("shop")
    (first,) = player.tenant.receive(player.queue)
    assert json.loads(first["Body"])["region"] == "eu-west-1"
    player.replay(end=datetime.now(UTC) + MINUTE)
    (again,) = player.received()
    assert (again["region"], again["replay-name"]) == ("eu-west-1", "again")


# --- what the operations show -----------------------------------------------------------------------------------------


def test_describe_and_list_show_what_was_asked_for_and_what_became_of_it(player: Player) -> None:
    player.put_at(NOON + 90 * SECOND)
    described = player.replay(start=NOON + timedelta(milliseconds=900), Description="d")
    shown = {name: value for name, value in described.items() if name != "ResponseMetadata"}
    started, ended = shown.pop("ReplayStartTime"), shown.pop("ReplayEndTime")
    assert started <= ended
    listed = {
        "ReplayName": "again",
        "EventSourceArn": player.archive,
        "State": "COMPLETED",
        "EventStartTime": NOON,
        "EventEndTime": NOON + 60 * MINUTE,
        "EventLastReplayedTime": NOON + MINUTE,
    }
    assert shown == {
        **listed,
        "ReplayArn": player.tenant.arn("events", "replay/again"),
        "Description": "d",
        "Destination": {"Arn": player.bus_arn},
    }
    (item,) = player.events.list_replays()["Replays"]
    assert item == {**listed, "ReplayStartTime": started, "ReplayEndTime": ended}


def test_the_last_replayed_time_is_the_last_minute_with_events(player: Player) -> None:
    player.put_at(NOON + 50 * SECOND)
    in_the_minute = player.replay("a", start=NOON + 10 * SECOND, end=NOON + 20 * SECOND)
    assert in_the_minute["EventLastReplayedTime"] == NOON
    assert "EventLastReplayedTime" not in player.replay("b", start=NOON + MINUTE, end=NOON + 2 * MINUTE)
    assert len(player.received()) == 1


def test_lists_are_filtered_and_paged_by_name(player: Player) -> None:
    for name in ("b", "ab", "aa"):
        player.replay(name)

    def names(**members: Any) -> list[str]:
        return [each["ReplayName"] for each in player.events.list_replays(**members)["Replays"]]

    assert names() == ["aa", "ab", "b"]
    assert names(NamePrefix="a") == ["aa", "ab"]
    assert names(State="COMPLETED") == ["aa", "ab", "b"]
    assert names(State="RUNNING") == []
    assert names(EventSourceArn=player.archive) == ["aa", "ab", "b"]
    assert names(EventSourceArn=player.archive + "x") == []
    first = player.events.list_replays(Limit=2)
    assert names(NextToken=first["NextToken"]) == ["b"]


def test_replays_outlive_their_archive(player: Player) -> None:
    player.replay()
    player.events.delete_archive(ArchiveName="all")
    assert player.state() == "COMPLETED"


# --- held up, cancelled, failed ---------------------------------------------------------------------------------------


def held(player: Player, sink: Sink, number: int) -> None:
    """So many archived events, a webhook that takes its time with replayed ones, and a replay that waits for it."""
    player.put_at(*(NOON + n * SECOND for n in range(number)))
    sink.hold()
    hook = {"Id": "hook", "Arn": sink.url}
    player.tenant.rule("hook", hook, pattern={"source": ["shop"], "replay-name": [{"exists": True}]})


def progress(url: str, player: Player) -> dict[str, Any]:
    found = request(url, path=f"/_bus/replays?arn={player.tenant.arn('events', 'replay/again')}").json["Replays"]
    return dict(found[0])


def test_a_replay_waits_for_its_targets_and_can_be_cancelled(player: Player, sink: Sink, server: Any) -> None:
    held(player, sink, 400)
    player.start()
    waiting = until(lambda: (now := progress(server.url, player))["WaitingFor"] and now, "a replay that waits")
    assert waiting["WaitingFor"] == {"Rule": "hook", "Target": sink.url}
    assert (waiting["State"], waiting["Total"]) == ("RUNNING", 400)
    assert 0 < waiting["Replayed"] < 400
    answer = player.events.cancel_replay(ReplayName="again")
    assert (answer["State"], answer["ReplayArn"]) == ("CANCELLING", player.tenant.arn("events", "replay/again"))
    over = player.finish()
    assert over["State"] == "CANCELLED"
    assert over["ReplayEndTime"] >= over["ReplayStartTime"]
    sink.release()
    with pytest.raises(ClientError) as refused:
        player.events.cancel_replay(ReplayName="again")
    assert refused.value.response["Error"] == {
        "Code": "IllegalStatusException",
        "Message": "Replay again is not in a valid state for this operation.",
    }


def test_a_replay_waits_for_a_target_that_is_down(player: Player, sink: Sink, server: Any) -> None:
    player.put_at(*(NOON + n * SECOND for n in range(400)))
    hook = {"Id": "hook", "Arn": sink.url}
    player.tenant.rule("hook", hook, pattern={"source": ["shop"], "replay-name": [{"exists": True}]})
    sink.shut()
    player.start()
    waiting = until(lambda: (now := progress(server.url, player))["WaitingFor"] and now, "a replay that waits")
    assert waiting["WaitingFor"] == {"Rule": "hook", "Target": sink.url}
    assert waiting["Replayed"] < 400
    sink.open()
    assert player.finish()["State"] == "COMPLETED"
    sink.wait_until(lambda: len(sink.events) >= 400, "every event of the archive")


def test_a_replay_goes_on_when_its_target_does_or_is_taken_away(player: Player, sink: Sink, server: Any) -> None:
    held(player, sink, 400)
    player.start()
    until(lambda: progress(server.url, player)["WaitingFor"], "a replay that waits")
    player.events.remove_targets(Rule="hook", Ids=["hook"])
    assert player.finish()["State"] == "COMPLETED"
    sink.release()
    assert len(player.received()) == 800


def test_live_events_do_not_wait_for_a_replay_that_is_held_up(player: Player, sink: Sink, server: Any) -> None:
    held(player, sink, 400)
    player.start()
    until(lambda: progress(server.url, player)["WaitingFor"], "a replay that waits")
    player.received()
    player.put_at(NOON + 120 * MINUTE)
    assert times(player.received()) == ["2026-01-31T14:00:00Z"]
    sink.release()
    assert player.finish()["State"] == "COMPLETED"


def test_ten_replays_at_a_time(player: Player, sink: Sink) -> None:
    held(player, sink, 400)
    for number in range(10):
        player.start(f"r{number}")
    with pytest.raises(ClientError) as refused:
        player.start("one-more")
    assert refused.value.response["Error"] == {
        "Code": "LimitExceededException",
        "Message": "The requested resource exceeds the maximum number allowed.",
    }
    player.events.cancel_replay(ReplayName="r0")
    player.finish("r0")
    player.start("one-more")
    sink.release()


def test_a_replay_whose_archive_goes_fails(player: Player, sink: Sink) -> None:
    held(player, sink, 400)
    player.start()
    player.events.delete_archive(ArchiveName="all")
    sink.release()
    over = player.finish()
    assert (over["State"], over["StateReason"]) == ("FAILED", "Archive resource not found.")
    assert "ReplayEndTime" in over


# --- stops and crashes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_replay_that_was_cut_off_goes_on_and_skips_nothing(
    how: str, start_server: StartServer, aws: Any, sink: Sink
) -> None:
    server = start_server()
    tenant = Tenant(aws, at=server)
    player = Player(tenant)
    tenant.rule("hook", {"Id": "hook", "Arn": sink.url}, pattern={"replay-name": [{"exists": True}]})
    put = [(NOON + n * SECOND).strftime("%Y-%m-%dT%H:%M:%SZ") for n in range(600)]
    player.put_at(*(NOON + n * SECOND for n in range(600)))
    player.start()
    for already in (100, 300):
        sink.wait_for(already)
        getattr(server, how)()
        server.start()

    over = player.finish()
    assert over["State"] == "COMPLETED"
    sink.wait_until(lambda: len(sink.events) >= 600, "every event of the archive")
    came = {post.event["id"]: post.event["time"] for post in sink.received}
    assert sorted(came.values()) == put, "an event that comes twice bears the same id"
    assert player.count() == 600
    assert progress(server.url, player)["Replayed"] >= 600


def test_what_was_accepted_before_a_crash_is_in_the_archive(start_server: StartServer, aws: Any) -> None:
    server = start_server()
    player = Player(Tenant(aws, at=server, account=ACCOUNT))
    player.events.put_rule(Name="shop", EventPattern='{"source":["load"],"replay-name":[{"exists":true}]}')
    load = Load(server.url, lambda n: {"Source": "load", "DetailType": "T", "Detail": json.dumps({"n": n})})
    with load.running():
        for _ in range(2):
            load.wait_for_more(100)
            with load.server_is_down():
                server.kill()
                server.start()
        load.wait_for_more(1)

    now = datetime.now(UTC)
    assert player.replay(start=now - 60 * MINUTE, end=now + MINUTE)["State"] == "COMPLETED"
    came = [event["detail"]["n"] for event in player.received()]
    assert load.refused == []
    assert set(load.accepted.values()) <= set(came)
    assert len(came) == len(set(came)) == player.count()


def test_a_cancellation_survives_a_crash(start_server: StartServer, aws: Any, sink: Sink) -> None:
    server = start_server()
    player = Player(Tenant(aws, at=server))
    held(player, sink, 400)
    player.start()
    until(lambda: progress(server.url, player)["WaitingFor"], "a replay that waits")
    player.events.cancel_replay(ReplayName="again")
    server.kill()
    server.start()
    assert player.finish()["State"] == "CANCELLED"
    sink.release()
    player.put_at(NOON)
    with pytest.raises(ClientError, match="Replay again already exists"):
        player.start()
