"""The worker app as Modal deploys it: one Function for each profile, all with the same body."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import modal

from modalflow import __version__
from modalflow.config.variables import check
from modalflow.names import (
    APP_TAG,
    APP_VARIABLE,
    LOGS_MOUNT,
    PRELOAD_VARIABLE,
    PROFILE_ENV_VARIABLE,
    PROFILE_VARIABLE,
    RELAY_KEY_FUNCTION,
    VERSION_TAG,
    Names,
)
from modalflow.relay.key_function import hand_over
from modalflow.worker import packing
from modalflow.worker.app import run
from modalflow.worker.deploy.dag_source import DagSource
from modalflow.worker.deploy.profile import Profile

if TYPE_CHECKING:
    from modal.app import App


def build_app(
    names: Names,
    *,
    image: modal.Image,
    profiles: Sequence[Profile],
    dags: DagSource,
    env: Mapping[str, str] | None = None,
    home_key: bool = False,
    relay_keys: modal.Secret | None = None,
) -> App:
    """Return the app, which is not deployed yet.

    Profiles without an image of their own use ``image``. ``dags`` is the source of the DAG bundles of every profile.
    ``env`` holds variables of all profiles; a profile's own variables override them. ``home_key`` says that the app has
    a Secret with the key to the host's secret settings. ``relay_keys`` is the Secret with the relay's keys; without it,
    the app has no Function that hands them over.
    """
    # For Modal's billing report, which can group by tags.
    tags = {APP_TAG: names.app, VERSION_TAG: __version__.replace("+", "-")}
    app = modal.App(names.app, include_source=False, tags=tags)
    logs = modal.Volume.from_name(names.logs, create_if_missing=True, version=2)
    own_secrets = [modal.Secret.from_name(names.home_key)] if home_key else []
    for profile in profiles:
        arguments = profile.arguments()
        variables = {
            APP_VARIABLE: names.app,
            **dags.variables(),
            **_profile_variables(profile, env or {}),
        }
        place = f"the environment of profile {profile.name!r}"
        check(place, variables)
        packed = packing.packed(variables)
        # Packing makes random text longer.
        check(f"{place}, packed because of characters such as line breaks,", packed)
        # The layer that changes most often is built last: then a change costs least.
        own = (profile.image or image).env(packed)
        # These files are added when a container starts, so a changed DAG needs no build.
        own = dags.add_to(own.add_local_python_source("modalflow"))
        app.function(
            name=Names.function(profile.name),
            image=own,
            volumes=dict((*profile.volumes.items(), *dags.mounts().items(), *own_volumes(names, logs).items())),
            # The claim would refuse a repeated input. Airflow decides what is retried.
            retries=0,
            **{**arguments, "secrets": [*arguments["secrets"], *own_secrets]},
        )(modal.concurrent(max_inputs=profile.concurrency)(run) if profile.concurrency != 1 else run)
    if relay_keys is not None:
        app.function(
            name=RELAY_KEY_FUNCTION,
            # An image that is built in any case, and has Airflow, and with it `cryptography`.
            image=(profiles[0].image or image).add_local_python_source("modalflow"),
            secrets=[relay_keys],
            # A container of this moment has the keys of this moment.
            single_use_containers=True,
            scaledown_window=2,
            timeout=60,
            retries=2,
        )(hand_over)
    return app


def own_volumes(names: Names, logs: modal.Volume | None = None) -> dict[str, modal.Volume]:
    """Return the Volumes that modalflow mounts in every container, whatever its profile or a task asks for."""
    return {LOGS_MOUNT: logs or modal.Volume.from_name(names.logs)}


def _profile_variables(profile: Profile, env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the image of a profile sets, so that they exist before the first workload.

    Their names are listed in one of them: in the container they override what a workload brings along.
    """
    variables = {**env, **profile.env}
    return {
        **variables,
        PROFILE_ENV_VARIABLE: json.dumps(sorted(variables)),
        PROFILE_VARIABLE: json.dumps({"profile": profile.name, **profile.granted()}, sort_keys=True),
        PRELOAD_VARIABLE: json.dumps(list(profile.preload)),
    }
