"""Deploying the worker: build the app, hand it to Modal, record what is deployed where the executor will look.

Runs where Airflow's configuration is. Must work, for raw commands, where Airflow is not installed.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal
from modal import exception

from modalflow import __version__
from modalflow.config import Settings
from modalflow.control_plane import ControlPlane, connect, unreachable
from modalflow.errors import ControlPlaneUnreachableError, CredentialsError, DeployError, MalformedMessageError
from modalflow.log_volume import LogVolume
from modalflow.messages import PROTOCOL, Deployment
from modalflow.names import Names
from modalflow.worker.app import build_app, bundle_folder, own_volumes
from modalflow.worker.changes import Change, changes
from modalflow.worker.definition import Worker
from modalflow.worker.environment import LOCAL_BUNDLE
from modalflow.worker.images import default_image, image_of
from modalflow.worker.mirror import Mirror, environment
from modalflow.worker.profile import digest

Tell = Callable[[str], None]
"""Told, line by line, what a user should know."""


@dataclass(frozen=True)
class Plan:
    """A deployment that has not been carried out yet. ``before`` is the record of the one that it would replace."""

    names: Names
    control_plane: ControlPlane
    worker: Worker
    mirror: Mirror
    whole: bool
    """Whether the image of profiles without one has all packages of this environment."""
    bundles: Mapping[str, Path]
    before: Deployment | None
    after: Deployment

    @property
    def changes(self) -> Sequence[Change]:
        """What it would change."""
        return changes(self.before, self.after)

    def carry_out(self) -> Deployment:
        """Deploy, and return the record. Raises CredentialsError, ControlPlaneUnreachableError or DeployError."""
        with _told_as_our_own(f"The worker app {self.names.app!r} could not be deployed"):
            return self._carry_out()

    def _carry_out(self) -> Deployment:
        image = default_image(self.mirror, _requirements(self.worker), whole=self.whole)
        app = build_app(
            self.names,
            image=image,
            profiles=[
                dataclasses.replace(profile, image=image_of(profile, image, self.mirror))
                for profile in self.worker.profiles
            ],
            bundles=self.bundles,
            env=self.worker.env,
        )
        scope, plane = self.control_plane.scope(), self.control_plane
        for kind, name in ((modal.Dict, self.names.ledger), (modal.Queue, self.names.events)):
            kind.from_name(name, create_if_missing=True, **scope).hydrate()
        app.deploy(name=self.names.app, environment_name=plane.environment or "", client=plane.client)
        deployment = dataclasses.replace(self.after, deployed_at=time.time())
        LogVolume(plane, self.names).record(deployment)
        return deployment


def prepare(
    names: Names,
    *,
    environment_name: str = "",
    bundles: Mapping[str, Path] | None = None,
    worker: Worker | None = None,
    whole: bool = True,
    tell: Tell = lambda line: None,
) -> Plan:
    """Connect, and return what a deployment would be.

    ``bundles`` are the DAG bundles to bake into the images, name → folder; None means every local one of Airflow's
    configuration. Without ``whole``, or with requirements of the worker's, the image has Airflow and its providers
    only. Raises ConfigError, CredentialsError, ControlPlaneUnreachableError or DeployError.
    """
    worker = worker or Worker()
    if bundles is None:
        bundles = configured_bundles(tell)
    for name, folder in bundles.items():
        _check_bundle(name, folder)
    requirements = _requirements(worker)
    if requirements is not None and not requirements.is_file():
        raise DeployError(f"The requirements file {requirements} does not exist; expected a file that pip can read.")
    whole = whole and requirements is None
    control_plane = _connect(environment_name)
    mirror = environment()
    with _told_as_our_own(f"The record of the worker app {names.app!r} could not be read"):
        before = _deployed(control_plane, names)
    after = _record(names, worker, mirror, bundles, whole)
    return Plan(names, control_plane, worker, mirror, whole, bundles, before, after)


def deploy(
    names: Names,
    *,
    environment: str = "",
    bundles: Mapping[str, Path] | None = None,
    worker: Worker | None = None,
    tell: Tell = lambda line: None,
) -> Deployment:
    """Deploy the worker app and return the record of it; arguments and errors are those of ``prepare``."""
    return prepare(names, environment_name=environment, bundles=bundles, worker=worker, tell=tell).carry_out()


@contextmanager
def _told_as_our_own(what: str) -> Iterator[None]:
    try:
        yield
    except exception.AuthError as error:
        raise CredentialsError(f"Modal refused the credentials while deploying: {error}") from error
    except exception.ConnectionError as error:
        raise ControlPlaneUnreachableError(unreachable(error)) from error
    except (exception.Error, OSError) as error:
        raise DeployError(f"{what}: {error}") from error


def _requirements(worker: Worker) -> Path | None:
    return None if worker.requirements is None else Path(worker.requirements)


def _deployed(control_plane: ControlPlane, names: Names) -> Deployment | None:
    """The record of what is deployed; None where there is none that can be read."""
    volume: Any = modal.Volume.from_name(names.logs, **control_plane.scope())
    try:
        volume.hydrate()
        return LogVolume(control_plane, names).deployment()
    except (exception.NotFoundError, MalformedMessageError):
        return None


def _record(names: Names, worker: Worker, mirror: Mirror, bundles: Mapping[str, Path], whole: bool) -> Deployment:
    requirements = _requirements(worker)
    lines = requirements.read_text(errors="replace").splitlines() if requirements is not None else []
    return Deployment(
        version=__version__,
        protocol=PROTOCOL,
        airflow_version=mirror.airflow_version,
        python_version=platform.python_version(),
        profiles=tuple(profile.name for profile in worker.profiles),
        bundles={name: bundle_folder(name) for name in bundles},
        deployed_at=0.0,
        facts={profile.name: profile.facts() for profile in worker.profiles},
        granted={profile.name: profile.granted() for profile in worker.profiles},
        volumes={path: volume.name or "" for path, volume in own_volumes(names).items()},
        packages=mirror.packages if whole else mirror.airflow,
        requirements=tuple(line for line in map(str.strip, lines) if line and not line.startswith("#")),
        env={name: digest(value) for name, value in worker.env.items()},
    )


def configured() -> Settings:
    """The executor's settings in Airflow's configuration; the defaults where Airflow is not installed."""
    try:
        from modalflow.airflow_compat import own_conf
    except ImportError:
        return Settings.defaults()
    return Settings.read(own_conf())


def _connect(environment: str) -> ControlPlane:
    """With the credentials that the executor will use: those of the Airflow connection, where there is an Airflow."""
    settings = configured()
    try:
        from modalflow.airflow_compat import modal_hook
    except ImportError:
        return connect(environment=environment)
    return connect(conn_id=settings.conn_id, environment=environment or settings.environment, hook=modal_hook)


def configured_bundles(tell: Tell) -> dict[str, Path]:
    """The local DAG bundles of Airflow's configuration: name → folder."""
    try:
        from modalflow.airflow_compat import dag_bundle_config, own_conf
    except ImportError:
        tell("Airflow is not installed here: no DAG bundle is baked, and the worker runs raw commands only.")
        return {}
    conf = own_conf()
    dags_folder = conf.get("core", "dags_folder", fallback="")
    found = {}
    for name, folder in local_bundles(dag_bundle_config(conf), dags_folder or "").items():
        if folder.is_dir():
            found[name] = folder
        else:
            tell(f"DAG bundle {name!r} is not baked: its folder {folder} does not exist.")
    return found


def local_bundles(listed: str, dags_folder: str) -> dict[str, Path]:
    """The local bundles in the text of ``[dag_processor] dag_bundle_config_list``: name → folder."""
    where = "[dag_processor] dag_bundle_config_list"
    try:
        bundles: Any = json.loads(listed)
    except ValueError as error:
        raise DeployError(
            f"{where} is not JSON: {error}. Expected a list of bundles, see Airflow's documentation."
        ) from error
    if not isinstance(bundles, list) or not all(isinstance(b, dict) and b.get("name") for b in bundles):
        raise DeployError(f"{where} is {listed!r}; expected a JSON list of objects with name, classpath and kwargs")
    return {
        bundle["name"]: Path((bundle.get("kwargs") or {}).get("path") or dags_folder).expanduser()
        for bundle in bundles
        if bundle.get("classpath") == LOCAL_BUNDLE
    }


def _check_bundle(name: str, folder: Path) -> None:
    if not folder.is_dir():
        raise DeployError(
            f"The folder {folder} of DAG bundle {name!r} does not exist. Give an existing one: "
            f"`modalflow deploy --dags-bundle {name}=FOLDER`."
        )
