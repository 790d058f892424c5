"""The options every command that speaks to a running bus has, and how its errors reach a person."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import urlsplit

import click
from botocore.exceptions import BotoCoreError, EndpointConnectionError  # type: ignore[import-untyped]
from botocore.exceptions import ClientError as AwsRefusal

from bus.client import DEFAULT_ENDPOINT, DEFAULT_REGION, WHO_CALLS, Client, ClientError, nobody_at
from bus.commands.options import option

NOT_KNOWN = frozenset(
    {"IncompleteSignatureException", "InvalidSignatureException", "MissingAuthenticationTokenException",
     "UnrecognizedClientException"}
)  # fmt: skip
"""Codes of AWS for a caller that is not the one it says."""


def with_client(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--endpoint-url``, ``--region`` and ``--token``, and hand it a `Client` as its first argument."""

    @option(
        "--endpoint-url", envvar="BUSBAR_ENDPOINT_URL", default=DEFAULT_ENDPOINT, show_default=True,
        metavar="URL", callback=_endpoint, help="Where the bus is.",
    )  # fmt: skip
    @option(
        "--region", envvar="BUSBAR_REGION", default=DEFAULT_REGION, show_default=True,
        metavar="REGION", help="Region to act in.",
    )  # fmt: skip
    @option(
        "--token", envvar="BUSBAR_TOKEN", default=None, metavar="TOKEN",
        help="Bearer token for the operator's routes, where the bus asks for one.",
    )  # fmt: skip
    @functools.wraps(command)
    def wrapped(*args: Any, endpoint_url: str, region: str, token: str | None, **values: Any) -> None:
        try:
            command(Client(endpoint_url, region, token), *args, **values)
        except AwsRefusal as error:
            code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
            fail(f"{code}: {message}" + (f" ({WHO_CALLS})" if code in NOT_KNOWN else ""))
        except EndpointConnectionError:
            fail(nobody_at(endpoint_url))
        except (ClientError, BotoCoreError) as error:
            fail(str(error))

    return wrapped


def fail(sentence: str) -> NoReturn:
    """Say what went wrong and end with status 1."""
    click.echo(f"busbar: {sentence}", err=True)
    sys.exit(1)


def _endpoint(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The URL as it is used; a mistake in it is found before anything is sent."""
    place = urlsplit(value)
    try:
        usable = place.scheme in ("http", "https") and bool(place.hostname) and place.port != 0
    except ValueError:
        usable = False
    if not usable or place.path not in ("", "/"):
        raise click.BadParameter(f"{value!r} is not the URL of a bus, such as {DEFAULT_ENDPOINT}")
    return value.rstrip("/")
