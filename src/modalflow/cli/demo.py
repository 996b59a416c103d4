"""``modalflow demo``: a first run of modalflow for a new user."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modalflow.emulator.options import ISOLATIONS, NETWORKS
from modalflow.support.installation import PAGE, install_command


@click.command()
@click.option("--keep", is_flag=True, help="Keep everything running after the run, until Ctrl-C.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=10.0),
    metavar="SECONDS",
    default=300.0,
    show_default=True,
    help="Limit for the whole demo. After it, the demo names the hanging part, and ends.",
)
@click.option(
    "--network",
    type=click.Choice(NETWORKS),
    help="Network of the containers: `host` is this machine's, `none` a loopback of its own for each container. By "
    "default `none`, if this machine has namespaces: then tasks reach Airflow only by the relay.",
)
@click.option(
    "--isolation",
    type=click.Choice(ISOLATIONS),
    help="Isolation of the containers; `gvisor` is Modal's sandbox. Default: the best kind that works on this machine.",
)
@click.option("--runsc", type=click.Path(path_type=Path), help="gVisor's program. Default: `runsc` on PATH.")
def demo(keep: bool, timeout: float, network: str | None, isolation: str | None, runsc: Path | None) -> None:
    """Run an example DAG in a real Airflow with tasks on Modal, all on this machine.

    The demo starts a local control plane, deploys the worker app to it, and starts Airflow on an embedded PostgreSQL.
    At the end, it prints a table of the tasks and their containers, and stops everything. You need no account at
    modal.com. The exit code is 0 only if every task succeeded in a Modal container.
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
    # A narrower output would break the lines of the table.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    options = Options(keep=keep, timeout=timeout, network=network, isolation=isolation, runsc=runsc)
    sys.exit(run(options, console))
