"""The function call ids that Airflow was told of and did not store.

A scheduler takes an event out of the executor's buffer when it handles it, and leaves it there if the row of the task
instance is locked at that moment: the API server locks one with each report of the task's. Airflow drops such an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: As Airflow's TaskInstanceState, which is a text.
_RUNNING = "running"

#: How often an id is reported again. The end of the workload waits for it, so it must not take long.
TIMES = 3


class DroppedEvents:
    """Finds what a scheduler left in the buffer that it got last."""

    def __init__(self) -> None:
        self._buffer: Mapping[Any, tuple[Any, Any]] = {}
        self._reported: dict[Any, int] = {}

    def handed_over(self, buffer: Mapping[Any, tuple[Any, Any]]) -> None:
        """Remember the buffer that the scheduler is about to handle."""
        self._buffer = buffer

    def ids(self) -> Iterator[tuple[Any, str]]:
        """Return the keys whose id was not stored, each with that id, unless it was reported ``TIMES`` times again."""
        left, self._buffer = self._buffer, {}
        reported, self._reported = self._reported, {}
        for key, (state, info) in left.items():
            times = reported.get(key, 0)
            if state == _RUNNING and times < TIMES:
                self._reported[key] = times + 1
                yield key, str(info)
