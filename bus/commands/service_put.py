"""``busbar put --as-service``: the same events as a service's, on the default bus."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from bus.client import Client, ClientError
from bus.commands.entries import Numbered
from rules.event import EventTimeError, format_time

DELIVERIES = ("durable", "best-effort")

Send = Callable[[list[Numbered]], tuple[list[dict[str, Any]], int]]
"""Puts some entries; their results, and how many the bus dropped."""


def shift_arguments(
    source: str | None, detail_type: str | None, detail: str | None, service: str
) -> tuple[str | None, str | None, str | None]:
    """The arguments of one event, whose source is the option's and so not among them."""
    if detail is not None:
        raise click.UsageError("with --as-service give DETAIL_TYPE and DETAIL: the source is the service")
    return (None if source is None else service), source, detail_type


def as_service(client: Client, delivery: str) -> Send:
    """A way to put entries as a service does."""

    def send(batch: list[Numbered]) -> tuple[list[dict[str, Any]], int]:
        body = {"Delivery": delivery, "Entries": [_event(each.entry) for each in batch]}
        answer = client.call("POST", "/_bus/service-events", body=body)
        return answer["Entries"], answer.get("DroppedEntryCount", 0)

    return send


def _event(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as the route takes it; the detail as text, so that its numbers stay as they are."""
    event: dict[str, Any] = {
        "source": entry["Source"],
        "detail-type": entry["DetailType"],
        "detail": entry["Detail"],
        "resources": entry.get("Resources") or [],
        **{name: entry[name] for name in ("id", "account", "region") if name in entry},
    }
    if "Time" in entry:
        event["time"] = _time(entry["Time"])
    return event


def _time(given: datetime | float) -> str:
    try:
        return given.isoformat() if isinstance(given, datetime) else format_time(given)
    except EventTimeError as error:
        raise ClientError(f"the time {given} cannot be: {error}") from None
