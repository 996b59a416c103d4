"""Local settings of the Airflow host's, on its PYTHONPATH."""

from __future__ import annotations

from typing import Any

from acme_words import POLICED  # type: ignore[import-not-found]  # On the path of the host alone.


def task_policy(task: Any) -> None:
    if task.dag_id == "host_files" and task.task_id == "policed":
        task.text = POLICED
