"""The AWS call that brings an event to each kind of target: one row per kind.

A row names the botocore service and client method, and builds the method's arguments. A function of the table takes a
`Call` and returns those arguments; it raises ValueError when the input cannot be the service's. Values of the form
``$.path`` in a parameter block are read from the event as it came, not from the transformed input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson

from bus.targets import Delivery, Route
from bus.targets.universal import Api, find_api
from rules.arn import Arn
from rules.paths import read_path

Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """What arguments are made of; ``endpoint`` is the URL of the service."""

    arn: Arn
    delivery: Delivery
    endpoint: str

    @property
    def text(self) -> str:
        return self.delivery.body.decode()

    def block(self, name: str) -> Mapping[str, Any]:
        """A parameter block of the target, its dynamic values filled in."""
        filled: Mapping[str, Any] = fill(self.delivery.route.target.get(name) or {}, self.delivery.event)
        return filled

    def input_object(self) -> Mapping[str, Any]:
        """The object that an input mode made; empty without one, since the event itself is no set of parameters."""
        if not any(self.delivery.route.target.get(mode) is not None for mode in _INPUT_MODES):
            return {}
        value = orjson.loads(self.delivery.body)
        if not isinstance(value, dict):
            raise ValueError("The input of this target must be a JSON object of parameters.")
        return value


_INPUT_MODES = ("Input", "InputPath", "InputTransformer")


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of target: the start of the ARN's resource, the client and its method, and the method's arguments.

    ``member`` narrows the row to targets that have this member of this parameter block.
    """

    resource: str
    client: str
    method: str
    arguments: Callable[[Call], Arguments]
    member: tuple[str, str] | None = None

    def covers(self, arn: Arn, target: Mapping[str, Any]) -> bool:
        """Whether a target is of this kind."""
        if not arn.resource.startswith(self.resource):
            return False
        return self.member is None or bool((target.get(self.member[0]) or {}).get(self.member[1]))


def row_for(arn: Arn, target: Mapping[str, Any]) -> Row | None:
    """The row of a target; None when no AWS service takes events for such an ARN here."""
    if arn.service == "scheduler":
        api = find_api(arn)
        return None if api is None else _universal_row(api)
    return next((row for row in ROWS.get(arn.service, ()) if row.covers(arn, target)), None)


def _universal_row(api: Api) -> Row:
    """The row of a schedule's universal target: the input is the request."""
    return Row("", api.client, api.method, lambda call: api.arguments(call.delivery.body))


def fill(value: Any, event: bytes) -> Any:
    """``value`` with each ``$.path`` replaced by the text it points to; what is no text becomes compact JSON."""
    if isinstance(value, Mapping):
        return {name: fill(member, event) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [fill(member, event) for member in value]
    if isinstance(value, str) and (value == "$" or value.startswith(("$.", "$["))):
        found = read_path(value, event)
        return found if isinstance(found, str) else "" if found is None else orjson.dumps(found).decode()
    return value


# --- arguments -------------------------------------------------------------------------------------------------------


def _lambda(call: Call) -> Arguments:
    return {"FunctionName": str(call.arn), "InvocationType": "Event", "Payload": call.delivery.body}


def _sns(call: Call) -> Arguments:
    return {"TopicArn": str(call.arn), "Message": call.text}


def _sqs(call: Call) -> Arguments:
    arguments: Arguments = {
        "QueueUrl": f"{call.endpoint.rstrip('/')}/{call.arn.account}/{call.arn.resource}",
        "MessageBody": call.text,
    }
    parameters = call.delivery.route.target.get("SqsParameters") or {}
    if "MessageGroupId" in parameters:
        arguments["MessageGroupId"] = parameters["MessageGroupId"]
    if call.delivery.trace is not None:
        arguments["MessageSystemAttributes"] = {
            "AWSTraceHeader": {"DataType": "String", "StringValue": call.delivery.trace}
        }
    return arguments


def _states(call: Call) -> Arguments:
    arguments = {"stateMachineArn": str(call.arn), "input": call.text}
    return arguments if call.delivery.trace is None else {**arguments, "traceHeader": call.delivery.trace}


def _kinesis(call: Call) -> Arguments:
    return {"StreamARN": str(call.arn), "Data": call.delivery.body, "PartitionKey": partition_key(call.delivery)}


def partition_key(delivery: Delivery) -> str:
    """Compact JSON of the value at PartitionKeyPath in the original event; without a path, a key of its own."""
    parameters = delivery.route.target.get("KinesisParameters") or {}
    if "PartitionKey" in parameters:  # a schedule's
        return str(parameters["PartitionKey"])
    path = parameters.get("PartitionKeyPath")
    if path is None:
        return f"{delivery.event_id}_{uuid4()}"
    value = read_path(path, delivery.event)
    return "{}" if value is None else orjson.dumps(value).decode()


def _firehose(call: Call) -> Arguments:
    return {"DeliveryStreamName": _after("/", call.arn), "Record": {"Data": call.delivery.body}}


def _ecs(call: Call) -> Arguments:
    parameters = dict(call.block("EcsParameters"))
    arguments = {
        "cluster": str(call.arn),
        "taskDefinition": parameters.pop("TaskDefinitionArn", ""),
        "count": parameters.pop("TaskCount", 1),
        "startedBy": _started_by(call.delivery.route),
        **lower_names(parameters),
    }
    overrides = call.input_object()
    return {**arguments, "overrides": overrides} if overrides else arguments


def _started_by(route: Route) -> str:
    return f"events-rule/{route.rule}" if route.bus else f"chronos-schedule/{route.rule.rpartition('/')[2]}"


def _batch(call: Call) -> Arguments:
    parameters = call.block("BatchParameters")
    made = call.input_object()
    arguments: Arguments = {
        "jobQueue": str(call.arn),
        "jobName": parameters.get("JobName", ""),
        "jobDefinition": parameters.get("JobDefinition", ""),
    }
    for name in ("ArrayProperties", "RetryStrategy"):
        if name in parameters:
            arguments |= lower_names({name: parameters[name]})
    if "Parameters" in made:
        arguments["parameters"] = made["Parameters"]
    if "ContainerOverrides" in made:
        arguments |= lower_names({"ContainerOverrides": made["ContainerOverrides"]})
    return arguments


def _codebuild(call: Call) -> Arguments:
    return {**call.input_object(), "projectName": _after("/", call.arn)}


def _codepipeline(call: Call) -> Arguments:
    return {**call.input_object(), "name": call.arn.resource}


def _run_command(call: Call) -> Arguments:
    arguments: Arguments = {
        "DocumentName": _after("/", call.arn),
        "Targets": list(call.block("RunCommandParameters").get("RunCommandTargets", [])),
    }
    made = call.input_object()
    return {**arguments, "Parameters": made} if made else arguments


def _automation(call: Call) -> Arguments:
    name, _, version = _after("/", call.arn).partition(":")
    arguments: Arguments = {"DocumentName": name}
    if version:
        arguments["DocumentVersion"] = version
    made = call.input_object()
    return {**arguments, "Parameters": made} if made else arguments


def _redshift_cluster(call: Call) -> Arguments:
    return {**_statement(call), "ClusterIdentifier": _after(":", call.arn)}


def _redshift_workgroup(call: Call) -> Arguments:
    return {**_statement(call), "WorkgroupName": str(call.arn)}


def _statement(call: Call) -> Arguments:
    parameters = dict(call.block("RedshiftDataParameters"))
    if "SecretManagerArn" in parameters:
        parameters["SecretArn"] = parameters.pop("SecretManagerArn")
    return parameters


def _redshift_rows(resource: str, arguments: Callable[[Call], Arguments]) -> tuple[Row, ...]:
    several = ("RedshiftDataParameters", "Sqls")
    return (
        Row(resource, "redshift-data", "batch_execute_statement", arguments, several),
        Row(resource, "redshift-data", "execute_statement", arguments),
    )


def _sagemaker(call: Call) -> Arguments:
    arguments: Arguments = {"PipelineName": str(call.arn)}
    parameters = call.block("SageMakerPipelineParameters").get("PipelineParameterList")
    return {**arguments, "PipelineParameters": parameters} if parameters else arguments


def _inspector(call: Call) -> Arguments:
    return {"assessmentTemplateArn": str(call.arn)}


def _after(separator: str, arn: Arn) -> str:
    return arn.resource.partition(separator)[2]


def lower_names(value: Any) -> Any:
    """The names of all members with a small first letter, as the services write what EventBridge writes large."""
    if isinstance(value, Mapping):
        return {name[:1].lower() + name[1:]: lower_names(member) for name, member in value.items()}
    return [lower_names(member) for member in value] if isinstance(value, list | tuple) else value


ROWS: Mapping[str, tuple[Row, ...]] = {
    "lambda": (Row("function:", "lambda", "invoke", _lambda),),
    "sns": (Row("", "sns", "publish", _sns),),
    "sqs": (Row("", "sqs", "send_message", _sqs),),
    "states": (Row("stateMachine:", "stepfunctions", "start_execution", _states),),
    "kinesis": (Row("stream/", "kinesis", "put_record", _kinesis),),
    "firehose": (Row("deliverystream/", "firehose", "put_record", _firehose),),
    "ecs": (Row("cluster/", "ecs", "run_task", _ecs),),
    "batch": (Row("job-queue/", "batch", "submit_job", _batch),),
    "codebuild": (Row("project/", "codebuild", "start_build", _codebuild),),
    "codepipeline": (Row("", "codepipeline", "start_pipeline_execution", _codepipeline),),
    "ssm": (
        Row("document/", "ssm", "send_command", _run_command),
        Row("automation-definition/", "ssm", "start_automation_execution", _automation),
    ),
    "redshift": _redshift_rows("cluster:", _redshift_cluster),
    "redshift-serverless": _redshift_rows("workgroup/", _redshift_workgroup),
    "sagemaker": (Row("pipeline/", "sagemaker", "start_pipeline_execution", _sagemaker),),
    "inspector": (Row("target/", "inspector", "start_assessment_run", _inspector),),
}
"""The services whose ARNs can be targets, by the ARN's service."""
