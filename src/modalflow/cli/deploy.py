"""``modalflow deploy``: put the worker on Modal.

Owns words and exit codes. The deployment itself is modalflow.worker.deploy's.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import click

from modalflow.errors import ModalflowError
from modalflow.names import DEFAULT_APP, Names
from modalflow.worker.app import LONGEST_TIMEOUT, Profile

_DEFAULTS = Profile()


class _BundleType(click.ParamType):  # type: ignore[type-arg]  # Generic since click 8.2 only.
    name = "NAME=FOLDER"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        name, equals, folder = str(value).partition("=")
        if not (name and equals and folder) or "/" in name:
            self.fail(f"{value!r} is not NAME=FOLDER, e.g. dags-folder=/opt/airflow/dags", param, ctx)
        return name, Path(folder).expanduser()


@click.command()
@click.option("--app", default="", help="Name of the worker app. Default: `[modal_executor] app_name`.")
@click.option(
    "--environment",
    default="",
    help="Modal environment. Default: `[modal_executor] environment`, else that of the credentials.",
)
@click.option(
    "--dags-bundle",
    "bundles",
    multiple=True,
    type=_BundleType(),
    help="DAG bundle to bake into the image; may be repeated. Default: every local one of Airflow's configuration.",
)
@click.option(
    "--requirements",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the packages that the tasks need besides Airflow and its providers.",
)
@click.option(
    "--timeout",
    type=click.IntRange(1, LONGEST_TIMEOUT),
    default=_DEFAULTS.timeout,
    show_default=True,
    help="Seconds that one task may take.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    default=_DEFAULTS.concurrency,
    show_default=True,
    help="Tasks that share a container, each in processes of its own.",
)
@click.option(
    "--max-containers", type=click.IntRange(1), help="Containers that may run at once. Default: Modal's limit."
)
@click.option("--cpu", type=click.FloatRange(0, min_open=True), help="Cores of a container. Default: Modal's.")
@click.option("--memory", type=click.IntRange(1), help="MiB of a container. Default: Modal's.")
def deploy(
    app: str,
    environment: str,
    bundles: tuple[tuple[str, Path], ...],
    requirements: Path | None,
    timeout: int,
    concurrency: int,
    max_containers: int | None,
    cpu: float | None,
    memory: int | None,
) -> None:
    """Deploy the worker that runs Airflow's tasks on Modal.

    The image gets this machine's versions of Python, Airflow and its providers, and the DAG bundles. Deploy again
    whenever one of them changes.
    """
    # Imports Modal, and Airflow's configuration.
    import modal

    from modalflow.control_plane import server_url
    from modalflow.worker.deploy import configured
    from modalflow.worker.deploy import deploy as deploy_worker

    profile = Profile(timeout=timeout, concurrency=concurrency, max_containers=max_containers, cpu=cpu, memory=memory)
    started = time.monotonic()
    try:
        app = app or configured().app_name
        # The build of an image takes minutes the first time: whoever watches wants to see it.
        with modal.enable_output() if sys.stdout.isatty() else contextlib.nullcontext():
            deployment = deploy_worker(
                Names(app),
                environment=environment,
                bundles=dict(bundles) if bundles else None,
                profile=profile,
                requirements=requirements,
                tell=click.echo,
            )
    except ModalflowError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"Deployed {app} (modalflow {deployment.version}) to {server_url()} in {time.monotonic() - started:.1f} s."
    )
    click.echo(f"Python {deployment.python_version}, Airflow {deployment.airflow_version or 'none'}.")
    for name, folder in deployment.bundles.items():
        click.echo(f"DAG bundle {name} is at {folder}.")
    click.echo(
        "Next: start Airflow with `[core] executor = modalflow.executor.modal_executor.ModalExecutor`"
        + ("." if app == DEFAULT_APP else f" and `[modal_executor] app_name = {app}`.")
    )
