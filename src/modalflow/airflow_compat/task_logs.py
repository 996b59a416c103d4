"""Facts for an API server's log reader: the executor and the team of a task, and Airflow's remote log.

Cheap to import: Airflow's logging configuration imports it while Airflow itself is being imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from modalflow.airflow_compat.configuration import is_multi_team
from modalflow.airflow_compat.scheduler import ExecutorCompat
from modalflow.airflow_compat.versions import AIRFLOW_V_3_2_PLUS

#: The beginning of the path of ModalExecutor's class, wherever it is in this package.
_OURS: Final = "modalflow."


def team_of_dag(dag_id: str) -> str | None:
    """Return the team whose ModalExecutor runs a DAG's tasks; None for the global one.

    Queries Airflow's database if a team has a ModalExecutor.
    """
    if not is_multi_team():
        return None
    from airflow.executors.executor_loader import ExecutorLoader

    names = ExecutorLoader.get_executor_names(validate_teams=False)
    ours = {name.team_name for name in names if name.module_path.startswith(_OURS)}
    team = _team_name(dag_id) if ours - {None} else None
    return team if team in ours else None


def other_executor_of(ti: Any) -> str | None:
    """Return the name of a task instance's executor as its user wrote it, e.g. ``LocalExecutor``.

    Returns None for ModalExecutor, or if it is unknown.
    """
    named = getattr(ti, "executor", None)
    dag_id = getattr(ti, "dag_id", None)
    if ti is None or dag_id is None:
        return None
    from airflow.exceptions import UnknownExecutorException
    from airflow.executors import executor_loader

    loader: Any = executor_loader.ExecutorLoader
    of_team = {"team_name": _team_name(dag_id)} if is_multi_team() else {}
    try:
        if named:
            found = loader.lookup_executor_name_by_str(named, **of_team)
        else:
            found = loader.get_default_executor_name(**of_team)
    except (UnknownExecutorException, LookupError):
        # It is no longer configured. The meaning of an alias is unknown then; the name of a class is clear.
        return named if named and named.endswith("Executor") and not named.endswith("ModalExecutor") else None
    if _is_ours(found.module_path):
        return None
    return str(named or found.alias or found.module_path.rpartition(".")[2])


def is_finished(ti: Any) -> bool:
    """Return whether a try of a task instance has ended and its log is complete."""
    state = getattr(ti, "state", None)
    # Imported late, like everything of Airflow here.
    from airflow.utils.state import State

    return state is not None and (state in State.finished or state == "up_for_retry")


def remote_task_log() -> Any:
    """Return Airflow's reader of ended tasks' logs; None if it has none."""
    from airflow import logging_config

    if AIRFLOW_V_3_2_PLUS:
        return logging_config.get_remote_task_log()
    # Not hasattr(): the older module has every attribute, with the value None.
    return getattr(logging_config, "REMOTE_TASK_LOG", None)


def _is_ours(module_path: str) -> bool:
    """Return whether an executor's class is ModalExecutor, or a user's own subclass of it."""
    if module_path.startswith(_OURS):
        return True
    module, _, name = module_path.rpartition(".")
    try:
        executor = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return False
    return isinstance(executor, type) and issubclass(executor, ExecutorCompat)


def _team_name(dag_id: str) -> str | None:
    from airflow.models.dag import DagModel

    name: str | None = DagModel.get_team_name(dag_id)
    return name
