"""The worker app: one Modal Function per profile, all with the same body.

``build_app`` is called where the app is deployed, ``run`` in the container. Must stay cheap to import: a container
imports this file before its first input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import modal

from modalflow.config.variables import check
from modalflow.names import (
    APP_VARIABLE,
    LOGS_MOUNT,
    PRELOAD_VARIABLE,
    PROFILE_ENV_VARIABLE,
    PROFILE_VARIABLE,
    Names,
)
from modalflow.worker import packing
from modalflow.worker.container import Container
from modalflow.worker.zygote import prestart

if TYPE_CHECKING:
    from modal.app import App

    from modalflow.worker.deploy.dag_source import DagSource
    from modalflow.worker.deploy.profile import Profile


_container: Container | None = None

if not modal.is_local():
    # Before anything that reads a variable.
    packing.unpack(os.environ)
    prestart.start()


async def run(submission: dict[str, Any]) -> dict[str, Any]:
    """The body of every Function: carry out one submission, and return its outcome as plain data."""
    # Both are needed in a container only, where this is the first input.
    from modalflow.worker.call import Call

    global _container
    if _container is None:
        _container = Container.here()
    function_call_id = modal.current_function_call_id() or ""
    return await Call(_container, function_call_id, _container.accounts.open(function_call_id)).perform(submission)


def build_app(
    names: Names,
    *,
    image: modal.Image,
    profiles: Sequence[Profile],
    dags: DagSource,
    env: Mapping[str, str] | None = None,
) -> App:
    """The app, not deployed yet.

    ``image`` is that of profiles without one, ``dags`` is where every profile gets its DAG bundles from. ``env`` are
    variables of all profiles, below their own.
    """
    app = modal.App(names.app, include_source=False)
    logs = modal.Volume.from_name(names.logs, create_if_missing=True, version=2)
    for profile in profiles:
        variables = {
            APP_VARIABLE: names.app,
            **dags.variables(),
            **_profile_variables(profile, env or {}),
        }
        place = f"the environment of profile {profile.name!r}"
        check(place, variables)
        packed = packing.packed(variables)
        # Random text gets longer by it.
        check(f"{place}, packed because of characters such as line breaks,", packed)
        # The last layer that is built: what changes most often costs least.
        own = (profile.image or image).env(packed)
        # Added when a container starts, not when the image is built: a changed DAG costs no build.
        own = dags.add_to(own.add_local_python_source("modalflow"))
        app.function(
            name=Names.function(profile.name),
            image=own,
            volumes=dict((*profile.volumes.items(), *dags.mounts().items(), *own_volumes(names, logs).items())),
            # A repeated input would be refused by its claim: what is retried is for Airflow to decide.
            retries=0,
            **profile.arguments(),
        )(modal.concurrent(max_inputs=profile.concurrency)(run) if profile.concurrency != 1 else run)
    return app


def own_volumes(names: Names, logs: modal.Volume | None = None) -> dict[str, modal.Volume]:
    """What modalflow itself has mounted in every container, whatever its profile or a task asks for."""
    return {LOGS_MOUNT: logs or modal.Volume.from_name(names.logs)}


def _profile_variables(profile: Profile, env: Mapping[str, str]) -> dict[str, str]:
    """Of the image, so that they are there before the first workload; which of them count above what a workload brings
    along, the container learns from their names."""
    variables = {**env, **profile.env}
    return {
        **variables,
        PROFILE_ENV_VARIABLE: json.dumps(sorted(variables)),
        PROFILE_VARIABLE: json.dumps({"profile": profile.name, **profile.granted()}, sort_keys=True),
        PRELOAD_VARIABLE: json.dumps(list(profile.preload)),
    }
