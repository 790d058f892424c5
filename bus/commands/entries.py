"""PutEvents entries from JSON lines, and requests from entries: the part of ``busbar put`` that speaks to nobody."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, NamedTuple

from bus.client import ClientError

BATCH = 10
BATCH_BYTES = 900_000
"""Well under the size that a bus takes by default, however it counts."""

MEMBERS = ("Source", "DetailType", "Detail", "EventBusName", "Resources", "Time", "TraceHeader")
FROM_EVENT = {
    "Source": "source",
    "DetailType": "detail-type",
    "Detail": "detail",
    "Resources": "resources",
    "Time": "time",
}
"""What a whole event has for each member of an entry; the bus itself makes the others."""

KEPT_OF_EVENT = ("id", "account", "region")
"""What a whole event of a service keeps besides."""


class Numbered(NamedTuple):
    """An entry, and the line it comes from."""

    line: int
    entry: dict[str, Any]


def read_entries(lines: Iterable[str | None], *, service: str | None = None) -> Iterator[Numbered | None]:
    """PutEvents entries from JSON lines; ClientError names the line that is none. None stays None.

    For a ``service``, a line need not have a source, and a whole event keeps its id, account and region.
    """
    number = 0
    for line in lines:
        if line is None:
            yield None
            continue
        number += 1
        if not line.strip():
            continue
        try:
            yield Numbered(number, _entry(json.loads(line), service))
        except json.JSONDecodeError as error:
            raise ClientError(f"line {number} is not JSON: {error}") from None
        except ValueError as error:
            raise ClientError(f"line {number} {error}") from None


def _entry(given: Any, service: str | None) -> dict[str, Any]:
    """The entry of one line; ValueError completes a sentence that begins with the line."""
    if not isinstance(given, dict):
        raise ValueError("is not a JSON object")
    kept = {}
    if "source" in given or (service is not None and "detail-type" in given):
        kept = {name: given[name] for name in KEPT_OF_EVENT if service is not None and given.get(name) is not None}
        given = {name: given.get(key) for name, key in FROM_EVENT.items()}
    if service is not None:
        given = {**given, "Source": given.get("Source") or service}
    entry = {name: value for name, value in given.items() if value is not None}
    for name in entry.keys() - set(MEMBERS):
        near = get_close_matches(name, MEMBERS, 1)
        raise ValueError(f"has {name!r}, which no entry has" + (f"; did you mean {near[0]!r}?" if near else ""))
    missing = [name for name in ("Source", "DetailType", "Detail") if name not in entry]
    if missing:
        raise ValueError(f"has no {', '.join(missing)}")
    if not isinstance(entry["Detail"], str):
        entry["Detail"] = json.dumps(entry["Detail"], ensure_ascii=False)
    if "Time" in entry:
        entry["Time"] = _instant(entry["Time"])
    _check_texts(entry)
    return entry | kept


def _check_texts(entry: dict[str, Any]) -> None:
    for name in MEMBERS:
        value = entry.get(name, "")
        if name == "Resources":
            if value and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
                raise ValueError("has Resources that are not a list of texts")
        elif name != "Time" and not isinstance(value, str):
            raise ValueError(f"has a {name} that is not text")


def _instant(given: Any) -> datetime | float:
    """A time as seconds since the epoch or in ISO 8601, in UTC unless it says otherwise."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return given
    try:
        instant = datetime.fromisoformat(given)
    except (ValueError, TypeError):
        raise ValueError(f"has a time that is none: {given!r}; write it as 2026-01-31T12:00:00Z") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def batches(entries: Iterable[Numbered | None]) -> Iterator[list[Numbered]]:
    """Entries in requests of at most ten that stay under the size limit; None sends what there is."""
    batch: list[Numbered] = []
    size = 0
    for each in entries:
        length = 0 if each is None else sum(len(str(value).encode()) for value in each.entry.values())
        if batch and (each is None or len(batch) == BATCH or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        if each is not None:
            batch.append(each)
            size += length
    if batch:
        yield batch
