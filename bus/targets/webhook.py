"""Webhooks: an event becomes one POST to a URL.

What is the same for each attempt at a URL (its origin, the beginning of the request, the reason it is refused) is
worked out once and remembered. The status of the answer decides what the attempt came to; the rest is of no use.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from socket import gaierror

import structlog
from yarl import URL

from bus.clock import Clock
from bus.config import Settings
from bus.errors import ConfigError
from bus.targets import Delivered, Delivery, Failed, Outcome
from bus.targets.addresses import Addresses, RefusedAddress
from bus.targets.http_client import Answer, Disconnected, HttpClient, NotHttp, Origin
from rules.retry import parse_retry_after

REMEMBERED_URLS = 10_000

_RETRIED_STATUSES = frozenset({401, 407, 408, 409, 425, 429})
_DELIVERED = Delivered()
_USER_AGENT = f"busbar/{version('busbar')}"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is known about a URL before any attempt.

    ``head`` is the beginning of every request, up to the headers that differ; ``place`` is scheme, host and port, for
    messages, since paths and queries often hold secrets.
    """

    origin: Origin
    head: str
    place: str


class Webhook:
    """Posts events to URLs: those that targets name as their Arn, and those that wires put in an ARN's stead."""

    def __init__(self, settings: Settings, clock: Clock, addresses: Addresses) -> None:
        self._clock = clock
        self._addresses = addresses
        self._key = None if settings.webhook_secret is None else signing_key(settings.webhook_secret)
        self._client = HttpClient(settings.webhook_timeout, addresses.open_socket if addresses.guarded else None)
        self._endpoints: dict[str, Endpoint | Failed] = {}

    async def deliver(self, delivery: Delivery) -> Outcome:
        return await self.post(delivery.route.arn, delivery)

    async def post(self, url: str, delivery: Delivery) -> Outcome:
        """One attempt at ``url``, whatever the Arn of the delivery's target."""
        endpoint = self._endpoints.get(url) or self._remember(url)
        if isinstance(endpoint, Failed):
            return endpoint
        try:
            answer = await self._client.exchange(endpoint.origin, self._request(endpoint, delivery))
        except Exception as error:
            return failure(error, endpoint.place)
        return _DELIVERED if 200 <= answer.status < 300 else self._judge(answer, endpoint)

    async def close(self) -> None:
        await self._client.close()

    def _request(self, endpoint: Endpoint, delivery: Delivery) -> bytes:
        body = delivery.body
        message_id = webhook_id(delivery)
        timestamp = str(self._clock.now_ms() // 1000)
        head = f"{endpoint.head}webhook-id: {message_id}\r\nwebhook-timestamp: {timestamp}\r\n"
        if self._key is not None:
            head += f"webhook-signature: {sign(self._key, message_id, timestamp, body)}\r\n"
        if delivery.trace is not None and delivery.trace.isascii() and delivery.trace.isprintable():
            head += f"X-Amzn-Trace-Id: {delivery.trace}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def _judge(self, answer: Answer, endpoint: Endpoint) -> Failed:
        asked = answer.retry_after
        return Failed(
            _code(answer.status),
            f"{endpoint.place} answered with HTTP status {answer.status}.",
            retry=answer.status >= 500 or answer.status in _RETRIED_STATUSES,
            retry_after=None if asked is None else parse_retry_after(asked, self._clock.now_ms()),
        )

    def _remember(self, url: str) -> Endpoint | Failed:
        if len(self._endpoints) >= REMEMBERED_URLS:
            self._endpoints.clear()
        refusal = self._addresses.check_url(url)
        known: Endpoint | Failed
        known = endpoint_of(URL(url)) if refusal is None else Failed("SDK_CLIENT_ERROR", refusal)
        self._endpoints[url] = known
        return known


def endpoint_of(url: URL) -> Endpoint:
    """Take a URL apart; a user name and password become a header, the fragment stays at home."""
    lines = [
        f"POST {url.raw_path_qs} HTTP/1.1",
        f"Host: {url.host_port_subcomponent}",
        f"User-Agent: {_USER_AGENT}",
        "Content-Type: application/json",
    ]
    if url.user is not None or url.password is not None:
        pair = f"{url.user or ''}:{url.password or ''}"
        lines.append("Authorization: Basic " + base64.b64encode(pair.encode()).decode())
    origin = Origin(url.scheme == "https", url.raw_host or "", url.port or 0)
    return Endpoint(origin, "\r\n".join([*lines, ""]), str(url.origin()))


def signing_key(secret: str) -> bytes:
    """The key in a secret of the form ``whsec_`` and base64; ConfigError when it holds none."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ConfigError("webhook_secret must be whsec_ followed by base64, such as whsec_$(openssl rand -base64 24)")
    return key


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The webhook-signature header: version 1 of Standard Webhooks, HMAC-SHA256 over id, timestamp and body."""
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(digest).decode()


def webhook_id(delivery: Delivery) -> str:
    """The webhook-id header: the same for every attempt to bring an event to a target of a rule.

    An event's id is a UUID, but a forwarded event brings its own: what would not stay within a header is hashed.
    """
    event_id = delivery.event_id
    if not (event_id.isascii() and event_id.isprintable()):
        event_id = hashlib.sha256(event_id.encode(errors="backslashreplace")).hexdigest()[:32]
    return event_id + _suffix(delivery.route.rule_arn, str(delivery.route.target["Id"]))


@lru_cache(maxsize=10_000)
def _suffix(rule_arn: str, target_id: str) -> str:
    return "_" + hashlib.sha256(f"{rule_arn} {target_id}".encode()).hexdigest()[:16]


def failure(error: Exception, place: str) -> Failed:
    """What an attempt that ended without a status came to; ``place`` names the other side in messages."""
    if isinstance(error, _NEVER_SENT):
        return Failed("SDK_CLIENT_ERROR", f"Nothing may be sent to the address of {place}.")
    for kind, code, sentence in _FAILURES:
        if isinstance(error, kind):
            detail = getattr(error, "strerror", None) or type(error).__name__
            return Failed(code, sentence.format(place=place, detail=detail), retry=True)
    log.error("webhook attempt ended in an unexpected way", place=place, exc_info=error)
    return Failed("INTERNAL_ERROR", f"The attempt at {place} ended with {type(error).__name__}.", retry=True)


_NEVER_SENT = (RefusedAddress, UnicodeError)
"""An address that is refused, or a host with a label that no name can have."""

_FAILURES: tuple[tuple[type[Exception], str, str], ...] = (
    (TimeoutError, "TIMEOUT", "{place} did not answer in time."),
    (gaierror, "CONNECTION_FAILURE", "The host name of {place} could not be resolved."),
    (ssl.SSLCertVerificationError, "CONNECTION_FAILURE", "The certificate of {place} is not trusted."),
    (ssl.SSLError, "CONNECTION_FAILURE", "{place} did not complete the TLS handshake."),
    (NotHttp, "ERROR_FROM_TARGET", "{place} answered with something that is not HTTP."),
    (Disconnected, "CONNECTION_FAILURE", "{place} closed the connection without an answer."),
    (OSError, "CONNECTION_FAILURE", "No connection to {place}: {detail}."),
)
"""First match wins: the kind of error, its ERROR_CODE, and its ERROR_MESSAGE. All of them may end differently next
time, and some of these attempts may have arrived."""


def _code(status: int) -> str:
    if status == 429:
        return "THROTTLING"
    return "ERROR_FROM_TARGET" if status >= 500 else "SDK_CLIENT_ERROR"
