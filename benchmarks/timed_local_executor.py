"""Airflow's LocalExecutor, its supervisors being timed as the worker's are. Nothing else of it is changed."""

from __future__ import annotations

from airflow.executors.local_executor import LocalExecutor

from benchmarks import stopwatch

__all__ = ["TimedLocalExecutor", "stopwatch"]


class TimedLocalExecutor(LocalExecutor):
    """LocalExecutor."""
