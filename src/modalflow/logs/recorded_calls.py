"""The usage records of one task instance or one DAG run, with their timelines and samples. Only reads.

Reads only files written within the time of the run: the name of a file has the time of its first record, its entry the
time of the last. Blocks: call it in a thread of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modalflow.cost.samples import Samples
from modalflow.cost.timeline import Timeline
from modalflow.cost.usage import Record


@dataclass(frozen=True)
class RecordedCall:
    """One function call that has ended. A deferred or rescheduled try has several."""

    record: Record
    timeline: Timeline
    """Empty, with its defaults, if an older worker wrote the record."""
    samples: Samples | None = None
    """None for a short call, and if they were not asked for."""


class RecordedCalls:
    """Reads the ended calls of one worker app. Keeps what it has read of full files, within limits."""

    def of_run(self, volume: Any, dag_id: str, run_id: str, began_at: float, ended_at: float) -> list[RecordedCall]:
        """Return the calls of a DAG run, the earliest first, without samples.

        ``began_at`` and ``ended_at`` are the run's times in seconds since the epoch; the present for a run that has not
        ended. Raises the SDK's errors.
        """
        raise NotImplementedError

    def of_instance(
        self,
        volume: Any,
        dag_id: str,
        task_id: str,
        run_id: str,
        map_index: int,
        began_at: float,
        ended_at: float,
    ) -> list[RecordedCall]:
        """Return the calls of all tries of a task instance, the earliest first, with their samples.

        Times and errors are those of ``of_run``.
        """
        raise NotImplementedError
