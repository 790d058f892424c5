"""EventBridge's metrics: which samples each kind of delivery and each kind of request leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Server
from tests.e2e.sink import Reply, Sink
from tests.e2e.tenant import Tenant, to_dead_letters
from tests.e2e.wire import call, request, rule_metrics, scrape, until

pytestmark = pytest.mark.xdist_group("e2e_metrics")

START, COMPLETE, SUCCESS = (f"IngestionToInvocation{step}Latency" for step in ("Start", "Complete", "Success"))
LATENCIES = (START, COMPLETE, SUCCESS)
ENTRY = '{"Source":"metered","DetailType":"T","Detail":"{}"}'


@dataclass(frozen=True, slots=True)
class World:
    """A place for one delivery: the rule is `metered` on the default bus."""

    tenant: Tenant
    sink: Sink
    server: Server


def to_queue(world: World) -> None:
    world.tenant.rule("metered", {"Id": "t", "Arn": world.tenant.queue("copies").arn})


def to_webhook(world: World) -> None:
    world.tenant.rule("metered", {"Id": "t", "Arn": world.sink.url})


def to_webhook_on_its_second_attempt(world: World) -> None:
    world.sink.answer = lambda post: Reply(200 if world.sink.received else 503)
    to_webhook(world)


def _refused(world: World, **members: Any) -> None:
    world.sink.answer = lambda post: Reply(404)
    world.tenant.rule("metered", {"Id": "t", "Arn": world.sink.url, **members})


def refused_with_dead_letter(world: World) -> None:
    _refused(world, **to_dead_letters(world.tenant.queue("letters")))


def refused_with_dead_letter_refused(world: World) -> None:
    _refused(world, DeadLetterConfig={"Arn": world.tenant.arn("sqs", "absent")})


def refused_without_dead_letter(world: World) -> None:
    _refused(world)


def failing_until_retries_run_out(world: World) -> None:
    world.sink.answer = lambda post: Reply(503)
    letters = to_dead_letters(world.tenant.queue("letters"), retries=1)
    world.tenant.rule("metered", {"Id": "t", "Arn": world.sink.url, **letters})


def to_bus(world: World) -> None:
    world.tenant.events.create_event_bus(Name="second")
    world.tenant.rule("metered", {"Id": "t", "Arn": world.tenant.arn("events", "event-bus/second")})


def _second_hop(world: World, **members: Any) -> None:
    tenant = world.tenant
    tenant.events.create_event_bus(Name="first")
    tenant.events.create_event_bus(Name="third")
    pattern = {"source": ["metered"]}
    start = {"Id": "t", "Arn": tenant.arn("events", "event-bus/first")}
    tenant.rule("start", start, pattern=pattern)
    third = {"Id": "t", "Arn": tenant.arn("events", "event-bus/third"), **members}
    tenant.rule("metered", third, pattern=pattern, bus="first")


def second_hop_with_dead_letter(world: World) -> None:
    _second_hop(world, **to_dead_letters(world.tenant.queue("letters")))


def second_hop_without_dead_letter(world: World) -> None:
    _second_hop(world)


DELIVERED = {"Invocations": 1, "InvocationAttempts": 1, "SuccessfulInvocationAttempts": 1}
FAILED = {"Invocations": 1, "FailedInvocations": 1, "InvocationAttempts": 1}
ATTEMPTED = {START: 1, COMPLETE: 1}
SUCCEEDED = {**ATTEMPTED, SUCCESS: 1}

CASES: dict[Callable[[World], None], tuple[dict[str, int], dict[str, int]]] = {
    to_queue: (DELIVERED, SUCCEEDED),
    to_webhook: (DELIVERED, SUCCEEDED),
    to_webhook_on_its_second_attempt: (
        {**DELIVERED, "InvocationAttempts": 2, "RetryInvocationAttempts": 1},
        SUCCEEDED,
    ),
    refused_with_dead_letter: ({**FAILED, "InvocationsSentToDlq": 1}, ATTEMPTED),
    refused_with_dead_letter_refused: ({**FAILED, "InvocationsFailedToBeSentToDlq": 1}, ATTEMPTED),
    refused_without_dead_letter: ({**FAILED, "InvocationsFailedToBeSentToDlq": 1}, ATTEMPTED),
    failing_until_retries_run_out: (
        {**FAILED, "InvocationAttempts": 2, "RetryInvocationAttempts": 1, "InvocationsSentToDlq": 1},
        ATTEMPTED,
    ),
    to_bus: ({"Invocations": 1}, {}),
    second_hop_with_dead_letter: (
        {
            "Invocations": 1,
            "FailedInvocations": 1,
            "InvocationsSentToDlq": 1,
            "InvocationAttempts": 1,
            "SuccessfulInvocationAttempts": 1,
        },
        {},
    ),
    second_hop_without_dead_letter: ({"Invocations": 1, "FailedInvocations": 1}, {}),
}
"""What is arranged, and the samples it leaves: those of the rule, and those of the latencies."""


def growth(before: dict[str, float], after: dict[str, float], names: tuple[str, ...]) -> dict[str, float]:
    """By how much series grew; those that did not are left out."""
    grown = {name: after.get(name, 0) - before.get(name, 0) for name in names}
    return {name: value for name, value in grown.items() if value}


@pytest.mark.parametrize("arrange", CASES, ids=lambda each: each.__name__)
def test_the_samples_of_a_delivery(
    arrange: Callable[[World], None], tenant: Tenant, sink: Sink, server: Server
) -> None:
    samples, latencies = CASES[arrange]
    arrange(World(tenant, sink, server))
    before = scrape(server.url)

    tenant.put("metered")

    until(lambda: "Invocations" in rule_metrics(server.url, tenant.account, "metered"), "the end of the delivery")
    assert rule_metrics(server.url, tenant.account, "metered") == {"MatchedEvents": 1, "TriggeredRules": 1, **samples}
    counts = growth(before, scrape(server.url), tuple(f"{name}_count" for name in LATENCIES))
    assert counts == {f"{name}_count": value for name, value in latencies.items()}


def test_the_series_of_a_rule_by_bus(tenant: Tenant, server: Server) -> None:
    tenant.events.create_event_bus(Name="second")
    for bus in ("default", "second"):
        tenant.rule("placed", pattern={"source": [{"exists": True}]}, bus=bus)
        tenant.put("placed", EventBusName=bus)

    rows = [row for row in scrape(server.url) if row.startswith("MatchedEvents_total") and tenant.account in row]

    scope = f'Account="{tenant.account}"'
    assert rows == [
        f'MatchedEvents_total{{{scope},EventBusName="",Region="us-east-1",RuleName="placed",Source=""}}',
        f'MatchedEvents_total{{{scope},EventBusName="second",Region="us-east-1",RuleName="placed",Source=""}}',
    ]


def test_an_event_is_matched_once_however_many_rules_it_triggers(tenant: Tenant, server: Server) -> None:
    pattern = {"source": [f"many-{tenant.account}"]}
    for name in ("a", "b", "c"):
        tenant.rule(name, {"Id": "t", "Arn": tenant.queue(name).arn}, pattern=pattern)
    whole = '{Account="",EventBusName="",Region="",RuleName="",Source=""}'
    of_source = whole.replace('Source=""', f'Source="many-{tenant.account}"')
    names = (
        f"MatchedEvents_total{whole}",
        f"MatchedEvents_total{of_source}",
        f"TriggeredRules_total{whole}",
        "InvocationsCreated_total",
    )
    before = scrape(server.url)

    tenant.put(f"many-{tenant.account}")

    assert list(growth(before, scrape(server.url), names).values()) == [1, 1, 3, 3]


PUTS = {
    "good": (
        f'{{"Entries":[{ENTRY},{ENTRY}]}}',
        {"ApproximateCallCount": 1, "ApproximateSuccessCount": 1, "EntriesCount": 2, "RequestSize": 1, "Latency": 1},
    ),
    "every_entry_failed": (
        '{"Entries":[{}]}',
        {
            "ApproximateCallCount": 1, "ApproximateSuccessCount": 1, "EntriesCount": 1, "FailedEntriesCount": 1,
            "RequestSize": 1, "Latency": 1,
        },
    ),
    "absent_bus": (
        f'{{"Entries":[{ENTRY[:-1]},"EventBusName":"absent"}}]}}',
        {"ApproximateCallCount": 1, "ApproximateSuccessCount": 1, "EntriesCount": 1, "RequestSize": 1, "Latency": 1},
    ),
    "too_large": (
        '{"Entries":[{"Source":"s","DetailType":"T","Detail":"' + "x" * (1 << 20) + '"}]}',
        {"ApproximateCallCount": 1, "ApproximateFailedCount": 1, "RequestSize": 1},
    ),
    "no_entries": ('{"Entries":[]}', {"ApproximateCallCount": 1, "ApproximateFailedCount": 1, "RequestSize": 1}),
    "eleven_entries": (
        f'{{"Entries":[{",".join([ENTRY] * 11)}]}}',
        {"ApproximateCallCount": 1, "ApproximateFailedCount": 1, "RequestSize": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUTS)
def test_the_samples_of_a_request(name: str, server: Server) -> None:
    body, samples = PUTS[name]
    series = {f"PutEvents{each}_total": each for each in ("EntriesCount", "FailedEntriesCount")}
    series |= {f"PutEventsApproximate{each}Count_total": f"Approximate{each}Count" for each in
               ("Call", "Success", "Failed", "Throttled")}  # fmt: skip
    series |= {f"PutEvents{each}_count": each for each in ("RequestSize", "Latency")}
    before = scrape(server.url)

    call(server.url, "PutEvents", body.encode())

    grown = growth(before, scrape(server.url), tuple(series))
    assert {series[each]: value for each, value in grown.items()} == samples


def test_the_size_is_that_of_the_size_rule(server: Server) -> None:
    entry = '{"Time":1700000000,"Source":"äb","DetailType":"TT","Detail":"{ }","Resources":["rrr"],"TraceHeader":"x"}'
    name = "PutEventsRequestSize_sum"
    before = scrape(server.url)

    call(server.url, "PutEvents", f'{{"Entries":[{entry}]}}'.encode())

    assert growth(before, scrape(server.url), (name,)) == {name: 14 + 3 + 2 + 3 + 3}


def test_prometheus_can_read_it(server: Server) -> None:
    answer = request(server.url, path="/metrics")

    families = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert {"MatchedEvents", "Invocations", START, "PutEventsLatency", "busbar_wal_bytes"} <= families
