"""Bus logs: what a bus with a LogConfig writes about its events, as a running server writes it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Server
from tests.e2e.sink import Reply, Sink
from tests.e2e.tenant import Tenant, to_dead_letters
from tests.e2e.wire import until

pytestmark = pytest.mark.xdist_group("e2e_bus_logs")

INGESTED = ["EVENT_INGEST_SUCCESS", "RULE_MATCH", "INVOCATION_START"]


def log_of(server: Server, tenant: Tenant, bus: str) -> list[Any]:
    """Every record of a bus so far."""
    file = server.data_dir / "bus-logs" / tenant.account / tenant.region / f"{bus}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def records(server: Server, tenant: Tenant, bus: str, event_id: str, last: str) -> list[Any]:
    """The records of one event, once the last of them is there."""

    def found() -> list[Any]:
        about = [record for record in log_of(server, tenant, bus) if record["event_id"] == event_id]
        return about if any(record["message_type"] == last for record in about) else []

    return list(until(found, f"{last} of {event_id}"))


def steps(found: list[Any]) -> list[str]:
    return [record["message_type"] for record in found]


def logging_bus(tenant: Tenant, name: str, level: str, *, detail: str = "NONE") -> str:
    config = {"Level": level, "IncludeDetail": detail}
    return str(tenant.events.create_event_bus(Name=name, LogConfig=config)["EventBusArn"])


def test_every_step_of_a_delivery(server: Server, tenant: Tenant) -> None:
    arn, queue = logging_bus(tenant, "b", "TRACE", detail="FULL"), tenant.queue("q")
    rule = tenant.rule("shop", {"Id": "q", "Arn": queue.arn, "InputPath": "$.detail"}, bus="b")
    event = tenant.put("shop", {"n": 1}, EventBusName="b", Resources=["r"], Time=1_700_000_000)
    tenant.receive(queue)

    found = records(server, tenant, "b", event, "INVOCATION_SUCCESS")
    assert steps(found) == [
        "EVENT_RECEIPT",
        "EVENT_INGEST_SUCCESS",
        "RULE_MATCH_START",
        "RULE_MATCH",
        "INVOCATION_START",
        "INVOCATION_ATTEMPT_START",
        "INVOCATION_ATTEMPT_SUCCESS",
        "INVOCATION_SUCCESS",
    ]
    assert {record["resource_arn"] for record in found} == {arn}
    assert [record["log_level"] for record in found] == [
        "TRACE", "INFO", "TRACE", "INFO", "INFO", "TRACE", "INFO", "INFO"
    ]  # fmt: skip
    assert found[0]["details"] == {
        "caller_account_id": tenant.account,
        "source_time_ms": 1_700_000_000_000,
        "source": "shop",
        "detail_type": "Test",
        "resources": ["r"],
        "event_detail": '{"n":1}',
    }
    (invocation,) = {record["invocation_id"] for record in found[4:]}
    assert found[3]["details"] == {"rule_arn": rule, "target_arns": [queue.arn], "invocation_ids": [invocation]}
    assert found[7]["details"]["total_attempts"] == 1
    assert found[7]["details"]["final_invocation_status"] == "SUCCESS"
    assert all("error" not in record for record in found)


def test_an_event_that_no_rule_wants(server: Server, tenant: Tenant) -> None:
    logging_bus(tenant, "b", "INFO")
    event = tenant.put("shop", {"secret": 1}, EventBusName="b")
    found = records(server, tenant, "b", event, "NO_STANDARD_RULES_MATCHED")
    assert steps(found) == ["EVENT_INGEST_SUCCESS", "NO_STANDARD_RULES_MATCHED"]
    assert "secret" not in json.dumps(found)


def test_a_webhook_that_fails_is_told_attempt_by_attempt(server: Server, tenant: Tenant, sink: Sink) -> None:
    sink.answer = lambda post: Reply(503)
    logging_bus(tenant, "b", "ERROR", detail="FULL")
    letters = tenant.queue("letters")
    target = {"Id": "w", "Arn": sink.url, "Input": '"fixed"', **to_dead_letters(letters, retries=1)}
    rule = tenant.rule("shop", target, bus="b")
    event = tenant.put("shop", EventBusName="b")
    tenant.receive(letters)

    found = records(server, tenant, "b", event, "INVOCATION_DLQ")
    assert steps(found) == [
        "INVOCATION_ATTEMPT_RETRYABLE_FAILURE",
        "INVOCATION_ATTEMPT_RETRYABLE_FAILURE",
        "INVOCATION_FAILURE",
        "INVOCATION_DLQ",
    ]
    assert [record["details"].get("attempt_type") for record in found] == ["FIRST", "RETRY", None, None]
    assert {record["error"]["aws_service"] for record in found} == {"http"}
    assert "503" in found[0]["error"]["error_message"]
    end = found[2]["details"]
    assert (end["rule_arn"], end["target_arn"], end["total_attempts"]) == (rule, sink.url, 2)
    assert (end["target_input"], end["final_invocation_status"]) == ('"fixed"', "ERROR_FROM_TARGET")
    assert json.loads(end["target_properties"])["RetryPolicy"] == {"MaximumRetryAttempts": 1}


def test_a_final_failure_without_a_dead_letter_queue(server: Server, tenant: Tenant) -> None:
    logging_bus(tenant, "b", "INFO")
    tenant.rule("shop", {"Id": "q", "Arn": tenant.arn("sqs", "absent")}, bus="b")
    event = tenant.put("shop", EventBusName="b")
    found = records(server, tenant, "b", event, "INVOCATION_FAILURE")
    assert steps(found) == [*INGESTED, "INVOCATION_ATTEMPT_PERMANENT_FAILURE", "INVOCATION_FAILURE"]
    assert found[-1]["details"]["final_invocation_status"] == "NO_RESOURCE"
    assert "target_input" not in found[-1]["details"]


def test_a_failed_rendering(server: Server, tenant: Tenant) -> None:
    logging_bus(tenant, "b", "ERROR")
    letters = tenant.queue("letters")
    transformer = {"InputTransformer": {"InputPathsMap": {"s": "$.source"}, "InputTemplate": "<s>"}}
    target = {"Id": "q", "Arn": tenant.queue("q").arn, **transformer, **to_dead_letters(letters)}
    tenant.rule("shop", target, bus="b")
    event = tenant.put("shop", EventBusName="b")
    found = records(server, tenant, "b", event, "INVOCATION_DLQ")
    assert steps(found) == ["INVOCATION_FAILURE", "INVOCATION_DLQ"]
    assert found[0]["error"] == {"error_message": "Invalid input for target.", "aws_service": "sqs"}


def test_levels_change_at_once_and_survive_a_restart(start_server: Any, aws: Any) -> None:
    server = start_server()
    tenant = Tenant(aws, at=server)
    quiet = tenant.put("shop")
    assert tenant.events.update_event_bus(Name="default", LogConfig={"Level": "INFO"})["LogConfig"] == {"Level": "INFO"}
    first = tenant.put("shop")
    records(server, tenant, "default", first, "NO_STANDARD_RULES_MATCHED")
    server.restart()
    tenant = Tenant(aws, at=server, account=tenant.account)
    second = tenant.put("shop")
    records(server, tenant, "default", second, "NO_STANDARD_RULES_MATCHED")
    tenant.events.update_event_bus(Name="default", LogConfig={"Level": "OFF"})
    off = tenant.put("shop")
    tenant.events.update_event_bus(Name="default", LogConfig={"Level": "TRACE"})
    third = tenant.put("shop")
    records(server, tenant, "default", third, "NO_STANDARD_RULES_MATCHED")
    told = {record["event_id"] for record in log_of(server, tenant, "default")}
    assert told == {first, second, third}
    assert not {quiet, off} & told


def test_what_is_told_before_a_stop_is_written(start_server: Any, aws: Any) -> None:
    server = start_server()
    tenant = Tenant(aws, at=server)
    logging_bus(tenant, "b", "INFO")
    ids = [tenant.put("shop", EventBusName="b") for _ in range(20)]
    assert server.stop() == 0
    told = [r["event_id"] for r in log_of(server, tenant, "b") if r["message_type"] == "NO_STANDARD_RULES_MATCHED"]
    assert told == ids


def test_a_server_that_keeps_nothing_tells_its_own_log(start_server: Any, aws: Any) -> None:
    server = start_server(data_dir=":memory:")
    tenant = Tenant(aws, at=server)
    logging_bus(tenant, "b", "INFO")
    event = tenant.put("shop", EventBusName="b")
    until(lambda: event in server.said() and "NO_STANDARD_RULES_MATCHED" in server.said(), "the record")
