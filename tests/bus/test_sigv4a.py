"""SigV4A: the key that AWS publishes for its example credentials, and requests as clients sign them for all regions."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.api.request import Request
from bus.api.sigv4 import Credential, Verifier
from bus.api.sigv4a import is_signature, region_of, verifying_key
from bus.clock import ManualClock
from bus.errors import ApiError
from tests.bus.signing import ACCESS_KEY, NOW_MS, SECRET, TARGETED, private_key, signed_for_regions, with_header

MINUTE = 60_000
SIGNED = signed_for_regions(b'{"Entries":[]}')


def verify(request: Request, *, now_ms: int = NOW_MS, services: tuple[str, ...] = ("events",)) -> Credential:
    return Verifier({ACCESS_KEY: SECRET}.get, clock=ManualClock(now_ms)).verify(request, services=services)


def refusal(request: Request, **more: Any) -> tuple[str, str]:
    with pytest.raises(ApiError) as caught:
        verify(request, **more)
    assert SECRET not in caught.value.message
    return caught.value.code, caught.value.message


def test_the_key_of_awss_example() -> None:
    numbers = verifying_key(ACCESS_KEY, SECRET).public_numbers()
    assert f"{numbers.x:064x}" == "b6618f6a65740a99e650b33b6b4b5bd0d43b176d721a3edfea7e7d2d56d936b1"
    assert f"{numbers.y:064x}" == "865ed22a7eadc9c5cb9d2cbaca1b3699139fedc5043dc6661864218330c8e518"


@settings(deadline=None, max_examples=30)
@given(
    st.text(string.ascii_uppercase + string.digits, min_size=1, max_size=20),
    st.text(string.printable, min_size=1, max_size=40),
)
def test_both_sides_derive_one_key(access_key: str, secret: str) -> None:
    client = private_key(access_key, secret).public_key().public_numbers()
    assert verifying_key(access_key, secret).public_numbers() == client


@pytest.mark.parametrize(
    "request_",
    [
        SIGNED,
        signed_for_regions(b""),
        signed_for_regions("\u00e9".encode() * 100_000),
        signed_for_regions(url="http://localhost/"),
        signed_for_regions(headers={**TARGETED, "X-Amzn-Trace-Id": "Root=1"}),
    ],
)
def test_what_is_signed_is_good(request_: Request) -> None:
    assert verify(request_) == Credential(ACCESS_KEY, "20231114", "", "events", "aws4_request")


@pytest.mark.parametrize(
    ("regions", "region"),
    [
        ("*", ""),
        ("us-east-1", "us-east-1"),
        ("us-*,eu-west-1", "eu-west-1"),
        (" us-west-2 , *", "us-west-2"),
        (",", ""),
    ],
)
def test_the_region_a_set_stands_for(regions: str, region: str) -> None:
    assert region_of(regions) == region
    assert verify(signed_for_regions(regions=regions)).region == region


@pytest.mark.parametrize(
    "changed",
    [
        SIGNED._replace(body=b'{"Entries":[1]}'),
        with_header(SIGNED, "x-amz-target", "AWSEvents.DeleteRule"),
        with_header(SIGNED, "x-amz-region-set", "us-east-1"),
        with_header(SIGNED, "host", "other"),
        signed_for_regions(secret="another"),
    ],
)
def test_what_was_changed_is_refused(changed: Request) -> None:
    code, message = refusal(changed)
    assert code == "InvalidSignatureException"
    assert message.startswith("The request signature we calculated does not match the signature you provided.")


@pytest.mark.parametrize("signature", ["", "00", "3006020101020101", "no hex", "\u00e9"])
def test_signatures_that_are_none(signature: str) -> None:
    assert not is_signature(verifying_key(ACCESS_KEY, SECRET), signature, b"x")


def test_the_same_rules_as_for_sigv4() -> None:
    assert refusal(SIGNED, now_ms=NOW_MS + 6 * MINUTE)[1].startswith("Signature expired: ")
    assert refusal(SIGNED, now_ms=NOW_MS - 6 * MINUTE)[1].startswith("Signature not yet current: ")
    assert "correct service: 'sqs'" in refusal(SIGNED, services=("sqs",))[1]
    assert refusal(signed_for_regions(access_key="UNKNOWN"))[0] == "UnrecognizedClientException"
    assert refusal(signed_for_regions(regions="us-east-1/x"))[1] == "Credential should be scoped to a valid region."
    unsigned = with_header(SIGNED, "x-amz-security-token", "t")
    assert refusal(unsigned)[1].startswith("'x-amz-security-token' must be a 'SignedHeader'")


def test_a_set_of_regions_is_required() -> None:
    assert refusal(with_header(SIGNED, "x-amz-region-set", None)) == (
        "IncompleteSignatureException",
        "Authorization header requires existence of 'X-Amz-Region-Set'.",
    )
    header = SIGNED.headers[b"authorization"].decode().replace("/20231114/events/", "/events/")
    code, message = refusal(with_header(SIGNED, "authorization", header))
    assert (code, "exactly 4 slash-delimited elements" in message) == ("IncompleteSignatureException", True)
