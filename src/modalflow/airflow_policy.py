"""A cluster policy of Airflow, active with every modalflow installation: it refuses a DAG that would end a scheduler.

Airflow finds it by the entry point ``airflow.policy``, and calls it for each task at the import of a DAG file. A
violation is an import error of this DAG in the UI. Must stay cheap to import: every Airflow process imports it.
"""

from __future__ import annotations

from typing import Any

from pluggy import HookimplMarker

#: As in airflow.policies. That module would import the whole of Airflow, and Airflow imports this module at the same
#: time.
hookimpl = HookimplMarker("airflow.policy")


@hookimpl
def task_policy(task: Any) -> None:
    """Raise AirflowClusterPolicyViolation if a task's ``executor_config`` is no dict.

    Airflow validates it only in the scheduler, outside of every handler, when it makes a task's workload. So the
    scheduler ends, with any executor, and again after each restart (executors/workloads/task.py). Other mappings are no
    dicts there: Airflow stores their text in a serialized DAG.
    """
    wanted = getattr(task, "executor_config", None)
    if wanted is None or isinstance(wanted, dict):
        return
    from airflow.exceptions import AirflowClusterPolicyViolation

    raise AirflowClusterPolicyViolation(
        f"executor_config of task {task.task_id!r} is of type {type(wanted).__name__}; expected a dict. For Modal, "
        "write executor_config=modalflow.modal_config(…), e.g. modal_config(gpu='T4')."
    )
