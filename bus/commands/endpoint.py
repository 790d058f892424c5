"""``busbar endpoint``: which region of a global endpoint takes events."""

from __future__ import annotations

import click

from bus.client import Client
from bus.commands.connection import with_client


@click.group()
def endpoint() -> None:
    """Look at global endpoints and fail them over.

    A global endpoint leads PutEvents to one of two buses in two regions. On AWS a health check decides which; here you
    do, and it holds for the very next event and after a restart.

    \b
      busbar endpoint list
      busbar endpoint fail-over arn:aws:events:us-east-1:000000000000:endpoint/orders
      busbar endpoint recover k3v9s0q1ab.veo
    """


@endpoint.command(name="list")
@with_client
def list_endpoints(client: Client) -> None:
    """Show every global endpoint, one a line: its ARN, its id, its regions with a * at the active one."""
    found = client.call("GET", "/_bus/endpoints")["Endpoints"]
    for each in found:
        regions = (each["PrimaryRegion"], each["SecondaryRegion"])
        shown = " ".join(region + "*" * (region == each["ActiveRegion"]) for region in regions)
        click.echo(f"{each['Arn']}  {each['EndpointId']}  {shown}  replication {each['Replication'].lower()}")
    if not found:
        click.echo("No global endpoints. Create one: aws events create-endpoint", err=True)


@endpoint.command(name="fail-over")
@click.argument("endpoint")
@with_client
def fail_over(client: Client, endpoint: str) -> None:
    """Send events for ENDPOINT (its ARN or its id) to the secondary region."""
    _switch(client, endpoint, "failed-over")


@endpoint.command()
@click.argument("endpoint")
@with_client
def recover(client: Client, endpoint: str) -> None:
    """Send events for ENDPOINT (its ARN or its id) to the primary region again."""
    _switch(client, endpoint, "healthy")


def _switch(client: Client, endpoint: str, primary: str) -> None:
    made = client.call("PUT", "/_bus/endpoints", body={"Endpoint": endpoint, "Primary": primary})
    click.echo(f"{made['Arn']} is active in {made['ActiveRegion']}")
