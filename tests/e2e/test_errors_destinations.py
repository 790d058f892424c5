"""Every error of connections and API destinations, as boto3 receives it from a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.e2e.tenant import Tenant

CASES = json.loads((Path(__file__).parent.parent / "cases" / "errors" / "destinations.json").read_text())
BASIC = {"BasicAuthParameters": {"Username": "u", "Password": "p"}}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_errors(tenant: Tenant, aws: Any, server: Any, case: dict[str, Any]) -> None:
    events = aws("events", at=server, account=tenant.account, check=False)
    text = json.dumps(case).replace("ACCOUNT", tenant.account)
    if case.get("connection"):
        made = events.create_connection(Name="c", AuthorizationType="BASIC", AuthParameters=BASIC)
        text = text.replace('"CONNECTION"', json.dumps(made["ConnectionArn"]))
    case = json.loads(text.replace('"AuthParameters": "BASIC"', f'"AuthParameters": {json.dumps(BASIC)}'))
    for operation, request in case.get("before", ()):
        getattr(events, operation)(**request)

    operation, request = case["call"]
    with pytest.raises(ClientError) as failed:
        getattr(events, operation)(**request)

    response = failed.value.response
    assert response["Error"]["Code"] == case["code"]
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert response["Error"]["Message"] == case.get("message", response["Error"]["Message"])
    for part in case.get("contains", ()):
        assert part in response["Error"]["Message"]


def test_values_that_may_be_secret_are_not_repeated(tenant: Tenant, aws: Any, server: Any) -> None:
    events = aws("events", at=server, account=tenant.account, check=False)
    entries = [{"Key": f"k{n}", "Value": "s3cret", "IsValueSecret": True} for n in range(101)]
    for parameters in (
        {**BASIC, "InvocationHttpParameters": {"HeaderParameters": entries}},
        {**BASIC, "InvocationHttpParameters": {"HeaderParameters": [{"Key": "k", "Value": "s3cret\n"}]}},
        {"BasicAuthParameters": {"Username": "u", "Password": "s3cret\n"}},
        {"BasicAuthParameters": {"Username": "u", "Password": "s3cret" * 100}},
        {"BasicAuthParameters": {"Password": "s3cret"}},
    ):
        with pytest.raises(ClientError) as failed:
            events.create_connection(Name="c", AuthorizationType="BASIC", AuthParameters=parameters)
        assert failed.value.response["Error"]["Code"] == "ValidationException"
        assert "s3cret" not in str(failed.value)
    assert "s3cret" not in server.said()
