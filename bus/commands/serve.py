"""``busbar serve``: run the bus."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

import click
import structlog
import uvloop

from bus.commands.options import setting_options, variables
from bus.config import ENV_PREFIX, Settings, from_mapping, unknown_variables
from bus.errors import ConfigError, StoreError
from bus.logs import configure
from bus.server import serve

log = structlog.get_logger("serve")


@click.command(name="serve")
@setting_options
@click.pass_context
def serve_command(context: click.Context, /, **values: Any) -> None:
    """Run the bus until it is told to stop.

    \b
    Point any AWS client at it:
      aws --endpoint-url http://127.0.0.1:4010 events put-rule --name orders --event-pattern '{"source":["shop"]}'

    Everything accepted is kept in --data-dir and survives a restart. Ctrl-C or SIGTERM stops it: no new
    requests, attempts under way get --stop-grace seconds, the rest stays in the store.

    The first line of stdout is `busbar listening on URL`, as soon as requests are taken; logs go to stderr.
    Ends with 2 when it cannot start.
    """
    try:
        settings = from_mapping(values)
        configure(settings.log_format, settings.log_level)
        for sentence in unknown_variables(_of_settings(os.environ, context.find_root().command)):
            log.warning(sentence)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, announce=lambda url: _announce(url, settings)))
    except (ConfigError, StoreError) as error:
        click.echo(f"busbar: {error}", err=True)
        sys.exit(2)


def _of_settings(environment: Mapping[str, str], root: click.Command) -> dict[str, str]:
    """The environment without the variables of options, so that what is left should be a setting."""
    ours = {name: value for name, value in environment.items() if name.startswith(ENV_PREFIX)}
    known = set(variables(root)) if ours else set()
    return {name: value for name, value in ours.items() if name not in known}


def _announce(url: str, settings: Settings) -> None:
    """What to do with the bus, for people on stderr; then where it is, for programs on stdout."""
    if settings.in_memory:
        log.info("nothing is kept: with --data-dir DIR, events and rules survive a restart")
    if settings.insecure and not settings.on_loopback and not settings.credentials:
        log.warning("everyone who can connect may act: --credentials FILE lets only key holders")
    name = "" if url == "http://127.0.0.1:4010" else f"--endpoint-url {url} "
    # without the single quotes of a detail: the console renderer would escape them, and a shell not take it back
    log.info("put an event from another terminal", command=f"busbar put {name}shop OrderPlaced {{}}")
    log.info("or use any AWS client", command=f"aws --endpoint-url {url} events list-rules", stop="Ctrl-C")
    click.echo(f"busbar listening on {url}")
