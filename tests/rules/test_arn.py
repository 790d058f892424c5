import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import arn
from rules.arn import Arn, ArnError
from rules.errors import RulesError

HERE = {"region": "eu-west-1", "account": "123456789012"}


def test_parts_of_an_arn() -> None:
    text = "arn:aws:events:eu-west-1:123456789012:rule/orders/placed"
    parsed = arn.parse(text)
    assert parsed == Arn("aws", "events", "eu-west-1", "123456789012", "rule/orders/placed")
    assert str(parsed) == text
    with pytest.raises(dataclasses.FrozenInstanceError):
        parsed.region = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    "text",
    [
        "arn:aws:s3:::bucket/key",
        "arn:aws:iam::123456789012:role/path/name",
        "arn:aws:lambda:us-east-1:123456789012:function:orders:live",
        "arn:aws-us-gov:sns:us-gov-west-1:123456789012:topic",
        "arn:aws:events:us-east-1::event-source/aws.partner/a.com/b",
        "arn:aws:secretsmanager:us-east-1:123456789012:secret:events!connection/c/u-abcdef",
    ],
)
def test_arns_read_back(text: str) -> None:
    assert str(arn.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "arn", "arn:", "arn:aws", "arn:aws:sqs:us-east-1:123456789012", "arn:aws:sqs:us-east-1:123456789012:",
        "ARN:aws:sqs:us-east-1:123456789012:q", "arn:azure:sqs:us-east-1:123456789012:q", "arn:aws::us-east-1:1:q",
        "arn:aws:sqs:us-east-1:12345:q", "arn:aws:sqs:us east:123456789012:q", "arn:aws:sqs:us-east-1:123456789012:q\n",
        " arn:aws:sqs:us-east-1:123456789012:q", "arn:aws:sqs:us-east-1:12345678901٢:q", "http://localhost/", "orders",
    ],
)  # fmt: skip
def test_not_arns(text: str) -> None:
    with pytest.raises(ArnError):
        arn.parse(text)
    assert issubclass(ArnError, RulesError)


@settings(deadline=None)
@given(st.text(alphabet="arn:aws sqs-east1/0123456789012\n", max_size=60))
def test_parse_reads_back_or_refuses(text: str) -> None:
    try:
        parsed = arn.parse(text)
    except ArnError:
        return
    assert str(parsed) == text


def test_builders() -> None:
    prefix = "arn:aws:events:eu-west-1:123456789012:"
    assert arn.bus_arn("orders", **HERE) == prefix + "event-bus/orders"
    assert arn.rule_arn("placed", bus="default", **HERE) == prefix + "rule/placed"
    assert arn.rule_arn("placed", bus="orders", **HERE) == prefix + "rule/orders/placed"
    assert arn.queue_arn("q", **HERE) == "arn:aws:sqs:eu-west-1:123456789012:q"


@pytest.mark.parametrize(
    ("region", "partition"), [("cn-north-1", "aws-cn"), ("us-gov-east-1", "aws-us-gov"), ("us-east-1", "aws")]
)
def test_partitions(region: str, partition: str) -> None:
    assert arn.parse(arn.bus_arn("b", region=region, account="1" * 12)).partition == partition


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("http://127.0.0.1:9000/orders", "webhook"),
        ("HTTPS://example.com", "webhook"),
        ("arn:aws:events:us-east-1:123456789012:event-bus/orders", "event_bus"),
        ("arn:aws:events:us-east-1:123456789012:event-bus/aws.partner/a/b", "event_bus"),
        ("arn:aws:events:us-east-1:123456789012:api-destination/d/u", "api_destination"),
        ("arn:aws:events:us-east-1:123456789012:event-bus/", "aws"),
        ("arn:aws:sqs:us-east-1:123456789012:orders.fifo", "queue"),
        ("arn:aws:sqs:us-east-1:123456789012:a/b", "aws"),
        ("arn:aws:logs:us-east-1:123456789012:log-group:/aws/events/x", "log_group"),
        ("arn:aws:logs:us-east-1:123456789012:log-group:/aws/events/x:*", "log_group"),
        ("arn:aws:logs:us-east-1:123456789012:log-group:g:log-stream:s", "aws"),
        ("arn:aws:events:us-east-1:::", "archive"),
        ("arn:aws:lambda:us-east-1:123456789012:function:f", "aws"),
    ],
)
def test_target_kinds(text: str, kind: str) -> None:
    assert arn.target_kind(text) == kind


@pytest.mark.parametrize("text", ["", "ftp://host/", "http:/host", "queue", "//host"])
def test_targets_of_no_kind(text: str) -> None:
    assert not arn.is_url(text)
    with pytest.raises(ArnError):
        arn.target_kind(text)
