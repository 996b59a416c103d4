"""``airflow modalflow …``: the commands with Airflow's configuration, in Airflow's own command line.

Each one takes its options from the click command of the same name, so the two cannot differ.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

import click
from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

from modalflow.cli.cancel import cancel
from modalflow.cli.cost import cost
from modalflow.cli.deploy import deploy
from modalflow.cli.doctor import doctor
from modalflow.cli.logs import logs
from modalflow.cli.migration.migrate import migrate
from modalflow.cli.profiles.profile import profile
from modalflow.cli.spending.advise import advise
from modalflow.cli.status import status
from modalflow.cli.sync import sync
from modalflow.cli.task.render import render
from modalflow.cli.task.replay import replay

COMMANDS: tuple[click.Command, ...] = (
    deploy,
    sync,
    doctor,
    status,
    logs,
    cost,
    advise,
    render,
    replay,
    cancel,
    migrate,
    profile,
)


def get_cli_commands() -> list[GroupCommand]:
    """Return the commands for the entry ``cli`` of the provider's metadata."""
    return [
        GroupCommand(
            name="modalflow",
            help="Run Airflow workloads on Modal",
            subcommands=[_in_airflow(command, "airflow modalflow") for command in COMMANDS],
        )
    ]


def _in_airflow(command: click.Command, parent: str) -> ActionCommand | GroupCommand:
    """Return a command or a group of commands for Airflow's parser."""
    name, text = str(command.name), command.get_short_help_str(limit=100)
    if isinstance(command, click.Group):
        below = [_in_airflow(each, f"{parent} {name}") for each in command.commands.values()]
        return GroupCommand(name=name, help=text, subcommands=below)
    return ActionCommand(
        name=name,
        help=text,
        func=_runner(command, parent),
        args=(
            *(_positional(argument) for argument in _arguments(command)),
            *(_argument(option) for option in _options(command)),
        ),
    )


def _options(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def _arguments(command: click.Command) -> list[click.Argument]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Argument)]


def _positional(argument: click.Argument) -> Arg:
    positional: Callable[..., Arg] = Arg  # untyped in Airflow
    number = {"nargs": "+"} if argument.nargs != 1 else {} if argument.required else {"nargs": "?"}
    return positional(
        (str(argument.name),), help=None, metavar=argument.metavar or str(argument.name).upper(), **number
    )


def _argument(option: click.Option) -> Arg:
    flags = tuple(option.opts)
    argument: Callable[..., Arg] = Arg  # untyped in Airflow
    if option.is_flag:
        return argument(flags, help=_help(option), action="store_true")
    return argument(flags, help=_help(option), action="append" if option.multiple else "store", default=None)


def _help(option: click.Option) -> str:
    """Return the help of an option. Airflow renders it as markup, and would read a section in brackets as a style."""
    text = re.sub(r"\[(\w+)\] (\w+)", r"\1.\2", option.help or "")
    default = option.default
    # Shown by click itself.
    return f"{text} Default: {default:g}." if option.show_default and isinstance(default, int | float) else text


def _runner(command: click.Command, parent: str) -> Callable[[argparse.Namespace], None]:
    def run(args: argparse.Namespace) -> None:
        command.main(args=_argv(command, args), prog_name=f"{parent} {command.name}")

    return run


def _argv(command: click.Command, args: argparse.Namespace) -> list[str]:
    argv: list[str] = []
    words: list[str] = []
    for argument in _arguments(command):
        given: Any = getattr(args, str(argument.name))
        words += given if isinstance(given, list) else [] if given is None else [given]
    for option in _options(command):
        given = getattr(args, option.opts[0].lstrip("-").replace("-", "_"), None)
        if option.is_flag:
            argv += [option.opts[0]] if given else []
            continue
        for value in given if isinstance(given, list) else [] if given is None else [given]:
            argv += [option.opts[0], str(value)]
    return [*argv, "--", *words] if words else argv
