"""Local settings of an Airflow host whose hook changes what a task asks of Modal."""

from __future__ import annotations

from typing import Any


def task_instance_mutation_hook(task_instance: Any) -> None:
    if task_instance.dag_id == "all_away":
        task_instance.executor_config = {"modal": {"memory": 256}}
