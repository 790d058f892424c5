"""Requests signed by botocore, as every AWS client signs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from unittest.mock import patch
from urllib.parse import urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bus.api.request import Request

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


def with_header(request: Request, name: str, value: str | None) -> Request:
    """The request with one header set, or taken away."""
    headers = dict(request.headers)
    headers.pop(name.encode(), None)
    if value is not None:
        headers[name.encode()] = value.encode()
    return request._replace(headers=headers, all_headers=list(headers.items()))
