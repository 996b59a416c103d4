"""``modalflow local``: the local control plane on the command line.

Owns texts and exit codes. ``modalflow.emulator`` owns processes and records.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

import click

from modalflow.cli.local.fault import fault
from modalflow.emulator import daemon as daemons
from modalflow.emulator import listening
from modalflow.emulator.local import LocalModal, StartError
from modalflow.emulator.options import TOKEN_ID_VARIABLE, TOKEN_SECRET_VARIABLE, Options, table

F = TypeVar("F", bound=Callable[..., Any])

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@click.group()
def local() -> None:
    """Run Modal's control plane on this machine, for Modal's own SDK, CLI and container runtime."""


local.add_command(fault)


def _control_plane_options(command: F) -> F:
    for option in reversed([option for option in table() if not option.internal]):
        kind: Any = click.Choice(option.choices) if option.choices else option.type
        command = click.option(
            # An option with the default "on" needs a flag to switch it off.
            f"{option.flag}/{option.off_flag}" if option.is_flag and option.default else option.flag,
            option.name,
            type=kind,
            default=option.default,
            multiple=option.many,
            is_flag=option.is_flag,
            show_default=option.default not in (None, ()),
            help=option.help,
        )(command)
    return command


_name = click.option("--name", default=daemons.DEFAULT_NAME, show_default=True, help="Name of the control plane.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@local.command()
@_name
@_control_plane_options
def start(name: str, **given: Any) -> None:
    """Start a control plane. It runs until you stop it."""
    options = _options(given)
    with _errors():
        daemon = daemons.start(name, options)
    _warn(options)
    option = _option(name)
    click.echo(f"The local control plane {name!r} runs at {daemon.address.url} (pid {daemon.address.pid}).")
    click.echo(f'Use it:  eval "$(modalflow local env{option})"')
    click.echo(f"Stop it: modalflow local stop{option}")


@local.command()
@_name
def stop(name: str) -> None:
    """Stop a control plane and all its containers."""
    with _errors():
        running, stale = daemons.look_up(name)
        if running is None:
            click.echo(_not_running(name, stale))
            return
        if daemons.stop(running):
            click.echo(f"The local control plane {name!r} has stopped.")
        else:
            click.echo(f"The local control plane {name!r} did not stop in time and was killed.", err=True)


@local.command()
@_name
@_json
def status(name: str, as_json: bool) -> None:
    """Show whether a control plane runs, and its address. The exit code is 1 if it does not run."""
    with _errors():
        running, stale = daemons.look_up(name)
    if as_json:
        click.echo(json.dumps(_report(name, running, stale)))
    elif running is None:
        click.echo(f"{_not_running(name, stale)} {_how_to_start(name)}")
    else:
        seconds = time.time() - running.started_at
        answer = "runs" if running.answers() else "has a process but does not answer"
        click.echo(f"The local control plane {name!r} {answer} at {running.address.url}")
        click.echo(f"  process  {running.address.pid}, for {seconds:.0f} s")
        click.echo(f"  state    {running.address.state_dir}")
        click.echo(f"  log      {daemons.log_path(name)}")
    sys.exit(0 if running is not None else 1)


@local.command(short_help="Print the variables for Modal's SDK and CLI.")
@_name
@_json
def env(name: str, as_json: bool) -> None:
    """Print the environment variables for Modal's SDK and CLI, as shell commands.

    In a shell, run: eval "$(modalflow local env)"
    """
    with _errors():
        running, stale = daemons.look_up(name)
    if running is None:
        raise click.ClickException(f"{_not_running(name, stale)} {_how_to_start(name)}")
    variables = running.address.variables()
    if as_json:
        click.echo(json.dumps(variables))
        return
    for variable, value in variables.items():
        click.echo(f"export {variable}={shlex.quote(value)}")


@local.command(
    short_help="Run a command with a new control plane.",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@_control_plane_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def run(command: tuple[str, ...], **given: Any) -> None:
    """Run CMD with a new control plane, and stop the control plane after it. The exit code is CMD's exit code."""
    if shutil.which(command[0]) is None:
        click.echo(f"Error: {command[0]}: command not found", err=True)
        sys.exit(127)
    options = _options(given)
    _warn(options)
    with _errors(), LocalModal(options, as_default=False) as control_plane:
        code = _run(command, {**os.environ, **control_plane.env})
    sys.exit(code)


def _run(command: tuple[str, ...], environ: dict[str, str]) -> int:
    """Run a command to its end, and forward signals. Return its exit code, or 128 + n after signal n."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        # A Ctrl-C goes to every process of the terminal. If we forwarded it, the command would get it twice.
        if number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty():
            return
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        child = subprocess.Popen(command, env=environ)
        for number in early:
            child.send_signal(number)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _options(given: dict[str, Any]) -> Options:
    variables = {"token_id": TOKEN_ID_VARIABLE, "token_secret": TOKEN_SECRET_VARIABLE}
    tokens = {name: os.environ[variable] for name, variable in variables.items() if os.environ.get(variable)}
    try:
        return Options(**{**given, **tokens})
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _warn(options: Options) -> None:
    if warning := listening.warning(options.host):
        click.echo(f"Warning: {warning}", err=True)


def _report(name: str, running: daemons.Daemon | None, stale: daemons.Daemon | None) -> dict[str, Any]:
    if running is None:
        return {"name": name, "running": False, "stale_pid": stale.address.pid if stale else None}
    address = dataclasses.asdict(running.address)
    # Only `env` prints the secret.
    del address["token_secret"]
    return {
        "name": name,
        "running": True,
        "answers": running.answers(),
        "started_at": running.started_at,
        "log": str(daemons.log_path(name)),
        **address,
    }


def _option(name: str) -> str:
    return "" if name == daemons.DEFAULT_NAME else f" --name {shlex.quote(name)}"


def _how_to_start(name: str) -> str:
    return f"Start it: modalflow local start{_option(name)}"


def _not_running(name: str, stale: daemons.Daemon | None) -> str:
    text = f"No local control plane named {name!r} runs."
    if stale is not None:
        text += f" The one with pid {stale.address.pid} ended unexpectedly; its log: {daemons.log_path(name)}."
    return text


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """End the command with the text of an error for the user, without a traceback."""
    try:
        yield
    except (daemons.DaemonError, StartError) as error:
        raise click.ClickException(str(error)) from error
