"""What CreateSchedule accepts as a target: one row per service whose resources can be one, and the checks that read it.

Besides these templated targets there are universal ones, ``arn:aws:scheduler:::aws-sdk:SERVICE:API``, whose Input is
the request of any API that changes something, and, busbar's own, the URLs of webhooks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bus.errors import ApiError, validation
from bus.scope import Scope
from rules.arn import Arn, ArnError, is_url, parse

Target = Mapping[str, Any]
CheckUrl = Callable[[str], str | None]
ActionOf = Callable[[str, str], str | None]
"""The IAM action of an API, by the names that SDKs have for service and API; None when there is no such API."""

LONGEST_INPUT = 262_144
"""Bytes of Input, as AWS documents."""

RETRY_DEFAULTS = {"MaximumEventAgeInSeconds": 86_400, "MaximumRetryAttempts": 185}
BLOCKS = (
    "EcsParameters",
    "EventBridgeParameters",
    "EventBridgePutEventsV2Parameters",
    "EventBridgePutRawEventsParameters",
    "KinesisParameters",
    "SageMakerPipelineParameters",
    "SqsParameters",
)
_ALWAYS = ("Arn", "RoleArn", "Input", "RetryPolicy", "DeadLetterConfig")
_UNIVERSAL = re.compile(r"aws-sdk:([a-z0-9]+):([A-Za-z0-9]+)")
_READING = re.compile(
    r"(get|describe|list|poll|receive|search|scan|query|select|read|lookup|discover|validate|batchGet|batchDescribe"
    r"|batchRead|transactGet|adminGet|adminList|testMigration|retrieve|testConnection|translateDocument|isAuthorized"
    r"|invokeModel)([A-Z]|$)"
)
"""How the names of APIs begin that EventBridge Scheduler does not call, since nothing is done with an answer."""

_NAME = r"[A-Za-z0-9_.\-]+"


@dataclass(frozen=True, slots=True)
class Kind:
    """A service with templated targets: the form of its resources, the API that is called on them (as SDKs name it),
    its parameter block and whether it cannot do without, and whether Input has to be JSON."""

    resource: re.Pattern[str]
    api: str
    block: str | None = None
    needed: bool = False
    json: bool = False


KINDS: Mapping[str, Kind] = {
    "codebuild": Kind(re.compile(rf"project/{_NAME}"), "codebuild:startBuild"),
    "codepipeline": Kind(re.compile(r"[^\s:]+"), "codepipeline:startPipelineExecution"),
    "ecs": Kind(re.compile(rf"cluster/{_NAME}"), "ecs:runTask", "EcsParameters", needed=True),
    "events": Kind(
        re.compile(r"event-bus/[/.\-_A-Za-z0-9]+"), "eventbridge:putEvents", "EventBridgeParameters", needed=True,
        json=True,
    ),
    "firehose": Kind(re.compile(rf"deliverystream/{_NAME}"), "firehose:putRecord"),
    "inspector": Kind(re.compile(r"target/\S+"), "inspector:startAssessmentRun"),
    "kinesis": Kind(re.compile(rf"stream/{_NAME}"), "kinesis:putRecord", "KinesisParameters", needed=True),
    "lambda": Kind(re.compile(r"function:[A-Za-z0-9_\-]+(:[A-Za-z0-9_\-$]+)?"), "lambda:invoke", json=True),
    "sagemaker": Kind(
        re.compile(r"pipeline/\S+"), "sagemaker:startPipelineExecution", "SageMakerPipelineParameters"
    ),
    "sns": Kind(re.compile(_NAME), "sns:publish"),
    "sqs": Kind(re.compile(r"[A-Za-z0-9_\-]{1,75}\.fifo|[A-Za-z0-9_\-]{1,80}"), "sqs:sendMessage", "SqsParameters"),
    "states": Kind(re.compile(r"stateMachine:\S+"), "sfn:startExecution", json=True),
}  # fmt: skip


def api_arn(target_arn: str) -> str:
    """A target as dead letters name it: the API that is called on it; the URL of a webhook stays as it is."""
    if is_url(target_arn):
        return target_arn
    kind = KINDS.get(parse(target_arn).service)
    return target_arn if kind is None else f"arn:aws:scheduler:::aws-sdk:{kind.api}"


def universal_api(arn: Arn) -> tuple[str, str] | None:
    """The service and API, as SDKs name them, of a universal target; None for any other."""
    found = _UNIVERSAL.fullmatch(arn.resource) if arn.service == "scheduler" else None
    return None if found is None or arn.region or arn.account else (found[1], found[2][:1].lower() + found[2][1:])


class TargetChecks:
    """The checks of a schedule's target. ``check_url`` says in a sentence why a URL is refused, or None."""

    def __init__(self, *, check_url: CheckUrl, action_of: ActionOf) -> None:
        self._check_url = check_url
        self._action_of = action_of

    def accept(self, target: Target, scope: Scope) -> dict[str, Any]:
        """The target as it is to be stored, retry policy filled in; ValidationException when it is not acceptable."""
        text = target["Arn"]
        if is_url(text):
            self._check_webhook(target)
        else:
            self._check_resource(target, _read_arn(text), scope)
        _check_dead_letter(target, scope)
        if len(target.get("Input") or "") > LONGEST_INPUT // 4 and len(_bytes(target["Input"])) > LONGEST_INPUT:
            raise validation(f"The Input of a target can have at most {LONGEST_INPUT} bytes.")
        return _stored(target)

    def action(self, target: Target) -> str | None:
        """The IAM action that an accepted universal target stands for; None for any other target."""
        api = None if is_url(target["Arn"]) else universal_api(parse(target["Arn"]))
        return None if api is None else self._action_of(*api)

    def _check_webhook(self, target: Target) -> None:
        reason = self._check_url(target["Arn"])
        if reason is not None:
            raise validation(f"Parameter {target['Arn']} is not valid. Reason: {reason}")
        _check_blocks(target, None)

    def _check_resource(self, target: Target, arn: Arn, scope: Scope) -> None:
        api = universal_api(arn)
        if api is not None:
            self._check_universal(target, *api)
            return
        kind = KINDS.get(arn.service)
        if kind is None:
            raise validation(f"{arn.service} is not a supported service for a target.")
        if not kind.resource.fullmatch(arn.resource) or not arn.account:
            raise _bad_arn()
        if arn.region != scope.region:
            raise validation(f"The target ARN provided does not match the current region {scope.region}.")
        if arn.account != scope.account and arn.service in ("sqs", "events"):
            raise validation("Adding cross-account target is not permitted.")
        _check_blocks(target, kind.block)
        _check_needed(target, kind, arn)
        _check_particulars(target, arn)
        if kind.json and target.get("Input") is not None:
            _parse_input(target["Input"])

    def _check_universal(self, target: Target, service: str, api: str) -> None:
        if _READING.match(api):
            raise validation(f"{api} API is not supported.")
        if self._action_of(service, api) is None:
            raise validation(f"{service} is not a supported service for a target, or has no API {api}.")
        _check_blocks(target, None)
        if target.get("Input") is None:
            raise validation("You must provide an input to set this target for your schedule.")
        if not isinstance(_parse_input(target["Input"]), dict):
            raise validation("The Input of a universal target must be the JSON object of the API's request.")


def _read_arn(text: str) -> Arn:
    try:
        return parse(text)
    except ArnError:
        raise _bad_arn() from None


def _bad_arn() -> ApiError:
    return validation("Provided Arn is not in correct format.")


def _check_blocks(target: Target, own: str | None) -> None:
    for block in BLOCKS:
        if block != own and target.get(block) is not None:
            raise validation(f"Parameters {block} not supported for the target.")


def _check_needed(target: Target, kind: Kind, arn: Arn) -> None:
    needed = kind.needed or arn.resource.endswith(".fifo")
    if needed and kind.block is not None and target.get(kind.block) is None:
        raise validation(f"Parameters {kind.block} must be specified.")


def _check_particulars(target: Target, arn: Arn) -> None:
    """What one service demands of its block."""
    group = (target.get("SqsParameters") or {}).get("MessageGroupId")
    if arn.service == "sqs" and arn.resource.endswith(".fifo") and group is None:
        raise validation("Parameters MessageGroupId must be specified.")
    if arn.service == "sqs" and not arn.resource.endswith(".fifo") and group is not None:
        raise validation("Parameters MessageGroupId not valid for the target.")
    tasks = target.get("EcsParameters") or {}
    if tasks.get("LaunchType") == "FARGATE" and tasks.get("NetworkConfiguration") is None:
        raise validation("Parameter NetworkConfiguration must be specified for the target when launch type is FARGATE.")


def _parse_input(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        raise validation("JSON syntax error in input for the target.") from None


def _check_dead_letter(target: Target, scope: Scope) -> None:
    text = (target.get("DeadLetterConfig") or {}).get("Arn")
    if text is None:
        return
    arn = _read_arn(text)
    if (arn.account, arn.region) != scope:
        raise validation("A dead-letter queue must be in the account and region of the schedule.")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _stored(target: Target) -> dict[str, Any]:
    stored = {name: target[name] for name in (*_ALWAYS, *BLOCKS) if target.get(name) is not None}
    given = {name: value for name, value in (target.get("RetryPolicy") or {}).items() if value is not None}
    return stored | {"RetryPolicy": RETRY_DEFAULTS | given}
