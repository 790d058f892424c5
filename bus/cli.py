"""The `busbar` command: gathers the commands, each of which is a file in `bus.commands`."""

from __future__ import annotations

import click

from bus import __version__
from bus.commands.cloudtrail import cloudtrail
from bus.commands.dead_letters import dlq
from bus.commands.endpoint import endpoint
from bus.commands.options import AUTO_PREFIX
from bus.commands.pattern import test_pattern
from bus.commands.put import put
from bus.commands.replay import replay
from bus.commands.rules import rules
from bus.commands.schedule import schedule
from bus.commands.serve import serve_command
from bus.commands.tail import tail
from bus.commands.wire import wire


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "auto_envvar_prefix": AUTO_PREFIX,
    }
)
@click.version_option(__version__, prog_name="busbar", allow_from_autoenv=False)
def main() -> None:
    """An event bus in one process that speaks Amazon EventBridge's API.

    \b
    Start one, and use it from another terminal:
      busbar serve
      aws --endpoint-url http://127.0.0.1:4010 events put-rule --name orders --event-pattern '{"source":["shop"]}'
      aws --endpoint-url http://127.0.0.1:4010 events put-targets --rule orders \\
          --targets 'Id=hook,Arn=http://127.0.0.1:9000/orders'
      busbar put shop OrderPlaced '{"id": 1}'
      busbar tail

    Every option can also be given as an environment variable, which --help of each command names.
    """


for command in (serve_command, put, cloudtrail, tail, rules, wire, endpoint, dlq, replay, test_pattern, schedule):
    main.add_command(command)
