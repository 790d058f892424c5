"""``busbar put``: events from arguments, a file, or JSON lines on stdin.

Theory of operation. Lines become entries, entries requests of at most ten, and requests go out from a few threads, so
that the next one is made while others wait for the disk of the bus. Of a stream nobody knows whether more is coming: a
request goes out when it is full, or when nothing came for a moment.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TextIO

import click

from bus.client import Client, ClientError
from bus.commands.connection import with_client
from bus.commands.entries import Numbered, batches, read_entries
from bus.commands.options import option
from bus.commands.service_put import DELIVERIES, Send, as_service, shift_arguments

IN_FLIGHT = 4
READ_AHEAD = 1000
LINGER_S = 0.02
SHOW_PROGRESS_FROM = 100


@click.command()
@click.argument("source", required=False)
@click.argument("detail_type", required=False)
@click.argument("detail", required=False)
@option("--bus", default="default", show_default=True, metavar="NAME", help="Event bus to put the events on.")
@option(
    "--resource", "resources", envvar="BUSBAR_PUT_RESOURCE", multiple=True, metavar="ARN",
    help="A resource of the event; may be repeated.",
)  # fmt: skip
@option("--file", "file", type=click.File("r", encoding="utf-8"), help="JSON lines to put; - is stdin.")
@option(
    "--as-service", "service", envvar="BUSBAR_PUT_AS_SERVICE", metavar="SOURCE",
    help="Put as a service does, on the default bus: the source is SOURCE, as in aws.s3, and not an argument.",
)  # fmt: skip
@option(
    "--delivery", type=click.Choice(DELIVERIES), default="durable", show_default=True,
    help="How a service's events are put: answered for when on disk, or taken if there is room.",
)  # fmt: skip
@option("--quiet", is_flag=True, help="Say nothing but errors.")
@with_client
def put(
    client: Client,
    source: str | None,
    detail_type: str | None,
    detail: str | None,
    bus: str,
    resources: tuple[str, ...],
    file: TextIO | None,
    service: str | None,
    delivery: str,
    quiet: bool,
) -> None:
    """Put events on a bus: one from the arguments, or many from JSON lines.

    A line is an entry as PutEvents takes it (Source, DetailType, Detail as object or text, ...), or a whole
    event as a target receives it (source, detail-type, detail, ...), which gets a new id.

    \b
      busbar put shop OrderPlaced '{"id": 1}'
      busbar put --file events.jsonl
      generate | busbar put
      busbar tail --json >> events.jsonl       # in another terminal: record what passes, to put it again later
      busbar put --as-service aws.s3 'Object Created' '{"bucket": {"name": "orders"}}'

    For one event its id is shown. Many go out in several requests at a time, so their order is not kept; where
    it matters, put them one after another. Ends with 1 when the bus refused any of them; the others are put.
    A line that is no entry ends it; how many events were put by then is told.
    """
    total: int | None = 1
    if service is not None:
        if bus != "default":
            raise click.UsageError(
                "events of services go to the default bus: --as-service and --bus do not go together"
            )
        source, detail_type, detail = shift_arguments(source, detail_type, detail, service)
    if source is not None and file is not None:
        raise click.UsageError("one event from the arguments, or many from --file; not both")
    if source is None and resources:
        raise click.UsageError("--resource is for the one event of the arguments; a line has its own Resources")
    if source is not None:
        entries: Iterable[Numbered | None] = [Numbered(1, _from_arguments(source, detail_type, detail, resources))]
    elif file is not None and file.seekable():
        total = sum(1 for line in file if line.strip())
        file.seek(0)
        entries = read_entries(file, service=service)
    else:
        total, stream = None, file or sys.stdin
        if stream.isatty():
            raise click.UsageError("nothing to put: give SOURCE DETAIL_TYPE DETAIL, --file, or JSON lines on stdin")
        entries = read_entries(_arriving(stream), service=service)
    send = _to_bus(client, bus) if service is None else as_service(client, delivery)
    _put_all(entries, send, _Report(total, quiet, from_lines=source is None))


def _from_arguments(
    source: str, detail_type: str | None, detail: str | None, resources: tuple[str, ...]
) -> dict[str, Any]:
    if detail_type is None or detail is None:
        raise click.UsageError("one event needs SOURCE, DETAIL_TYPE and DETAIL; many come from --file or stdin")
    try:
        fits = isinstance(json.loads(detail), dict)
    except ValueError:
        fits = False
    if not fits:
        raise click.BadParameter(
            f"{detail} is not a JSON object; quote it for the shell, as in '{{\"id\": 1}}'", param_hint="DETAIL"
        )
    return {"Source": source, "DetailType": detail_type, "Detail": detail, "Resources": list(resources)}


def _arriving(stream: TextIO) -> Iterator[str | None]:
    """Lines of a stream, read ahead by a thread; None when the next one lets itself be waited for."""
    ahead: queue.Queue[str | Exception | None] = queue.Queue(READ_AHEAD)
    threading.Thread(target=_read_ahead, args=(stream, ahead), daemon=True).start()
    while True:
        try:
            line = ahead.get(timeout=LINGER_S)
        except queue.Empty:
            yield None
            line = ahead.get()
        if isinstance(line, Exception):
            raise ClientError(f"the input cannot be read: {line}") from line
        if line is None:
            return
        yield line


def _read_ahead(stream: TextIO, ahead: queue.Queue[str | Exception | None]) -> None:
    try:
        for line in stream:
            ahead.put(line)
        ahead.put(None)
    except (OSError, UnicodeDecodeError) as error:
        ahead.put(error)


def _to_bus(client: Client, bus: str) -> Send:
    """The way to put entries that everyone has."""
    events = client.aws("events")

    def send(batch: list[Numbered]) -> tuple[list[dict[str, Any]], int]:
        return events.put_events(Entries=[{"EventBusName": bus, **each.entry} for each in batch])["Entries"], 0

    return send


def _put_all(entries: Iterable[Numbered | None], send: Send, report: _Report) -> None:
    def put_batch(batch: list[Numbered]) -> None:
        report.answered(batch, *send(batch))

    under_way: deque[Future[None]] = deque()
    pool = ThreadPoolExecutor(IN_FLIGHT)
    try:
        for batch in batches(entries):
            under_way.append(pool.submit(put_batch, batch))
            while len(under_way) > IN_FLIGHT or (under_way and under_way[0].done()):
                under_way.popleft().result()
        for each in under_way:
            each.result()
    except BaseException as error:
        pool.shutdown(cancel_futures=True)
        report.ended(early=True)
        if isinstance(error, KeyboardInterrupt):
            sys.exit(130)
        raise
    pool.shutdown()
    report.ended()
    if report.refused:
        sys.exit(1)


class _Report:
    """What is told of the progress, from several threads, and in the end."""

    def __init__(self, total: int | None, quiet: bool, *, from_lines: bool) -> None:
        self.put = 0
        self.refused = 0
        self.dropped = 0
        self._quiet = quiet
        self._from_lines = from_lines
        self._lock = threading.Lock()
        shown = not quiet and sys.stderr.isatty() and (total is None or total >= SHOW_PROGRESS_FROM)
        self._counting = shown and total is None
        self._bar = (
            click.progressbar(length=total, label="putting events", file=sys.stderr, show_pos=True)
            if shown and total is not None
            else None
        )

    def answered(self, batch: list[Numbered], results: list[dict[str, Any]], dropped: int) -> None:
        """One request's answer."""
        with self._lock:
            self.dropped += dropped
            for each, result in zip(batch, results, strict=True):
                if "ErrorCode" in result:
                    self.refused += 1
                    self._refusal(each, result)
                else:
                    self.put += 1
                    if not self._from_lines and not self._quiet:
                        click.echo(result["EventId"])
            if self._bar is not None:
                self._bar.update(len(batch))
            elif self._counting:
                click.echo(f"\r{self.put} events put", nl=False, err=True)

    def ended(self, *, early: bool = False) -> None:
        """The last word: on stdout when all went out, on stderr when it stopped on the way."""
        if self._bar is not None:
            self._bar.render_finish()
        elif self._counting:
            click.echo("\r", nl=False, err=True)
        if self.dropped:
            click.echo(f"{self.dropped} dropped: more wait in the bus than it has room for", err=True)
        if self._from_lines and (early or not self._quiet):
            refused = f", {self.refused} refused" if self.refused else ""
            noun = "event" if self.put == 1 else "events"
            click.echo(f"{self.put} {noun} put{refused}" + (" before it stopped" if early else ""), err=early)

    def _refusal(self, each: Numbered, result: dict[str, Any]) -> None:
        where = f"line {each.line} " if self._from_lines else ""
        before = "\n" if self._bar is not None or self._counting else ""
        click.echo(
            f"{before}refused: {where}({each.entry['Source']}): {result['ErrorCode']}: {result['ErrorMessage']}",
            err=True,
        )
