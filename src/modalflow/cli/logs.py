"""``modalflow logs``: a task's log on the terminal, during the task or after it.

Owns texts and exit codes. ``modalflow.operations.task_logs`` finds the log.
"""

from __future__ import annotations

import click

from modalflow.cli.terminal.common import app_option, environment_option, errors_in_a_line, show, target_options
from modalflow.cli.terminal.quiet_command import QuietCommand
from modalflow.support.text import json_line

_COLOURS = {"error": "red", "critical": "red", "warning": "yellow", "debug": "bright_black"}


@click.command(cls=QuietCommand)
@click.argument("dag")
@click.argument("task")
@click.argument("run")
@target_options
@click.option(
    "--follow",
    is_flag=True,
    help="Print new lines until the try has ended. Waits up to 60 s for Airflow to queue the task.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the lines unchanged, as JSON.")
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
    """Print the log of a task on Modal.

    The log comes from the logs Volume. Without --try, you get the newest try. A running task publishes its log about
    every second.
    """
    # Imports Modal, and Airflow's configuration.
    from modalflow.operations.site import open_site, read_settings
    from modalflow.operations.targets import Target
    from modalflow.operations.task_logs import NoLogYetError, find
    from modalflow.operations.task_logs import follow as lines_of

    target = Target(dag, task, run, map_index, try_number)
    with errors_in_a_line():
        site = open_site(read_settings(app, environment))
        if not follow:
            for line in find(site, target).new_lines(whole=True):
                _print(line, as_json)
            return
        for item in lines_of(site, target):
            if isinstance(item, NoLogYetError):
                show(click.style(str(item), fg="bright_black"), err=True)
            elif isinstance(item, str):
                _print(item, as_json)
            else:
                show(click.style(f"This try has {item.ending}.", fg="bright_black"), err=True)


def _print(line: str, as_json: bool) -> None:
    from modalflow.operations.log_lines import readable

    if as_json:
        show(json_line(line))
        return
    level, text = readable(line)
    show(click.style(text, fg=_COLOURS[level]) if level in _COLOURS else text)
