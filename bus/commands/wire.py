"""``busbar wire``: local URLs in the stead of production ARNs."""

from __future__ import annotations

import click

from bus.client import Client
from bus.commands.connection import with_client


class WireGroup(click.Group):
    """``busbar wire ARN URL`` adds a wire; ``list`` and ``remove`` are its subcommands."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A first word that names no subcommand is the ARN of a wire to add."""
        if args and args[0] not in self.commands:
            args = ["add", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=WireGroup)
def wire() -> None:
    """Send every delivery for an ARN to a local URL instead.

    Rules keep their production ARNs and run against local code. A * in the ARN stands for any text; of several
    wires that match, the most specific one leads.

    \b
      busbar wire 'arn:aws:lambda:*:*:function:orders' http://127.0.0.1:9001/
      busbar wire list
      busbar wire remove 'arn:aws:lambda:*:*:function:orders'

    A wire acts on the very next attempt, retries included, and survives a restart of the bus.
    """


@wire.command(short_help="Lay a wire; the word `add` may be left out.")
@click.argument("arn")
@click.argument("url")
@with_client
def add(client: Client, arn: str, url: str) -> None:
    """Send deliveries for ARN (or a pattern of ARNs) to URL; the word `add` may be left out.

    A wire that is there already leads to the new URL from now on. Quote a pattern, so that the shell leaves its
    asterisks alone.

    \b
      busbar wire 'arn:aws:sns:eu-west-1:*:orders' http://127.0.0.1:9001/orders
    """
    made = client.call("PUT", "/_bus/wires", body={"Arn": arn, "Url": url})
    click.echo(f"{made['Arn']} -> {made['Url']}")


@wire.command(name="list")
@with_client
def list_wires(client: Client) -> None:
    """Show every wire, one a line: `ARN -> URL`."""
    wires = client.call("GET", "/_bus/wires")["Wires"]
    for each in wires:
        click.echo(f"{each['Arn']} -> {each['Url']}")
    if not wires:
        click.echo(
            "No wires. Add one: busbar wire 'arn:aws:lambda:*:*:function:orders' http://127.0.0.1:9001/", err=True
        )


@wire.command(short_help="Take a wire away.")
@click.argument("arn")
@with_client
def remove(client: Client, arn: str) -> None:
    """Take away the wire for ARN, written as it was added and as `busbar wire list` shows it.

    Deliveries then go where the ARN itself leads.
    """
    client.call("DELETE", "/_bus/wires", body={"Arn": arn})
    click.echo(f"removed {arn}")
