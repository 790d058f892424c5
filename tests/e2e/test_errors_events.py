"""Every error of buses, rules, targets, tags, archives and replays, as boto3 receives it from a running server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

CASES = Path(__file__).parent.parent / "cases"
PATTERN = '{"source":["s"]}'
_accounts = count(310_000_000_000)


class Server(Protocol):
    url: str


def cases() -> list[Any]:
    files = [CASES / "errors" / name for name in ("archives.json", "events.json")]
    found = [case for path in files for case in json.loads(path.read_text())]
    return [pytest.param(case, id=case["name"]) for case in found]


def target_cases() -> list[Any]:
    """The target cases that do not depend on settings other than the defaults."""
    found = [
        case for path in sorted((CASES / "targets").glob("refused_*.json")) for case in json.loads(path.read_text())
    ]
    return [pytest.param(case, id=case["name"]) for case in found if not (case.get("strict") or "169.254" in str(case))]


@pytest.fixture
def account() -> str:
    """An account that no other test uses, so that tests share a server and nothing else."""
    return str(next(_accounts))


@pytest.fixture
def events(server: Server, account: str) -> Iterator[Any]:
    client = boto3.client(
        "events",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=account,
        aws_secret_access_key="any",
        config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


def failure(events: Any, operation: str, request: dict[str, Any]) -> tuple[str, str, int]:
    with pytest.raises(ClientError) as failed:
        getattr(events, operation)(**request)
    response = failed.value.response
    error = response["Error"]
    # Event patterns: what follows the first line tells the column where the reader stood.
    message = error["Message"].partition("\n")[0]
    return error["Code"], message, response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("case", cases())
def test_errors(events: Any, account: str, case: dict[str, Any]) -> None:
    case = json.loads(json.dumps(case).replace("ACCOUNT", account))
    for operation, request in case.get("before", ()):
        getattr(events, operation)(**request)
    code, message, status = failure(events, *case["call"])
    assert (code, status) == (case["code"], 400)
    if "message" in case:
        assert message == case["message"]
    for part in case.get("contains", ()):
        assert part in message


@pytest.mark.parametrize("case", target_cases())
def test_refused_targets(events: Any, account: str, case: dict[str, Any]) -> None:
    case = json.loads(json.dumps(case).replace("111111111111", account))
    events.put_rule(Name="r", EventPattern=PATTERN)
    kept = {"Id": "t", "Arn": "http://127.0.0.1:9/"}
    events.put_targets(Rule="r", Targets=[kept])
    target = {"Id": "t", "Arn": f"arn:aws:sqs:us-east-1:{account}:q"} | case["target"]
    code, message, status = failure(events, "put_targets", {"Rule": "r", "Targets": [target]})
    assert (code, message, status) == (case.get("code", "ValidationException"), case["message"], 400)
    assert events.list_targets_by_rule(Rule="r")["Targets"] == [kept]


def test_a_token_issued_for_another_list(events: Any, account: str) -> None:
    queue = f"arn:aws:sqs:us-east-1:{account}:q"
    events.create_event_bus(Name="b")
    for bus in ("default", "b"):
        for name in ("r1", "r2"):
            events.put_rule(Name=name, EventPattern=PATTERN, EventBusName=bus)
            events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "t", "Arn": queue}])
    token = events.list_rule_names_by_target(TargetArn=queue, Limit=1)["NextToken"]
    again = events.list_rule_names_by_target(TargetArn=queue, Limit=5, NextToken=token)
    assert again["RuleNames"] == ["r2"]
    for request in ({"TargetArn": queue + "x"}, {"TargetArn": queue, "EventBusName": "b"}):
        found = failure(events, "list_rule_names_by_target", {"NextToken": token, **request})
        assert found == ("ValidationException", "Parameter NextToken is not valid.", 400)


def test_a_pattern_longer_than_the_default_quota(events: Any) -> None:
    pattern = '{"source":["' + "x" * 2048 + '"]}'
    code, message, _ = failure(events, "put_rule", {"Name": "r", "EventPattern": pattern})
    assert code == "ValidationException"
    assert message == (
        f"1 validation error detected: Value '{pattern}' at 'eventPattern' failed to satisfy constraint:"
        " Member must have length less than or equal to 2048"
    )


def test_a_token_that_is_too_long(events: Any) -> None:
    token = "x" * 2049
    assert failure(events, "list_rules", {"NextToken": token}) == (
        "ValidationException",
        f"1 validation error detected: Value '{token}' at 'nextToken' failed to satisfy constraint:"
        " Member must have length less than or equal to 2048",
        400,
    )


def test_more_than_fifty_tags(events: Any, account: str) -> None:
    arn = f"arn:aws:events:us-east-1:{account}:event-bus/default"
    events.tag_resource(ResourceARN=arn, Tags=[{"Key": str(n), "Value": ""} for n in range(50)])
    request = {"ResourceARN": arn, "Tags": [{"Key": "one", "Value": "more"}]}
    assert failure(events, "tag_resource", request) == (
        "LimitExceededException",
        "The requested resource exceeds the maximum number allowed.",
        400,
    )


def test_what_is_absent_and_yet_no_error(events: Any) -> None:
    events.delete_event_bus(Name="absent")
    events.delete_rule(Name="absent")
    events.put_rule(Name="r", EventPattern=PATTERN)
    removed = events.remove_targets(Rule="r", Ids=["absent"])
    assert (removed["FailedEntryCount"], removed["FailedEntries"]) == (0, [])
