"""``busbar dlq``: what could not be delivered, and sending it again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from bus.client import Client
from bus.commands.connection import fail, with_client
from bus.commands.options import option

PAGE = 200
SHOWN_MESSAGE = 80
queue_option = option(
    "--queue", envvar="BUSBAR_QUEUE", default="dead-letters", show_default=True, metavar="QUEUE",
    help="The dead-letter queue, by ARN or by name in the server's own account and region.",
)  # fmt: skip


@click.group()
def dlq() -> None:
    """Look at dead letters and send them again.

    A dead letter is what a target should have received and did not: its retries ran out, or it refused in a way
    that no retry mends. It goes to the queue in the target's DeadLetterConfig; a queue named dead-letters is there
    from the start.

    \b
      busbar dlq list
      busbar dlq show MESSAGE_ID
      busbar dlq redrive --all
    """


@dlq.command(name="list", short_help="List dead letters, oldest first.")
@queue_option
@option(
    "--json", "as_json", envvar="BUSBAR_DLQ_LIST_JSON", is_flag=True,
    help="One JSON object per letter, with its attributes and body.",
)  # fmt: skip
@with_client
def list_letters(client: Client, queue: str, as_json: bool) -> None:
    """List dead letters, oldest first, without receiving them.

    A line is: message id, error code, rule -> target, error message. A letter that a consumer is holding is listed too.
    """
    found = False
    for letter in _letters(client, queue):
        found = True
        click.echo(json.dumps(letter, ensure_ascii=False) if as_json else _line(letter))
    if not found:
        click.echo(f"No dead letters in {queue}.", err=True)


@dlq.command(short_help="Show one dead letter whole.")
@queue_option
@click.argument("message_id")
@with_client
def show(client: Client, queue: str, message_id: str) -> None:
    """Show one dead letter whole, as JSON: why it died, and its body."""
    for letter in _letters(client, queue):
        if letter["MessageId"] == message_id:
            click.echo(json.dumps({**letter, "Body": _readable(letter["Body"])}, indent=2, ensure_ascii=False))
            return
    fail(f"{message_id} is not in {queue}; `busbar dlq list` shows what is")


@dlq.command(short_help="Send dead letters to their targets again.")
@queue_option
@option("--all", "every", envvar="BUSBAR_DLQ_REDRIVE_ALL", is_flag=True, help="Every letter of the queue.")
@click.argument("message_ids", nargs=-1)
@with_client
def redrive(client: Client, queue: str, every: bool, message_ids: tuple[str, ...]) -> None:
    """Send dead letters to the target of the rule they came from, as that target stands now.

    A letter leaves the queue once its new delivery is stored; the retries of that delivery begin anew. A letter whose
    rule or target is gone stays, and is named with the reason; the status is then 1.

    \b
      busbar dlq redrive --all
      busbar dlq redrive 0198c0de-7a31-7b2c-9a53-5d0c1c9e0f11
    """
    if every == bool(message_ids):
        raise click.UsageError("name the letters to send again (`busbar dlq list` shows their ids), or give --all")
    result = client.call(
        "POST", "/_bus/dead-letters/redrive", body={"Queue": queue, **({} if every else {"Ids": list(message_ids)})}
    )
    click.echo(f"{result['Redriven']} sent again")
    for kept in result["Kept"]:
        click.echo(f"kept {kept['MessageId']}: {kept['Reason']}", err=True)
    if result["Kept"]:
        raise SystemExit(1)


def _letters(client: Client, queue: str) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        page = client.call(
            "GET", "/_bus/dead-letters", query={"queue": queue, "after": str(after), "limit": str(PAGE)}
        )["Letters"]
        yield from page
        if not page:
            return
        after = page[-1]["Number"]


def _line(letter: dict[str, Any]) -> str:
    attributes = letter["Attributes"]
    rule = attributes.get("RULE_ARN", attributes.get("SCHEDULE_ARN", "-"))
    for kind in (":rule/", ":schedule/"):
        rule = rule.rpartition(kind)[2]
    message = attributes.get("ERROR_MESSAGE", "")[:SHOWN_MESSAGE]
    return (
        f"{letter['MessageId']}  {attributes.get('ERROR_CODE', '-')}  {rule} -> {attributes.get('TARGET_ARN', '-')}"
        f"  {message}"
    ).rstrip()


def _readable(body: str) -> Any:
    """The body as a JSON value where it is one."""
    try:
        return json.loads(body)
    except ValueError:
        return body
