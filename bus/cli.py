"""The `busbar` command: gathers the commands, each of which is a file in `bus.commands`."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module

import click

from bus import __version__
from bus.commands.options import AUTO_PREFIX

COMMANDS = {
    "serve": "serve:serve_command",
    "put": "put:put",
    "cloudtrail": "cloudtrail:cloudtrail",
    "tail": "tail:tail",
    "rules": "rules:rules",
    "wire": "wire:wire",
    "endpoint": "endpoint:endpoint",
    "dlq": "dead_letters:dlq",
    "replay": "replay:replay",
    "test-pattern": "pattern:test_pattern",
    "schedule": "schedule:schedule",
}
"""Each command's module in `bus.commands`, and its name there."""


class Commands(click.Group):
    """Loads a command when it is called: all of them take half a second, mostly for what only the server needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            near = get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" There are {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {cmd_name!r}.{hint}")
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"bus.commands.{module}"), name)
        return command


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "auto_envvar_prefix": AUTO_PREFIX,
    },
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
