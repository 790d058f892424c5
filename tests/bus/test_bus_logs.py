from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bus.accepted import Accepted
from bus.bus_logs import LARGEST_RECORD, LEVELS, STEPS, BusLogs, Logging, file_name, invocation_id, logging_of
from bus.clock import ManualClock
from bus.scope import Scope
from bus.store import Lease
from bus.targets import Delivered, Failed, Route

SCOPE = Scope("111111111111", "us-east-1")
RULE_ARN = "arn:aws:events:us-east-1:111111111111:rule/b/r"
ROUTE = Route(7, SCOPE, "b", "r", RULE_ARN, {"Id": "t", "Arn": "http://127.0.0.1:1/", "RoleArn": "role"})
BODY = (
    b'{"version":"0","id":"e","detail-type":"t","source":"shop","account":"111111111111",'
    b'"time":"2026-01-01T00:00:00Z","region":"us-east-1","resources":[],"detail":{"a":1}}'
)


class Rig:
    """The logs of one bus, and what they write."""

    def __init__(self, level: str, *, full: bool = False) -> None:
        self.clock = ManualClock()
        self.lines: list[tuple[Path, bytes]] = []
        self.logs = BusLogs(
            self.clock,
            buses={(SCOPE, "b"): Logging(LEVELS[level], full)},
            write=lambda name, line: self.lines.append((name, line)),
        )

    @property
    def records(self) -> list[Any]:
        return [json.loads(line) for _, line in self.lines]

    @property
    def steps(self) -> list[str]:
        return [record["message_type"] for record in self.records]

    def event(self, body: bytes = BODY) -> Accepted:
        return Accepted("e", 1, self.clock.now_ms() - 5, body)

    def lease(self, attempts: int = 0) -> Lease:
        now = self.clock.now_ms()
        return Lease(1, 7, 1, attempts, now + 9, now + 9, "e", now - 5, BODY, None)


class Matched:
    arn = RULE_ARN
    routes = (ROUTE,)
    managed_by = None


@pytest.mark.parametrize("level", ["ERROR", "INFO", "TRACE"])
def test_a_level_tells_its_steps_and_those_of_the_levels_below(level: str) -> None:
    rig = Rig(level)
    rig.logs.accepted(SCOPE, "b", rig.event(), [Matched()])
    rig.logs.accepted(SCOPE, "b", rig.event(), [])
    rig.logs.refused(SCOPE, "b", rig.event(), "the disk is full")
    rig.logs.created(rig.event(), [ROUTE], [ROUTE])
    rig.logs.attempting(ROUTE, rig.lease(), b"body")
    rig.logs.attempted(ROUTE, rig.lease(), b"body", Delivered(), 0.01)
    for failure in (Failed("C", "m"), Failed("C", "m", retry=True), Failed("THROTTLING", "m", retry=True)):
        rig.logs.attempted(ROUTE, rig.lease(1), b"body", failure, 0.01)
    rig.logs.ended(ROUTE, rig.lease(), b"body", Failed("C", "m"), attempts=1, letter=True)
    told = {step for step, needed in STEPS.items() if LEVELS[needed] <= LEVELS[level]}
    assert set(rig.steps) == told
    assert all(STEPS[record["message_type"]] == record["log_level"] for record in rig.records)
    assert {name for name, _ in rig.lines} == {Path("111111111111/us-east-1/b.jsonl")}


def test_every_step_of_the_vocabulary_but_the_one_of_rate_limits() -> None:
    documented = {
        "EVENT_INGEST_FAILURE", "EVENT_INGEST_SUCCESS", "EVENT_RECEIPT", "INVOCATION_ATTEMPT_PERMANENT_FAILURE",
        "INVOCATION_ATTEMPT_RETRYABLE_FAILURE", "INVOCATION_ATTEMPT_START", "INVOCATION_ATTEMPT_SUCCESS",
        "INVOCATION_ATTEMPT_THROTTLE", "INVOCATION_DLQ", "INVOCATION_FAILURE", "INVOCATION_START",
        "INVOCATION_SUCCESS", "INVOCATION_THROTTLE_START", "NO_STANDARD_RULES_MATCHED", "RULE_MATCH",
        "RULE_MATCH_START",
    }  # fmt: skip
    assert documented - set(STEPS) == {"INVOCATION_THROTTLE_START"}
    assert set(STEPS) <= documented


def test_a_bus_that_does_not_log_is_not_told_of() -> None:
    rig = Rig("TRACE")
    rig.logs.accepted(SCOPE, "other", rig.event(), [])
    rig.logs.refused(Scope("222222222222", "us-east-1"), "b", rig.event(), "full")
    rig.logs.attempting(Route(7, SCOPE, "other", "r", RULE_ARN, ROUTE.target), rig.lease(), b"")
    assert rig.lines == []


def test_services_events_without_a_rule_are_left_out() -> None:
    rig = Rig("TRACE")
    event = rig.event(BODY.replace(b'"shop"', b'"aws.s3"'))
    rig.logs.accepted(SCOPE, "b", event, [])
    assert rig.lines == []
    rig.logs.accepted(SCOPE, "b", event, [Matched()])
    assert "RULE_MATCH" in rig.steps


def test_what_the_detail_adds() -> None:
    plain, full = Rig("TRACE"), Rig("TRACE", full=True)
    for rig in (plain, full):
        rig.logs.accepted(SCOPE, "b", rig.event(), [])
        rig.logs.attempting(ROUTE, rig.lease(), b"\xff body")
    assert "event_detail" not in plain.records[0]["details"]
    assert full.records[0]["details"]["event_detail"] == '{"a":1}'
    assert "target_input" not in plain.records[-1]["details"]
    assert full.records[-1]["details"]["target_input"] == "\\xff body"
    assert full.records[-1]["details"]["role_arn"] == "role"


def test_a_record_that_is_too_large_says_what_it_lost() -> None:
    rig = Rig("TRACE", full=True)
    rig.logs.attempting(ROUTE, rig.lease(), b"x" * LARGEST_RECORD)
    (record,) = rig.records
    assert record["dropped_fields"] == ["target_input"]
    assert record["details"]["target_arn"] == ROUTE.arn
    rig.logs.refused(SCOPE, "b", rig.event(), "y" * LARGEST_RECORD)
    assert "dropped_fields" in rig.records[-1]


def test_names_of_invocations_and_files() -> None:
    assert invocation_id("e", ROUTE) == invocation_id("e", ROUTE) != invocation_id("f", ROUTE)
    assert file_name(SCOPE, "aws.partner/a/b") == Path("111111111111/us-east-1/aws.partner+a+b.jsonl")


@pytest.mark.parametrize(
    ("config", "logging"),
    [
        (None, None),
        ({}, None),
        ({"Level": "OFF", "IncludeDetail": "FULL"}, None),
        ({"IncludeDetail": "FULL"}, None),
        ({"Level": "ERROR"}, Logging(1, full=False)),
        ({"Level": "TRACE", "IncludeDetail": "FULL"}, Logging(3, full=True)),
        ({"Level": "INFO", "IncludeDetail": "NONE"}, Logging(2, full=False)),
    ],
)
def test_what_a_log_config_asks_for(config: dict[str, str] | None, logging: Logging | None) -> None:
    assert logging_of(config) == logging
