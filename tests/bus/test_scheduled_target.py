"""What only schedules' targets do: attempts' numbers, services' own codes, and any API of AWS."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from botocore.loaders import Loader

from bus.errors import ApiError, StoreUnavailable
from bus.schedules.targets import KINDS, api_arn
from bus.scope import Call, Scope
from bus.store import NewMessage
from bus.targets import Delivered, Delivery, Failed, Outcome, Route
from bus.targets.aws_calls import Call as AwsCall
from bus.targets.aws_calls import row_for
from bus.targets.scheduled import AwsApi, PutEvents, Scheduled, ScheduledNow
from bus.targets.universal import ELSEWISE, action_of, find_api
from rules.arn import parse

SCOPE = Scope("000000000000", "us-east-1")
SCHEDULE = "arn:aws:scheduler:us-east-1:000000000000:schedule/default/s"
BUS = "arn:aws:events:us-east-1:000000000000:event-bus/orders"
SENDING = "arn:aws:scheduler:::aws-sdk:sqs:sendMessage"


def delivery(arn: str, body: bytes = b"{}", *, attempt: int = 1, **target: Any) -> Delivery:
    route = Route(1, SCOPE, "", "default/s", SCHEDULE, {"Id": "s", "Arn": arn, **target})
    return Delivery(route, "11111111-2222-5333-8444-555555555555", body, body, attempt, 1_700_000_000_000)


class Plays:
    """A target with a fixed outcome that remembers what it was given."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.given: list[Delivery] = []

    async def deliver(self, delivery: Delivery) -> Outcome:
        return self.deliver_now(delivery)

    def deliver_now(self, delivery: Delivery) -> Outcome:
        self.given.append(delivery)
        return self.outcome

    async def close(self) -> None:
        raise AssertionError("its owner closes it")


async def test_the_number_of_the_attempt_is_filled_in() -> None:
    plays = Plays(Delivered())
    made = delivery("http://127.0.0.1/", b"<aws.scheduler.attempt-number>/<aws.scheduler.attempt-number>", attempt=12)
    await Scheduled(plays).deliver(made)
    assert plays.given[0].body == b"12/12"
    assert made.body.startswith(b"<aws")
    ScheduledNow(plays).deliver_now(delivery(SENDING, b"no attribute"))
    assert plays.given[1].body == b"no attribute"
    await Scheduled(plays).close()


async def test_the_code_is_that_of_the_service() -> None:
    refused = Failed("NO_RESOURCE", "no queue", cause="AWS.SimpleQueueService.NonExistentQueue")
    outcome = await Scheduled(Plays(refused)).deliver(delivery(SENDING))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.message) == ("AWS.SimpleQueueService.NonExistentQueue", "no queue")
    plain = Failed("TIMEOUT", "late", retry=True)
    assert await Scheduled(Plays(plain)).deliver(delivery(SENDING)) == plain


class TestPutEvents:
    PARAMETERS = {"Source": "s", "DetailType": "d"}  # noqa: RUF012

    def make(self, error: Exception | None = None) -> tuple[PutEvents, list[Any]]:
        calls: list[Any] = []

        async def put(scope: Scope, bus_name: str, arrivals: list[Any], *, luggage: Any) -> bool:
            calls.append((scope, bus_name, arrivals))
            if error is not None:
                raise error
            return True

        return PutEvents(put), calls

    async def test_the_input_is_the_detail(self) -> None:
        target, calls = self.make()
        made = delivery(BUS, b'{"a":1}', EventBridgeParameters=self.PARAMETERS, Input="{}")
        assert await target.deliver(made) == Delivered()
        ((scope, bus, (arrival,)),) = calls
        assert (scope, bus) == (SCOPE, "orders")
        assert arrival.fields() == {
            "version": "0", "id": made.event_id, "detail-type": "d", "source": "s", "account": "000000000000",
            "time": "2023-11-14T22:13:20Z", "region": "us-east-1", "resources": [SCHEDULE],
        }  # fmt: skip
        assert arrival.compact_detail() == b'{"a":1}'

    async def test_without_input_the_detail_is_empty(self) -> None:
        target, calls = self.make()
        await target.deliver(delivery(BUS, b'{"the":"notification"}', EventBridgeParameters=self.PARAMETERS))
        assert calls[0][2][0].compact_detail() == b"{}"

    @pytest.mark.parametrize(("body", "code"), [(b"[1]", "MalformedDetail"), (b"7", "MalformedDetail")])
    async def test_what_is_no_event_is_final(self, body: bytes, code: str) -> None:
        target, calls = self.make()
        outcome = await target.deliver(delivery(BUS, body, EventBridgeParameters=self.PARAMETERS, Input="7"))
        assert isinstance(outcome, Failed)
        assert (outcome.cause, outcome.retry) == (code, False)
        assert calls == []

    @pytest.mark.parametrize(
        ("error", "code", "retry"),
        [
            (StoreUnavailable("full"), "INTERNAL_ERROR", True),
            (RuntimeError("odd"), "INTERNAL_ERROR", True),
            (ApiError("AccessDeniedException", "no"), "NO_PERMISSIONS", False),
        ],
    )
    async def test_what_goes_wrong(self, error: Exception, code: str, retry: bool) -> None:
        target, _ = self.make(error)
        outcome = await target.deliver(delivery(BUS, EventBridgeParameters=self.PARAMETERS))
        assert isinstance(outcome, Failed)
        assert (outcome.code, outcome.retry) == (code, retry)


class Answers:
    """An operation of this process."""

    def __init__(self, result: Any = None, refusal: Exception | None = None) -> None:
        self.result = result
        self.refusal = refusal
        self.calls: list[tuple[Call, Any]] = []

    def check(self, request: Any) -> None:
        if request.get("wrong"):
            raise ApiError("ValidationException", "wrong")

    async def method(self, call: Call, request: dict[str, Any]) -> Any:
        self.calls.append((call, request))
        if self.refusal is not None:
            raise self.refusal
        return self.result


class TestApis:
    def make(self, answers: Answers | None, elsewhere: Plays | None = None) -> AwsApi:
        def own(service: str, operation: str) -> Any:
            mine = answers is not None and (service, operation) == ("sqs", "SendMessage")
            return (answers, answers.method) if mine and answers is not None else None

        return AwsApi(own, elsewhere or Plays(Failed("NO_RESOURCE", "elsewhere")))

    async def test_own_services_are_called_here(self) -> None:
        answers = Answers({"MessageId": "1"})
        body = orjson.dumps({"QueueUrl": "http://h/000000000000/q"})
        assert await self.make(answers).deliver(delivery(SENDING, body)) == Delivered()
        assert answers.calls == [(Call(SCOPE), {"QueueUrl": "http://h/000000000000/q"})]

    async def test_others_are_called_elsewhere(self) -> None:
        elsewhere = Plays(Delivered())
        target = self.make(Answers(), elsewhere)
        for arn in (
            "arn:aws:scheduler:::aws-sdk:ec2:startInstances",
            "arn:aws:lambda:us-east-1:000000000000:function:f",
        ):
            assert await target.deliver(delivery(arn)) == Delivered()
        assert len(elsewhere.given) == 2

    @pytest.mark.parametrize(
        ("answers", "body", "code", "retry"),
        [
            (Answers(), b'{"wrong":1}', "INVALID_PARAMETER", False),
            (Answers(), b"{", "INVALID_PARAMETER", False),
            (Answers(refusal=ApiError("QueueDoesNotExist", "none")), b"{}", "NO_RESOURCE", False),
            (Answers(refusal=ApiError("ThrottlingException", "slow")), b"{}", "THROTTLING", True),
            (Answers(refusal=StoreUnavailable("full")), b"{}", "INTERNAL_ERROR", True),
            (Answers(refusal=RuntimeError("odd")), b"{}", "INTERNAL_ERROR", True),
            (Answers({"FailedEntryCount": 1, "Entries": [{"EventId": "1"}, {"ErrorCode": "MalformedDetail"}]}), b"{}",
             "INVALID_PARAMETER", False),
            (Answers({"Entries": [{"ErrorCode": "InternalFailure", "ErrorMessage": "m"}]}), b"{}",
             "ERROR_FROM_TARGET", True),
            (Answers({"Successful": [], "Failed": [{"Id": "1", "Code": "QueueDoesNotExist", "Message": "m"}]}), b"{}",
             "NO_RESOURCE", False),
        ],
    )  # fmt: skip
    async def test_what_goes_wrong(self, answers: Answers, body: bytes, code: str, retry: bool) -> None:
        outcome = await self.make(answers).deliver(delivery(SENDING, body))
        assert isinstance(outcome, Failed)
        assert (outcome.code, outcome.retry) == (code, retry)
        assert outcome.message


class TestNames:
    @pytest.mark.parametrize(
        ("service", "api", "action"),
        [
            ("sqs", "sendMessage", "sqs:SendMessage"),
            ("sfn", "startExecution", "stepfunctions:StartExecution"),
            ("eventbridge", "putEvents", "events:PutEvents"),
            ("cognitoidentityprovider", "adminDeleteUser", "cognito-idp:AdminDeleteUser"),
            ("rdsdata", "executeStatement", "rds-data:ExecuteStatement"),
            ("rds", "createDbSnapshot", "rds:CreateDBSnapshot"),
            ("cloudwatchlogs", "createLogGroup", "logs:CreateLogGroup"),
        ],
    )
    def test_names_of_the_java_sdk(self, service: str, api: str, action: str) -> None:
        assert action_of(service, api) == action

    @pytest.mark.parametrize(("service", "api"), [("nosuch", "x"), ("sqs", "x"), ("../sqs", "sendMessage"), ("", "")])
    def test_what_there_is_not(self, service: str, api: str) -> None:
        assert action_of(service, api) is None

    def test_every_other_name_is_a_service(self) -> None:
        assert set(ELSEWISE.values()) <= set(Loader().list_available_services("service-2"))

    def test_members_get_the_names_of_the_service(self) -> None:
        arn = parse("arn:aws:scheduler:::aws-sdk:sfn:startExecution")
        row = row_for(arn, {})
        assert row is not None
        assert (row.client, row.method) == ("stepfunctions", "start_execution")
        body = b'{"StateMachineArn":"arn","Input":"{}","Other":1}'
        made = row.arguments(AwsCall(arn, delivery(str(arn), body), "http://e"))
        assert made == {"stateMachineArn": "arn", "input": "{}", "Other": 1}

    def test_deep_members_and_bytes(self) -> None:
        api = find_api(parse("arn:aws:scheduler:::aws-sdk:ecs:runTask"))
        assert api is not None
        body = b'{"TaskDefinition":"t","Overrides":{"ContainerOverrides":[{"Name":"n","Environment":[{"Name":"a"}]}]}}'
        assert api.arguments(body) == {
            "taskDefinition": "t",
            "overrides": {"containerOverrides": [{"name": "n", "environment": [{"name": "a"}]}]},
        }
        lambda_api = find_api(parse("arn:aws:scheduler:::aws-sdk:lambda:invoke"))
        assert lambda_api is not None
        made = lambda_api.arguments('{"FunctionName":"f","Payload":"ü"}'.encode())
        assert made == {"FunctionName": "f", "Payload": "ü".encode()}
        with pytest.raises(ValueError, match="JSON object"):
            lambda_api.arguments(b"[]")

    def test_every_templated_target_names_an_api_that_there_is(self) -> None:
        for service, kind in KINDS.items():
            api = find_api(parse(f"arn:aws:scheduler:::aws-sdk:{kind.api}"))
            assert api is not None, service
        assert api_arn("http://h/") == "http://h/"
        assert api_arn("arn:aws:states:us-east-1:000000000000:stateMachine:m") == (
            "arn:aws:scheduler:::aws-sdk:sfn:startExecution"
        )
        assert api_arn(SENDING) == SENDING


class TestParameterBlocks:
    @pytest.mark.parametrize(
        ("arn", "target", "body", "expected"),
        [
            ("arn:aws:kinesis:us-east-1:000000000000:stream/s", {"KinesisParameters": {"PartitionKey": "k"}}, b"x",
             {"PartitionKey": "k", "Data": b"x"}),
            ("arn:aws:ecs:us-east-1:000000000000:cluster/c",
             {"EcsParameters": {"TaskDefinitionArn": "t", "TaskCount": 2, "Tags": [{"Key": "a", "Value": "b"}]},
              "Input": '{"containerOverrides":[]}'}, b'{"containerOverrides":[]}',
             {"taskDefinition": "t", "count": 2, "startedBy": "chronos-schedule/s",
              "tags": [{"key": "a", "value": "b"}], "overrides": {"containerOverrides": []}}),
            ("arn:aws:sagemaker:us-east-1:000000000000:pipeline/p",
             {"SageMakerPipelineParameters": {"PipelineParameterList": [{"Name": "n", "Value": "v"}]}}, b"{}",
             {"PipelineParameters": [{"Name": "n", "Value": "v"}]}),
            ("arn:aws:states:us-east-1:000000000000:stateMachine:m", {}, b'{"a":1}', {"input": '{"a":1}'}),
        ],
    )  # fmt: skip
    def test_arguments(self, arn: str, target: dict[str, Any], body: bytes, expected: dict[str, Any]) -> None:
        row = row_for(parse(arn), target)
        assert row is not None
        made = row.arguments(AwsCall(parse(arn), delivery(arn, body, **target), "http://e"))
        assert {name: made.get(name) for name in expected} == expected


def test_messages_of_a_delivery_pass_through() -> None:
    message = NewMessage(1, "1" * 36, 0, 0, "b")
    assert ScheduledNow(Plays(Delivered((message,)))).deliver_now(delivery(SENDING)) == Delivered((message,))
