"""A cluster policy of Airflow's, active wherever modalflow is installed: refuse a DAG that would end a scheduler.

Airflow finds it by the entry point ``airflow.policy``, and calls it for each task while a DAG file is imported. A
violation is an import error of that one DAG, shown in the UI. Must stay cheap to import: every Airflow process does.
"""

from __future__ import annotations

from typing import Any

from pluggy import HookimplMarker

#: As airflow.policies has it. That module would import the whole of Airflow, which imports this one meanwhile.
hookimpl = HookimplMarker("airflow.policy")


@hookimpl
def task_policy(task: Any) -> None:
    """Raise AirflowClusterPolicyViolation if a task's ``executor_config`` is no dict.

    Airflow validates it only in the scheduler, where it makes a task's workload: outside of every handler, so that the
    scheduler ends, whatever the executor, and again after each restart (executors/workloads/task.py). Other mappings
    are no dicts there: Airflow stores a serialized DAG with their text instead.
    """
    wanted = getattr(task, "executor_config", None)
    if wanted is None or isinstance(wanted, dict):
        return
    from airflow.exceptions import AirflowClusterPolicyViolation

    raise AirflowClusterPolicyViolation(
        f"executor_config of task {task.task_id!r} is of type {type(wanted).__name__}; expected a dict. For Modal, "
        "write executor_config=modalflow.modal_config(…), e.g. modal_config(gpu='T4')."
    )
