"""The deployment of the worker: build the app, deploy it on Modal, and record it for the executor.

Runs on a machine with Airflow's configuration. Must also work without Airflow, for raw commands.
"""

from __future__ import annotations

import dataclasses
import logging
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modal
from modal import exception

from modalflow import __version__
from modalflow.bundles.scan import Folder
from modalflow.bundles.shipping import ship
from modalflow.bundles.store import open_store
from modalflow.config.settings import Settings
from modalflow.control_plane import ControlPlane, connect, unreachable
from modalflow.errors import ControlPlaneUnreachableError, CredentialsError, DeployError, MalformedMessageError
from modalflow.logs.log_volume import LogVolume
from modalflow.names import Names
from modalflow.protocol.messages import PROTOCOL, Deployment
from modalflow.relay import keys
from modalflow.support.described import words_of
from modalflow.worker.deploy.app_builder import build_app, own_volumes
from modalflow.worker.deploy.changes import Change, changes
from modalflow.worker.deploy.constraints import ADVICE, Constraints, airflow_constraints, conflicts
from modalflow.worker.deploy.dag_source import (
    Bucket,
    DagSource,
    Notify,
    SourceKind,
    bundle_configuration,
    without_provider,
)
from modalflow.worker.deploy.home_key import public_key
from modalflow.worker.deploy.images import build_failure, build_log, default_image, image_of
from modalflow.worker.deploy.mirror import Mirror, mirror_environment, names_modalflow
from modalflow.worker.deploy.profile import digest
from modalflow.worker.deploy.worker import Worker

if TYPE_CHECKING:
    from modal.app import App

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A deployment that can be applied. ``before`` is the record of the one that it would replace."""

    names: Names
    control_plane: ControlPlane
    worker: Worker
    mirror: Mirror
    whole: bool
    """Whether the image of profiles without one has all packages of this environment."""
    constraints: Constraints
    """The versions of Airflow's dependencies, for images that do not have all packages of this environment."""
    dags: DagSource
    before: Deployment | None
    after: Deployment

    @property
    def changes(self) -> Sequence[Change]:
        """Return what it would change."""
        return changes(self.before, self.after)

    def apply(self) -> Deployment:
        """Deploy, and return the record. Raises CredentialsError, ControlPlaneUnreachableError or DeployError."""
        with _our_errors(f"The worker app {self.names.app!r} could not be deployed", self):
            return self._apply()

    def _apply(self) -> Deployment:
        relay_keys = self._relay_keys()
        scope, plane = self.control_plane.scope(), self.control_plane
        home_key = public_key(self.names, self.before, **scope)
        modal.Dict.from_name(self.names.ledger, create_if_missing=True, **scope).hydrate()
        for name in (self.names.events, *([self.names.relay] if relay_keys is not None else [])):
            modal.Queue.from_name(name, create_if_missing=True, **scope).hydrate()
        if self.dags.kind is SourceKind.VOLUME:
            # Before any task can need them.
            store = open_store(self.names, **scope)
            for name, folder in self.dags.bundles.items():
                ship(store, name, Folder(folder))
        with tempfile.TemporaryDirectory(prefix="modalflow-deploy-") as temporary:
            # The SDK reads the file while it deploys.
            file = Path(temporary, "constraints.txt")
            file.write_text(self.constraints.text)
            app = self._app(file, relay_keys, home_key=bool(home_key))
            app.deploy(name=self.names.app, environment_name=plane.environment or "", client=plane.client)
        deployment = dataclasses.replace(self.after, deployed_at=time.time(), home_key=home_key)
        LogVolume(plane, self.names).record(deployment)
        return deployment

    def _relay_keys(self) -> modal.Secret | None:
        """Return the Secret with the relay's keys, made if there is none; None if containers have no Airflow."""
        if not self.mirror.airflow_version:
            return None
        keys.make_secret(self.names, **self.control_plane.scope())
        return modal.Secret.from_name(self.names.relay_secret, **self.control_plane.scope())

    def _app(self, constraints: Path, relay_keys: modal.Secret | None, *, home_key: bool) -> App:
        """Return the app, whose images are built with this file of constraints."""
        image = default_image(
            self.mirror,
            _requirements(self.worker),
            whole=self.whole,
            constraints=constraints if self.constraints.versions else None,
            programs=("git",) if self.dags.needs_git else (),
        )
        profiles = [
            dataclasses.replace(profile, image=image_of(profile, image, self.mirror, self.constraints, constraints))
            for profile in self.worker.profiles
        ]
        return build_app(
            self.names,
            image=image,
            profiles=profiles,
            dags=self.dags,
            env=self.worker.env,
            home_key=home_key,
            relay_keys=relay_keys,
        )


def prepare(
    names: Names,
    *,
    environment_name: str = "",
    bundles: Mapping[str, Path] | None = None,
    dags_source: SourceKind = SourceKind.LOCAL,
    bucket: Bucket | None = None,
    worker: Worker | None = None,
    whole: bool = True,
    notify: Notify = log.warning,
) -> Plan:
    """Connect, and return the plan of a deployment.

    ``bundles`` are the DAG bundles that come from ``dags_source``, name → folder, on this machine or in the ``bucket``;
    None means every local one of Airflow's configuration. Without ``whole``, or if the worker has requirements, the
    image has only Airflow and its providers. ``notify`` receives lines for the user. Raises ConfigError,
    CredentialsError, ControlPlaneUnreachableError or DeployError.
    """
    worker = worker or Worker()
    configuration = bundle_configuration(notify)
    dags = configuration.source(dags_source, bundles, bucket, notify)
    dags.check()
    for line in dags.without_files():
        notify(line)
    requirements = _requirements(worker)
    if requirements is not None and not requirements.is_file():
        raise DeployError(f"The requirements file {requirements} does not exist; expected a file that pip can read.")
    if requirements is not None and (line := names_modalflow(requirements)):
        notify(
            f"{requirements} has {line!r}, and the package index has another program of that name. Remove the line: "
            "`modalflow deploy` adds this project's code to every image."
        )
    whole = whole and requirements is None
    mirror = mirror_environment()
    constraints = _constraints(worker, mirror, whole, notify)
    control_plane = _connect(environment_name)
    with _our_errors(f"The record of the worker app {names.app!r} could not be read"):
        before = _deployed(control_plane, names)
    after = _record(names, worker, mirror, dags, whole)
    for name, package in without_provider(configuration.bundles, after.packages).items():
        notify(f"DAG bundle {name!r} needs {package}, which the worker's image lacks. Install it here, too.")
    return Plan(names, control_plane, worker, mirror, whole, constraints, dags, before, after)


def deploy(
    names: Names,
    *,
    environment: str = "",
    bundles: Mapping[str, Path] | None = None,
    worker: Worker | None = None,
    notify: Notify = log.warning,
) -> Deployment:
    """Deploy the worker app and return its record; arguments and errors are those of ``prepare``."""
    return prepare(names, environment_name=environment, bundles=bundles, worker=worker, notify=notify).apply()


@contextmanager
def _our_errors(what: str, plan: Plan | None = None) -> Iterator[None]:
    try:
        yield
    except exception.AuthError as error:
        raise CredentialsError(f"Modal refused the credentials while deploying: {words_of(error)}") from error
    except exception.ConnectionError as error:
        raise ControlPlaneUnreachableError(unreachable(error)) from error
    except (exception.Error, OSError) as error:
        reason = words_of(error)
        if plan is not None:
            reason = build_failure(error, build_log(error, plan.control_plane.client), plan.worker.profiles)
        raise DeployError(f"{what}: {reason}") from error


def _constraints(worker: Worker, mirror: Mirror, whole: bool, notify: Notify) -> Constraints:
    """Return the constraints for the images of a worker; none if each image has everything or nothing of this host."""
    own = [profile for profile in worker.profiles if profile.image is not None and not profile.image_has_airflow]
    if whole and not own:
        return Constraints()
    constraints = airflow_constraints(mirror)
    for name, why in constraints.unconstrained.items():
        notify(f"Airflow needs package {name}, and its version in the image may be another one: {why}.")
    requirements = _requirements(worker)
    if requirements is not None and (found := conflicts(requirements, constraints)):
        lines = "".join(f"\n  {line}" for line in found)
        raise DeployError(f"The requirements file {requirements} contradicts this Airflow host:{lines}\n{ADVICE}")
    return constraints


def _requirements(worker: Worker) -> Path | None:
    return None if worker.requirements is None else Path(worker.requirements)


def _deployed(control_plane: ControlPlane, names: Names) -> Deployment | None:
    """Return the record of the current deployment; None if there is none that can be read."""
    volume: Any = modal.Volume.from_name(names.logs, **control_plane.scope())
    try:
        volume.hydrate()
        return LogVolume(control_plane, names).deployment()
    except (exception.NotFoundError, MalformedMessageError):
        return None


def planned_deployment(names: Names, worker: Worker) -> Deployment:
    """Return the record of a worker's profiles as its deployment would write it, without its image and DAG bundles."""
    return Deployment(
        version=__version__,
        protocol=PROTOCOL,
        airflow_version="",
        python_version=platform.python_version(),
        profiles=tuple(profile.name for profile in worker.profiles),
        bundles={},
        deployed_at=0.0,
        facts={profile.name: profile.facts() for profile in worker.profiles},
        granted={profile.name: profile.granted() for profile in worker.profiles},
        volumes={path: volume.name or "" for path, volume in own_volumes(names).items()},
        env={name: digest(value) for name, value in worker.env.items()},
    )


def _record(names: Names, worker: Worker, mirror: Mirror, dags: DagSource, whole: bool) -> Deployment:
    requirements = _requirements(worker)
    lines = requirements.read_text(errors="replace").splitlines() if requirements is not None else []
    return dataclasses.replace(
        planned_deployment(names, worker),
        airflow_version=mirror.airflow_version,
        bundles=dags.places(names),
        dags_source=dags.kind.value,
        packages=mirror.packages if whole else mirror.airflow,
        requirements=tuple(line for line in map(str.strip, lines) if line and not line.startswith("#")),
    )


def configured() -> Settings:
    """Return the executor's settings in Airflow's configuration; the defaults if Airflow is not installed."""
    try:
        from modalflow.airflow_compat.configuration import own_conf
    except ImportError:
        return Settings.defaults()
    return Settings.read(own_conf())


def _connect(environment: str) -> ControlPlane:
    """Connect with the credentials that the executor will use: with Airflow, those of the Airflow connection."""
    settings = configured()
    try:
        from modalflow.airflow_compat.configuration import modal_hook
    except ImportError:
        return connect(environment=environment)
    return connect(conn_id=settings.conn_id, environment=environment or settings.environment, hook=modal_hook)
