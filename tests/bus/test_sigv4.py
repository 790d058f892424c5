"""What botocore signs is verified here; whatever is changed after signing is refused."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from bus.api.request import Request
from bus.api.sigv4 import Credential, Verifier, canonical_path
from bus.clock import ManualClock
from bus.errors import ApiError
from tests.bus.signing import ACCESS_KEY, NOW_MS, SECRET, TARGETED, signed, with_header

CREDENTIAL = Credential(ACCESS_KEY, "20231114", "eu-west-1", "events", "aws4_request")
MISMATCH = (
    "InvalidSignatureException",
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details.",
)
MINUTE = 60_000


def verify(request: Request, *, now_ms: int = NOW_MS, services: tuple[str, ...] = ("events",)) -> Credential:
    return Verifier({ACCESS_KEY: SECRET}.get, clock=ManualClock(now_ms)).verify(request, services=services)


def refusal(request: Request, **more: Any) -> tuple[str, str]:
    with pytest.raises(ApiError) as caught:
        verify(request, **more)
    assert SECRET not in caught.value.message
    return caught.value.code, caught.value.message


def replaced(request: Request, old: str, new: str) -> Request:
    """The request with a part of its Authorization header changed."""
    header = request.headers[b"authorization"].decode()
    assert old in header
    return with_header(request, "authorization", header.replace(old, new, 1))


@pytest.mark.parametrize(
    "request_",
    [
        signed(),
        signed(b""),
        signed("é".encode() * 100_000),
        signed(url="http://[::1]:4010/"),
        signed(url="http://localhost/000000000000/dead-letters"),
        signed(method="GET", url="http://127.0.0.1:4010/_bus/wires?limit=10&after=a%20b&empty=", body=b""),
        signed(method="GET", url="http://127.0.0.1:4010/_bus/wires?b=2&a=2&a=1&flag", body=b""),
        signed(method="GET", url="http://127.0.0.1:4010/_bus/find?q=one+two&arn=arn:aws:x", body=b""),
        signed(method="DELETE", url="http://127.0.0.1:4010/_bus/wires/arn%3Aaws%3Alambda%2A", body=b""),
        signed(method="GET", url="http://127.0.0.1:4010/a//b/./c/../d/", body=b""),
        signed(headers={**TARGETED, "X-Amz-Meta": "  two   words  ", "X-Amzn-Trace-Id": "Root=1"}),
        signed(headers={**TARGETED, "X-Amz-Content-SHA256": hashlib.sha256(b"{}").hexdigest()}),
        signed(method="GET", url="http://127.0.0.1:4010/metrics?a=b", body=b"", headers={}, presigned=True),
    ],
)
def test_what_botocore_signs_is_good(request_: Request) -> None:
    assert verify(request_) == CREDENTIAL


def test_a_verifier_serves_many_requests() -> None:
    verifier = Verifier({ACCESS_KEY: SECRET, "B": "other"}.get, clock=ManualClock(NOW_MS))
    for _ in range(2):
        assert verifier.verify(signed(), services=("events",)).access_key == ACCESS_KEY
        assert verifier.verify(signed(access_key="B", secret="other"), services=("events",)).access_key == "B"
        with pytest.raises(ApiError):
            verifier.verify(signed(access_key="B"), services=("events",))


def test_a_path_in_strict_encoding_is_good_too() -> None:
    request = signed(method="GET", url="http://127.0.0.1:4010/x?arn=arn%3Aaws&word=a%20b", body=b"")
    assert verify(request._replace(query=b"word=a%20b&arn=arn:aws")) == CREDENTIAL


SIGNED = signed(b'{"Entries":[]}')

CHANGED = {
    "the method": SIGNED._replace(method="PUT"),
    "the path": SIGNED._replace(path=b"/x"),
    "the query": SIGNED._replace(query=b"a=b"),
    "the body": SIGNED._replace(body=b'{"Entries":[ ]}'),
    "the body gone": SIGNED._replace(body=b""),
    "the host": with_header(SIGNED, "host", "127.0.0.1:4011"),
    "the host gone": with_header(SIGNED, "host", None),
    "the target": with_header(SIGNED, "x-amz-target", "AWSEvents.DeleteRule"),
    "the target gone": with_header(SIGNED, "x-amz-target", None),
    "the content type": with_header(SIGNED, "content-type", "application/json"),
    "the date, by a second": with_header(SIGNED, "x-amz-date", "20231114T221321Z"),
    "the signature's last digit": with_header(
        SIGNED,
        "authorization",
        SIGNED.headers[b"authorization"].decode()[:-1]
        + ("0" if SIGNED.headers[b"authorization"][-1:] != b"0" else "1"),
    ),
    "the signature empty": replaced(SIGNED, "Signature=", "Signature=,X="),
    "the signature not ASCII": replaced(SIGNED, "Signature=", "Signature=é"),
    "the signed headers": replaced(SIGNED, "content-type;host", "host"),
    "the region": replaced(SIGNED, "eu-west-1", "eu-west-2"),
    "a header twice": SIGNED._replace(all_headers=[*SIGNED.all_headers, (b"x-amz-target", b"AWSEvents.PutRule")]),
}


@pytest.mark.parametrize("what", CHANGED)
def test_whatever_is_changed_is_refused(what: str) -> None:
    assert verify(SIGNED) == CREDENTIAL
    assert refusal(CHANGED[what]) == MISMATCH


def test_every_byte_of_the_signature_counts() -> None:
    header = SIGNED.headers[b"authorization"].decode()
    start = header.index("Signature=") + len("Signature=")
    for at in range(start, len(header)):
        other = "0" if header[at] != "0" else "f"
        assert refusal(with_header(SIGNED, "authorization", header[:at] + other + header[at + 1 :])) == MISMATCH


def test_another_secret_is_refused() -> None:
    assert refusal(signed(secret=SECRET[:-1])) == MISMATCH


def test_an_unknown_key_is_refused() -> None:
    assert refusal(signed(access_key="AKIDOTHER")) == (
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    )


def test_an_unsigned_request_is_refused() -> None:
    missing = ("MissingAuthenticationTokenException", "Missing Authentication Token")
    assert refusal(with_header(SIGNED, "authorization", None)) == missing
    assert refusal(with_header(SIGNED, "authorization", "Bearer abc")) == missing
    assert refusal(with_header(SIGNED, "authorization", "")) == missing


@pytest.mark.parametrize(
    ("sent_at", "message"),
    [
        (
            NOW_MS - 5 * MINUTE - 1000,
            "Signature expired: 20231114T220819Z is now earlier than 20231114T220820Z (20231114T221320Z - 5 min.)",
        ),
        (
            NOW_MS + 5 * MINUTE + 1000,
            "Signature not yet current: 20231114T221821Z is still later than 20231114T221820Z "
            "(20231114T221320Z + 5 min.)",
        ),
    ],
)
def test_a_clock_more_than_five_minutes_off_is_refused(sent_at: int, message: str) -> None:
    assert refusal(signed(now_ms=sent_at)) == ("InvalidSignatureException", message)


@pytest.mark.parametrize("sent_at", [NOW_MS - 5 * MINUTE, NOW_MS + 5 * MINUTE])
def test_a_clock_five_minutes_off_is_good(sent_at: int) -> None:
    assert verify(signed(now_ms=sent_at)).access_key == ACCESS_KEY


def test_a_presigned_request_is_good_as_long_as_it_says() -> None:
    request = signed(method="GET", url="http://h/metrics", body=b"", headers={}, presigned=True)
    assert verify(request, now_ms=NOW_MS + 3600 * 1000) == CREDENTIAL
    code, message = refusal(request, now_ms=NOW_MS + 3601 * 1000)
    assert (code, message.partition(":")[0]) == ("InvalidSignatureException", "Signature expired")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"X-Amz-Expires=3600", b"X-Amz-Expires=86400"),
        (b"X-Amz-Expires=3600", b"X-Amz-Expires=604801"),
        (b"X-Amz-Expires=3600", b"X-Amz-Expires=-1"),
        (b"X-Amz-Expires=3600", b"X-Amz-Expires=x"),
        (b"X-Amz-Date=2023", b"X-Amz-Date=x"),
        (b"X-Amz-SignedHeaders=host", b"X-Amz-SignedHeaders="),
        (b"&X-Amz-Credential=AKID", b"&X-Amz-Credential=OTHER"),
        (b"&X-Amz-Credential=AKID", b"&Y="),
        (b"X-Amz-Signature=", b"X-Amz-Signature=0"),
        (b"X-Amz-Algorithm=AWS4-HMAC", b"X-Amz-Algorithm=AWS4-HMAD"),
        (b"X-Amz-Algorithm", b"\xff=%ff&X-Amz-Algorithm"),
    ],
)
def test_a_presigned_request_that_was_changed_is_refused(old: bytes, new: bytes) -> None:
    request = signed(method="GET", url="http://h/metrics", body=b"", headers={}, presigned=True)
    assert old in request.query
    refusal(request._replace(query=request.query.replace(old, new, 1)))


def test_the_signature_is_for_one_service_and_day() -> None:
    assert refusal(SIGNED, services=("sqs",)) == (
        "InvalidSignatureException",
        "Credential should be scoped to correct service: 'sqs'.",
    )
    assert verify(SIGNED, services=("busbar", "events")) == CREDENTIAL
    assert refusal(replaced(SIGNED, "20231114", "20231113"))[1] == (
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
        "'20231113' != '20231114', from '20231114T221320Z'."
    )
    assert refusal(replaced(SIGNED, "aws4_request", "aws5_request"))[1] == (
        "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5_request'."
    )
    assert refusal(signed(region="Europe"))[1] == "Credential should be scoped to a valid region."


def test_an_incomplete_header_is_explained_without_repeating_it() -> None:
    request = with_header(SIGNED, "authorization", "AWS4-HMAC-SHA256 SignedHeaders=host")
    digest = base64.b64encode(hashlib.sha256(b"AWS4-HMAC-SHA256 SignedHeaders=host").digest()).decode()
    assert refusal(with_header(request, "x-amz-date", None)) == (
        "IncompleteSignatureException",
        "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. "
        "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
        f"(Hashed with SHA-256 and encoded with Base64) Authorization={digest}",
    )


@pytest.mark.parametrize(
    "header",
    ["AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 nonsense", "AWS4-HMAC-SHA256 Credential=a/b,SignedHeaders=h,Signature=s"],
)
def test_a_malformed_header_is_incomplete(header: str) -> None:
    assert refusal(with_header(SIGNED, "authorization", header))[0] == "IncompleteSignatureException"


@pytest.mark.parametrize("name", ["x-amz-target", "x-amz-date", "x-amz-anything"])
def test_a_header_that_decides_something_must_be_signed(name: str) -> None:
    request = with_header(SIGNED, "x-amz-anything", "1") if name.endswith("anything") else replaced(SIGNED, name, "x")
    assert refusal(request) == (
        "InvalidSignatureException",
        f"'{name}' must be a 'SignedHeader' in the AWS Authorization.",
    )


def test_the_host_must_be_signed() -> None:
    assert refusal(replaced(SIGNED, ";host", ""))[1] == (
        "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
    )


@pytest.mark.parametrize("claimed", ["UNSIGNED-PAYLOAD", hashlib.sha256(b"other").hexdigest(), ""])
def test_an_unsigned_body_is_refused(claimed: str) -> None:
    request = signed(headers={**TARGETED, "X-Amz-Content-SHA256": claimed})
    assert refusal(request)[1] == "The provided 'x-amz-content-sha256' header does not match what was computed."


def test_the_date_header_will_do_when_it_is_signed() -> None:
    dated = signed(headers={**TARGETED, "Date": "to be set"})
    assert b"x-amz-date" not in dated.headers
    assert verify(dated) == CREDENTIAL
    assert refusal(with_header(dated, "date", "Tue, 14 Nov 2023 22:13:21 GMT")) == MISMATCH
    request = with_header(with_header(SIGNED, "x-amz-date", None), "date", "Tue, 14 Nov 2023 22:13:20 GMT")
    assert refusal(request)[1] == "'Date' must be a 'SignedHeader' in the AWS Authorization."
    assert refusal(replaced(request, ";x-amz-date", ";date")) == MISMATCH
    assert refusal(with_header(request, "date", "yesterday"))[0] == "IncompleteSignatureException"


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        (b"", b"/"),
        (b"/", b"/"),
        (b"//", b"/"),
        (b"/../..", b"/"),
        (b"/a/./b/../c", b"/a/c"),
        (b"/a//b/", b"/a/b/"),
        (b"/a%2Fb", b"/a%252Fb"),
        (b"/a~b_c", b"/a~b_c"),
        (b"/\xc3\xa9", b"/%C3%A9"),
    ],
)
def test_paths_are_put_in_order_and_encoded_once_more(path: bytes, canonical: bytes) -> None:
    assert canonical_path(path) == canonical
