"""Every touch of Airflow that depends on its version, behind names that say what is meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

from airflow import __version__ as airflow_version

from modalflow.errors import CredentialsError

if TYPE_CHECKING:
    from airflow.executors.base_executor import BaseExecutor

#: The version of the Airflow that is installed here.
AIRFLOW_VERSION = airflow_version

#: Whether the scheduler stores an id of its own with each task that it queues (3.2 and newer).
ASSIGNS_IDS = tuple(int(part) for part in airflow_version.split(".")[:2]) >= (3, 2)

_ADOPTED_AT_ONCE = 1_000


def execution_api_server_url(conf: Any) -> str:
    """The Execution API's URL as Airflow itself resolves it."""
    base_url = conf.get("api", "base_url", fallback="/") or "/"
    if base_url.startswith("/"):
        base_url = f"http://localhost:8080{base_url}"
    default = f"{base_url.rstrip('/')}/execution/"
    return str(conf.get("core", "execution_api_server_url", fallback=default) or default)


def modal_hook(conn_id: str) -> Any:
    """The ModalHook of a connection id; CredentialsError where the provider that has it is missing."""
    try:
        from airflow.providers.modal.hooks.modal import ModalHook
    except ModuleNotFoundError as error:
        raise CredentialsError(
            f"{error.name} is not installed, and with it the connection type `modal`; expected the Modal provider "
            "beside Airflow: `pip install apache-airflow-providers-modal`."
        ) from error
    return ModalHook(conn_id)


def own_conf() -> Any:
    """The configuration of this process's Airflow."""
    from airflow.configuration import conf

    return conf


def dag_bundle_config(conf: Any) -> str:
    """The DAG bundle configuration as JSON text, as a worker needs it."""
    return str(conf.get("dag_processor", "dag_bundle_config_list", fallback="[]") or "[]")


def queued_workloads(executor: BaseExecutor) -> Iterator[dict[Any, Any]]:
    """The executor's dicts of queued workloads by key."""
    yield from (executor.queued_tasks, executor.queued_callbacks, executor.queued_connection_tests)


def pre_assigned_id(workload: Any) -> str | None:
    """The id that the scheduler has already stored for this submission; None for what is no task."""
    return getattr(getattr(workload, "ti", None), "external_executor_id", None)


def task_workload(ti: Any, executor: BaseExecutor) -> Any:
    """The workload of a task instance, as the scheduler makes it when it queues one; the token in it is a new one."""
    from airflow.executors import workloads

    wanted: dict[str, Any] = {"sentry_integration": getattr(executor, "sentry_integration", "")}
    known = signature(workloads.ExecuteTask.make).parameters
    return workloads.ExecuteTask.make(
        ti, generator=executor.jwt_generator, **{name: value for name, value in wanted.items() if name in known}
    )


def load_for_adoption(tis: Sequence[Any]) -> None:
    """Load in one query what a key needs of task instances of which the scheduler has loaded less.

    Each of them would cost a query of its own otherwise, on the scheduler's thread.
    """
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import inspect, select
    from sqlalchemy.orm import load_only, object_session

    missing = [ti for ti in tis if isinstance(ti, TaskInstance) and "try_number" in inspect(ti).unloaded]
    session = object_session(missing[0]) if missing else None
    if session is None:
        return
    for start in range(0, len(missing), _ADOPTED_AT_ONCE):
        ids = [ti.id for ti in missing[start : start + _ADOPTED_AT_ONCE]]
        # Objects that the session knows get what they lack.
        session.scalars(
            select(TaskInstance).where(TaskInstance.id.in_(ids)).options(load_only(TaskInstance.try_number))
        ).all()


def remote_task_log() -> Any:
    """What Airflow reads task logs with after their tasks have ended; None where it has nothing."""
    from airflow import logging_config

    if hasattr(logging_config, "get_remote_task_log"):
        return logging_config.get_remote_task_log()
    return getattr(logging_config, "REMOTE_TASK_LOG", None)
