"""``modalflow deploy``: put the worker on Modal.

Owns words and exit codes. The deployment itself is modalflow.worker.deploy.deployment's.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from modalflow.cli.terminal.common import BundleType, answer, json_option, show
from modalflow.cli.terminal.quiet_command import QuietCommand
from modalflow.config.values import LONGEST_TIMEOUT, MOST_INPUTS
from modalflow.errors import ModalflowError
from modalflow.names import DEFAULT_APP, Names
from modalflow.support.text import STORED, clean

if TYPE_CHECKING:
    from modalflow.worker.deploy.changes import Change
    from modalflow.worker.deploy.dag_source import Bucket
    from modalflow.worker.deploy.deployment import Plan
    from modalflow.worker.deploy.worker import Worker

#: Options that a file says itself.
_IN_FILE = ("requirements", "timeout", "concurrency", "max_containers", "cpu", "memory", "gpu")

#: Packages that are named one by one; of more, how many there are.
_NAMED_PACKAGES = 12

_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


@click.command(cls=QuietCommand)
@click.argument("file", required=False)
@click.option("--app", default="", help="Name of the worker app. Default: FILE's, else `[modal_executor] app_name`.")
@click.option(
    "--environment",
    default="",
    help="Modal environment. Default: `[modal_executor] environment`, else that of the credentials.",
)
@click.option(
    "--dags-bundle",
    "bundles",
    multiple=True,
    type=BundleType(),
    help="DAG bundle and its folder, on this machine or in the bucket; may be repeated. Default: every local one of "
    "Airflow's configuration, in a bucket in folders of their names.",
)
@click.option(
    "--dags-source",
    type=click.Choice(["local", "volume", "cloud-bucket"]),
    default="local",
    show_default=True,
    help="Where the worker gets local DAG bundles from: `local`, files added now; `volume`, which `modalflow sync` "
    "brings up to date; `cloud-bucket`.",
)
@click.option("--bucket-name", default="", help="The bucket of --dags-source cloud-bucket.")
@click.option("--bucket-prefix", default="", help="Folder in the bucket below which the DAG bundles are.")
@click.option("--bucket-secret", default="", help="Modal Secret with the bucket's credentials.")
@click.option("--bucket-endpoint-url", default="", help="Endpoint of a bucket that is not S3's: R2, GCS.")
@click.option(
    "--mirror",
    is_flag=True,
    help="Give the image all packages of this environment, in the same versions, and list them. The default where "
    "there are no requirements, but for the list.",
)
@click.option("--no-mirror", is_flag=True, help="Give the image Airflow and its providers alone.")
@click.option(
    "--requirements",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the packages that the tasks need besides Airflow and its providers, instead of --mirror.",
)
@click.option(
    "--timeout", type=click.IntRange(1, LONGEST_TIMEOUT), help="Seconds that one task may take. Default: a day."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, MOST_INPUTS),
    help="Tasks that share a container, each in processes of its own. Default: 4, and 1 where there is a GPU.",
)
@click.option(
    "--max-containers", type=click.IntRange(1), help="Containers that may run at once. Default: Modal's limit."
)
@click.option("--cpu", type=click.FloatRange(0, min_open=True), help="Cores of a container. Default: Modal's.")
@click.option("--memory", help="Memory of a container: MiB, or e.g. 4GiB. Default: Modal's.")
@click.option("--gpu", help="GPU of a container, e.g. T4 or H100:2. Default: none.")
@click.option("--any-gpu", is_flag=True, help="Also deploy a GPU that this modalflow does not know.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@json_option
@click.pass_context
def deploy(
    ctx: click.Context,
    /,
    file: str | None,
    app: str,
    environment: str,
    bundles: tuple[tuple[str, Path], ...],
    dags_source: str,
    bucket_name: str,
    bucket_prefix: str,
    bucket_secret: str,
    bucket_endpoint_url: str,
    mirror: bool,
    no_mirror: bool,
    requirements: Path | None,
    any_gpu: bool,
    dry_run: bool,
    as_json: bool,
    **of_profile: Any,
) -> None:
    """Deploy the worker that runs Airflow's tasks on Modal.

    FILE is a Python file with a modalflow.Worker, whose profiles are all deployed; FILE::NAME picks one of several.
    Without it the profile `default` is deployed, as the options say. The image gets this machine's versions of Python,
    Airflow and other packages, and the DAG bundles. Deploy again whenever one of them changes.
    """
    # Imports Modal, and Airflow's configuration.
    import modal

    from modalflow.control_plane import server_url
    from modalflow.worker.deploy.dag_source import SourceKind
    from modalflow.worker.deploy.deployment import configured, prepare
    from modalflow.worker.deploy.profile import Profile
    from modalflow.worker.deploy.worker import Worker, read_worker

    if mirror and (requirements or no_mirror):
        raise click.UsageError("--mirror excludes --requirements and --no-mirror: choose what the image gets.")
    say = (lambda line: None) if as_json else show
    started = time.monotonic()
    try:
        if file is None:
            given = {name: value for name, value in of_profile.items() if value is not None}
            if "memory" in given and given["memory"].isdecimal():
                given["memory"] = int(given["memory"])
            worker = Worker(profiles=[Profile(**given)], requirements=requirements)
        else:
            _refuse_both(ctx)
            worker = read_worker(file)
        _check_gpus(worker, any_gpu)
        app = app or worker.app or configured().app_name
        plan = prepare(
            Names(app),
            environment_name=environment,
            bundles=dict(bundles) if bundles else None,
            dags_source=SourceKind(dags_source),
            bucket=_bucket(bucket_name, bucket_prefix, bucket_secret, bucket_endpoint_url),
            worker=worker,
            whole=not no_mirror,
            notify=say,
        )
        for line in _told(plan, mirror):
            say(line)
        if dry_run:
            if as_json:
                answer(json.dumps(_as_json(plan), indent=1))
            else:
                show("Nothing was deployed: --dry-run.")
            return
        # The build of an image takes minutes the first time: whoever watches wants to see it.
        watched = sys.stdout.isatty() and not as_json
        with modal.enable_output() if watched else contextlib.nullcontext():
            deployment = plan.apply()
    except ModalflowError as error:
        raise click.ClickException(clean(error, STORED)) from error
    if as_json:
        answer(json.dumps(_as_json(plan), indent=1))
        return
    show(f"Deployed {app} (modalflow {deployment.version}) to {server_url()} in {time.monotonic() - started:.1f} s.")
    show(f"Profiles: {', '.join(deployment.profiles)}.")
    show(f"Python {deployment.python_version}, Airflow {deployment.airflow_version or 'none'}.")
    for name, folder in deployment.bundles.items():
        show(f"DAG bundle {name} is at {folder}.")
    if deployment.bundles and deployment.dags_source == "volume":
        show("After an edit of a DAG file: `modalflow sync`.")
    show(
        "Next: start Airflow with `[core] executor = modalflow.executor.modal_executor.ModalExecutor`"
        + ("." if app == DEFAULT_APP else f" and `[modal_executor] app_name = {app}`.")
    )


def _bucket(name: str, prefix: str, secret: str, endpoint_url: str) -> Bucket | None:
    from modalflow.worker.deploy.dag_source import Bucket

    return Bucket(name, prefix, secret, endpoint_url) if name or prefix or secret or endpoint_url else None


def _refuse_both(ctx: click.Context) -> None:
    """FILE says what is deployed, and so do some options: nobody should have to know which counts."""
    given = [name for name in _IN_FILE if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise click.UsageError(f"FILE says what is deployed; say it there and not with {flags}.")


def _check_gpus(worker: Worker, any_gpu: bool) -> None:
    from modalflow.config import values
    from modalflow.errors import DeployError

    for profile in worker.profiles:
        said = values.unknown_gpu(profile.gpu)
        if said and not any_gpu:
            raise DeployError(f"Profile {profile.name!r}: {said}. If Modal has it, deploy with --any-gpu.")


def _told(plan: Plan, with_packages: bool) -> Iterable[str]:
    """What the image gets, and what changes, in lines."""
    if with_packages:
        yield f"The image gets the {len(plan.after.packages)} packages of this environment:"
        pins = (f"{name}=={version}" for name, version in sorted(plan.after.packages.items()))
        yield click.wrap_text(", ".join(pins), 100, "  ", "  ")
    for name, why in plan.mirror.left_out.items() if plan.whole else ():
        yield click.style(f"Package {name} is not in the image: {why}.", fg="yellow")
    if plan.before is None:
        yield f"First deployment of {plan.names.app}:"
    elif not plan.changes:
        yield f"Nothing changes against what is deployed as {plan.names.app}, but perhaps files: it is deployed again."
    else:
        yield f"Against what is deployed as {plan.names.app}:"
    packages = [change for change in plan.changes if change.what == "package"]
    for change in plan.changes:
        if change.what != "package" or len(packages) <= _NAMED_PACKAGES:
            yield _line(change)
    if len(packages) > _NAMED_PACKAGES:
        how_many = {kind: sum(change.kind == kind for change in packages) for kind in _MARKS}
        told = ", ".join(f"{number} {kind}" for kind, number in how_many.items() if number)
        yield f"  {len(packages)} packages of this environment: {told} (--mirror lists them)"


def _line(change: Change) -> str:
    mark, colour = _MARKS[change.kind]
    name = f" {change.name}" if change.name else ""
    detail = f": {change.detail}" if change.detail else ""
    return click.style(f"  {mark} {change.what}{name}{detail}", fg=colour)


def _as_json(plan: Plan) -> dict[str, Any]:
    return {
        "app": plan.names.app,
        "profiles": list(plan.after.profiles),
        "bundles": dict(plan.after.bundles),
        "packages": dict(plan.after.packages),
        "left_out": dict(plan.mirror.left_out) if plan.whole else {},
        "changes": [change.as_dict() for change in plan.changes],
    }
