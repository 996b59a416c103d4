"""``modalflow cancel``: cancel work on Modal.

Owns texts and exit codes. ``modalflow.operations.cancelling`` cancels the work.
"""

from __future__ import annotations

import sys
import time

import click

from modalflow.cli.terminal.common import app_option, environment_option, errors_in_a_line, show, target_options
from modalflow.cli.terminal.quiet_command import QuietCommand
from modalflow.cli.terminal.words import counted, table
from modalflow.cost.figures import duration


@click.command(cls=QuietCommand)
@click.argument("what", nargs=-1, required=True, metavar="DAG TASK RUN | ID")
@target_options
@click.option("--yes", is_flag=True, help="Skip the confirmation.")
@app_option
@environment_option
def cancel(
    what: tuple[str, ...], map_index: int | None, try_number: int | None, yes: bool, app: str, environment: str
) -> None:
    """Cancel waiting or running work on Modal.

    Name a task by its DAG, task and run, or any work by its work id or function call id. Without --map-index, the
    command cancels all mapped instances of the task. A running task gets SIGTERM, so its on_kill() runs, and is killed
    5 s later. In Airflow the try fails, and the reason has your name. Airflow's retries apply.
    """
    # Imports Modal, and Airflow's configuration.
    from modalflow.operations.cancelling import cancel as end
    from modalflow.operations.cancelling import who
    from modalflow.operations.inventory import take_inventory
    from modalflow.operations.site import open_site, read_settings
    from modalflow.operations.targets import Target, matching

    if len(what) not in (1, 3):
        raise click.UsageError("expected DAG TASK RUN, or one work id or function call id")
    wanted = what[0] if len(what) == 1 else Target(what[0], what[1], what[2], map_index, try_number)
    with errors_in_a_line():
        site = open_site(read_settings(app, environment))
        found = matching(take_inventory(site, profiles=False).work(), wanted)
        rows = [
            [work.state, duration(time.time() - work.since), work.label, work.function_call_id or work.work_id]
            for work in found
        ]
        show("\n".join(table(["state", "for", "task", "id"], rows)))
        if not yes:
            click.confirm(f"Cancel {counted(len(found), 'task')}?", abort=True)
        by = who()
        all_done = True
        for work in found:
            ended = end(site, work, by)
            all_done = all_done and ended.done
            show(f"{work.label or work.work_id} {ended.how}.")
        show("Airflow's retries apply. To prevent another try, also mark the task failed in Airflow.")
    sys.exit(0 if all_done else 1)
