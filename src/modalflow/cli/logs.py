"""``modalflow logs``: a task's log on the terminal, while it runs and after.

Owns words and exit codes. Where logs are is modalflow.operations.task_logs'.
"""

from __future__ import annotations

import click

from modalflow.cli.terminal.common import app_option, environment_option, errors_in_a_line, quiet, show, target_options
from modalflow.cli.terminal.quiet_command import QuietCommand
from modalflow.support.text import json_line

_COLOURS = {"error": "red", "critical": "red", "warning": "yellow", "debug": "bright_black"}


@click.command(cls=QuietCommand)
@click.argument("dag")
@click.argument("task")
@click.argument("run")
@target_options
@click.option("--follow", is_flag=True, help="Go on as it grows, until the try has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as they are on the Volume.")
@app_option
@environment_option
def logs(
    dag: str,
    task: str,
    run: str,
    map_index: int | None,
    try_number: int | None,
    follow: bool,
    as_json: bool,
    app: str,
    environment: str,
) -> None:
    """Print the log of a task instance that ran on Modal.

    It is read from the logs Volume: the newest try's, unless --try says which. A running task publishes its log about
    every second.
    """
    # Imports Modal, and Airflow's configuration.
    from modalflow.operations.site import open_site, read_settings
    from modalflow.operations.targets import Target
    from modalflow.operations.task_logs import NoLogYetError, find
    from modalflow.operations.task_logs import follow as lines_of

    target = Target(dag, task, run, map_index, try_number)
    with errors_in_a_line():
        with quiet():
            site = open_site(read_settings(app, environment))
        if not follow:
            for line in find(site, target).new_lines(whole=True):
                _print(line, as_json)
            return
        for said in lines_of(site, target):
            if isinstance(said, NoLogYetError):
                show(click.style(str(said), fg="bright_black"), err=True)
            elif isinstance(said, str):
                _print(said, as_json)
            else:
                show(click.style(f"This try has {said.told}.", fg="bright_black"), err=True)


def _print(line: str, as_json: bool) -> None:
    from modalflow.operations.log_lines import readable

    if as_json:
        show(json_line(line))
        return
    level, text = readable(line)
    show(click.style(text, fg=_COLOURS[level]) if level in _COLOURS else text)
