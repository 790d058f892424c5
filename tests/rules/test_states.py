from typing import Any

import pytest

from rules.states import RuleState, is_read_only_management, receives

API_CALL = "AWS API Call via CloudTrail"
ALL = RuleState.ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS
S3 = "s3.amazonaws.com"
STS = "sts.amazonaws.com"


def must_not_load() -> object:
    raise AssertionError("the detail is not needed")


@pytest.mark.parametrize(
    ("state", "detail_type", "received"),
    [
        ("ENABLED", "OrderPlaced", True),
        ("ENABLED", "via CloudTrail", True),
        ("ENABLED", "AWS API Call via CloudTrail Lake", True),
        ("ENABLED", "AWS Console Sign In via CloudTrail", True),
        ("ENABLED", "AWS Console Action via CloudTrail", True),
        ("ENABLED", "AWS Service Event via CloudTrail", True),
        ("ENABLED", "AWS Insight via CloudTrail", True),
        ("ENABLED", "AWS Network Activity Event via CloudTrail", True),
        ("DISABLED", "OrderPlaced", False),
        ("DISABLED", API_CALL, False),
        (ALL, "OrderPlaced", True),
        (ALL, API_CALL, True),
    ],
)
def test_states_that_need_no_detail(state: str, detail_type: str, received: bool) -> None:
    assert receives(state, detail_type, must_not_load) is received


def test_an_unknown_state_is_an_error() -> None:
    with pytest.raises(KeyError):
        receives("enabled", "OrderPlaced", must_not_load)


@pytest.mark.parametrize(
    ("record", "withheld"),
    [
        ({"eventName": "GetBucketPolicy"}, True),
        ({"eventName": "ListBuckets", "eventSource": S3}, True),
        ({"eventName": "DescribeInstances"}, True),
        ({"eventName": "PutBucketPolicy"}, False),
        ({"eventName": "getBucketPolicy"}, False),
        ({"eventName": "HeadBucket"}, False),
        ({"eventName": "HeadBucket", "readOnly": True}, True),
        ({"eventName": "AssumeRole", "eventSource": STS, "readOnly": True, "managementEvent": True}, True),
        ({"eventName": "GetThing", "readOnly": False}, False),
        ({"eventName": "GetThing", "readOnly": "false"}, False),
        ({"eventName": "PutThing", "readOnly": "true"}, True),
        ({"eventName": "GetThing", "readOnly": None}, True),
        ({"eventName": "GetThing", "readOnly": []}, True),
        ({"eventName": "GetFederationToken", "eventSource": STS}, False),
        ({"eventName": "GetSessionToken", "eventSource": STS, "readOnly": True}, False),
        ({"eventName": "GetSessionToken", "eventSource": "other.amazonaws.com"}, True),
        ({"eventName": "GetCallerIdentity", "eventSource": STS}, True),
        ({"eventName": "GetObject", "eventCategory": "Data", "readOnly": True}, False),
        ({"eventName": "GetObject", "managementEvent": False, "readOnly": True}, False),
        ({"eventName": "GetObject", "managementEvent": False, "eventCategory": "Management"}, False),
        ({"eventName": "GetBucketAcl", "managementEvent": True, "readOnly": True}, True),
        ({"eventName": "GetBucketAcl", "eventCategory": "Management", "readOnly": True}, True),
        ({"eventName": "RunInstances", "eventCategory": "Insight"}, False),
        ({"eventName": "DescribeKey", "eventCategory": "NetworkActivity", "readOnly": True}, False),
        ({"eventName": "GetObject", "managementEvent": "false", "readOnly": "true"}, False),
        ({"eventName": "GetThing", "managementEvent": True, "eventCategory": "Data"}, True),
        ({}, False),
        ({"eventName": 7, "eventSource": {}}, False),
        ({"eventName": 7, "readOnly": True}, True),
    ],
)
def test_what_enabled_withholds(record: dict[str, Any], withheld: bool) -> None:
    assert is_read_only_management(API_CALL, record) is withheld
    assert receives("ENABLED", API_CALL, lambda: record) is not withheld
    assert receives(ALL, API_CALL, lambda: record)
    assert not receives("DISABLED", API_CALL, lambda: record)
    assert not is_read_only_management("OrderPlaced", record)


@pytest.mark.parametrize("detail", [None, [], "GetThing", 1])
def test_a_detail_that_is_no_record_is_not_withheld(detail: object) -> None:
    assert receives("ENABLED", API_CALL, lambda: detail)


@pytest.mark.parametrize(
    "detail_type",
    ["AWS Console Sign In via CloudTrail", "AWS Service Event via CloudTrail", "AWS Insight via CloudTrail"],
)
def test_what_is_no_api_call_is_not_withheld(detail_type: str) -> None:
    record = {"eventName": "GetSigninToken", "readOnly": True, "managementEvent": True, "eventCategory": "Management"}
    assert not is_read_only_management(detail_type, record)
    assert receives("ENABLED", detail_type, lambda: record)
