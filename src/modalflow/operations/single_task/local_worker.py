"""The Worker of a replay: the one profile of its task, as far as a local control plane can have it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import modal

from modalflow.operations.single_task.profiles import Profiles
from modalflow.worker.deploy.profile import Profile
from modalflow.worker.deploy.worker import Worker

_FIELDS = frozenset(f.name for f in dataclasses.fields(Profile))


@dataclass
class LocalWorker:
    """What is deployed locally, and how it differs from Modal."""

    worker: Worker
    missing: list[str] = field(default_factory=list)
    """Differences, for the user."""


def local_worker(profile: str, profiles: Profiles) -> LocalWorker:
    """Return the Worker with this profile."""
    if profiles.worker is None:
        return _of_record(profile, profiles)
    found = LocalWorker(profiles.worker)
    [wanted] = [each for each in profiles.worker.profiles if each.name == profile]
    if names := [secret.name or "(without a name)" for secret in wanted.secrets]:
        found.missing.append(_no_secrets(names))
    mine = dataclasses.replace(
        wanted,
        secrets=(),
        volumes=_volumes(wanted.volumes, found),
        min_containers=None,
        buffer_containers=None,
        memory_snapshot=False,
    )
    found.worker = dataclasses.replace(profiles.worker, profiles=(mine,))
    return found


def _of_record(profile: str, profiles: Profiles) -> LocalWorker:
    deployment = profiles.deployment
    if deployment is None:
        return LocalWorker(Worker(profiles=[Profile(profile)]))
    granted = {name: value for name, value in deployment.granted.get(profile, {}).items() if name in _FIELDS}
    found = LocalWorker(Worker(profiles=[Profile(profile, **granted)]))
    facts: Mapping[str, Any] = deployment.facts.get(profile, {})
    by_file = "name the Worker file with --worker"
    if facts.get("image"):
        found.missing.append(f"The image of profile {profile!r} is this machine's environment: {by_file} for its own.")
    if deployment.requirements:
        found.missing.append(f"The Worker's requirements are not installed: {by_file}.")
    if names := sorted({*deployment.env, *facts.get("env", {})}):
        found.missing.append(f"Modal has recorded only the names of variables: {', '.join(names)}. For all, {by_file}.")
    if facts.get("volumes"):
        found.missing.append(f"The profile's Volumes are not mounted: {by_file} for empty ones.")
    if facts.get("secrets"):
        found.missing.append(_no_secrets(facts["secrets"]))
    return found


def _no_secrets(names: Iterable[str]) -> str:
    return (
        f"Modal does not return the values of Secrets: {', '.join(names)}. Give the variables that the task needs with "
        "--env NAME=VALUE."
    )


def _volumes(volumes: Mapping[str, Any], found: LocalWorker) -> dict[str, Any]:
    """Return empty Volumes of the same names. Buckets are left out: a task could write to them."""
    mounted: dict[str, Any] = {}
    for path, volume in volumes.items():
        if isinstance(volume, modal.Volume) and volume.name:
            mounted[path] = modal.Volume.from_name(volume.name, create_if_missing=True)
            found.missing.append(f"Volume {volume.name!r} at {path} is empty: its files are on Modal.")
        elif isinstance(volume, modal.Volume):
            found.missing.append(f"The Volume at {path} has no name, and is not mounted.")
        else:
            found.missing.append(f"The bucket at {path} is not mounted.")
    return mounted


def make_objects(options: Mapping[str, Any], notes: list[str]) -> None:
    """Make the Volumes and Secrets that a task's own options name, all empty, on the SDK's present control plane."""
    for path, name in (options.get("volumes") or {}).items():
        modal.Volume.from_name(name, create_if_missing=True).hydrate()
        notes.append(f"Volume {name!r} at {path} is empty: its files are on Modal.")
    if secrets := list(options.get("secrets") or ()):
        for name in secrets:
            modal.Secret.objects.create(name, {}, allow_existing=True)
        notes.append(_no_secrets(secrets))
