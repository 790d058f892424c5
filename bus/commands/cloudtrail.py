"""``busbar cloudtrail``: log files of CloudTrail as the events they stand for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
import msgspec

from bus.client import Client, ClientError
from bus.commands.connection import with_client
from bus.commands.options import option
from bus.errors import ApiError
from bus.origins.cloudtrail import read_file

MOST_RECORDS = 200
MOST_BYTES = 1 << 20
"""Of one request, unless a single record is longer."""

LARGEST = 1 << 30
"""Most bytes of a file when it is unpacked; it is held in memory."""

SHOW_PROGRESS_FROM = 1000


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(allow_dash=True), metavar="FILE...")
@option("--quiet", is_flag=True, help="Say nothing but errors.")
@with_client
def cloudtrail(client: Client, files: Sequence[str], quiet: bool) -> None:
    """Put the records of CloudTrail's log FILEs, gzipped or not, on the default bus; - is stdin.

    Each record becomes an event of its service ("AWS API Call via CloudTrail" and its like) whose detail is the
    record. Read-only management events reach only rules in the state ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS.

    \b
      busbar cloudtrail 111122223333_CloudTrail_eu-west-1_20260302T0920Z_x7Kc.json.gz
      aws s3 cp s3://trails/some.json.gz - | busbar cloudtrail -

    Records that are no events are named, and the others put; the command then ends with 1. A file that is sent again
    within five minutes puts nothing twice.
    """
    put, refused = 0, 0
    for name in files:
        accepted, reasons = _send_file(client, name, quiet=quiet)
        put += accepted
        refused += len(reasons)
        for reason in reasons:
            click.echo(f"refused: {_shown(name)}: {reason}", err=True)
    if not quiet:
        noun = "record" if put == 1 else "records"
        click.echo(f"{put} {noun} put" + (f", {refused} refused" if refused else ""))
    if refused:
        sys.exit(1)


def _send_file(client: Client, name: str, *, quiet: bool) -> tuple[int, list[str]]:
    """Put one file's records; how many were taken, and a sentence for each that was not."""
    records = _read(name)
    accepted, reasons = 0, []
    shown = not quiet and sys.stderr.isatty() and len(records) >= SHOW_PROGRESS_FROM
    bar = click.progressbar(length=len(records), label=_shown(name), file=sys.stderr, show_pos=True) if shown else None
    for start, batch in _batches(records):
        answer = client.call("POST", "/_bus/cloudtrail", body=msgspec.json.encode({"Records": batch}))
        accepted += answer["Accepted"]
        reasons += [_sentence(start, each) for each in answer["Reasons"]]
        if bar is not None:
            bar.update(len(batch))
    if bar is not None:
        bar.render_finish()
    return accepted, reasons


def _sentence(start: int, reason: dict[str, Any]) -> str:
    return f"record {start + reason['Index']} {reason['Reason']}"


def _read(name: str) -> list[msgspec.Raw]:
    try:
        with click.open_file(name, "rb") as file:
            body = file.read()
    except OSError as error:
        raise ClientError(f"{_shown(name)} cannot be read: {error.strerror}") from None
    try:
        return read_file(body, limit=LARGEST)
    except ApiError as error:
        raise ClientError(f"{_shown(name)}: {error.message.replace('The body', 'it')}") from None


def _batches(records: Sequence[msgspec.Raw]) -> Iterator[tuple[int, list[msgspec.Raw]]]:
    """The records in requests of some, each with the place of its first."""
    start, size = 0, 0
    for place, record in enumerate(records):
        length = len(bytes(record))
        if place > start and (place - start == MOST_RECORDS or size + length > MOST_BYTES):
            yield start, list(records[start:place])
            start, size = place, 0
        size += length
    if records:
        yield start, list(records[start:])


def _shown(name: str) -> str:
    return "stdin" if name == "-" else name
