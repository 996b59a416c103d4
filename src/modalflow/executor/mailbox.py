"""What passes between the scheduler's thread and the engine: orders one way, news the other. Plain values."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum, auto

from modalflow.executor.submission.resources import Resources
from modalflow.protocol.messages import Entry, Submission


@dataclass(frozen=True, slots=True)
class Order:
    """Submit this."""

    key: Hashable
    submission: Submission
    resources: Resources
    airflow_queue: str | None
    profile: str | None
    """The profile that the task asked for; else the Airflow queue decides."""
    submit_attempts: int | None = None
    """How often the task wants to be submitted; else the setting decides."""
    made_at: float = field(default_factory=time.time, compare=False)
    """When the scheduler's thread handed it over."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """Take over what another scheduler submitted."""

    key: Hashable
    work_id: str
    function_call_id: str | None
    log_path: str
    label: str


class NewsKind(Enum):
    """What the engine has to say of a workload."""

    STARTED = auto()
    """Modal has accepted it: it has a function call."""
    SUCCESS = auto()
    FAILED = auto()
    WAITING = auto()
    """It waits, for the reason that is told. No event: Airflow's event log is told."""
    OVER = auto()
    """It has ended, and Airflow wants to hear nothing of it any more."""


#: The news that a workload has ended.
ENDS = frozenset({NewsKind.SUCCESS, NewsKind.FAILED})


@dataclass(frozen=True, slots=True)
class News:
    """Something the executor must tell Airflow at the next ``sync``."""

    kind: NewsKind
    key: Hashable
    origin: str
    """The work id of the order: with the key it tells generations apart."""
    work_id: str
    function_call_id: str | None = None
    reason: str | None = None
    entry: Entry | None = None
    arrived_at: float = field(default_factory=time.monotonic, compare=False)
    """When the engine knew of it, by its monotonic clock."""
    again: bool = False
    """It was told before, and Airflow did not take notice."""
