"""Batches: what is wrong with the whole, then one entry after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bus.errors import ApiError
from bus.queues.errors import code_of

MAX_ENTRIES = 10
MAX_BYTES = 1_048_576

Entry = Mapping[str, Any]

_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


def check_entries(entries: Sequence[Entry] | None, shape: str) -> Sequence[Entry]:
    """The entries, when number and ids are right; ``shape`` is the entry's name in the API."""
    if not entries:
        raise ApiError("EmptyBatchRequest", f"There should be at least one {shape} in the request.")
    if len(entries) > MAX_ENTRIES:
        text = f"Maximum number of entries per request are {MAX_ENTRIES}. You have sent {len(entries)}."
        raise ApiError("TooManyEntriesInBatchRequest", text)
    seen: set[str] = set()
    for entry in entries:
        if not _ID.fullmatch(entry.get("Id") or ""):
            raise ApiError("InvalidBatchEntryId", _ID_RULE)
    for entry in entries:
        if entry["Id"] in seen:
            raise ApiError("BatchEntryIdsNotDistinct", f"Id {entry['Id']} repeated.")
        seen.add(entry["Id"])
    return entries


_ID_RULE = (
    "A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
    "It can be at most 80 letters long."
)


def check_total(size: int) -> None:
    """Raise when the messages of a batch are too long together."""
    if size > MAX_BYTES:
        text = f"Batch requests cannot be longer than {MAX_BYTES} bytes. You have sent {size} bytes."
        raise ApiError("BatchRequestTooLong", text)


def failed(entry: Entry, error: ApiError) -> dict[str, Any]:
    """An entry that was refused, as the answer shows it."""
    return {"Id": entry["Id"], "SenderFault": True, "Code": code_of(error), "Message": error.message}


def answer(successful: list[dict[str, Any]], refused: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer to a batch: only the lists that have entries."""
    lists = {"Successful": successful, "Failed": refused}
    return {name: entries for name, entries in lists.items() if entries}


def each(entries: Sequence[Entry], act: Callable[[Entry], None]) -> dict[str, Any]:
    """Act on every entry; those that raise ApiError have failed, the others succeeded with nothing to tell."""
    successful: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for entry in entries:
        try:
            act(entry)
        except ApiError as error:
            refused.append(failed(entry, error))
        else:
            successful.append({"Id": entry["Id"]})
    return answer(successful, refused)
