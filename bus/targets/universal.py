"""Universal targets of schedules: ``arn:aws:scheduler:::aws-sdk:SERVICE:API``, any API that an AWS SDK can call.

SERVICE and API are written as in the Java SDK (``sfn``, ``startExecution``), and the members of the request with a
capital letter throughout. botocore has other names for some services, and for the members whatever the service's own
protocol has; its service models say which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import orjson
from botocore import xform_name  # type: ignore[import-untyped]
from botocore.loaders import Loader  # type: ignore[import-untyped]
from botocore.model import ServiceModel, Shape  # type: ignore[import-untyped]

from rules.arn import Arn

_RESOURCE = re.compile(r"aws-sdk:([a-z0-9]+):([A-Za-z0-9]+)")
ELSEWISE = {
    "applicationdiscovery": "discovery",
    "cloudwatchevents": "events",
    "cloudwatchlogs": "logs",
    "cognitoidentityprovider": "cognito-idp",
    "configservice": "config",
    "costandusagereport": "cur",
    "costexplorer": "ce",
    "databasemigration": "dms",
    "directory": "ds",
    "elasticloadbalancing": "elb",
    "elasticloadbalancingv2": "elbv2",
    "elasticsearch": "es",
    "eventbridge": "events",
    "iotdataplane": "iot-data",
    "iotjobsdataplane": "iot-jobs-data",
    "sfn": "stepfunctions",
    "simpledb": "sdb",
}
"""Services whose name in botocore is more than a matter of hyphens."""


@dataclass(frozen=True, slots=True)
class Api:
    """One API: botocore's name of the service, the operation, and the shape of its request."""

    client: str
    operation: str
    shape: Shape | None

    @property
    def action(self) -> str:
        """What IAM calls it."""
        return f"{self.client}:{self.operation}"

    @property
    def method(self) -> str:
        """The client's method."""
        name: str = xform_name(self.operation)
        return name

    def arguments(self, body: bytes) -> dict[str, Any]:
        """The request as botocore wants it; ValueError when the input is no JSON object."""
        request = orjson.loads(body)
        if not isinstance(request, dict):
            raise ValueError("The input of a universal target must be the JSON object of the API's request.")
        fitted: dict[str, Any] = request if self.shape is None else fit(request, self.shape)
        return fitted


def find_api(arn: Arn) -> Api | None:
    """The API that a universal target names; None when there is none, or the ARN names something else."""
    found = _RESOURCE.fullmatch(arn.resource) if arn.service == "scheduler" else None
    return None if found is None else api_of(found[1], found[2])


@lru_cache(256)
def api_of(service: str, name: str) -> Api | None:
    """The API of that name, in whatever case; None when there is no such service or API."""
    client = _clients().get(service) or ELSEWISE.get(service)
    if client is None:
        return None
    model = _model(client)
    operation = next((each for each in model.operation_names if each.lower() == name.lower()), None)
    return None if operation is None else Api(client, operation, model.operation_model(operation).input_shape)


@lru_cache(8)
def _model(client: str) -> ServiceModel:
    """A service's model; the largest take a noticeable part of a second to read, and some memory to keep."""
    return ServiceModel(Loader().load_service_model(client, "service-2"), client)


def action_of(service: str, name: str) -> str | None:
    """The IAM action of an API; None when there is no such service or API."""
    api = api_of(service, name)
    return None if api is None else api.action


@cache
def _clients() -> Mapping[str, str]:
    """botocore's services by their names without hyphens."""
    return {name.replace("-", ""): name for name in Loader().list_available_services("service-2")}


def fit(value: Any, shape: Shape) -> Any:
    """A value with the names of members as the shape has them; text where bytes belong is taken as UTF-8."""
    if shape.type_name == "structure" and isinstance(value, dict):
        names = {name.lower(): name for name in shape.members}
        own = {given: names.get(given.lower()) for given in value}
        return {
            name or given: value[given] if name is None else fit(value[given], shape.members[name])
            for given, name in own.items()
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [fit(member, shape.member) for member in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {key: fit(member, shape.value) for key, member in value.items()}
    if shape.type_name == "blob" and isinstance(value, str):
        return value.encode()
    return value
