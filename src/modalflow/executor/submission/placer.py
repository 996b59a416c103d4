"""From an order to the Function that gets it, with which options, and what the task is granted there. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modalflow.config import values
from modalflow.config.mounts import Reserved, conflict
from modalflow.config.task_options import PLACE
from modalflow.errors import WorkloadRejectedError
from modalflow.executor.mailbox import Order
from modalflow.executor.submission.option_sets import OptionSets
from modalflow.executor.submission.resources import Resources
from modalflow.executor.submission.routing import Routing
from modalflow.names import DEFAULT_PROFILE
from modalflow.protocol.messages import Deployment


@dataclass(frozen=True)
class Place:
    """Where an order goes."""

    profile: str
    options: Resources
    """What the task asks for beyond its profile."""
    granted: Mapping[str, Any]
    """As in ``Submission.resources``."""
    warning: str = ""
    """What the user should know and nobody can be sure of."""


#: Options that are no resources: what a container has, not what it costs.
_NOT_GRANTED = frozenset({"secrets", "volumes"})

#: Places that are remembered: a submission shares with others what it is granted.
_KEPT = 1000


class Placer:
    """Places orders on what is deployed."""

    def __init__(self, routing: Routing, option_sets: OptionSets) -> None:
        self._routing = routing
        self._option_sets = option_sets
        self._known: dict[tuple[str, Resources], Place] = {}
        self._deployment: Deployment | None = None

    def place(self, order: Order, deployment: Deployment | None) -> Place:
        """Return the place; WorkloadRejectedError says why there is none."""
        if deployment is not self._deployment:
            self._deployment = deployment
            self._known.clear()
        profile = self._routing.profile_of(order.profile, order.airflow_queue, profiles_of(deployment))
        key = (profile, order.resources)
        place = self._known.get(key)
        if place is None:
            place = _place(profile, order.resources, deployment)
        self._option_sets.admit(profile, place.options)
        if len(self._known) > _KEPT:
            self._known.clear()
        self._known[key] = place
        return place


def profiles_of(deployment: Deployment | None) -> Sequence[str]:
    """The profiles that orders can go to."""
    return deployment.profiles if deployment is not None else (DEFAULT_PROFILE,)


def _place(profile: str, wanted: Resources, deployment: Deployment | None) -> Place:
    of_profile = dict(deployment.granted.get(profile, {})) if deployment is not None else {}
    options = wanted.beyond(of_profile)
    if deployment is not None:
        _check_volumes(options.plain().get("volumes") or {}, deployment)
    own = {name: value for name, value in options.plain().items() if name not in _NOT_GRANTED}
    granted = {**of_profile, **own}
    if options.unshared:
        granted["concurrency"] = 1
    return Place(profile, options, granted, values.unknown_gpu(own.get("gpu")))


def _check_volumes(wanted: Mapping[str, str], deployment: Deployment) -> None:
    """Refuse a Volume that would hide what this deployment has in its containers, which may be another version's."""
    own = [
        Reserved(path, f"the deployed worker has Volume {name!r} there") for path, name in deployment.volumes.items()
    ]
    folders = [folder for folder in deployment.bundles.values() if folder.startswith("/")]
    own += [Reserved(folder, "the deployed worker has DAG files there") for folder in folders]
    for path, name in wanted.items():
        problem = conflict(path, own)
        if name in deployment.volumes.values():
            problem = f"Volume {name!r} is modalflow's own, and Modal mounts no Volume twice"
        if problem:
            raise WorkloadRejectedError(
                f"{PLACE}['volumes'] mounts {name!r} at {path!r}: {problem}. Mount another Volume, or at another path"
            )
