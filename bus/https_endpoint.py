"""HTTPS endpoints: the URLs that connections and API destinations name, read and judged.

What has no scheme is meant to be https. Plain http is for loopback alone, where nobody listens in, and not for strict
mode.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from yarl import URL

from bus.config import is_loopback

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_HOST = re.compile(r"[A-Za-z0-9._\-]+")


class HttpsEndpoints:
    """Judges endpoints; ``check_host`` says in a sentence why nothing may be sent to a host, or None."""

    def __init__(self, *, strict: bool, check_host: Callable[[str], str | None]) -> None:
        self._strict = strict
        self._check_host = check_host

    def refusal(self, text: str) -> str | None:
        """Why the endpoint cannot be used, in AWS's words where AWS has any; None when it can."""
        try:
            url = read_endpoint(text)
        except ValueError:
            url = URL()
        host = url.raw_host or ""
        if _HOST.fullmatch(host) is None or url.raw_user is not None or url.raw_password is not None:
            return _invalid(text)
        if url.scheme != "https" and (url.scheme != "http" or self._strict or not is_loopback(host)):
            return _invalid(text)
        return self._check_host(host)


def read_endpoint(text: str) -> URL:
    """The endpoint as a URL; ValueError when it is none."""
    return URL(text if _SCHEME.match(text) else f"https://{text}")


def _invalid(text: str) -> str:
    return f"Endpoint '{text}' is invalid, please provide a valid HTTPS endpoint URL."
