"""Requests signed by botocore, as every AWS client signs them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from unittest.mock import patch
from urllib.parse import urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from bus.api.request import Request

ALGORITHM = "AWS4-ECDSA-P256-SHA256"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

NOW_MS = 1_700_000_000_000
ACCESS_KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TARGETED = {"X-Amz-Target": "AWSEvents.PutEvents", "Content-Type": "application/x-amz-json-1.1"}


@contextmanager
def botocore_at(now_ms: int) -> Iterator[None]:
    """Botocore's clock, stopped."""
    moment = datetime.fromtimestamp(now_ms / 1000, UTC)
    with patch.object(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: moment.replace(tzinfo=None)):
        yield


def signed(
    body: bytes = b"{}",
    *,
    url: str = "http://127.0.0.1:4010/",
    method: str = "POST",
    headers: Mapping[str, str] = TARGETED,
    now_ms: int = NOW_MS,
    access_key: str = ACCESS_KEY,
    secret: str = SECRET,
    region: str = "eu-west-1",
    service: str = "events",
    presigned: bool = False,
) -> Request:
    """The request as it arrives; with ``presigned`` the signature is in the query."""
    sign = botocore.auth.SigV4QueryAuth if presigned else botocore.auth.SigV4Auth
    request = AWSRequest(method, url, headers=dict(headers), data=body)
    with botocore_at(now_ms):
        sign(Credentials(access_key, secret), service, region).add_auth(request)
    parts = urlsplit(request.url)
    sent = {"host": parts.netloc, **{name.lower(): value for name, value in request.headers.items()}}
    pairs = [(name.encode(), str(value).encode()) for name, value in sent.items()]
    return Request(method, parts.path.encode(), parts.query.encode(), dict(pairs), pairs, body)


def signed_for_regions(
    body: bytes = b"{}",
    *,
    url: str = "http://127.0.0.1:4010/",
    headers: Mapping[str, str] = TARGETED,
    now_ms: int = NOW_MS,
    access_key: str = ACCESS_KEY,
    secret: str = SECRET,
    regions: str = "*",
    service: str = "events",
) -> Request:
    """The request as a client with AWS's native library sends it: SigV4A over botocore's canonical form."""
    stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    dated = {**headers, "X-Amz-Date": stamp, "X-Amz-Region-Set": regions}
    request = AWSRequest("POST", url, headers=dated, data=body)
    signer = botocore.auth.SigV4Auth(Credentials(access_key, secret), service, "")
    canonical = signer.canonical_request(request)
    names = signer.signed_headers(signer.headers_to_sign(request))
    scope = f"{stamp[:8]}/{service}/aws4_request"
    to_sign = "\n".join((ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    signature = private_key(access_key, secret).sign(to_sign.encode(), ec.ECDSA(hashes.SHA256())).hex()
    authorization = f"{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    sent = {"host": urlsplit(url).netloc, **{name.lower(): value for name, value in dated.items()}}
    pairs = [(name.encode(), value.encode()) for name, value in {**sent, "authorization": authorization}.items()]
    return Request("POST", urlsplit(url).path.encode(), b"", dict(pairs), pairs, body)


def private_key(access_key: str, secret: str) -> ec.EllipticCurvePrivateKey:
    """The key a client derives from its secret, by cryptography's own key derivation in counter mode."""
    for counter in range(1, 255):
        derived = KBKDFHMAC(
            algorithm=hashes.SHA256(),
            mode=Mode.CounterMode,
            length=32,
            rlen=4,
            llen=4,
            location=CounterLocation.BeforeFixed,
            label=ALGORITHM.encode(),
            context=access_key.encode() + bytes([counter]),
            fixed=None,
        ).derive(b"AWS4A" + secret.encode())
        number = int.from_bytes(derived)
        if number <= ORDER - 2:
            return ec.derive_private_key(number + 1, ec.SECP256R1())
    raise AssertionError("unreachable")


def with_header(request: Request, name: str, value: str | None) -> Request:
    """The request with one header set, or taken away."""
    headers = dict(request.headers)
    headers.pop(name.encode(), None)
    if value is not None:
        headers[name.encode()] = value.encode()
    return request._replace(headers=headers, all_headers=list(headers.items()))
