"""``busbar test-pattern``: does a pattern match an event, and if not, why."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NoReturn

import click

from rules import Finding, Pattern, PatternError, explain
from rules.event import load_json


@click.command(name="test-pattern")
@click.argument("pattern")
@click.argument("event")
def test_pattern(pattern: str, event: str) -> None:
    """Say whether PATTERN matches EVENT, field by field. Works without a running bus.

    Both are JSON text; @FILE reads one from a file, and - reads it from stdin.

    \b
      busbar test-pattern '{"source":["shop"]}' '{"source":"shop","detail":{}}'
      busbar test-pattern @pattern.json @event.json
      busbar tail --json --count 1 | busbar test-pattern @pattern.json -

    Ends with 0 when it matches, 1 when it does not, 2 when either cannot be read.
    """
    if pattern == event == "-":
        _refuse("only one of the two can come from stdin")
    try:
        parsed = Pattern.parse(_text(pattern))
    except PatternError as error:
        _refuse(f"Event pattern is not valid. Reason: {error.reason}")
    try:
        given = load_json(_text(event).encode())
    except ValueError as error:
        _refuse(f"the event is not JSON: {error}")
    if not isinstance(given, dict):
        _refuse('the event must be a JSON object, such as \'{"source":"shop","detail":{}}\'')
    matches = parsed.matches(given)
    click.echo("matches" if matches else "does not match")
    for line in _told(explain(parsed, given)):
        click.echo(line)
    sys.exit(0 if matches else 1)


def _told(findings: Sequence[Finding]) -> list[str]:
    """One line a finding, under a heading for each way through `$or` when there are several."""
    branches = [(branch, list(each)) for branch, each in groupby(findings, lambda finding: finding.branch)]
    width = max((len(finding.path) for finding in findings), default=0)
    lines = []
    for branch, each in branches:
        if len(branches) > 1:
            lines.append(f"  way {branch} through $or:")
        lines.extend(
            f"  {'ok  ' if finding.matched else 'FAIL'}  {finding.path.ljust(width)}  {finding.why}" for finding in each
        )
    return lines


def _refuse(sentence: str) -> NoReturn:
    click.echo(f"busbar: {sentence}", err=True)
    sys.exit(2)


def _text(argument: str) -> str:
    try:
        if argument == "-":
            return sys.stdin.read()
        if argument.startswith("@"):
            return Path(argument[1:]).read_text(encoding="utf-8")
    except OSError as error:
        _refuse(f"{argument[1:]} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        _refuse(f"{argument.removeprefix('@')} is not UTF-8 text")
    return argument
