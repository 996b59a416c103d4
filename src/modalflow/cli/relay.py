"""``modalflow relay``: run a relay, and rotate its key.

Owns texts and exit codes. ``modalflow.operations.relay.running`` owns the work.
"""

from __future__ import annotations

import logging
import sys

import click

from modalflow.cli.terminal.common import app_option, environment_option, errors_in_a_line, show
from modalflow.cli.terminal.quiet_command import QuietCommand


@click.group(invoke_without_command=True)
@app_option
@environment_option
@click.option("--parent", type=int, hidden=True, help="Process id of the scheduler that starts the relay.")
@click.pass_context
def relay(ctx: click.Context, /, app: str, environment: str, parent: int | None) -> None:
    """Answer requests of containers to Airflow's Execution API, until Ctrl-C or SIGTERM.

    Containers on Modal send their requests over Modal, and this command passes them to the Execution API at `[core]
    execution_api_server_url`. It only dials out, so Airflow needs no open port. The scheduler starts relays itself; run
    more of them as services next to the API server. All of them share the work, and one that ends loses nothing.
    """
    if ctx.invoked_subcommand is not None:
        return
    from modalflow.operations.relay.running import run_relay

    _log_to_stderr()
    with errors_in_a_line():
        run_relay(app, environment, parent, lambda line: show(line, err=True))


@relay.command("rotate-key", cls=QuietCommand)
@app_option
@environment_option
def rotate(app: str, environment: str) -> None:
    """Encrypt with a new key from now on.

    Executors use it for new tasks within a minute. Running tasks keep the key of their start, and relays accept it for
    50 more hours.
    """
    from modalflow.operations.relay.running import rotate_key

    with errors_in_a_line():
        key_id = rotate_key(app, environment)
    show(f"The relay's key is {key_id} now.")


def _log_to_stderr() -> None:
    """Log what a relay does. Airflow, which is imported later, configures other loggers."""
    logger, handler = logging.getLogger("modalflow"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
