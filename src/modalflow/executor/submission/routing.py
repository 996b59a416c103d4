"""Which profile a task runs on. Pure.

A queue that somebody named on purpose never silently means `default`: a task that wants a GPU would run without one,
and whoever wrote a profile's name wrong would not hear of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from modalflow.errors import WorkloadRejectedError
from modalflow.names import DEFAULT_PROFILE

#: In the option `queues`: every queue that is not named there and has no profile.
ANY_OTHER = "*"


class UnknownProfileError(WorkloadRejectedError):
    """What a task asks for is not deployed, as far as is known."""


@dataclass(frozen=True)
class Routing:
    """From an Airflow queue, or the profile that a task names, to a deployed profile."""

    queues: Mapping[str, str] = field(default_factory=dict)
    """[modal_executor] queues: queue → profile."""
    default_queue: str = DEFAULT_PROFILE
    """Airflow's own: what tasks have that name none."""

    def profile_of(self, profile: str | None, queue: str | None, deployed: Collection[str]) -> str:
        """Return the profile; UnknownProfileError says what is wrong and which ones there are."""
        if profile is not None:
            return _there(profile, deployed, f"Profile {profile!r} is not deployed")
        queue = queue or self.default_queue
        if queue in self.queues:
            wanted = self.queues[queue]
            return _there(wanted, deployed, f"[modal_executor] queues sends queue {queue!r} to profile {wanted!r}")
        if queue in deployed:
            return queue
        if queue in (self.default_queue, DEFAULT_PROFILE):
            return DEFAULT_PROFILE
        if ANY_OTHER in self.queues:
            wanted = self.queues[ANY_OTHER]
            return _there(wanted, deployed, f"[modal_executor] queues sends queue {queue!r} to profile {wanted!r}")
        raise UnknownProfileError(
            f"Queue {queue!r} has no profile; {_deployed(deployed)}. Deploy a profile of that name, correct the task's "
            f'`queue`, or say where it goes: [modal_executor] queues = {{"{queue}": "{DEFAULT_PROFILE}"}}'
        )


def _there(profile: str, deployed: Collection[str], otherwise: str) -> str:
    if profile not in deployed:
        raise UnknownProfileError(f"{otherwise}; {_deployed(deployed)}. Deploy it, or name another one")
    return profile


def _deployed(deployed: Collection[str]) -> str:
    return f"deployed profiles: {', '.join(deployed)}"
