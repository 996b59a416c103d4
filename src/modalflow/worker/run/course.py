"""The course of a supervised task, as the process of its supervisor notes it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from modalflow.worker.logs.log_files import PartWriter
from modalflow.worker.zygote.protocol import Moments


@dataclass
class Course:
    """What has happened so far; each moment is noted once."""

    started_at: float = 0.0
    """When Airflow's API let the task start: if something fails before, nothing of the task has run."""
    task_ended_at: float = 0.0
    reported_at: float = 0.0
    final_state: str | None = None
    """The state that the supervisor reports, or leaves to the executor to report."""
    log: PartWriter | None = None
    """The task's log, once it is open."""

    def started(self) -> None:
        """Note that Airflow's API has let the task start."""
        self.started_at = self.started_at or time.time()

    def ended(self, state: object) -> None:
        """Note the end of the task's process, and the task's final state."""
        self.final_state = str(getattr(state, "value", state))
        self.task_ended_at = self.task_ended_at or time.time()

    def reported(self) -> None:
        """Note that Airflow's API has the final state."""
        self.reported_at = self.reported_at or time.time()

    def log_opened(self, log: PartWriter) -> PartWriter:
        """Note the open log, and return it."""
        self.log = log
        return log

    @property
    def moments(self) -> Moments:
        """The moments for the usage record."""
        first_line_at = self.log.first_write_at if self.log is not None else 0.0
        return Moments(self.started_at, first_line_at, self.task_ended_at, self.reported_at)
