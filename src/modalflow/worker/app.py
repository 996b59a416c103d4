"""The worker app: one Modal Function per profile, all with the same body.

``build_app`` is called where the app is deployed, ``run`` in the container. Must stay cheap to import: a container
imports this file before its first input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modal

from modalflow.names import APP_VARIABLE, BUNDLES_ROOT, BUNDLES_VARIABLE, DEFAULT_PROFILE, LOGS_MOUNT, Names
from modalflow.worker import early
from modalflow.worker.container import Container

if TYPE_CHECKING:
    from modal.app import App

#: Modal's longest timeout of a function call, in seconds. The executor ends what runs for too long before that.
LONGEST_TIMEOUT = 24 * 3600


@dataclass(frozen=True)
class Profile:
    """A deployed Function with its defaults. None stands for Modal's own default."""

    name: str = DEFAULT_PROFILE
    timeout: int = LONGEST_TIMEOUT
    """Seconds that a function call may take."""
    concurrency: int = 4
    """How many function calls share a container; each has processes of its own there."""
    cpu: float | None = None
    """Cores."""
    memory: int | None = None
    """MiB."""
    max_containers: int | None = None


def bundle_folder(name: str) -> str:
    """Where a DAG bundle is in the image."""
    return f"{BUNDLES_ROOT}/{name}"


_container: Container | None = None

if not modal.is_local():
    early.start()


async def run(submission: dict[str, Any]) -> dict[str, Any]:
    """The body of every Function: carry out one submission, and return its outcome as plain data."""
    # Both are needed in a container only, where this is the first input.
    from modalflow.worker.call import Call

    global _container
    if _container is None:
        _container = Container.here()
    return await Call(_container, modal.current_function_call_id() or "").perform(submission)


def build_app(
    names: Names,
    *,
    image: modal.Image,
    profiles: Sequence[Profile] = (Profile(),),
    bundles: Mapping[str, Path] | None = None,
) -> App:
    """The app, not deployed yet. ``bundles`` are the DAG bundles to add to the image: name → folder on this machine."""
    app = modal.App(names.app, include_source=False)
    baked = {name: bundle_folder(name) for name in bundles or {}}
    image = image.env({APP_VARIABLE: names.app, BUNDLES_VARIABLE: json.dumps(baked, sort_keys=True)})
    # Added when a container starts, not when the image is built: a changed DAG costs no build.
    image = image.add_local_python_source("modalflow")
    for name, folder in (bundles or {}).items():
        image = image.add_local_dir(folder, baked[name], ignore=["**/__pycache__", "**/.git", "**/*.pyc"])
    logs = modal.Volume.from_name(names.logs, create_if_missing=True, version=2)
    for profile in profiles:
        app.function(
            name=Names.function(profile.name),
            image=image,
            volumes={LOGS_MOUNT: logs},
            timeout=profile.timeout,
            # A repeated input would be refused by its claim: what is retried is for Airflow to decide.
            retries=0,
            cpu=profile.cpu,
            memory=profile.memory,
            max_containers=profile.max_containers,
        )(modal.concurrent(max_inputs=profile.concurrency)(run) if profile.concurrency > 1 else run)
    return app
