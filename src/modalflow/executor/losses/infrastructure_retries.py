"""How often a task may lose its container and run again without using a retry: by the task, its profile, the setting.

Pure, and safe on any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from modalflow.errors import WorkloadRejectedError
from modalflow.executor.connection import Connection
from modalflow.executor.submission.placement import Routing, profiles_of


@dataclass(frozen=True, slots=True)
class Limit:
    """How often one task may run again after a loss."""

    times: int
    stated: bool
    """Whether the task or its profile states it. A task without `retries` runs again only then."""


@dataclass(frozen=True)
class InfrastructureRetries:
    """The limits of tasks. ``default`` is ``[modal_executor] infrastructure_retries``.

    Nothing is ``possible`` without Airflow's database.
    """

    default: int
    possible: bool
    routing: Routing
    connection: Connection

    def of(self, own: int | None, profile: str | None, airflow_queue: str | None) -> Limit:
        """Return the limit of a task that states ``own``, asks for this profile and is in this Airflow queue."""
        if not self.possible:
            return Limit(0, stated=False)
        if own is None:
            own = self._of_profile(profile, airflow_queue)
        return Limit(self.default, stated=False) if own is None else Limit(own, stated=True)

    def _of_profile(self, profile: str | None, airflow_queue: str | None) -> int | None:
        deployment = self.connection.deployment
        if deployment is None:
            return None
        try:
            name = self.routing.profile_of(profile, airflow_queue, profiles_of(deployment))
        except WorkloadRejectedError:  # It was deployed when the task was submitted.
            return None
        stated = deployment.granted.get(name, {}).get("infrastructure_retries")
        return stated if isinstance(stated, int) else None
