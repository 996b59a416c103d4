"""Airflow's LocalExecutor, its supervisors being timed as the worker's are. Nothing else of it is changed."""

from __future__ import annotations

from typing import Any

from airflow.executors.local_executor import LocalExecutor

from benchmarks import stopwatch

__all__ = ["SLOTS", "TimedLocalExecutor", "stopwatch"]


#: Its processes for tasks, for any number of tasks in the other executor.
SLOTS = 8


class TimedLocalExecutor(LocalExecutor):
    """LocalExecutor with this many slots."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # Airflow's own is not annotated.
        self.parallelism = SLOTS
