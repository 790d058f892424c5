"""How the commands speak to a running bus: AWS operations through botocore, the operator's routes over plain HTTP.

Both are signed with the AWS credentials of the environment or of the AWS configuration files where there are any,
and with placeholders where there are none, which a bus on loopback accepts. Credentials that would have to be fetched
(from a role, an instance, single sign-on) are not looked for: they mean nothing to a bus, and looking takes seconds.
A bearer token takes the place of a signature on the operator's routes.
"""

from __future__ import annotations

import functools
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import botocore.session  # type: ignore[import-untyped]
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

DEFAULT_ENDPOINT = "http://127.0.0.1:4010"
DEFAULT_REGION = "us-east-1"
CONNECT_S = 5.0
SILENCE_S = 60.0
"""Longer than a route that goes on answering is ever silent."""

WHO_CALLS = "to say who is calling, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
"""What to do when a bus wants credentials."""

LOCAL_PROVIDERS = frozenset({"env", "shared-credentials-file", "config-file", "custom-process"})
"""botocore's ways to credentials that ask nobody over the network."""


class ClientError(Exception):
    """The bus could not be reached or refused; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Client:
    """A running bus at ``endpoint``."""

    endpoint: str
    region: str
    token: str | None = None

    def aws(self, service: str) -> Any:
        """A botocore client for ``events`` or ``sqs``, which any number of threads may use."""
        credentials = _credentials()
        client = botocore.session.Session().create_client(
            service,
            region_name=self.region,
            endpoint_url=self.endpoint,
            aws_access_key_id=credentials.access_key,
            aws_secret_access_key=credentials.secret_key,
            aws_session_token=credentials.token,
            config=Config(
                retries={"total_max_attempts": 2},
                connect_timeout=CONNECT_S,
                proxies={},  # as on the operator's routes: a bus is nearby, and no proxy knows this machine's loopback
            ),
        )
        client.meta.events.register("before-parse", self._by_a_bus)
        return client

    def _by_a_bus(self, response_dict: dict[str, Any], **_: Any) -> None:
        """Refuse what no bus has written, before botocore takes a page of HTML for an answer or for an error."""
        status, headers = response_dict["status_code"], response_dict["headers"]
        if "x-amzn-requestid" not in headers and (status < 400 or "json" not in headers.get("content-type", "")):
            raise ClientError(no_bus(self.endpoint, status))

    def call(self, method: str, path: str, *, query: dict[str, str] | None = None, body: Any = None) -> Any:
        """One of the operator's routes, answered with its JSON; ``body`` is JSON to be, or already its bytes."""
        with self._opened(method, path, query, body, silence=None) as response:
            return self._answer(response.read(), response.status)

    def _answer(self, text: bytes, status: int) -> Any:
        try:
            given = json.loads(text)
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise ClientError(no_bus(self.endpoint, status))
        return _Answer(given, self.endpoint, status)

    def lines(self, path: str, *, query: dict[str, str] | None = None) -> Iterator[Any]:
        """A route that goes on answering: one JSON value a line, until the caller ends it.

        ClientError when it is the bus that ends it.
        """
        with self._opened("GET", path, query, None, silence=SILENCE_S) as response:
            while line := response.readline():
                yield self._answer(line, response.status)
        raise ClientError(f"the bus at {self.endpoint} ended the connection")

    @contextmanager
    def _opened(
        self, method: str, path: str, query: dict[str, str] | None, body: Any, *, silence: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        place = urlsplit(self.endpoint)
        kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        connection = kind(place.hostname or "127.0.0.1", place.port, timeout=CONNECT_S)
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        target = path + ("?" + urlencode(query, quote_via=quote) if query else "")
        try:
            connection.connect()
            connection.sock.settimeout(silence)
            connection.request(method, target, body=data, headers=self.headers(method, target, data))
            response = connection.getresponse()
            if response.status >= 400:
                raise ClientError(_refusal(response))
            yield response
        except ConnectionRefusedError:
            raise ClientError(nobody_at(self.endpoint)) from None
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(f"the connection to {self.endpoint} failed: {error}") from error
        finally:
            connection.close()

    def headers(self, method: str, target: str, data: bytes) -> dict[str, str]:
        """What says who is calling one of the operator's routes."""
        if self.token:
            return {"Authorization": f"Bearer {self.token}"}
        request = AWSRequest(method=method, url=self.endpoint + target, data=data)
        SigV4Auth(_credentials(), "busbar", self.region).add_auth(request)
        return dict(request.headers.items())


def nobody_at(endpoint: str) -> str:
    """What to say when nothing listens at an address."""
    return f"no bus answers at {endpoint}; start one with `busbar serve`, or name another with --endpoint-url"


def no_bus(endpoint: str, status: int) -> str:
    """What to say when something else than a bus listens at an address."""
    return f"the server at {endpoint} answered {status}, but not as a bus does; is it a busbar?"


class _Answer(dict[str, Any]):
    """An answer of an operator's route. A member that every bus gives and that is not there: it was no bus."""

    def __init__(self, given: dict[str, Any], endpoint: str, status: int) -> None:
        super().__init__(given)
        self._said = no_bus(endpoint, status)

    def __missing__(self, name: str) -> Any:
        raise ClientError(self._said)


@functools.cache
def _credentials() -> Any:
    """Credentials that are at hand, else placeholders; looked for once."""
    resolver = botocore.session.Session().get_component("credential_provider")
    for provider in list(resolver.providers):
        if provider.METHOD not in LOCAL_PROVIDERS:
            resolver.remove(provider.METHOD)
    return resolver.load_credentials() or Credentials("busbar", "busbar")


def _refusal(response: http.client.HTTPResponse) -> str:
    text = response.read(65_536)
    try:
        sentence = str(json.loads(text)["message"])
        return f"{sentence} ({WHO_CALLS}, or give --token)" if response.status in (401, 403) else sentence
    except (ValueError, KeyError, TypeError):
        return f"the server answered {response.status} {response.reason}; is it a busbar?"
