"""`busbar replay` as a person runs it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ACCOUNT, Server
from tests.e2e.sink import Sink
from tests.e2e.tenant import Queue, Tenant
from tests.e2e.test_cli import DEADLINE_S, busbar, clean, command, invoke, on_terminal
from tests.e2e.wire import until


@pytest.fixture(scope="module")
def owner(server: Server, aws: Any) -> Tenant:
    """The account that commands act in by themselves, with an archive of 300 events."""
    tenant = Tenant(aws, at=server, account=ACCOUNT)
    bus = tenant.arn("events", "event-bus/default")
    tenant.events.create_archive(ArchiveName="all", EventSourceArn=bus, EventPattern='{"source":["shop"]}')
    tenant.put_many("shop", 300)
    return tenant


@pytest.fixture
def copies(owner: Tenant, request: pytest.FixtureRequest) -> Iterator[Queue]:
    """A queue that a rule of the test's own leads replayed events to."""
    name = re.sub(r"\W", "-", request.node.name)[:60]
    queue = owner.queue(name)
    owner.rule(name, {"Id": "q", "Arn": queue.arn}, pattern={"replay-name": [{"exists": True}]})
    yield queue
    owner.events.remove_targets(Rule=name, Ids=["q"])
    owner.events.delete_rule(Name=name)


def names(owner: Tenant, queue: Queue) -> set[str]:
    """The names of the replays whose events are in the queue, which is empty afterwards."""
    return {json.loads(message["Body"])["replay-name"] for message in owner.drain(queue)}


def test_everything_by_default_and_the_end_is_waited_for(server: Server, owner: Tenant, copies: Queue) -> None:
    ended = busbar("replay", "all", BUSBAR_ENDPOINT_URL=server.url)
    found = re.fullmatch(r"300 events replayed as (all-\d{8}T\d{12})\n", ended.stdout)
    assert ended.returncode == 0, ended.stderr
    assert found
    assert names(owner, copies) == {found[1]}


def test_a_window_a_name_and_one_rule(server: Server, owner: Tenant, copies: Queue) -> None:
    other = owner.queue("not-named")
    owner.rule("not-named", {"Id": "q", "Arn": other.arn}, pattern={"replay-name": [{"exists": True}]})
    for past in ("2020-01-31T12:00:00Z", "2020-01-31T12:30:00Z"):
        owner.put("shop", Time=past)
    rule = copies.arn.rpartition(":")[2]
    window = ("--from", "2020-01-31T12:00:00", "--to", "2020-01-31T13:30:00+01:00")
    ended = busbar("replay", "all", *window, "--name", "noon", "--rule", rule, BUSBAR_ENDPOINT_URL=server.url)
    assert ended.stdout == "1 events replayed as noon\n"
    assert names(owner, copies) == {"noon"}
    assert owner.drain(other) == []
    again = busbar("replay", "all", "--from", "1h", "--name", "last-hour", BUSBAR_ENDPOINT_URL=server.url)
    assert again.stdout == "300 events replayed as last-hour\n"


def test_a_bar_on_a_terminal(server: Server, owner: Tenant, copies: Queue) -> None:
    shown, status = on_terminal("replay", "all", "--from", "1h", "--name", "bar", endpoint=server.url)
    assert status == 0
    assert re.search(r"bar +\[#{36}\] +300/300", shown)
    assert "300 events replayed as bar" in shown


def state(owner: Tenant, name: str) -> str:
    return str(owner.events.describe_replay(ReplayName=name)["State"])


@pytest.fixture
def held(owner: Tenant, sink: Sink) -> Iterator[None]:
    """A webhook that lets every replay wait."""
    sink.hold()
    owner.rule("held", {"Id": "hook", "Arn": sink.url}, pattern={"replay-name": [{"exists": True}]})
    yield
    sink.release()
    owner.events.remove_targets(Rule="held", Ids=["hook"])


@pytest.mark.usefixtures("held")
def test_ctrl_c_leaves_it_running_and_says_how_to_cancel_it(server: Server, owner: Tenant) -> None:
    process = subprocess.Popen(
        command("replay", "all", "--name", "left"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=clean({"BUSBAR_ENDPOINT_URL": server.url}),
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline() == "left\n"
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (0, "")
    cancel = f"aws --endpoint-url {server.url} --region us-east-1 events cancel-replay --replay-name left"
    assert said.endswith(f"\nleft goes on; to cancel it: {cancel}\n")
    assert state(owner, "left") == "RUNNING"
    owner.events.cancel_replay(ReplayName="left")
    until(lambda: state(owner, "left") == "CANCELLED", "the cancellation")


@pytest.mark.usefixtures("held")
def test_one_without_a_terminal_says_whom_it_waits_for_too(server: Server, owner: Tenant, sink: Sink) -> None:
    process = subprocess.Popen(
        command("replay", "all", "--name", "silent"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=clean({"BUSBAR_ENDPOINT_URL": server.url}),
    )  # fmt: skip
    assert process.stderr is not None
    assert [process.stderr.readline() for _ in range(2)] == ["silent\n", f"silent is waiting for {sink.url}\n"]
    owner.events.cancel_replay(ReplayName="silent")
    _, said = process.communicate(timeout=DEADLINE_S)
    assert re.fullmatch(r"busbar: silent cancelled after \d+ events\n", said)


@pytest.mark.usefixtures("held")
def test_one_that_is_cancelled_is_told_with_a_status(server: Server, owner: Tenant) -> None:
    started = busbar("replay", "all", "--name", "gone", "--no-wait", BUSBAR_ENDPOINT_URL=server.url)
    assert started.returncode == 0
    assert "events cancel-replay --replay-name gone" in started.stderr
    process = subprocess.Popen(
        command("replay", "all", "--name", "watched"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=clean({"BUSBAR_ENDPOINT_URL": server.url}),
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline() == "watched\n"
    owner.events.cancel_replay(ReplayName="gone")
    owner.events.cancel_replay(ReplayName="watched")
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert re.search(r"busbar: watched cancelled after \d+ events", said)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("none",), 1, "ResourceNotFoundException: Archive none does not exist."),
        (("all", "--rule", "none"), 1, "ResourceNotFoundException: Rule none does not exist on EventBus default."),
        (("all", "--from", "yesterday"), 2, "'yesterday' is neither a time such as 2026-01-31T12:00:00Z"),
        (("all", "--from", "999999999d"), 2, "is neither a time such as"),
        (("all", "--from", "1h", "--to", "2h"), 1, "EventStartTime must be before EventEndTime."),
        ((), 2, "Missing argument 'ARCHIVE'"),
    ],
)
@pytest.mark.usefixtures("owner")
def test_mistakes(server: Server, words: tuple[str, ...], status: int, sentence: str) -> None:
    ended = invoke("replay", *words, BUSBAR_ENDPOINT_URL=server.url)
    assert ended.returncode == status
    assert sentence in ended.stderr
