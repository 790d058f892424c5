"""Who may do what.

Three situations, decided once from the settings:

* **With a credentials file**, on any address: every AWS call is signed by a known key, and the key's ``actions``
  allow it. ``/_bus`` and ``/metrics`` take a signature too, or the bearer token. ``/_bus/health`` stays open, since
  probes cannot sign; to those who do not it tells no more than whether the bus is well.
* **On loopback without one**: everyone on this machine may act, with any credentials or none. A browser on this
  machine is led by pages from elsewhere, so the Host header must name this machine (against DNS rebinding), and a
  request with an Origin must come from a page of this very server.
* **--insecure without one**: everyone who can connect may act.

No answer ever carries a CORS header.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from bus.api.credentials import Key, read_credentials
from bus.api.request import Request
from bus.api.sigv4 import Verifier, demand_region
from bus.api.sigv4a import ALGORITHM as ASYMMETRIC
from bus.clock import Clock
from bus.config import Settings, is_loopback
from bus.errors import ApiError
from bus.scope import Call, Scope

KEPT_CALLS = 4096
"""Distinct unsigned callers remembered, so that their headers need not be parsed again."""
LONGEST_KEPT = 512
"""Bytes of the headers that identify such a caller; longer ones are parsed each time."""

OPERATOR_SERVICES = ("busbar", "events")
READ, WRITE = "busbar:Read", "busbar:Write"
OPEN_PATHS = frozenset({b"/_bus/health"})

_CREDENTIAL = re.compile(r"Credential=([^,\s]+)")
_PRESIGNED_CREDENTIAL = re.compile(r"(?:^|&)X-Amz-Credential=([^&]+)")


class Access:
    """Admits or refuses requests, and says whose they are.

    Making one reads the credentials file, if there is one; ConfigError when it has no usable content.
    """

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        self._settings = settings
        self._keys: Mapping[str, Key] | None = None
        if settings.credentials:
            self._keys = read_credentials(Path(settings.credentials))
        self._verifier = Verifier(self._secret_of, clock=clock)
        self._only_here = self._keys is None and settings.on_loopback and not settings.insecure
        self._calls: dict[tuple[bytes, bytes], Call] = {}

    def __repr__(self) -> str:
        how = "open" if self._keys is None else f"{len(self._keys)} keys"
        return f"<Access {how}{', this machine only' if self._only_here else ''}>"

    def admit_call(self, request: Request, *, service: str, action: str) -> Call:
        """The caller of an AWS operation.

        ``service`` is the name that requests are signed for, ``action`` the IAM action (``events:PutEvents``).
        Raises ApiError with AWS's code and text.
        """
        if self._keys is None:
            return self._admit_open(request)
        credential = self._verifier.verify(request, services=(service,))
        key = self._keys[credential.access_key]
        _demand_allowed(key, action)
        region = credential.region or self._settings.region
        return _call(request, Scope(key.account, region), credential.access_key)

    def admit_operator(self, request: Request) -> Call | None:
        """The caller of a route under ``/_bus``, or of ``/metrics``.

        A key with ``actions`` needs busbar:Read to look (GET, HEAD) and busbar:Write for all else; the bearer token
        may do both. None on a path that is open to everyone, when nobody says convincingly who is asking. Elsewhere
        that raises ApiError: 401 when nobody says who is asking, otherwise AWS's codes with status 403.
        """
        if self._keys is None:
            return self._admit_open(request)
        if self._bears_token(request):
            return _call(request, Scope(self._settings.account_id, self._settings.region), None)
        try:
            credential = self._verifier.verify(request, services=OPERATOR_SERVICES)
            key = self._keys[credential.access_key]
            _demand_allowed(key, READ if request.method in ("GET", "HEAD") else WRITE)
        except ApiError as error:
            if request.path in OPEN_PATHS:
                return None
            status = 401 if error.code == "MissingAuthenticationTokenException" else 403
            raise ApiError(error.code, error.message, status) from None
        region = credential.region or self._settings.region
        return _call(request, Scope(key.account, region), credential.access_key)

    def may(self, call: Call, action: str) -> bool:
        """Whether the caller of an admitted call may also do something else."""
        if self._keys is None:
            return True
        key = self._keys.get(call.access_key or "")
        return key is not None and key.allows(action)

    def _secret_of(self, access_key: str) -> str | None:
        key = None if self._keys is None else self._keys.get(access_key)
        return None if key is None else key.secret

    def _bears_token(self, request: Request) -> bool:
        kind, _, token = request.headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() != b"bearer" or not self._settings.token:
            return False
        return hmac.compare_digest(token.strip(), self._settings.token.encode())

    def _admit_open(self, request: Request) -> Call:
        headers = request.headers
        host = headers.get(b"host", b"")
        if self._only_here and b"origin" in headers:
            _demand_same_origin(headers[b"origin"], host)
        claim = _claim(request)
        call = self._calls.get((claim, host))
        if call is None:
            call = self._remember(claim, host)
        trace = headers.get(b"x-amzn-trace-id")
        return call if trace is None else Call(call.scope, call.host, trace.decode("latin-1"), call.access_key)

    def _remember(self, claim: bytes, host: bytes) -> Call:
        name = host.decode("latin-1")
        if self._only_here and not names_this_machine(name, self._settings.host):
            raise ApiError("AccessDeniedException", f"The Host header {name!r} does not name this machine.", 403)
        scope, access_key = self._claimed_scope(claim.decode("latin-1"))
        call = Call(scope, name, None, access_key)
        if len(self._calls) >= KEPT_CALLS:
            self._calls.clear()
        if len(claim) + len(host) <= LONGEST_KEPT:
            self._calls[claim, host] = call
        return call

    def _claimed_scope(self, claim: str) -> tuple[Scope, str | None]:
        """What the credential scope of an unverified signature says, else the settings."""
        found = _CREDENTIAL.search(claim) or _PRESIGNED_CREDENTIAL.search(claim)
        parts = _scope_parts(unquote(found[1]), claim) if found else []
        if len(parts) != 5:
            return Scope(self._settings.account_id, self._settings.region), None
        access_key, _, region, _, _ = parts
        region = region or self._settings.region
        demand_region(region)
        account = access_key if re.fullmatch(r"[0-9]{12}", access_key) else self._settings.account_id
        return Scope(account, region), access_key


def names_this_machine(host: str, own: str) -> bool:
    """Whether a Host header, with or without a port, can only mean this machine; ``own`` is the configured name."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?", host)
    if found is None:
        return False
    name = found[1].strip("[]").rstrip(".").lower()
    return name == own.lower() or is_loopback(name)


def _demand_same_origin(origin: bytes, host: bytes) -> None:
    """Refuse a browser that acts for a page of another server."""
    if origin.partition(b"://")[2].lower() != host.lower():
        raise ApiError("AccessDeniedException", "Pages of other servers may not call this one.", 403)


def _claim(request: Request) -> bytes:
    """The part of a request that names its credential scope: the start of Authorization, up to the first comma."""
    header = request.headers.get(b"authorization")
    if header is None:
        return request.query if b"X-Amz-Credential=" in request.query else b""
    start = header.partition(b",")[0]
    return start if b"Credential=" in start else header


def _scope_parts(credential: str, claim: str) -> list[str]:
    """The five parts of a credential scope; an asymmetric signature, which holds in several regions, names none."""
    if not claim.startswith(ASYMMETRIC):
        return credential.rsplit("/", 4)
    parts = credential.rsplit("/", 3)
    return [*parts[:2], "", *parts[2:]] if len(parts) == 4 else []


def _demand_allowed(key: Key, action: str) -> None:
    if not key.allows(action):
        user = f"arn:aws:iam::{key.account}:user/{key.access_key}"
        raise ApiError(
            "AccessDeniedException",
            f"User: {user} is not authorized to perform: {action} "
            f"because no identity-based policy allows the {action} action",
        )


def _call(request: Request, scope: Scope, access_key: str | None) -> Call:
    trace = request.headers.get(b"x-amzn-trace-id")
    host = request.headers.get(b"host", b"").decode("latin-1")
    return Call(scope, host, None if trace is None else trace.decode("latin-1"), access_key)
