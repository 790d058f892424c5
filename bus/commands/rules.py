"""``busbar rules``: what is configured, and what it has done."""

from __future__ import annotations

import json
from typing import Any

import click

from bus.client import Client
from bus.commands.connection import with_client
from bus.commands.options import option

COLUMNS = {
    "ACCOUNT": "Account",
    "REGION": "Region",
    "BUS": "EventBusName",
    "RULE": "Name",
    "STATE": "State",
    "NEXT": "NextDue",
    "MATCHED": "MatchedEvents",
    "INVOKED": "Invocations",
    "FAILED": "FailedInvocations",
}
OPTIONAL = ("ACCOUNT", "REGION")
"""Columns that are shown when not all rows have the same in them."""
WHERE_KNOWN = ("NEXT",)
"""Columns that are shown when a row has something in them."""


@click.command()
@option("--bus", metavar="NAME", help="Only rules of this event bus.")
@option(
    "--json",
    "as_json",
    envvar="BUSBAR_RULES_JSON",
    is_flag=True,
    help="One JSON object per rule, with pattern and targets.",
)
@with_client
def rules(client: Client, bus: str | None, as_json: bool) -> None:
    """List rules with their targets and what they have done since the bus started.

    MATCHED counts events that matched the rule, INVOKED deliveries that ended (well or not; retries not counted),
    FAILED those that ended without success. What still waits for a retry is in neither. NEXT is when a rule with a
    schedule fires next (UTC).

    \b
      busbar rules
      busbar rules --json | jq -r 'select(.FailedInvocations > 0).Name'
    """
    found = [rule for rule in client.call("GET", "/_bus/rules")["Rules"] if bus is None or rule["EventBusName"] == bus]
    if as_json:
        for rule in found:
            click.echo(json.dumps(rule, ensure_ascii=False))
    elif found:
        _table(found)
    else:
        where = f" on {bus}" if bus else ""
        click.echo(
            f"No rules{where}. Make one: aws --endpoint-url {client.endpoint} events put-rule --name orders "
            '--event-pattern \'{"source":["shop"]}\'',
            err=True,
        )


def _table(found: list[dict[str, Any]]) -> None:
    """Columns in line; the second and later targets of a rule on lines of their own."""
    shown = [title for title in COLUMNS if _is_worth_showing(title, {rule.get(COLUMNS[title]) for rule in found})]
    rows = [[str(rule.get(COLUMNS[title], "-")) for title in shown] for rule in found]
    widths = [max(map(len, column)) for column in zip(shown, *rows, strict=True)]
    _line(widths, shown, "TARGETS")
    for row, rule in zip(rows, found, strict=True):
        first, *others = [target["Arn"] for target in rule["Targets"]] or ["-"]
        _line(widths, row, first)
        for arn in others:
            _line(widths, [""] * len(row), arn)


def _is_worth_showing(title: str, values: set[Any]) -> bool:
    if title in OPTIONAL:
        return len(values) > 1
    return title not in WHERE_KNOWN or values != {None}


def _line(widths: list[int], cells: list[str], last: str) -> None:
    click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), last]))
