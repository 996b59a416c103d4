"""``modalflow replay``: run a try again on this machine.

Owns texts and exit codes. ``modalflow.operations.single_task.replaying`` runs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from modalflow.cli.terminal.common import app_option, environment_option, errors_in_a_line, show, target_options
from modalflow.cli.terminal.quiet_command import QuietCommand
from modalflow.emulator.options import ISOLATIONS
from modalflow.names import DEBUG_CONSOLE, SHELL_CONSOLE

if TYPE_CHECKING:
    from modalflow.operations.single_task.console import Console
    from modalflow.operations.single_task.replaying import Replay, ReplayOutcome
    from modalflow.operations.single_task.stand_in import Kept

_COLOURS = {"error": "red", "critical": "red", "warning": "yellow", "debug": "bright_black"}

#: States for which the command ends with 0.
_GOOD = frozenset({"success", "skipped", "up_for_reschedule"})


class VariableType(click.ParamType):  # type: ignore[type-arg]  # Generic since click 8.2 only.
    """A variable and its value, on the command line."""

    name = "NAME=VALUE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, equals, text = str(value).partition("=")
        if not name:
            self.fail("expected NAME=VALUE, or NAME for this machine's value", param, ctx)
        if not equals and name not in os.environ:
            self.fail(f"the variable {name} is not set on this machine; expected NAME=VALUE", param, ctx)
        return name, text if equals else os.environ[name]


@click.command(cls=QuietCommand)
@click.argument("dag")
@click.argument("task")
@click.argument("run")
@target_options
@click.option("--debug", is_flag=True, help="Open a debugger if the task fails, and at each `breakpoint()`.")
@click.option("--shell", is_flag=True, help="Open a Python shell with the task's context, instead of running the task.")
@click.option(
    "--worker",
    "worker_file",
    default="",
    metavar="FILE",
    help="Worker file with the profiles: their images, variables and requirements. Default: what Modal has recorded.",
)
@click.option("--env", "variables", multiple=True, type=VariableType(), help="Variable of the task. You can repeat it.")
@click.option("--isolation", type=click.Choice(ISOLATIONS), help="Isolation of the container. Default: the strongest.")
@click.option("--yes", is_flag=True, help="Skip the confirmation, and replay a try that still runs.")
@app_option
@environment_option
def replay(
    dag: str,
    task: str,
    run: str,
    map_index: int | None,
    try_number: int | None,
    debug: bool,
    shell: bool,
    worker_file: str,
    variables: tuple[tuple[str, str], ...],
    isolation: str | None,
    yes: bool,
    app: str,
    environment: str,
) -> None:
    """Run a try of a task again on this machine, and change nothing in Airflow.

    The try runs on a local control plane, with its DAG bundle version, profile, params, variables, connections and
    XComs. They come from Airflow's database and secrets backends. Its XComs and its state stay in memory. What the task
    itself writes to databases and buckets, it writes again. The exit code is 0 if the task succeeds.
    """
    # Imports Modal, and Airflow's configuration.
    from modalflow.emulator.local import StartError
    from modalflow.emulator.options import Options
    from modalflow.operations.single_task.finding import NamedTry, find_try
    from modalflow.operations.single_task.profiles import read_profiles
    from modalflow.operations.single_task.reading import airflow_database
    from modalflow.operations.single_task.replaying import prepare_replay, run_replay
    from modalflow.operations.site import read_settings

    mode = _mode(debug, shell)
    with errors_in_a_line(), airflow_database() as conf:
        settings = read_settings(app, environment)
        record = find_try(NamedTry(dag, task, run, map_index, try_number))
        ready = prepare_replay(record, settings, conf, read_profiles(settings, worker_file))
        for line in _introduction(ready):
            show(line)
        _confirm(ready, yes)
        try:
            outcome = run_replay(
                ready,
                settings,
                env=dict(variables),
                show=lambda line: show(click.style(line, fg="bright_black")),
                on_line=_print,
                console=_console(mode) if mode else None,
                options=Options(isolation=isolation),
            )
        except StartError as error:
            raise click.ClickException(str(error)) from error
    for line in _conclusion(outcome):
        show(line)
    sys.exit(0 if outcome.state in _GOOD else 1)


def _mode(debug: bool, shell: bool) -> str:
    if debug and shell:
        raise click.UsageError("--debug and --shell cannot be combined.")
    if (debug or shell) and not sys.stdin.isatty():
        flag = "--debug" if debug else "--shell"
        raise click.UsageError(f"{flag} needs a terminal, and the standard input is none. Leave it out for the log.")
    return DEBUG_CONSOLE if debug else SHELL_CONSOLE if shell else ""


def _console(mode: str) -> Console:
    from modalflow.operations.single_task.console import Console

    def write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    return Console(mode, sys.stdin.readline, write)


def _introduction(ready: Replay) -> Iterator[str]:
    record, ti = ready.record, ready.record.ti
    index = "" if ti.map_index < 0 else f"[{ti.map_index}]"
    version = "" if record.version is None else f" version {record.version}"
    yield f"{ti.dag_id}.{ti.task_id}{index} run {ti.run_id} try {record.number}: {record.state or 'no state'}"
    yield f"DAG bundle {record.bundle}{version}, profile {ready.place.profile}"
    for note in ready.notes:
        yield click.style(note, fg="yellow")


def _confirm(ready: Replay, yes: bool) -> None:
    if yes:
        return
    if ready.still_runs:
        raise click.ClickException(
            f"This try is {ready.record.state} in Airflow: its side effects would happen twice at the same time. Wait "
            "for its end, or add --yes."
        )
    show("Airflow stays unchanged. What the task writes elsewhere (databases, buckets, services), it writes again.")
    click.confirm("Replay it?", abort=True)


def _print(line: str) -> None:
    from modalflow.operations.log_lines import readable

    level, text = readable(line)
    show(click.style(text, fg=_COLOURS[level]) if level in _COLOURS else text)


def _conclusion(outcome: ReplayOutcome) -> Iterator[str]:
    if outcome.reason:
        yield click.style(outcome.reason, fg="red")
    yield f"The replay ended: {outcome.state}."
    kept = list(_kept(outcome.kept))
    if kept:
        yield f"Kept in memory, and not written to Airflow: {'; '.join(kept)}."


def _kept(kept: Kept) -> Iterator[str]:
    from modalflow.operations.single_task.stand_in import is_value

    for (_, _, _, key, _), value in kept.xcoms.items():
        if is_value(value):
            yield f"XCom {key}"
    for place in kept.values:
        yield place.strip("/").replace("/", " ", 1)
    yield from kept.others
