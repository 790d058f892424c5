"""AWS services: the call each kind of ARN becomes, and what each way of answering comes to."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import botocore.session
import pytest
from botocore import exceptions as aws_errors
from botocore.validate import ParamValidator

from bus.config import Settings
from bus.scope import Scope
from bus.targets import Delivered, Delivery, Failed, Outcome, Route
from bus.targets.aws import THREADS, THREADS_PER_PLACE, AwsService, classify, failure
from bus.targets.aws_calls import ROWS, Call, lower_names, partition_key, row_for
from rules.arn import parse
from tests.waiting import DEADLINE_S, eventually

ACCOUNT = "123456789012"
EVENT = (
    b'{"id":"id-1","time":"2026-01-02T03:04:05Z","detail":{"text":"a","number":4,"empty":"","none":null,'
    b'"object":{"x":[1, 2]},"cluster":"blue"}}'
)
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793"


def delivery(arn: str, *, body: bytes = b'{"key":"value"}', trace: str | None = TRACE, **members: Any) -> Delivery:
    target = {"Id": "t", "Arn": arn, **members}
    route = Route(1, Scope(ACCOUNT, "us-east-1"), "default", "orders", "arn:rule", target)
    return Delivery(route, "id-1", body, EVENT, 1, 0, trace)


def arn(service: str, resource: str, region: str = "us-east-1") -> str:
    return f"arn:aws:{service}:{region}:{ACCOUNT}:{resource}"


INPUT = {"Input": "x"}
ECS = {"TaskDefinitionArn": "arn:task", "LaunchType": "FARGATE", "PlatformVersion": "$.detail.text"}
NETWORK = {"awsvpcConfiguration": {"Subnets": ["$.detail.cluster"], "AssignPublicIp": "ENABLED"}}
REDSHIFT = {"Database": "dev", "Sql": "select 1", "SecretManagerArn": "arn:secret", "WithEvent": True}

CALLS: dict[str, tuple[Delivery, str, dict[str, Any]]] = {
    "lambda": (
        delivery(arn("lambda", "function:orders:live")),
        "lambda.invoke",
        {
            "FunctionName": arn("lambda", "function:orders:live"),
            "InvocationType": "Event",
            "Payload": b'{"key":"value"}',
        },
    ),
    "sns": (
        delivery(arn("sns", "topic"), body='"Žofie"'.encode()),
        "sns.publish",
        {"TopicArn": arn("sns", "topic"), "Message": '"Žofie"'},
    ),
    "sqs": (
        delivery(arn("sqs", "q.fifo"), SqsParameters={"MessageGroupId": "$.not.a.path"}),
        "sqs.send_message",
        {
            "QueueUrl": f"http://endpoint/{ACCOUNT}/q.fifo",
            "MessageBody": '{"key":"value"}',
            "MessageGroupId": "$.not.a.path",
            "MessageSystemAttributes": {"AWSTraceHeader": {"DataType": "String", "StringValue": TRACE}},
        },
    ),
    "states": (
        delivery(arn("states", "stateMachine:flow")),
        "stepfunctions.start_execution",
        {"stateMachineArn": arn("states", "stateMachine:flow"), "input": '{"key":"value"}', "traceHeader": TRACE},
    ),
    "kinesis": (
        delivery(arn("kinesis", "stream/s"), KinesisParameters={"PartitionKeyPath": "$.detail.text"}),
        "kinesis.put_record",
        {"StreamARN": arn("kinesis", "stream/s"), "Data": b'{"key":"value"}', "PartitionKey": '"a"'},
    ),
    "firehose": (
        delivery(arn("firehose", "deliverystream/s")),
        "firehose.put_record",
        {"DeliveryStreamName": "s", "Record": {"Data": b'{"key":"value"}'}},
    ),
    "ecs": (
        delivery(arn("ecs", "cluster/c"), EcsParameters=ECS | {"TaskCount": 2, "NetworkConfiguration": NETWORK}),
        "ecs.run_task",
        {
            "cluster": arn("ecs", "cluster/c"),
            "taskDefinition": "arn:task",
            "count": 2,
            "startedBy": "events-rule/orders",
            "launchType": "FARGATE",
            "platformVersion": "a",
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["blue"], "assignPublicIp": "ENABLED"}},
        },
    ),
    "ecs-overrides": (
        delivery(arn("ecs", "cluster/c"), body=b'{"cpu":"1024"}', EcsParameters={"TaskDefinitionArn": "d"}, **INPUT),
        "ecs.run_task",
        {
            "cluster": arn("ecs", "cluster/c"),
            "taskDefinition": "d",
            "count": 1,
            "startedBy": "events-rule/orders",
            "overrides": {"cpu": "1024"},
        },
    ),
    "batch": (
        delivery(
            arn("batch", "job-queue/q"),
            body=b'{"Parameters":{"Key":"v"},"ContainerOverrides":{"Command":["ls"]}}',
            BatchParameters={"JobName": "n", "JobDefinition": "d", "RetryStrategy": {"Attempts": 2}},
            **INPUT,
        ),
        "batch.submit_job",
        {
            "jobQueue": arn("batch", "job-queue/q"),
            "jobName": "n",
            "jobDefinition": "d",
            "retryStrategy": {"attempts": 2},
            "parameters": {"Key": "v"},
            "containerOverrides": {"command": ["ls"]},
        },
    ),
    "codebuild": (
        delivery(arn("codebuild", "project/p"), body=b'{"sourceVersion":"main"}', **INPUT),
        "codebuild.start_build",
        {"projectName": "p", "sourceVersion": "main"},
    ),
    "codepipeline": (delivery(arn("codepipeline", "p")), "codepipeline.start_pipeline_execution", {"name": "p"}),
    "run-command": (
        delivery(
            "arn:aws:ssm:us-east-1::document/AWS-RunShellScript",
            body=b'{"commands":["ls"]}',
            RunCommandParameters={"RunCommandTargets": [{"Key": "tag:env", "Values": ["test"]}]},
            **INPUT,
        ),
        "ssm.send_command",
        {
            "DocumentName": "AWS-RunShellScript",
            "Targets": [{"Key": "tag:env", "Values": ["test"]}],
            "Parameters": {"commands": ["ls"]},
        },
    ),
    "automation": (
        delivery(arn("ssm", "automation-definition/Doc:3")),
        "ssm.start_automation_execution",
        {"DocumentName": "Doc", "DocumentVersion": "3"},
    ),
    "redshift": (
        delivery(arn("redshift", "cluster:c"), RedshiftDataParameters=REDSHIFT),
        "redshift-data.execute_statement",
        {
            "Database": "dev",
            "Sql": "select 1",
            "SecretArn": "arn:secret",
            "WithEvent": True,
            "ClusterIdentifier": "c",
        },
    ),
    "redshift-many": (
        delivery(
            arn("redshift-serverless", "workgroup/w"), RedshiftDataParameters={"Database": "dev", "Sqls": ["a", "b"]}
        ),
        "redshift-data.batch_execute_statement",
        {"Database": "dev", "Sqls": ["a", "b"], "WorkgroupName": arn("redshift-serverless", "workgroup/w")},
    ),
    "sagemaker": (
        delivery(
            arn("sagemaker", "pipeline/p"),
            SageMakerPipelineParameters={"PipelineParameterList": [{"Name": "n", "Value": "$.detail.object"}]},
        ),
        "sagemaker.start_pipeline_execution",
        {"PipelineName": arn("sagemaker", "pipeline/p"), "PipelineParameters": [{"Name": "n", "Value": '{"x":[1,2]}'}]},
    ),
    "inspector": (
        delivery(arn("inspector", "target/0-a/template/0-b")),
        "inspector.start_assessment_run",
        {"assessmentTemplateArn": arn("inspector", "target/0-a/template/0-b")},
    ),
}

_SESSION = botocore.session.get_session()


@pytest.mark.parametrize("name", CALLS)
def test_the_call_of_each_kind_of_target(name: str) -> None:
    sent, operation, arguments = CALLS[name]
    target_arn = parse(sent.route.arn)
    row = row_for(target_arn, sent.route.target)
    assert row is not None
    assert f"{row.client}.{row.method}" == operation
    made = row.arguments(Call(target_arn, sent, "http://endpoint/"))
    assert made == arguments
    model = _SESSION.get_service_model(row.client)
    wanted = "".join(part.capitalize() for part in row.method.split("_"))
    made |= {"ClientRequestToken": "x" * 32} if row.client == "sagemaker" else {}
    report = ParamValidator().validate(made, model.operation_model(wanted).input_shape)
    assert not report.has_errors(), report.generate_report()


def test_every_row_has_a_call() -> None:
    covered = {row_for(parse(sent.route.arn), sent.route.target) for sent, _, _ in CALLS.values()}
    rows = {row for rows in ROWS.values() for row in rows}
    spoken_for = {(row.client, row.method) for row in covered if row is not None}
    assert {(row.client, row.method) for row in rows} == spoken_for


@pytest.mark.parametrize("name", ["codebuild", "codepipeline", "run-command", "automation", "ecs-overrides", "batch"])
def test_without_an_input_mode_nothing_of_the_event_is_passed(name: str) -> None:
    sent, _, _ = CALLS[name]
    members = {key: value for key, value in sent.route.target.items() if key != "Input"}
    plain = delivery(sent.route.arn, body=EVENT, **{key: members[key] for key in members if key not in ("Id", "Arn")})
    row = row_for(parse(plain.route.arn), plain.route.target)
    assert row is not None
    assert "id-1" not in str(row.arguments(Call(parse(plain.route.arn), plain, "http://endpoint")))


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("$.detail.text", '"a"'),
        ("$.detail.number", "4"),
        ("$.detail.empty", '""'),
        ("$.detail.none", "{}"),
        ("$.detail.missing", "{}"),
        ("$.detail.object", '{"x":[1,2]}'),
    ],
)
def test_the_partition_key_is_read_from_the_event(path: str, key: str) -> None:
    assert partition_key(delivery(arn("kinesis", "stream/s"), KinesisParameters={"PartitionKeyPath": path})) == key


def test_without_a_path_every_record_has_a_partition_key_of_its_own() -> None:
    keys = {partition_key(delivery(arn("kinesis", "stream/s"))) for _ in range(3)}
    assert len(keys) == 3
    assert all(key.startswith("id-1_") and len(key) == 41 for key in keys)


def test_names_lose_their_large_letter_and_values_do_not() -> None:
    assert lower_names({"Tags": [{"Key": "A", "Value": "B"}], "EnableECSManagedTags": True}) == {
        "tags": [{"key": "A", "value": "B"}],
        "enableECSManagedTags": True,
    }


# --- against a service -----------------------------------------------------------------------------------------------


@dataclass
class Service:
    """An AWS endpoint that answers every request with one text."""

    answer: bytes | None
    port: int = 0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                line, *pairs = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip("\r\n").split("\r\n")
                headers = {name.lower(): value for name, value in (pair.split(": ", 1) for pair in pairs)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append((line, headers, body))
                if self.answer is None:
                    await reader.read()
                    return
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def http(status: int, body: str = "{}", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body.encode())}", *headers, "", body]
    return "\r\n".join(lines).encode()


@asynccontextmanager
async def serving(answer: bytes | None) -> AsyncIterator[Service]:
    service = Service(answer)
    server = await asyncio.start_server(service.connection, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    yield service
    server.close()


async def call(service: Service, sent: Delivery, seconds: float = 10) -> Outcome:
    target = AwsService(Settings(aws_endpoint_url=f"http://127.0.0.1:{service.port}"), timeout=seconds)
    try:
        return await target.deliver(sent)
    finally:
        await target.close()


FUNCTION = arn("lambda", "function:orders")


async def test_lambda_receives_the_body_and_the_trace_signed_by_the_account() -> None:
    async with serving(http(202, "")) as service:
        assert await call(service, delivery(FUNCTION)) == Delivered()
    ((line, headers, body),) = service.requests
    assert line.startswith("POST /2015-03-31/functions/arn%3Aaws%3Alambda")
    assert headers["x-amz-invocation-type"] == "Event"
    assert headers["x-amzn-trace-id"] == TRACE
    assert f"Credential={ACCOUNT}/" in headers["authorization"]
    assert "/us-east-1/lambda/" in headers["authorization"]
    assert body == b'{"key":"value"}'


async def test_credentials_of_this_machine_do_not_go_to_a_named_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDREAL")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    async with serving(http(202, "")) as service:
        await call(service, delivery(FUNCTION))
    assert "AKIDREAL" not in str(service.requests)
    assert "x-amz-security-token" not in service.requests[0][1]


async def test_sns_receives_the_message() -> None:
    answer = "<PublishResponse><PublishResult><MessageId>m</MessageId></PublishResult></PublishResponse>"
    async with serving(http(200, answer)) as service:
        assert await call(service, delivery(arn("sns", "topic", "eu-west-1"))) == Delivered()
    ((_, headers, body),) = service.requests
    form = parse_qs(body.decode())
    assert form["Message"] == ['{"key":"value"}']
    assert form["TopicArn"] == [arn("sns", "topic", "eu-west-1")]
    assert "/eu-west-1/sns/" in headers["authorization"]


async def test_step_functions_receives_the_input() -> None:
    async with serving(http(200, '{"executionArn":"arn:x","startDate":1}')) as service:
        assert await call(service, delivery(arn("states", "stateMachine:flow"))) == Delivered()
    ((_, headers, body),) = service.requests
    assert headers["x-amz-target"] == "AWSStepFunctions.StartExecution"
    assert json.loads(body)["input"] == '{"key":"value"}'


async def test_a_firehose_stream_is_looked_for_in_the_region_of_the_rule() -> None:
    async with serving(http(200, '{"RecordId":"r"}')) as service:
        sent = delivery(arn("firehose", "deliverystream/s", "eu-west-1"))
        assert await call(service, sent) == Delivered()
    assert "/us-east-1/firehose/" in service.requests[0][1]["authorization"]


@pytest.mark.parametrize(
    ("status", "error", "code", "retry"),
    [
        (429, "TooManyRequestsException", "THROTTLING", True),
        (400, "ThrottlingException", "THROTTLING", True),
        (500, "ServiceException", "ERROR_FROM_TARGET", True),
        (503, "", "ERROR_FROM_TARGET", True),
        (403, "AccessDeniedException", "NO_PERMISSIONS", False),
        (403, "ExpiredTokenException", "TRANSIENT_ASSUME_ROLE", True),
        (404, "ResourceNotFoundException", "NO_RESOURCE", False),
        (400, "InvalidParameterValueException", "INVALID_PARAMETER", False),
        (413, "RequestTooLargeException", "INVALID_PARAMETER", False),
    ],
)
async def test_what_a_service_answers(status: int, error: str, code: str, retry: bool) -> None:
    body = json.dumps({"message": "the reason"})
    async with serving(http(status, body, f"x-amzn-ErrorType: {error}")) as service:
        outcome = await call(service, delivery(FUNCTION))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == (code, retry)
    assert "the reason" in outcome.message
    assert len(service.requests) == 1


async def test_a_service_that_never_answers() -> None:
    async with serving(None) as service:
        outcome = await call(service, delivery(FUNCTION), seconds=0.2)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("TIMEOUT", True)
    assert len(service.requests) == 1


async def test_garbage_is_tried_again() -> None:
    async with serving(b"SSH-2.0-OpenSSH_9.6\r\n\r\n") as service:
        outcome = await call(service, delivery(FUNCTION), seconds=1)
    assert isinstance(outcome, Failed)
    assert outcome.retry
    async with serving(http(200, "not XML")) as service:
        outcome = await call(service, delivery(arn("sns", "topic")), seconds=1)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("ERROR_FROM_TARGET", True)


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        outcome = await call(Service(None, port=taken.getsockname()[1]), delivery(FUNCTION))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("CONNECTION_FAILURE", True)


async def test_without_a_wire_or_an_endpoint_the_failure_says_what_to_do() -> None:
    target = AwsService(Settings())
    outcome = await target.deliver(delivery(FUNCTION))
    await target.close()
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("NO_RESOURCE", False)
    assert f"busbar wire '{FUNCTION}' http://127.0.0.1:" in outcome.message
    assert "--aws-endpoint-url" in outcome.message


@pytest.mark.parametrize(
    "unknown", [arn("s3", "bucket"), arn("lambda", "layer:x"), arn("appsync", "endpoints/graphql-api/x")]
)
async def test_a_service_the_bus_cannot_call_is_final(unknown: str) -> None:
    async with serving(http(200)) as service:
        outcome = await call(service, delivery(unknown))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("INVALID_PARAMETER", False)
    assert "busbar wire" in outcome.message
    assert service.requests == []


@pytest.mark.parametrize(
    "sent",
    [
        delivery(arn("sns", "topic"), body=b"\xff"),
        delivery(arn("codebuild", "project/p"), body=b"[1]", **INPUT),
        delivery(arn("codebuild", "project/p"), body=b"not json", **INPUT),
        delivery(arn("codebuild", "project/p"), body=b'{"noSuchParameter":1}', **INPUT),
        delivery(arn("kinesis", "stream/s"), KinesisParameters={"PartitionKeyPath": "no path"}),
        delivery(arn("batch", "job-queue/q"), BatchParameters={"JobName": ["$.detail"]}),
    ],
    ids=["not-utf-8", "not-an-object", "not-json", "unknown-parameter", "bad-path", "wrong-type"],
)
async def test_an_input_that_does_not_suit_the_service_is_final(sent: Delivery) -> None:
    async with serving(http(200)) as service:
        outcome = await call(service, sent)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retry) == ("INVALID_PARAMETER", False)
    assert "\n" not in outcome.message
    assert service.requests == []


async def test_a_wrong_argument_is_named_and_its_value_is_not() -> None:
    secrets = (
        delivery(arn("codebuild", "project/p"), body=b'{"sourceVersion":{"card":"4111"}}', **INPUT),
        delivery(arn("codebuild", "project/p"), body=b'{"sourceVersion":["x\\nInvalid type for 4111"]}', **INPUT),
    )
    async with serving(http(200)) as service:
        for sent in secrets:
            outcome = await call(service, sent)
            assert isinstance(outcome, Failed)
            assert outcome.message == "Parameter validation failed: Invalid type for parameter sourceVersion."
        unknown = await call(service, delivery(arn("codebuild", "project/p"), body=b'{"noSuch":4111}', **INPUT))
    assert isinstance(unknown, Failed)
    assert unknown.message == 'Parameter validation failed: Unknown parameter in input: "noSuch".'


async def test_a_place_that_hangs_leaves_threads_to_others() -> None:
    other = delivery(arn("sns", "topic", "eu-west-1"))
    held = asyncio.Event()
    hanging = 0

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hanging
        head = await reader.readuntil(b"\r\n\r\n")
        if b"eu-west-1" in head:
            writer.write(http(200, "<PublishResponse><PublishResult/></PublishResponse>"))
        else:
            hanging += 1
            await held.wait()
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    target = AwsService(Settings(aws_endpoint_url=f"http://127.0.0.1:{port}"), timeout=DEADLINE_S)
    stuck = [asyncio.create_task(target.deliver(delivery(FUNCTION))) for _ in range(2 * THREADS)]
    await eventually(lambda: hanging == THREADS_PER_PLACE, "as many calls as a place may have")
    assert await target.deliver(other) == Delivered()
    assert hanging == THREADS_PER_PLACE
    for task in stuck:
        task.cancel()
    held.set()
    await asyncio.gather(*stuck, return_exceptions=True)
    await target.close()
    server.close()


def test_calls_that_no_service_answered() -> None:
    assert failure(aws_errors.NoCredentialsError()).code == "NO_PERMISSIONS"
    assert not failure(aws_errors.NoRegionError()).retry
    unforeseen = failure(aws_errors.ChecksumError(checksum_type="a", expected_checksum="b", actual_checksum="c"))
    assert (unforeseen.code, unforeseen.retry) == ("INTERNAL_ERROR", True)
    assert classify("NeverSeen", 0) == ("INVALID_PARAMETER", False)
