"""What PutTargets accepts: one row per kind of target, and the checks that read it.

A row says which ARNs are of the kind, what becomes of a RoleArn, which of the input members it takes,
which parameter block it cannot do without, and whose account it may be in: what this process holds itself
(queues, log groups) has to belong to the rule's account, always. Demands that only mean something with
AWS around them (a role, the account of a function that a wire replaces) are made in strict mode only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from bus.errors import ApiError, validation
from bus.resources import Rule
from bus.rule_checks import bad_arn, is_role, read_arn
from rules.arn import Arn, is_url, target_kind
from rules.template import TemplateError, check_input, check_path, check_transformer

Target = Mapping[str, Any]
CheckUrl = Callable[[str], str | None]

INPUTS = ("Input", "InputPath", "InputTransformer")
_ALL = frozenset(INPUTS)

# The shape of AWS's region names; the region that the caller works in needs no such shape.
_REGION = re.compile(r"(us|eu|ap|sa|ca|me|af|il|mx|cn)(-(gov|iso[a-z]?))?-[a-z]+-\d{1,2}|eusc-[a-z]+-[a-z]+-\d")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of target. ``resource`` is matched against the whole resource part of the ARN.

    ``account``: whose the target may be; ``any_or_none`` also takes an ARN without an account, as AWS's own
    documents for Run Command have.
    """

    service: str
    resource: re.Pattern[str]
    role: Literal["optional", "required", "refused"] = "optional"
    inputs: frozenset[str] = _ALL
    needs: str | None = None
    account: Literal["own", "own_if_strict", "any", "any_or_none"] = "own_if_strict"


def _kind(service: str, resource: str, **rest: Any) -> Kind:
    return Kind(service, re.compile(resource), **rest)


_NAME = r"[A-Za-z0-9_.\-]+"

KINDS: Sequence[Kind] = (
    _kind("sqs", r"[A-Za-z0-9_\-]{1,80}", account="own"),
    _kind("sqs", r"[A-Za-z0-9_\-]{1,75}\.fifo", account="own", needs="SqsParameters"),
    _kind("sns", rf"{_NAME}"),
    _kind("lambda", r"function:[A-Za-z0-9_\-]+(:[A-Za-z0-9_\-$]+)?"),
    _kind("events", r"event-bus/[/.\-_A-Za-z0-9]+", role="required", inputs=frozenset(), account="any"),
    _kind("events", rf"api-destination/{_NAME}/[A-Za-z0-9\-]+", role="required"),
    _kind("events", r"target/[a-z\-]+", role="required"),
    _kind("logs", r"log-group:[^:*]+(:\*)?", role="refused", inputs=frozenset({"InputTransformer"}), account="own"),
    _kind("kinesis", rf"stream/{_NAME}", role="required"),
    _kind("firehose", rf"deliverystream/{_NAME}", role="required"),
    _kind("ecs", rf"cluster/{_NAME}", role="required", inputs=_ALL - {"InputPath"}, needs="EcsParameters"),
    _kind("states", r"stateMachine:[^\s]+", role="required"),
    _kind("batch", rf"job-queue/{_NAME}", role="required", needs="BatchParameters"),
    _kind("codebuild", rf"project/{_NAME}", role="required"),
    _kind("codepipeline", r"[^\s:]+", role="required"),
    _kind("redshift", r"cluster:[^\s]+", role="required", needs="RedshiftDataParameters"),
    _kind("redshift-serverless", r"workgroup/[^\s]+", role="required", needs="RedshiftDataParameters"),
    _kind("sagemaker", r"pipeline/[^\s]+", role="required"),
    _kind("appsync", r"endpoints/graphql-api/[^\s]+", role="required", needs="AppSyncParameters"),
    _kind("ssm", r"document/[^\s]+", role="required", needs="RunCommandParameters", account="any_or_none"),
    _kind("ssm", r"automation-definition/[^\s]+", role="required"),
    _kind("ssm", r"opsitem", role="required"),
    _kind("ssm-incidents", r"response-plan/[^\s]+", role="required"),
    _kind("execute-api", r"[^\s/]+/[^\s]+", role="required"),
    _kind("glue", r"workflow/[^\s]+", role="required"),
    _kind("inspector", r"target/[^\s]+", role="required"),
)

_WEBHOOK_MEMBERS = frozenset({"Id", "Arn", "RoleArn", *INPUTS, "RetryPolicy", "DeadLetterConfig"})
_ECS_DEFAULTS = {"TaskCount": 1, "EnableECSManagedTags": False, "EnableExecuteCommand": False}
_FOREIGN_DEAD_LETTER = "A dead-letter queue must be in the account and region of the rule."
_QUEUE = re.compile(r"[A-Za-z0-9_\-]{1,80}")


class TargetRules:
    """The checks of PutTargets. ``check_url`` says in a sentence why a URL is refused, or None."""

    def __init__(self, *, strict: bool, check_url: CheckUrl) -> None:
        self._strict = strict
        self._check_url = check_url

    def accept(self, target: Target, rule: Rule) -> dict[str, Any]:
        """The target as it is to be stored with this rule; ValidationException when it is not acceptable."""
        if is_url(target["Arn"]):
            self._check_webhook(target)
        else:
            self._check_resource(target, rule)
        _check_role_form(target)
        _check_inputs(target)
        _check_dead_letter(target, rule)
        return _stored(target)

    def _check_webhook(self, target: Target) -> None:
        reason = self._check_url(target["Arn"])
        if reason is not None:
            raise validation(f"Parameter {target['Arn']} is not valid. Reason: {reason}")
        for member in target:
            if member not in _WEBHOOK_MEMBERS and target[member] is not None:
                raise validation(f"{member} is not supported for target {target['Id']}.")

    def _check_resource(self, target: Target, rule: Rule) -> None:
        arn, kind = _kind_of(target["Arn"], rule)
        self._check_account(arn, kind, rule)
        self._check_role(target, kind)
        if kind.service == "events" and arn.resource.startswith("event-bus/"):
            _check_bus_target(target, rule)
        _check_input_members(target, kind)
        _check_needs(target, kind)

    def _check_account(self, arn: Arn, kind: Kind, rule: Rule) -> None:
        demanded = kind.account == "own" or (kind.account == "own_if_strict" and self._strict)
        if demanded and arn.account != rule.scope.account:
            raise ApiError("AccessDeniedException", "Adding cross-account target is not permitted.")

    def _check_role(self, target: Target, kind: Kind) -> None:
        given = target.get("RoleArn") is not None
        if kind.role == "refused" and given:
            raise validation(f"RoleArn is not supported for target {target['Arn']}.")
        if kind.role == "required" and not given and self._strict:
            raise validation(f"RoleArn is required for target {target['Arn']}.")


def check_target_arn(text: str) -> None:
    """Refuse what is neither an ARN nor the URL of a webhook."""
    if not is_url(text):
        read_arn(text)


def _kind_of(text: str, rule: Rule) -> tuple[Arn, Kind]:
    arn = read_arn(text)
    if target_kind(text) == "archive":
        raise _not_for_users(text)
    if arn.region == rule.scope.region or _REGION.fullmatch(arn.region):
        for kind in KINDS:
            if kind.service == arn.service and kind.resource.fullmatch(arn.resource):
                if not arn.account and kind.account != "any_or_none":
                    break
                return arn, kind
    raise bad_arn(text)


def _not_for_users(text: str) -> ApiError:
    return validation(
        f"Parameter {text} is not valid. Reason: Service as target config for ARN: {text} not found."
        " The API call hasn't been recognized as managed rules call"
    )


def _check_bus_target(target: Target, rule: Rule) -> None:
    if target["Arn"] == rule.bus_arn:
        raise validation("Source EventBus and Target EventBus must not be the same.")
    if any(target.get(member) is not None for member in INPUTS):
        raise validation(f"Modifying the input for target {target['Id']} is not supported.")
    if target.get("RetryPolicy") is not None:
        raise validation("Retry policy is not supported for Event bus targets.")


def _check_input_members(target: Target, kind: Kind) -> None:
    refused = [member for member in INPUTS if member not in kind.inputs and target.get(member) is not None]
    if not refused:
        return
    if kind.inputs == {"InputTransformer"}:
        raise validation(
            f"Input and InputPath are not valid forms of input for target {target['Id']}."
            " The only valid form of input is InputTransformer."
        )
    raise validation(f"{refused[0]} is not a valid form of input for target {target['Id']}.")


def _check_needs(target: Target, kind: Kind) -> None:
    if kind.needs is not None and not target.get(kind.needs):
        raise validation(f"Parameter(s) {kind.needs} must be specified for target: {target['Id']}.")


def _check_role_form(target: Target) -> None:
    role = target.get("RoleArn")
    if role is not None and not is_role(role):
        raise bad_arn(role)


def _check_inputs(target: Target) -> None:
    ident = target["Id"]
    if sum(target.get(member) is not None for member in INPUTS) > 1:
        raise validation(f"Only one of Input, InputPath, or InputTransformer must be provided for target {ident}.")
    try:
        if target.get("Input") is not None:
            check_input(target["Input"], ident)
        if target.get("InputPath") is not None:
            check_path(target["InputPath"], ident)
        if target.get("InputTransformer") is not None:
            transformer = target["InputTransformer"]
            check_transformer(transformer["InputTemplate"], transformer.get("InputPathsMap"), ident)
    except TemplateError as error:
        raise validation(str(error)) from None


def _check_dead_letter(target: Target, rule: Rule) -> None:
    text = (target.get("DeadLetterConfig") or {}).get("Arn")
    if text is None:
        return
    arn = read_arn(text)
    if arn.service != "sqs" or not _QUEUE.fullmatch(arn.resource):
        raise bad_arn(text)
    if (arn.account, arn.region) != rule.scope:
        raise validation(f"Parameter {text} is not valid. Reason: {_FOREIGN_DEAD_LETTER}")


def _stored(target: Target) -> dict[str, Any]:
    """The target without absent members, as ListTargetsByRule shows it: ECS defaults added, HTTP maps in order."""
    stored = {member: value for member, value in target.items() if value is not None}
    if "EcsParameters" in stored:
        given = stored["EcsParameters"]
        stored["EcsParameters"] = given | {k: v for k, v in _ECS_DEFAULTS.items() if k not in given}
    if "HttpParameters" in stored:
        parameters = orjson.dumps(stored["HttpParameters"], option=orjson.OPT_SORT_KEYS)
        stored["HttpParameters"] = orjson.loads(parameters)
    return stored
