"""Function call ids that were reported to Airflow and not stored there.

A scheduler removes an event from the executor's buffer when it handles it. It leaves the event there, and drops it, if
the row of the task instance is locked at that moment; the API server locks it for each report of the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modalflow.executor.workloads import stored_work_id

#: As Airflow's TaskInstanceState, which is a text.
_RUNNING = "running"

#: How often an id is reported again. The end of the workload waits for it, so this must not take long.
TIMES = 3


class DroppedEvents:
    """The events that a scheduler left in its latest buffer."""

    def __init__(self, task_key: type) -> None:
        """Look at keys of the type ``task_key`` only: Airflow leaves all events of connection tests in the buffer."""
        self._task_key = task_key
        self._buffer: Mapping[Any, tuple[Any, Any]] = {}
        self._reported: dict[Any, int] = {}

    def handed_over(self, buffer: Mapping[Any, tuple[Any, Any]]) -> None:
        """Remember the buffer that the scheduler is about to handle."""
        self._buffer = buffer

    def ids(self, origins: Mapping[Any, str], events: Mapping[Any, Any]) -> list[tuple[Any, str]]:
        """Return the keys whose id was not stored, each with that id, unless it was reported ``TIMES`` times again.

        ``origins`` has the present work id of each key, ``events`` the present buffer, whose keys are left out.
        """
        left, self._buffer = self._buffer, {}
        before, self._reported = self._reported, {}
        found = []
        for key, (state, info) in left.items():
            times, current = before.get(key, 0), origins.get(key) == stored_work_id(str(info))
            if state == _RUNNING and times < TIMES and isinstance(key, self._task_key):
                self._reported[key] = times + 1
                if current and key not in events:
                    found.append((key, str(info)))
        return found
