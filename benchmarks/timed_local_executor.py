"""Airflow's LocalExecutor, its supervisors being timed as the worker's are. Nothing else of it is changed."""

from __future__ import annotations

from typing import Any

from airflow.executors.local_executor import LocalExecutor

from benchmarks import stopwatch

__all__ = ["SLOTS", "TimedLocalExecutor", "stopwatch"]


#: How many processes it has for tasks, whatever the executor beside it may have in flight.
SLOTS = 8


class TimedLocalExecutor(LocalExecutor):
    """LocalExecutor with that many slots."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # Airflow's own is not annotated.
        self.parallelism = SLOTS
