"""Deploying the worker: build the app, hand it to Modal, record what is deployed where the executor will look.

Runs where Airflow's configuration is. Must work, for raw commands, where Airflow is not installed.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import modal
from modal import exception

from modalflow import __version__
from modalflow.config import Settings
from modalflow.control_plane import ControlPlane, connect, unreachable
from modalflow.errors import ControlPlaneUnreachableError, CredentialsError, DeployError
from modalflow.log_volume import LogVolume
from modalflow.messages import PROTOCOL, Deployment
from modalflow.names import Names
from modalflow.worker.app import Profile, build_app, bundle_folder
from modalflow.worker.environment import LOCAL_BUNDLE

Tell = Callable[[str], None]
"""Told, line by line, what a user should know."""


def deploy(
    names: Names,
    *,
    environment: str = "",
    bundles: Mapping[str, Path] | None = None,
    profile: Profile | None = None,
    requirements: Path | None = None,
    tell: Tell = lambda line: None,
) -> Deployment:
    """Deploy the worker app and return the record of it.

    ``bundles`` are the DAG bundles to bake into the image, name → folder; None means every local one of Airflow's
    configuration. ``requirements`` is a file with what the tasks need besides Airflow. Raises CredentialsError,
    ControlPlaneUnreachableError or DeployError.
    """
    if bundles is None:
        bundles = configured_bundles(tell)
    for name, folder in bundles.items():
        _check_bundle(name, folder)
    control_plane = _connect(environment)
    profile = profile or Profile()
    packages = airflow_packages()
    app = build_app(names, image=_image(packages, requirements), profiles=[profile], bundles=bundles)
    try:
        for kind, name in ((modal.Dict, names.ledger), (modal.Queue, names.events)):
            kind.from_name(name, create_if_missing=True, **control_plane.scope()).hydrate()
        app.deploy(name=names.app, environment_name=control_plane.environment or "", client=control_plane.client)
        return _record(control_plane, names, profile, bundles)
    except exception.AuthError as error:
        raise CredentialsError(f"Modal refused the credentials while deploying: {error}") from error
    except exception.ConnectionError as error:
        raise ControlPlaneUnreachableError(unreachable(error)) from error
    except (exception.Error, OSError) as error:
        raise DeployError(f"The worker app {names.app!r} could not be deployed: {error}") from error


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


def _record(control_plane: ControlPlane, names: Names, profile: Profile, bundles: Mapping[str, Path]) -> Deployment:
    deployment = Deployment(
        version=__version__,
        protocol=PROTOCOL,
        airflow_version=airflow_packages().get("apache-airflow-core", ""),
        python_version=platform.python_version(),
        profiles=(profile.name,),
        bundles={name: bundle_folder(name) for name in bundles},
        deployed_at=time.time(),
    )
    LogVolume(control_plane, names).record(deployment)
    return deployment


def _image(packages: Mapping[str, str], requirements: Path | None) -> modal.Image:
    """An image with this Python and this Airflow: a workload can only be read by the Airflow that wrote it."""
    major_minor = ".".join(platform.python_version_tuple()[:2])
    image = modal.Image.debian_slim(python_version=major_minor)
    if packages:
        image = image.uv_pip_install(*(f"{name}=={version}" for name, version in sorted(packages.items())))
    if requirements is not None:
        if not requirements.is_file():
            raise DeployError(
                f"The requirements file {requirements} does not exist; expected a file that pip can read."
            )
        image = image.uv_pip_install(requirements=[str(requirements)])
    return image


def airflow_packages() -> dict[str, str]:
    """The Airflow packages installed here, providers included: name → version."""
    found = {}
    for distribution in metadata.distributions():
        name = str(distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name.startswith("apache-airflow"):
            found[name] = distribution.version
    return found


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
