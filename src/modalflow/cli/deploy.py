"""``modalflow deploy``: deploy the worker to Modal.

Owns texts and exit codes. ``modalflow.worker.deploy.deployment`` owns the deployment.
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
    from modalflow.operations.host.preview import Preview
    from modalflow.worker.deploy.changes import Change
    from modalflow.worker.deploy.dag_source import Bucket
    from modalflow.worker.deploy.deployment import Plan
    from modalflow.worker.deploy.worker import Worker

#: Options that belong into a Worker file, if there is one.
_IN_FILE = ("requirements", "timeout", "concurrency", "max_containers", "cpu", "memory", "gpu")

#: Changed packages to list one by one. For more, the output has their number.
_NAMED_PACKAGES = 12

_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


@click.command(cls=QuietCommand)
@click.argument("file", required=False)
@click.option(
    "--app", default="", help="Name of the worker app. Default: the app in FILE, otherwise `[modal_executor] app_name`."
)
@click.option(
    "--environment",
    default="",
    help="Modal environment. Default: `[modal_executor] environment`, otherwise the one of the credentials.",
)
@click.option(
    "--dags-bundle",
    "bundles",
    multiple=True,
    type=BundleType(),
    help="DAG bundle and its folder, on this machine or in the bucket. You can repeat it. Default: all local bundles "
    "in Airflow's configuration; in a bucket, the folders with their names.",
)
@click.option(
    "--dags-source",
    type=click.Choice(["local", "volume", "cloud-bucket"]),
    default="local",
    show_default=True,
    help="Source of local DAG bundles for the worker: `local` adds the files now, `volume` uses the uploads of "
    "`modalflow sync`, `cloud-bucket` reads a bucket.",
)
@click.option("--bucket-name", default="", help="Name of the bucket for --dags-source cloud-bucket.")
@click.option("--bucket-prefix", default="", help="Folder of the DAG bundles in the bucket.")
@click.option("--bucket-secret", default="", help="Modal Secret with the bucket's credentials.")
@click.option("--bucket-endpoint-url", default="", help="Endpoint of a bucket outside S3: R2, GCS.")
@click.option(
    "--mirror",
    is_flag=True,
    help="Install all packages of this environment into the image, in the same versions, and list them. Default "
    "without --requirements, but then without the list.",
)
@click.option("--no-mirror", is_flag=True, help="Install only Airflow and its providers into the image.")
@click.option(
    "--requirements",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the packages for the tasks besides Airflow and its providers, instead of --mirror.",
)
@click.option(
    "--timeout", type=click.IntRange(1, LONGEST_TIMEOUT), help="Longest time of one task, in seconds. Default: a day."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, MOST_INPUTS),
    help="How many tasks share a container, each in its own processes. Default: 4, or 1 with a GPU.",
)
@click.option("--max-containers", type=click.IntRange(1), help="Largest number of containers. Default: Modal's limit.")
@click.option("--cpu", type=click.FloatRange(0, min_open=True), help="Cores of a container. Default: Modal's.")
@click.option("--memory", help="Memory of a container: MiB, e.g. 4GiB, or auto. Default: Modal's.")
@click.option("--gpu", help="GPU of a container, e.g. T4 or H100:2. Default: none.")
@click.option("--any-gpu", is_flag=True, help="Deploy a GPU even if this modalflow does not know it.")
@click.option("--dry-run", is_flag=True, help="Show the changes, and make none.")
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

    FILE is a Python file with a modalflow.Worker. The command deploys all its profiles. If the file has several
    Workers, use FILE::NAME. Without FILE, the command deploys one profile, `default`, from the options. The image gets
    this machine's versions of Python, Airflow and other packages, and the DAG bundles. If one of them changes, deploy
    again.
    """
    # Imports Modal, and Airflow's configuration.
    import modal

    from modalflow.control_plane import server_url
    from modalflow.worker.deploy.dag_source import SourceKind
    from modalflow.worker.deploy.deployment import configured, prepare
    from modalflow.worker.deploy.profile import Profile
    from modalflow.worker.deploy.worker import Worker, read_worker

    if mirror and (requirements or no_mirror):
        raise click.UsageError("--mirror cannot be combined with --requirements or --no-mirror.")
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
        for line in _summary(plan, mirror):
            say(line)
        host = _preview(plan)
        for line in host.lines() if dry_run else ():
            say(line)
        for warning in host.warnings:
            say(click.style(warning, fg="yellow"))
        if dry_run:
            if as_json:
                answer(json.dumps(_as_json(plan, host), indent=1))
            else:
                show("Nothing was deployed: --dry-run.")
            return
        # The first build of an image takes minutes, and a user at a terminal wants to see it.
        watched = sys.stdout.isatty() and not as_json
        with modal.enable_output() if watched else contextlib.nullcontext():
            deployment = plan.apply()
    except ModalflowError as error:
        raise click.ClickException(clean(error, STORED)) from error
    if as_json:
        answer(json.dumps(_as_json(plan, host), indent=1))
        return
    show(f"Deployed {app} (modalflow {deployment.version}) to {server_url()} in {time.monotonic() - started:.1f} s.")
    show(f"Profiles: {', '.join(deployment.profiles)}.")
    show(f"Python {deployment.python_version}, Airflow {deployment.airflow_version or 'none'}.")
    for name, folder in deployment.bundles.items():
        show(f"DAG bundle {name} is at {folder}.")
    if deployment.bundles and deployment.dags_source == "volume":
        show("After you edit a DAG file, run `modalflow sync`.")
    elif deployment.bundles and deployment.dags_source == "local":
        show("After you edit a DAG file, deploy again.")
    if plan.before is not None:
        # Whether a scheduler runs would cost an RPC. One that does has the same settings as before.
        show(f"Running schedulers with app {app} use this deployment within half a minute.")
        return
    show(
        "Next: start Airflow with `[core] executor = modalflow.executor.modal_executor.ModalExecutor`"
        + ("." if app == DEFAULT_APP else f" and `[modal_executor] app_name = {app}`.")
    )


def _bucket(name: str, prefix: str, secret: str, endpoint_url: str) -> Bucket | None:
    from modalflow.worker.deploy.dag_source import Bucket

    return Bucket(name, prefix, secret, endpoint_url) if name or prefix or secret or endpoint_url else None


def _refuse_both(ctx: click.Context) -> None:
    """Refuse options that FILE also sets, so that no user has to know which of them wins."""
    given = [name for name in _IN_FILE if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise click.UsageError(f"{flags} cannot be combined with FILE; set it in the Worker file.")


def _check_gpus(worker: Worker, any_gpu: bool) -> None:
    from modalflow.config import values
    from modalflow.errors import DeployError

    for profile in worker.profiles:
        problem = values.unknown_gpu(profile.gpu)
        if problem and not any_gpu:
            raise DeployError(f"Profile {profile.name!r}: {problem}. If Modal offers it, deploy with --any-gpu.")


def _summary(plan: Plan, with_packages: bool) -> Iterable[str]:
    """Return the packages of the image and the changes, in lines."""
    if with_packages:
        yield f"The image gets {len(plan.after.packages)} packages of this environment:"
        pins = (f"{name}=={version}" for name, version in sorted(plan.after.packages.items()))
        yield click.wrap_text(", ".join(pins), 100, "  ", "  ")
    for name, why in plan.mirror.left_out.items() if plan.whole else ():
        yield click.style(f"Package {name} is not in the image: {why}.", fg="yellow")
    if plan.before is None:
        yield f"First deployment of {plan.names.app}:"
    elif not plan.changes:
        yield f"No changes to {plan.names.app}, except perhaps in files. It is deployed again."
    else:
        yield f"Changes to {plan.names.app}:"
    packages = [change for change in plan.changes if change.what == "package"]
    for change in plan.changes:
        if change.what != "package" or len(packages) <= _NAMED_PACKAGES:
            yield _line(change)
    if len(packages) > _NAMED_PACKAGES:
        how_many = {kind: sum(change.kind == kind for change in packages) for kind in _MARKS}
        kinds = ", ".join(f"{number} {kind}" for kind, number in how_many.items() if number)
        yield f"  {len(packages)} packages of this environment: {kinds} (--mirror lists them)"


def _line(change: Change) -> str:
    mark, colour = _MARKS[change.kind]
    name = f" {change.name}" if change.name else ""
    detail = f": {change.detail}" if change.detail else ""
    return click.style(f"  {mark} {change.what}{name}{detail}", fg=colour)


def _preview(plan: Plan) -> Preview:
    """Return what containers will have of this machine's Airflow; nothing without Airflow."""
    from modalflow.operations.host.preview import Preview, preview
    from modalflow.operations.site import airflow_conf
    from modalflow.support.packages import named_package

    conf = airflow_conf()
    if conf is None:
        return Preview()
    return preview(
        conf,
        # Airflow's own requirements are in every image.
        {*plan.after.packages, *plan.constraints.versions, *map(named_package, plan.after.requirements)},
        knows_image=any(profile.image is None for profile in plan.worker.profiles),
        has_key=plan.before is not None and bool(plan.before.home_key),
        after=plan.after,
    )


def _as_json(plan: Plan, host: Preview) -> dict[str, Any]:
    return {
        "app": plan.names.app,
        "profiles": list(plan.after.profiles),
        "bundles": dict(plan.after.bundles),
        "packages": dict(plan.after.packages),
        "left_out": dict(plan.mirror.left_out) if plan.whole else {},
        "changes": [change.as_dict() for change in plan.changes],
        "airflow": host.to_wire(),
    }
