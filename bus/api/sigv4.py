"""Verification of AWS Signature Version 4, the other side of what every AWS client does.

A client derives a key from its secret, the day, the region and the service, and signs a canonical form of the
request with it. `Verifier` rebuilds that form from what arrived and compares. Around the comparison stand the rules
that make a signature worth something: it is for this service, it is recent, the body's hash is part of it, and
every header that decides what the request does (Host, and all of x-amz-*) is covered.

Two freedoms are needed. A path is encoded once more than it is sent, except for characters that need no encoding.
And clients differ in whether they sign the query as they send it or in its strictest encoding: either is accepted.

A request that may go to several regions, as PutEvents with an EndpointId does, is signed with SigV4A: another key and
another comparison (`bus.api.sigv4a`) over the same canonical form.

Errors have AWS's codes and texts; where AWS repeats the Authorization header, only its hash is shown.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from bus.api.request import Request
from bus.api.sigv4a import ALGORITHM as ASYMMETRIC
from bus.api.sigv4a import REGION_SET, is_signature, region_of, verifying_key
from bus.clock import Clock
from bus.errors import ApiError

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"
SKEW = timedelta(minutes=5)
LONGEST_PRESIGNED = timedelta(days=7)
KEPT_KEYS = 1024

_STAMP = "%Y%m%dT%H%M%SZ"
_PARAMETER = re.compile(r"[^,\s]+")
_REQUIRED = ("Credential", "Signature", "SignedHeaders")


class Credential(NamedTuple):
    """The credential scope of a signature; ``region`` is empty when the signature holds in several."""

    access_key: str
    date: str
    region: str
    service: str
    terminator: str


class Signature(NamedTuple):
    """A signature as a request carries it; ``lifetime`` is how long it is good for, None for the usual skew."""

    credential: Credential
    signed_headers: tuple[str, ...]
    signature: str
    signed_at: datetime
    lifetime: timedelta | None
    algorithm: str = ALGORITHM

    @property
    def scope(self) -> str:
        """The credential scope as it was signed: without the access key, and without a region where it names none."""
        _, date, region, service, terminator = self.credential
        regional = self.algorithm == ALGORITHM
        return "/".join((date, region, service, terminator) if regional else (date, service, terminator))

    @property
    def stamp(self) -> str:
        return self.signed_at.strftime(_STAMP)


class Verifier:
    """Says whose signature a request carries.

    ``secret_of`` gives the secret of an access key id, or None for an unknown one.
    """

    def __init__(self, secret_of: Callable[[str], str | None], *, clock: Clock) -> None:
        self._secret_of = secret_of
        self._clock = clock
        self._keys: dict[Credential, bytes] = {}
        self._verifying_key = lru_cache(KEPT_KEYS)(verifying_key)

    def verify(self, request: Request, *, services: Collection[str]) -> Credential:
        """The credential behind a request signed for one of ``services``; ApiError when the signature does not hold."""
        signature = read_signature(request)
        credential = signature.credential
        secret = self._secret_of(credential.access_key)
        if secret is None:
            raise ApiError("UnrecognizedClientException", "The security token included in the request is invalid.")
        _demand_scope(signature, services)
        self._demand_recent(signature)
        _demand_headers_signed(signature, request)
        body_hash = _body_hash(request)
        if not any(self._matches(signature, secret, form) for form in _canonical_forms(request, signature, body_hash)):
            raise _invalid(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
                "Access Key and signing method. Consult the service documentation for details."
            )
        return credential

    def _demand_recent(self, signature: Signature) -> None:
        now = datetime.fromtimestamp(self._clock.now_ms() // 1000, UTC)
        earliest = now - (SKEW if signature.lifetime is None else signature.lifetime)
        if signature.signed_at < earliest:
            raise _invalid(
                f"Signature expired: {signature.stamp} is now earlier than {earliest.strftime(_STAMP)} "
                f"({now.strftime(_STAMP)} - {_minutes(now - earliest)} min.)"
            )
        if signature.signed_at > now + SKEW:
            raise _invalid(
                f"Signature not yet current: {signature.stamp} is still later than {(now + SKEW).strftime(_STAMP)} "
                f"({now.strftime(_STAMP)} + {_minutes(SKEW)} min.)"
            )

    def _matches(self, signature: Signature, secret: str, canonical: bytes) -> bool:
        """Whether this canonical form is what was signed."""
        digest = hashlib.sha256(canonical).hexdigest()
        to_sign = "\n".join((signature.algorithm, signature.stamp, signature.scope, digest)).encode()
        credential = signature.credential
        if signature.algorithm == ASYMMETRIC:
            return is_signature(self._verifying_key(credential.access_key, secret), signature.signature, to_sign)
        expected = hmac.digest(self._key(credential, secret), to_sign, "sha256").hex()
        return hmac.compare_digest(expected.encode(), signature.signature.encode())

    def _key(self, credential: Credential, secret: str) -> bytes:
        """The signing key, which is the same for a whole day."""
        key = self._keys.get(credential)
        if key is None:
            if len(self._keys) >= KEPT_KEYS:
                self._keys.clear()
            key = self._keys[credential] = signing_key(secret, credential)
        return key


def signing_key(secret: str, credential: Credential) -> bytes:
    """The key that signs all requests of one secret, day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in (credential.date, credential.region, credential.service, credential.terminator):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def read_signature(request: Request) -> Signature:
    """The signature in the Authorization header, else in the query of a presigned URL."""
    header = request.headers.get(b"authorization")
    if header is not None:
        return _from_header(header.decode("latin-1"), request)
    parameters = dict(_query_parameters(request.query))
    if b"X-Amz-Algorithm" in parameters:
        return _from_query({name.decode("latin-1"): value.decode("latin-1") for name, value in parameters.items()})
    raise ApiError("MissingAuthenticationTokenException", "Missing Authentication Token")


def parse_credential(text: str) -> Credential:
    """The five parts of a credential scope; an access key id may itself contain slashes."""
    parts = text.rsplit("/", 4)
    if len(parts) != 5 or not all(parts):
        rule = "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term"
        raise ApiError("IncompleteSignatureException", f"{rule}, got '{text}'")
    return Credential(*parts)


def _from_header(header: str, request: Request) -> Signature:
    algorithm, _, rest = header.partition(" ")
    _demand_algorithm(algorithm, header, asymmetric=True)
    parameters = _header_parameters(rest, header)
    signed_at = _signing_time(request)
    complaints = [f"Authorization header requires '{name}' parameter." for name in _REQUIRED if name not in parameters]
    if signed_at is None:
        complaints.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if complaints or signed_at is None:
        raise _incomplete(" ".join(complaints), header)
    names = tuple(parameters["SignedHeaders"].lower().split(";"))
    text = parameters["Credential"]
    credential = parse_credential(text) if algorithm == ALGORITHM else _regional_credential(text, request)
    return Signature(credential, names, parameters["Signature"], signed_at, None, algorithm)


def _regional_credential(text: str, request: Request) -> Credential:
    """The credential scope of an asymmetric signature, whose regions are named in a header of their own."""
    parts = text.rsplit("/", 3)
    if len(parts) != 4 or not all(parts):
        rule = "Credential must have exactly 4 slash-delimited elements, e.g. keyid/date/service/term"
        raise ApiError("IncompleteSignatureException", f"{rule}, got '{text}'")
    regions = request.headers.get(REGION_SET, b"").decode("latin-1")
    if not regions.strip():
        raise ApiError("IncompleteSignatureException", "Authorization header requires existence of 'X-Amz-Region-Set'.")
    access_key, date, service, terminator = parts
    return Credential(access_key, date, region_of(regions), service, terminator)


def _demand_algorithm(algorithm: str, header: str, *, asymmetric: bool = False) -> None:
    if algorithm == ALGORITHM or (asymmetric and algorithm == ASYMMETRIC):
        return
    if algorithm.startswith("AWS4"):
        raise _incomplete(f"Unsupported AWS 'algorithm': '{algorithm}'.", header)
    raise ApiError("MissingAuthenticationTokenException", "Missing Authentication Token")


def _header_parameters(text: str, header: str) -> dict[str, str]:
    parameters = {}
    for part in _PARAMETER.findall(text):
        name, equals, value = part.partition("=")
        if not equals:
            raise _incomplete(
                "A part is not a valid key=value pair (missing equal-sign) in Authorization header.", header
            )
        parameters[name] = value
    return parameters


def _signing_time(request: Request) -> datetime | None:
    """When the request was signed: X-Amz-Date, else Date; None for neither or an unreadable one."""
    stamp = request.headers.get(b"x-amz-date")
    if stamp is not None:
        return _parse_stamp(stamp.decode("latin-1"))
    try:
        return parsedate_to_datetime(request.headers[b"date"].decode("latin-1")).astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        return None


def _parse_stamp(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


_PRESIGNED = ("X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date", "X-Amz-Expires")


def _from_query(parameters: dict[str, str]) -> Signature:
    _demand_algorithm(parameters["X-Amz-Algorithm"], parameters["X-Amz-Algorithm"])
    missing = [name for name in _PRESIGNED if name not in parameters]
    if missing:
        text = " ".join(f"AWS query-string parameters must include '{name}'." for name in missing)
        raise ApiError("IncompleteSignatureException", text)
    signed_at = _parse_stamp(parameters["X-Amz-Date"])
    if signed_at is None:
        raise ApiError("IncompleteSignatureException", "Date must be in ISO-8601 'basic format'.")
    return Signature(
        parse_credential(parameters["X-Amz-Credential"]),
        tuple(parameters["X-Amz-SignedHeaders"].lower().split(";")),
        parameters["X-Amz-Signature"],
        signed_at,
        _lifetime(parameters["X-Amz-Expires"]),
    )


def _lifetime(seconds: str) -> timedelta:
    longest = int(LONGEST_PRESIGNED.total_seconds())
    if not seconds.isascii() or not seconds.isdigit() or len(seconds) > 6 or not 1 <= int(seconds) <= longest:
        text = f"X-Amz-Expires must be a number of seconds between 1 and {longest}."
        raise ApiError("IncompleteSignatureException", text)
    return timedelta(seconds=int(seconds))


def _demand_scope(signature: Signature, services: Collection[str]) -> None:
    credential = signature.credential
    if credential.service not in services:
        names = " or ".join(f"'{service}'" for service in services)
        raise _invalid(f"Credential should be scoped to correct service: {names}.")
    if credential.terminator != TERMINATOR:
        wrong = credential.terminator
        raise _invalid(f"Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{wrong}'.")
    if signature.algorithm == ALGORITHM or credential.region:
        demand_region(credential.region)
    day = signature.stamp[:8]
    if credential.date != day:
        raise _invalid(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{credential.date}' != '{day}', from '{signature.stamp}'."
        )


def demand_region(region: str) -> None:
    """Refuse a region that could not be part of an ARN."""
    if not re.fullmatch(r"[a-z0-9-]{1,64}", region):
        raise _invalid("Credential should be scoped to a valid region.")


def _demand_headers_signed(signature: Signature, request: Request) -> None:
    signed = set(signature.signed_headers)
    if "host" not in signed:
        raise _invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    dated = signature.lifetime is not None or b"x-amz-date" in request.headers or "date" in signed
    if not dated:
        raise _invalid("'Date' must be a 'SignedHeader' in the AWS Authorization.")
    for name in request.headers:
        if name.startswith(b"x-amz-") and name.decode("latin-1") not in signed:
            raise _invalid(f"'{name.decode('latin-1')}' must be a 'SignedHeader' in the AWS Authorization.")


def _body_hash(request: Request) -> bytes:
    """The hash of the body that arrived, which is also what a header may claim; an unsigned body is not accepted."""
    computed = hashlib.sha256(request.body).hexdigest().encode()
    if request.headers.get(b"x-amz-content-sha256", computed) != computed:
        raise _invalid("The provided 'x-amz-content-sha256' header does not match what was computed.")
    return computed


def _canonical_forms(request: Request, signature: Signature, body_hash: bytes) -> Iterator[bytes]:
    path = canonical_path(request.path)
    headers = _canonical_headers(request, signature.signed_headers)
    names = ";".join(signature.signed_headers).encode("latin-1")
    for query in _canonical_queries(request.query):
        yield b"\n".join((request.method.encode(), path, query, headers, names, body_hash))


def canonical_path(path: bytes) -> bytes:
    """A path as sent, without empty and dot segments, and encoded once more."""
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            kept = kept[:-1]
        elif segment not in (b"", b"."):
            kept.append(segment)
    closing = b"/" if kept and path.endswith(b"/") else b""
    return quote(b"/" + b"/".join(kept) + closing, safe="/~").encode()


def _canonical_headers(request: Request, names: tuple[str, ...]) -> bytes:
    values: dict[bytes, list[bytes]] = {}
    for name, value in request.all_headers:
        values.setdefault(name, []).append(b" ".join(value.split()))
    wanted = [name.encode("latin-1") for name in names]
    return b"".join(name + b":" + b",".join(values.get(name, [])) + b"\n" for name in wanted)


def _canonical_queries(query: bytes) -> list[bytes]:
    """The forms in which a client may have signed the query: as sent, and strictly encoded; the signature left out."""
    pairs = [p.partition(b"=")[::2] for p in query.split(b"&") if p and not p.startswith(b"X-Amz-Signature=")]
    as_sent = _joined(pairs)
    strict = _joined([(_strict(name), _strict(value)) for name, value in pairs])
    return [as_sent] if as_sent == strict else [as_sent, strict]


def _joined(pairs: list[tuple[bytes, bytes]]) -> bytes:
    return b"&".join(name + b"=" + value for name, value in sorted(pairs))


def _strict(text: bytes) -> bytes:
    return quote(unquote_to_bytes(text), safe="-_.~").encode()


def _query_parameters(query: bytes) -> Iterator[tuple[bytes, bytes]]:
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        yield unquote_to_bytes(name), unquote_to_bytes(value)


def _minutes(span: timedelta) -> int:
    return int(span.total_seconds()) // 60


def _invalid(text: str) -> ApiError:
    return ApiError("InvalidSignatureException", text)


def _incomplete(text: str, header: str) -> ApiError:
    digest = base64.b64encode(hashlib.sha256(header.encode("latin-1", "replace")).digest()).decode()
    shown = f"(Hashed with SHA-256 and encoded with Base64) Authorization={digest}"
    return ApiError("IncompleteSignatureException", f"{text} {shown}")
