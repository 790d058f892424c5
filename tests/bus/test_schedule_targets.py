"""Which targets schedules take, beyond the errors that boto3 is shown."""

from __future__ import annotations

from typing import Any

import pytest

from bus.errors import ApiError
from bus.schedules.targets import LONGEST_INPUT, TargetChecks
from bus.scope import Scope
from bus.targets.universal import action_of

SCOPE = Scope("000000000000", "us-east-1")
ROLE = "arn:aws:iam::000000000000:role/r"
HERE = "us-east-1:000000000000"
CHECKS = TargetChecks(check_url=lambda url: None, action_of=action_of)

TAKEN: dict[str, dict[str, Any]] = {
    f"arn:aws:lambda:{HERE}:function:f:live": {"Input": "{}"},
    f"arn:aws:sqs:{HERE}:q": {"Input": "any text"},
    f"arn:aws:sqs:{HERE}:q.fifo": {"SqsParameters": {"MessageGroupId": "g"}},
    f"arn:aws:sns:{HERE}:topic.fifo": {},
    f"arn:aws:events:{HERE}:event-bus/a": {"EventBridgeParameters": {"Source": "s", "DetailType": "d"}},
    f"arn:aws:states:{HERE}:stateMachine:m": {},
    f"arn:aws:kinesis:{HERE}:stream/s": {"KinesisParameters": {"PartitionKey": "k"}},
    f"arn:aws:firehose:{HERE}:deliverystream/d": {},
    f"arn:aws:ecs:{HERE}:cluster/c": {"EcsParameters": {"TaskDefinitionArn": "t"}},
    f"arn:aws:codebuild:{HERE}:project/p": {},
    f"arn:aws:codepipeline:{HERE}:p": {},
    f"arn:aws:sagemaker:{HERE}:pipeline/p": {"SageMakerPipelineParameters": {"PipelineParameterList": []}},
    f"arn:aws:inspector:{HERE}:target/0-a/template/0-b": {},
    "arn:aws:lambda:us-east-1:999999999999:function:f": {},
    "arn:aws:scheduler:::aws-sdk:sqs:sendMessage": {"Input": "{}"},
    "arn:aws:scheduler:::aws-sdk:lambda:Invoke": {"Input": "{}"},
    "arn:aws:scheduler:::aws-sdk:s3:putObject": {"Input": "{}"},
    "https://example.com/hook": {"Input": "any text"},
}


@pytest.mark.parametrize(("arn", "rest"), TAKEN.items())
def test_what_is_taken_is_stored_with_its_retry_policy(arn: str, rest: dict[str, Any]) -> None:
    target = {"Arn": arn, "RoleArn": ROLE, **rest}
    stored = CHECKS.accept({**target, "DeadLetterConfig": None, "Unknown": 1}, SCOPE)
    assert stored == {**target, "RetryPolicy": {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185}}


def test_given_retries_are_kept() -> None:
    policy = {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": None}
    stored = CHECKS.accept({"Arn": f"arn:aws:sqs:{HERE}:q", "RoleArn": ROLE, "RetryPolicy": policy}, SCOPE)
    assert stored["RetryPolicy"] == {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 0}


@pytest.mark.parametrize(
    ("arn", "action"),
    [
        ("arn:aws:scheduler:::aws-sdk:eventbridge:putEvents", "events:PutEvents"),
        (f"arn:aws:sqs:{HERE}:q", None),
        ("http://127.0.0.1/", None),
    ],
)
def test_only_universal_targets_stand_for_an_action(arn: str, action: str | None) -> None:
    assert CHECKS.action({"Arn": arn}) == action


@pytest.mark.parametrize("letter", ["a", "ü", "\N{GRINNING FACE}"])
def test_the_longest_input(letter: str) -> None:
    size = len(letter.encode())
    target = {"Arn": f"arn:aws:sqs:{HERE}:q", "RoleArn": ROLE, "Input": letter * (LONGEST_INPUT // size)}
    assert CHECKS.accept(target, SCOPE)["Input"] == target["Input"]
    with pytest.raises(ApiError, match="at most 262144 bytes"):
        CHECKS.accept({**target, "Input": target["Input"] + "a"}, SCOPE)


@pytest.mark.parametrize("api", ["getItem", "listTables", "describe", "batchGetItem", "query"])
def test_apis_that_only_read(api: str) -> None:
    arn = f"arn:aws:scheduler:::aws-sdk:dynamodb:{api}"
    with pytest.raises(ApiError) as refused:
        CHECKS.accept({"Arn": arn, "RoleArn": ROLE, "Input": "{}"}, SCOPE)
    assert refused.value.code == "ValidationException"
