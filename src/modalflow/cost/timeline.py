"""The course of a function call for users: its moments, its container, its options and its end.

It is a part of the call's usage record (``usage.Record``), on the same line. Readers of costs ignore it, so it costs
them almost nothing. The reader trusts nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Timeline:
    """The course of one function call.

    Times are seconds since the epoch; 0 means unknown, or that it did not come to that. The first two are by the
    executor's clock, the others by the container's. Two more moments are in the call's ``Record``: ``taken_at``, when
    the container received the call, and ``ended_at``, the end of its process.
    """

    submitted_at: float = 0.0
    """When the executor took the work from Airflow."""
    spawned_at: float = 0.0
    """When the executor sent it to Modal; the last time, if it did so several times."""
    container_started_at: float = 0.0
    """When the container started, or was restored from a snapshot."""
    claimed_at: float = 0.0
    """When the container had claimed the work in the ledger."""
    started_at: float = 0.0
    """When Airflow's API had let the task start: Airflow shows it as running from then on. Only tasks have it."""
    first_line_at: float = 0.0
    """When the supervisor wrote the first line to the task's log. Only tasks have it."""
    reported_at: float = 0.0
    """When Airflow's API had the task's final state from its supervisor. Only tasks have it."""
    cold: float = 0.0
    """Seconds for which the container started for this call, until ``taken_at``; 0 in a warm container."""
    number: int = 0
    """Which call of its container it was: 1 for the first; 0 if unknown."""
    image: str = ""
    """The id of the container's image."""
    region: str = ""
    """Where the container ran, as far as Modal reports it."""
    cloud: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """The options that the task itself set, by the names of ``Submission.resources``. The granted ones are in the
    record's ``reserved``."""
    sized: Mapping[str, int] = field(default_factory=dict)
    """The resources that follow from the task's last runs: cpu or memory → how many runs."""
    cause: str = ""
    """The cause of an abnormal end (a reasons.Cause value), if any."""
    reason: str = ""
    """Why it ended as it did, in one line of limited length; empty after a normal end."""

    @property
    def is_cold_start(self) -> bool:
        """Whether the container started for this call."""
        return self.cold > 0

    @classmethod
    def from_wire(cls, wire: object, taken_at: float) -> Timeline:
        """Read the result of ``to_wire``. Raises MalformedMessageError for anything else."""
        raise NotImplementedError

    def to_wire(self, taken_at: float) -> dict[str, Any]:
        """Return JSON types without default values. Times are relative to ``taken_at``."""
        raise NotImplementedError


TIMES = tuple(f.name for f in dataclasses.fields(Timeline) if f.name.endswith("_at"))
