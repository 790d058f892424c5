"""Options of the commands: those of `serve` made from the settings, and one way to write all others.

Every option has an environment variable: a setting's is ``BUSBAR_`` and its name; any other's is made from the names
of its command and option (``BUSBAR_PUT_BUS``), unless it names one itself.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import Field, fields
from typing import Any

import click

from bus.config import ENV_PREFIX, Settings, environment_name

AUTO_PREFIX = ENV_PREFIX.rstrip("_")
CHOICES = {"log_format": ("console", "json"), "log_level": ("debug", "info", "warning", "error")}

option = functools.partial(click.option, show_envvar=True)
"""A command's option; ``--help`` names its environment variable."""


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option per setting, in the order of the fields."""
    hints = typing.get_type_hints(Settings)
    for each in reversed(fields(Settings)):
        command = _option(each, hints[each.name])(command)
    return command


def variables(command: click.Command, prefix: str = AUTO_PREFIX) -> Iterator[str]:
    """The environment variables of a command's options, and of its subcommands'."""
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.allow_from_autoenv:
            yield typing.cast(str | None, parameter.envvar) or f"{prefix}_{parameter.name}".upper()
    if isinstance(command, click.Group):
        for name, each in subcommands(command):
            yield from variables(each, f"{prefix}_{name}".replace("-", "_").upper())


def subcommands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """The commands of a group by name, those too that are loaded only now."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if found is not None:
            yield name, found


def _option(each: Field[Any], hint: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    name = "--" + each.name.replace("_", "-")
    shared: dict[str, Any] = {
        "envvar": environment_name(each.name),
        "help": each.metadata["help"],
        "default": each.default,
    }
    if hint is bool:
        return option(name, is_flag=True, **shared)
    if typing.get_origin(hint) is tuple:
        return option(name, multiple=True, metavar=each.metadata["metavar"], **shared)
    if each.name in CHOICES:
        return option(name, type=click.Choice(CHOICES[each.name]), show_default=True, **shared)
    return option(
        name, type=_plain(hint), metavar=each.metadata["metavar"], show_default=each.default is not None, **shared
    )


def _plain(hint: Any) -> type:
    """The type behind ``X | None``."""
    if isinstance(hint, types.UnionType):
        hint = next(member for member in typing.get_args(hint) if member is not type(None))
    return typing.cast(type, hint)
