"""Whatever was accepted is delivered or dead-lettered, however often the process dies in the middle of its work.

Clients put events without pause while the server is killed and started again, at moments that are chosen by chance. An
event counts as accepted when its id was in an answer; a batch whose answer never came counts for nothing.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Set
from typing import Any

import pytest

from tests.conftest import Server
from tests.e2e.load import Load
from tests.e2e.sink import Post, Reply, Sink
from tests.e2e.tenant import Queue, Tenant, to_dead_letters

FEW, MANY = 4, int(os.environ.get("BUSBAR_SOAK_KILLS", "20"))
BETWEEN = (1, 600)
"""Events accepted between two kills, at least and at most; a batch is ten."""

KILLS = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.soak)]
ACCOUNT = "000000000000"


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Random moments; a failing test shows the seed, and BUSBAR_SOAK_SEED repeats it."""
    seed = int(os.environ.get("BUSBAR_SOAK_SEED", random.SystemRandom().getrandbits(32)))
    request.node.add_report_section("setup", "seed", f"BUSBAR_SOAK_SEED={seed}")
    return random.Random(seed)


def ids_in(tenant: Tenant, queue: Queue) -> list[str]:
    return [json.loads(message["Body"])["id"] for message in tenant.drain(queue)]


def ids_that_reach(tenant: Tenant, queue: Queue, expected: Set[str]) -> set[str]:
    """The ids in a queue once all that are expected have come."""
    found: set[str] = set()
    while not found >= expected:
        found.update(json.loads(message["Body"])["id"] for message in tenant.page(queue, wait=20))
    return found.union(ids_in(tenant, queue))


def kill_again_and_again(server: Server, load: Load, kills: int, chance: random.Random) -> None:
    with load.running():
        for _ in range(kills):
            load.wait_for_more(chance.randint(*BETWEEN))
            with load.server_is_down():
                server.kill()
                server.start()
        load.wait_for_more(1)


def entry(number: int) -> dict[str, Any]:
    return {"Source": "load", "DetailType": "T", "Detail": json.dumps({"n": number, "refused": number % 2 == 1})}


@pytest.mark.parametrize("kills", KILLS)
def test_every_accepted_event_reaches_its_webhook_or_the_dead_letter_queue(
    kills: int, start_server: Any, aws: Any, sink: Sink, chance: random.Random
) -> None:
    server: Server = start_server()
    owner = Tenant(aws, at=server, account=ACCOUNT)
    letters = owner.queue("letters")
    taken: set[str] = set()

    def answer(post: Post) -> Reply:
        if post.event["detail"]["refused"]:
            return Reply(410)
        taken.add(post.event["id"])
        return Reply()

    sink.answer = answer
    owner.rule("load", {"Id": "hook", "Arn": sink.url, **to_dead_letters(letters)})
    load = Load(server.url, entry)

    kill_again_and_again(server, load, kills, chance)

    good = {event_id for event_id, number in load.accepted.items() if number % 2 == 0}
    bad = load.accepted.keys() - good
    sink.wait_until(lambda: len(taken) >= len(good) and taken >= good, "every event that the webhook takes")
    dead = ids_that_reach(owner, letters, bad)
    assert load.refused == []
    assert len(load.accepted) > kills
    assert not dead & taken, "a letter is an event that the webhook refused"


@pytest.mark.parametrize("kills", KILLS)
def test_every_accepted_event_is_in_the_queue_and_beyond_the_next_bus(
    kills: int, start_server: Any, aws: Any, chance: random.Random
) -> None:
    server: Server = start_server()
    owner = Tenant(aws, at=server, account=ACCOUNT)
    queue, shaped, beyond = (owner.queue(name) for name in ("copies", "shaped", "beyond"))
    owner.events.create_event_bus(Name="second")
    owner.rule(
        "load",
        {"Id": "q", "Arn": queue.arn},
        {"Id": "s", "Arn": shaped.arn, "InputPath": "$.id"},
        {"Id": "b", "Arn": owner.arn("events", "event-bus/second")},
    )
    owner.rule("load", {"Id": "q", "Arn": beyond.arn}, bus="second")
    load = Load(server.url, entry)

    kill_again_and_again(server, load, kills, chance)

    found = ids_in(owner, queue)
    assert load.refused == []
    assert load.accepted.keys() <= set(found)
    assert len(found) == len(set(found)), "a queue of this process gets an event once"
    assert sorted(json.loads(message["Body"]) for message in owner.drain(shaped)) == sorted(found)
    assert ids_that_reach(owner, beyond, load.accepted.keys()) <= set(found)


@pytest.mark.parametrize("kills", KILLS)
def test_every_accepted_event_is_in_each_of_several_queues(
    kills: int, start_server: Any, aws: Any, chance: random.Random
) -> None:
    """Fifty messages a request: enough to be stored beside the event loop."""
    server: Server = start_server()
    owner = Tenant(aws, at=server, account=ACCOUNT)
    queues = [owner.queue(f"copies-{number}") for number in range(5)]
    owner.rule("load", *({"Id": str(number), "Arn": queue.arn} for number, queue in enumerate(queues)))
    load = Load(server.url, entry)

    kill_again_and_again(server, load, kills, chance)

    first, *others = (sorted(ids_in(owner, queue)) for queue in queues)
    assert load.refused == []
    assert load.accepted.keys() <= set(first)
    assert len(first) == len(set(first)), "a queue of this process gets an event once"
    assert others == [first] * 4, "all messages of a request are there, or none"


def test_a_stop_in_the_middle_loses_nothing_either(start_server: Any, aws: Any, sink: Sink) -> None:
    server: Server = start_server()
    owner = Tenant(aws, at=server, account=ACCOUNT)
    owner.rule("load", {"Id": "hook", "Arn": sink.url})
    load = Load(server.url, entry)

    with load.running():
        load.wait_for_more(200)
        with load.server_is_down():
            assert server.stop() == 0
            server.start()
        load.wait_for_more(1)

    sink.wait_for_events(load.accepted.keys())
