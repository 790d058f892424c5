"""``busbar tail``: live events in the terminal."""

from __future__ import annotations

import json
from typing import Any

import click

from bus.client import Client
from bus.commands.connection import with_client
from bus.commands.options import option

SHOWN_DETAIL = 200


@click.command()
@option("--bus", metavar="NAME", help="Only events of this event bus.")
@option("--account", metavar="ID", help="Only events of this account.")
@option("--pattern", metavar="JSON", help="Only events this event pattern matches.")
@option("--json", "as_json", envvar="BUSBAR_TAIL_JSON", is_flag=True, help="Whole events, one JSON object a line.")
@option("--count", type=click.IntRange(1), metavar="N", help="Stop after N events.")
@with_client
def tail(
    client: Client, bus: str | None, account: str | None, pattern: str | None, as_json: bool, count: int | None
) -> None:
    """Show events as the bus accepts them, until Ctrl-C, whether or not a rule matches them.

    \b
      busbar tail --pattern '{"source":["shop"]}'
      busbar tail --json | jq .detail

    Only events that are accepted from now on are shown; a line is: time, bus, source, detail-type, detail.
    """
    query = {name: value for name, value in (("bus", bus), ("account", account), ("pattern", pattern)) if value}
    try:
        _show(client, query, as_json, count)
    except KeyboardInterrupt:
        return  # the usual way to end it


def _show(client: Client, query: dict[str, str], as_json: bool, count: int | None) -> None:
    shown = 0
    watching = False
    for line in client.lines("/_bus/tail", query=query):
        if not watching:
            click.echo(f"watching {client.endpoint}; Ctrl-C ends", err=True)
            watching = True
        if "event" in line:
            click.echo(json.dumps(line["event"], ensure_ascii=False) if as_json else _line(line))
            shown += 1
        elif "missed" in line:
            click.echo(f"({line['missed']} events came faster than they could be shown)", err=True)
        if shown == count:
            return


def _line(line: dict[str, Any]) -> str:
    event = line["event"]
    detail = json.dumps(event.get("detail"), ensure_ascii=False)
    if len(detail) > SHOWN_DETAIL:
        detail = detail[: SHOWN_DETAIL - 1] + "…"
    return f"{event['time']}  {line['bus']}  {event['source']}  {event['detail-type']}  {detail}"
