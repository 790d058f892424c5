"""The OAuth token request of a connection, client credentials in the form, and what its answer means.

There is no Authorization header, and nothing is added to what the connection says: a ``grant_type`` is one of its body
parameters. A GET takes the form in its query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
from yarl import URL

from bus.clock import Clock
from bus.connections.parameters import OAUTH_HTTP, entries
from bus.connections.tokens import Grant, NoToken, Token
from bus.https_endpoint import read_endpoint
from bus.targets.http_client import Answer, HttpClient, NotHttp, Origin
from bus.targets.invocation import STRIPPED, USER_AGENT
from rules.header import header_value, is_token

UNREACHABLE = "Could not connect to the specified endpoint."
FORM = "application/x-www-form-urlencoded"
LONGEST_LIFE_S = 10 * 365 * 86_400


class TokenAnswer(msgspec.Struct):
    """What is read of a token server's answer."""

    access_token: str
    expires_in: float | str | None = None


_read = msgspec.json.Decoder(TokenAnswer).decode


class TokenRequests:
    """Makes token requests through a client that reads bodies."""

    def __init__(self, client: HttpClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def fetch(self, oauth: Mapping[str, Any]) -> Grant:
        """One request with a connection's OAuthParameters."""
        try:
            origin, request = token_request(oauth)
            answer = await self._client.exchange(origin, request)
        except NotHttp:
            return NoToken("ERROR_FROM_TARGET", "The authorization endpoint answered with something that is not HTTP.")
        except (OSError, UnicodeError):  # TimeoutError among them
            return NoToken("CONNECTION_FAILURE", UNREACHABLE)
        return read_answer(answer, self._clock.now_ms())


def token_request(oauth: Mapping[str, Any]) -> tuple[Origin, bytes]:
    """Where the request goes, and its bytes."""
    url: URL = read_endpoint(oauth["AuthorizationEndpoint"])
    http, method, client = oauth.get(OAUTH_HTTP), oauth["HttpMethod"], oauth["ClientParameters"]
    form = [
        *entries(http, "BodyParameters"),
        ("client_secret", client["ClientSecret"]),
        ("client_id", client["ClientID"]),
    ]
    query = list(entries(http, "QueryStringParameters"))
    if method == "GET":
        query += form
    pairs = [pair for pair in url.raw_query_string.split("&") if pair]
    pairs += [f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in query]
    target = url.raw_path + ("?" + "&".join(pairs) if pairs else "")
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {url.host_port_subcomponent}",
        f"User-Agent: {USER_AGENT}",
        "Accept: application/json",
        "Connection: close",
    ]
    for name, value in entries(http, "HeaderParameters"):
        if is_token(name) and name.lower() not in _OURS:
            lines.append(f"{name}: {header_value(value)}")
    body = b""
    if method != "GET":
        body = "&".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in form).encode()
        lines += [f"Content-Type: {FORM}", f"Content-Length: {len(body)}"]
    origin = Origin(url.scheme == "https", url.raw_host or "", url.port or 0)
    return origin, "\r\n".join([*lines, "", ""]).encode() + body


_OURS = STRIPPED | {"content-type", "accept"}


def read_answer(answer: Answer, now_ms: int) -> Grant:
    """The token in an answer, or why there is none; nothing that the server said is repeated."""
    if not 200 <= answer.status < 300:
        code = "THROTTLING" if answer.status == 429 else "ERROR_FROM_TARGET"
        code = "NO_PERMISSIONS" if answer.status in (400, 401, 403) else code
        return NoToken(code, f"The authorization endpoint answered with HTTP status {answer.status}.")
    try:
        found = _read(answer.body)
        ends = _end(found.expires_in, now_ms)
    except (ValueError, msgspec.MsgspecError):
        return NoToken("ERROR_FROM_TARGET", "The answer of the authorization endpoint holds no access token.")
    if _USABLE.fullmatch(found.access_token) is None:
        return NoToken("ERROR_FROM_TARGET", "The answer of the authorization endpoint holds no usable access token.")
    return Token(found.access_token, ends)


_USABLE = re.compile(r"[\x21-\x7e]+")
"""What a header can carry behind the word Bearer."""


def _end(expires_in: float | str | None, now_ms: int) -> int | None:
    if expires_in is None:
        return None
    life_s = min(max(float(expires_in), 0.0), LONGEST_LIFE_S)
    return now_ms + int(life_s * 1000)  # ValueError for what is not a number
