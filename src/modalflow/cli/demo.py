"""``modalflow demo``: the first thing a stranger does with modalflow."""

from __future__ import annotations

import sys

import click

from modalflow.support.installation import PAGE, install_command


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything up after the run, until Ctrl-C.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=10.0),
    metavar="SECONDS",
    default=300.0,
    show_default=True,
    help="How long the whole may take; after that the demo names what hangs, and ends.",
)
def demo(keep: bool, timeout: float) -> None:
    """Run an example DAG in a real Airflow, its tasks on Modal, without leaving this machine.

    Starts a local control plane, deploys the worker app to it, starts Airflow on an embedded PostgreSQL, and ends
    with a table of what ran where. Nothing of it is left running, and no account at modal.com is needed. The exit
    code is 0 only if every task succeeded in a Modal container.
    """
    try:
        from rich.console import Console

        from modalflow.demo.run import Options, run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("modalflow"):
            raise
        raise click.ClickException(
            f"the demo needs {error.name}, which is not installed. Install modalflow's wheel with the extra `demo`: "
            f"{install_command('demo')} ({PAGE})"
        ) from error
    # Narrower than its table, a terminal-less output would be folded beyond reading.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    sys.exit(run(Options(keep=keep, timeout=timeout), console))
