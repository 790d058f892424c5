"""``busbar replay``: the events of an archive once more, with a bar that shows how far it is."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from bus.client import Client
from bus.commands.connection import fail, with_client
from bus.commands.options import option

LOOK_EVERY_S = 0.2
FINAL = frozenset({"COMPLETED", "CANCELLED", "FAILED"})
SINCE_EVER = datetime(1970, 1, 1, tzinfo=UTC)

_AGO = re.compile(r"(\d{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _instant(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """A date and time in ISO 8601 (UTC unless it says otherwise), or so long ago."""
    if value is None:
        return None
    try:
        if ago := _AGO.fullmatch(value):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        instant = datetime.fromisoformat(value)
    except (ValueError, OverflowError):
        text = f"{value!r} is neither a time such as 2026-01-31T12:00:00Z nor so long ago, such as 90m or 7d"
        raise click.BadParameter(text) from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


@click.command(short_help="Send the events of an archive once more.")
@option(
    "--from", "start", envvar="BUSBAR_REPLAY_FROM", callback=_instant, metavar="TIME",
    help="Only events of this time and later ones.",
)  # fmt: skip
@option(
    "--to", "end", envvar="BUSBAR_REPLAY_TO", callback=_instant, metavar="TIME",
    help="Only events before this time; now, unless it is given.",
)  # fmt: skip
@option("--name", metavar="NAME", help="The replay's name, which its events bear; made from the archive's by default.")
@option(
    "--rule", "rules", envvar="BUSBAR_REPLAY_RULE", multiple=True, metavar="NAME",
    help="Only this rule of the bus receives; may be repeated.",
)  # fmt: skip
@option("--no-wait", is_flag=True, help="Start it and come back at once.")
@click.argument("archive")
@with_client
def replay(
    client: Client,
    archive: str,
    start: datetime | None,
    end: datetime | None,
    name: str | None,
    rules: tuple[str, ...],
    no_wait: bool,
) -> None:
    """Send the events of ARCHIVE once more to the bus they came from, and show how far that is until it ends.

    A TIME is that of the events: 2026-01-31T12:00:00Z, or so long ago as 90m, 12h or 7d.

    \b
      aws --endpoint-url http://127.0.0.1:4010 events create-archive --archive-name orders \\
          --event-source-arn arn:aws:events:us-east-1:000000000000:event-bus/default
      busbar replay orders
      busbar replay orders --from 2h --rule billing
      busbar replay orders --from 2026-01-31T12:00:00Z --to 2026-01-31T13:00:00Z --name noon

    Replayed events have ids of their own and carry the replay's name as replay-name; no archive takes them again.
    Ctrl-C leaves the replay running. The status is 1 when it does not complete.
    """
    events = client.aws("events")
    found = events.describe_archive(ArchiveName=archive)
    now = datetime.now(UTC)
    name = name or f"{archive}-{now:%Y%m%dT%H%M%S%f}"[:64]
    bus = found["EventSourceArn"]
    destination: dict[str, Any] = {"Arn": bus}
    if rules:
        destination["FilterArns"] = [_rule_arn(events, bus, rule) for rule in rules]
    started = events.start_replay(
        ReplayName=name,
        EventSourceArn=found["ArchiveArn"],
        EventStartTime=start or SINCE_EVER,
        EventEndTime=end or now + timedelta(seconds=1),
        Destination=destination,
    )
    cancel = f"aws --endpoint-url {client.endpoint} --region {client.region} events cancel-replay --replay-name {name}"
    if no_wait:
        click.echo(f"{name} is running; to cancel it: {cancel}", err=True)
        return
    try:
        _watch(client, name, started["ReplayArn"])
    except KeyboardInterrupt:
        click.echo(f"\n{name} goes on; to cancel it: {cancel}", err=True)


def _rule_arn(events: Any, bus: str, rule: str) -> str:
    """The ARN of a rule, which has to be there: a filter that names nothing would send nothing, without a word."""
    return str(events.describe_rule(Name=rule, EventBusName=bus)["Arn"])


def _watch(client: Client, name: str, arn: str) -> None:
    """Show progress until the replay is over."""
    replay = _progress(client, arn)
    while replay["Total"] is None and replay["State"] not in FINAL:
        time.sleep(LOOK_EVERY_S)
        replay = _progress(client, arn)
    shown: Any = click.progressbar(
        length=replay["Total"] or 0, label=name, show_pos=True, item_show_func=_waiting_for, file=sys.stderr
    )
    told: str | None = None  # a bar that is not on a terminal shows nothing but its label
    with shown as bar:
        while True:
            waiting = _waiting_for(replay)
            if waiting and waiting != told and not sys.stderr.isatty():
                click.echo(f"{name} is {waiting}", err=True)
                told = waiting
            bar.update(max(0, min(replay["Replayed"], bar.length or 0) - bar.pos), replay)
            if replay["State"] in FINAL:
                break
            time.sleep(LOOK_EVERY_S)
            replay = _progress(client, arn)
    _tell(name, replay)


def _progress(client: Client, arn: str) -> dict[str, Any]:
    (replay,) = client.call("GET", "/_bus/replays", query={"arn": arn})["Replays"]
    return dict(replay)


def _waiting_for(replay: dict[str, Any] | None) -> str | None:
    if replay is None or replay["WaitingFor"] is None:
        return None
    return f"waiting for {replay['WaitingFor']['Target']}"


def _tell(name: str, replay: dict[str, Any]) -> None:
    if replay["State"] == "COMPLETED":
        click.echo(f"{replay['Replayed']} events replayed as {name}")
        return
    reason = replay.get("StateReason")
    fail(f"{name} {replay['State'].lower()} after {replay['Replayed']} events" + (f": {reason}" if reason else ""))
