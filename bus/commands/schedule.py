"""``busbar schedule``: when a schedule expression is due."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import NoReturn
from zoneinfo import ZoneInfo

import click

from bus.commands.options import option
from rules.errors import ScheduleError
from rules.schedule import Schedule, parse_at, parse_schedule

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


@click.command()
@click.argument("expression")
@option("--count", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="How many instants.")
@option("--zone", default="UTC", show_default=True, metavar="NAME", help="Whose wall clock counts: Europe/Berlin.")
@option("--since", metavar="TIME", help="Begin after this time, not now: 2030-01-01T12:00, by the zone's clock.")
def schedule(expression: str, count: int, zone: str, since: str | None) -> None:
    """Print the next instants at which EXPRESSION is due. Works without a running bus.

    EXPRESSION is rate(...), cron(...) or at(...), as EventBridge takes it. A rate is counted from now, or from --since.

    \b
      busbar schedule 'cron(0 9 ? * MON-FRI *)'
      busbar schedule 'cron(30 2 * * ? *)' --zone Europe/Berlin --since 2030-03-30
      busbar schedule 'rate(90 minutes)' --count 3

    Rules of EventBridge go by UTC; other zones are for EventBridge Scheduler. Ends with 0 when it is due at all, 1 when
    it never is, 2 when the expression is refused.
    """
    clock = _zone(zone)
    try:
        parsed: Schedule = parse_at(expression) if expression.startswith("at(") else parse_schedule(expression)
    except ScheduleError as error:
        _refuse(error.reason)
    found = False
    for instant in islice(_due(parsed, _start(since, clock), clock), count):
        found = True
        click.echo(_told(instant, clock))
    if not found:
        click.echo("never", err=True)
        sys.exit(1)


def _due(parsed: Schedule, start: int, zone: tzinfo) -> Iterator[int]:
    instant = parsed.next_after(start, start_ms=start, zone=zone)
    while instant is not None:
        yield instant
        instant = parsed.next_after(instant, start_ms=start, zone=zone)


def _told(instant: int, zone: tzinfo) -> str:
    time = _EPOCH + instant * _MS
    with suppress(OverflowError):  # the last day of the calendar, in a zone where it is already over
        time = time.astimezone(zone)
    return f"{time.isoformat(timespec='seconds')}  {time:%a}"


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # no such zone, no name of one, or a folder of zones
        _refuse(f"there is no time zone {name!r}; zones are named like Europe/Berlin")


def _start(since: str | None, zone: tzinfo) -> int:
    if since is None:
        return (datetime.now(UTC) - _EPOCH) // _MS
    try:
        time = datetime.fromisoformat(since)
        instant = ((time if time.tzinfo else time.replace(tzinfo=zone)) - _EPOCH) // _MS
    except (ValueError, OverflowError):
        instant = -1
    if instant < 0:
        _refuse(f"{since!r} is not a time since 1970, such as 2030-01-01T12:00")
    return instant


def _refuse(sentence: str) -> NoReturn:
    click.echo(f"busbar: {sentence}", err=True)
    sys.exit(2)
