"""ModalExecutor's use of Airflow's scheduler and BaseExecutor, in every supported version.

Cheap to import: functions import Airflow's own modules at their use.
"""

from __future__ import annotations

import datetime
import os
import uuid
from collections.abc import Iterator, Sequence
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, cast

from modalflow.airflow_compat.configuration import own_conf
from modalflow.airflow_compat.versions import (
    AIRFLOW_V_3_1_PLUS,
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_3_PLUS,
    AIRFLOW_V_3_4_PLUS,
)

if TYPE_CHECKING:
    from airflow.executors.base_executor import BaseExecutor as _Base
    from sqlalchemy.orm import Session
else:
    _Base = object

#: The function for the commands of `airflow modalflow …`. By name, because the commands are a layer above this one.
CLI_COMMANDS: Final = "modalflow.cli.in_airflow.get_cli_commands"

_ADOPTED_AT_ONCE = 1_000


class _ConfBefore33:
    """An executor's configuration, completed: whole sections, and sections outside of files."""

    def __init__(self, of_executor: Any) -> None:
        self._of_executor = of_executor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of_executor, name)

    def getsection(self, section: str) -> Any:
        found = getattr(self._of_executor, "getsection", own_conf().getsection)(section)
        if found is not None:
            return found
        # No file has the section, and these versions then ignore the environment.
        prefix = f"AIRFLOW__{section.upper()}__"
        own = {
            name.removeprefix(prefix).lower(): value for name, value in os.environ.items() if name.startswith(prefix)
        }
        return {name: int(value) if value.isdecimal() else value for name, value in own.items()}


class ExecutorCompat(_Base):
    """Features for ModalExecutor missing in some version's BaseExecutor. Comes before BaseExecutor among the bases."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._work_ids: dict[Any, str] = {}
        # Airflow's own attribute, missing in 3.0 and incomplete in 3.1.
        conf: Any = getattr(self, "conf", None) or own_conf()
        cast(Any, self).conf = conf if AIRFLOW_V_3_3_PLUS else _ConfBefore33(conf)

    if not TYPE_CHECKING:
        # What is held needs no slot: otherwise the held tasks of one DAG or profile would keep all others from running.

        @property
        def parallelism(self) -> int:
            """The most workloads, and those that are held on top."""
            return self._slots + self._held

        @parallelism.setter
        def parallelism(self, slots: int) -> None:
            self._slots = slots

        @property
        def slots_occupied(self) -> int:
            """The workloads that count for ``[core] parallelism``."""
            return super().slots_occupied - self._held

        @property
        def _held(self) -> int:
            engine = getattr(self, "_engine", None)
            return 0 if engine is None else engine.held

    if AIRFLOW_V_3_4_PLUS and not TYPE_CHECKING:

        def __init_subclass__(cls, **kwargs: Any) -> None:
            from airflow.executors.workloads import WorkloadType

            cls.supported_workload_types = frozenset(
                {WorkloadType.EXECUTE_TASK, WorkloadType.EXECUTE_CALLBACK, WorkloadType.TEST_CONNECTION}
            )
            super().__init_subclass__(**kwargs)
    else:
        supports_callbacks = True
        supports_connection_test = True

    if not AIRFLOW_V_3_2_PLUS:

        @staticmethod
        def get_cli_commands() -> list[Any]:
            """Return the commands if this executor is configured; newer versions read the provider's metadata."""
            module, _, name = CLI_COMMANDS.rpartition(".")
            return list(getattr(import_module(module), name)())

        def queue_workload(self, workload: Any, session: Session) -> None:
            """Queue a task under a work id, and store the id in the scheduler's own transaction.

            From 3.2 on, Airflow does this itself (``pre_assigns_external_executor_id``). Without it, a scheduler killed
            before its first news of the function call leaves a task without adoption. Airflow would reset the task and
            kill its running work. This transaction has already locked the row, so nothing waits.
            """
            from airflow.models.taskinstance import TaskInstance
            from sqlalchemy import update

            key, work_id = workload.ti.key, str(uuid.uuid4())
            session.execute(
                update(TaskInstance)
                .where(TaskInstance.id == str(workload.ti.id))
                .values(external_executor_id=work_id)
                .execution_options(synchronize_session=False)
            )
            self._work_ids[key] = work_id
            self.queued_tasks[key] = workload

    if AIRFLOW_V_3_2_PLUS and not AIRFLOW_V_3_3_PLUS:

        def order_queued_tasks_by_priority(self) -> list[Any]:
            """Return the queued tasks with the highest priority first; only 3.2 has the lowest first."""
            return sorted(self.queued_tasks.items(), key=lambda item: item[1].ti.priority_weight, reverse=True)

        def log_task_event(self, *, event: str, extra: str, ti_key: Any) -> None:
            """Log an event as BaseExecutor does, but of tasks alone: in 3.2 a callback's key, a text, is an error."""
            if not isinstance(ti_key, str):
                super().log_task_event(event=event, extra=extra, ti_key=ti_key)


def queued_workloads(executor: _Base) -> Iterator[dict[Any, Any]]:
    """Yield the executor's dicts of queued workloads by key."""
    if (by_type := getattr(executor, "executor_queues", None)) is not None:
        yield from by_type.values()
        return
    for name in ("queued_tasks", "queued_callbacks", "queued_connection_tests"):
        yield getattr(executor, name, {})


def workload_key(executor: _Base, workload: Any) -> Any:
    """Return the key of a workload for the executor and for reports to Airflow."""
    for part in ("ti", "callback"):
        if hasattr(workload, part):
            return getattr(workload, part).key
    return workload.key


def pre_assigned_id(executor: _Base, workload: Any) -> str | None:
    """Return the id stored for this submission at its queueing; None for work other than tasks."""
    ti = getattr(workload, "ti", None)
    if ti is None:
        return None
    stored = ti.external_executor_id if AIRFLOW_V_3_2_PLUS else cast(Any, executor)._work_ids.pop(ti.key, None)
    return None if stored is None else str(stored)


def task_workload(ti: Any, executor: _Base) -> Any:
    """Return the workload of a task instance, as the scheduler makes it to queue the task, with a new token."""
    from airflow.executors import workloads

    wanted: dict[str, Any] = {"sentry_integration": getattr(executor, "sentry_integration", "")}
    known = signature(workloads.ExecuteTask.make).parameters
    return workloads.ExecuteTask.make(
        ti, generator=executor.jwt_generator, **{name: value for name, value in wanted.items() if name in known}
    )


def load_for_adoption(tis: Sequence[Any]) -> None:
    """Load the columns of task instances for a key in one query, if the scheduler has not loaded them.

    Otherwise each task instance would need a query of its own, on the scheduler's thread.
    """
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import inspect, select
    from sqlalchemy.orm import load_only, object_session

    missing = [ti for ti in tis if isinstance(ti, TaskInstance) and "try_number" in inspect(ti).unloaded]
    session = object_session(missing[0]) if missing else None
    if session is None:
        return
    # In 3.2 and newer only the first of these is not loaded.
    columns = (TaskInstance.try_number, TaskInstance.map_index, TaskInstance.external_executor_id)
    for start in range(0, len(missing), _ADOPTED_AT_ONCE):
        ids = [ti.id for ti in missing[start : start + _ADOPTED_AT_ONCE]]
        # The session fills in the missing columns of its own objects.
        session.scalars(select(TaskInstance).where(TaskInstance.id.in_(ids)).options(load_only(*columns))).all()


def stats() -> Any:
    """Return where Airflow's own executors send metrics: it has ``incr``, ``gauge`` and ``timing``, with tags."""
    from airflow.executors import base_executor

    # A module in newer versions, a class in older ones, each under the version's name.
    return getattr(base_executor, "stats", None) or base_executor.Stats  # type: ignore[attr-defined]


def report_failed(executor: _Base, key: Any, reason: str) -> None:
    """Report a failed workload to Airflow, with the reason."""
    if "reason" in signature(executor.fail).parameters:
        cast(Any, executor).fail(key, info=reason, reason=reason)
    else:
        executor.fail(key, reason)


def locked_task_instance(key: Any, session: Session) -> Any:
    """Return the task instance of a key with its row locked; None if another transaction has the lock."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.sqlalchemy import with_row_locks
    from sqlalchemy import select

    query: Any = select(TaskInstance).where(cast(Any, TaskInstance.filter_for_tis([key])))
    return session.scalar(with_row_locks(query, of=TaskInstance, session=session, skip_locked=True))


def claim_task_instance(ti: Any, session: Session) -> bool:
    """Begin to change a task instance; return False if it has changed since it was read.

    SQLite has no locks of rows, so a statement must compare and write at once.
    """
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import update

    statement = (
        update(TaskInstance)
        .where(TaskInstance.id == ti.id, TaskInstance.state == ti.state, TaskInstance.try_number == ti.try_number)
        .values(updated_at=ti.updated_at)
        .execution_options(synchronize_session=False)
    )
    return bool(cast(Any, session.execute(statement)).rowcount)


def queue_next_try(ti: Any, session: Session) -> None:
    """Have Airflow schedule a task instance again, at once and with one try more than it had.

    As after clearing the task: the lost try is in its history, and its id is no longer valid, so a container that still
    runs it is refused by the API server. Before 3.4, the scheduler raises ``try_number`` when it schedules the task.
    """
    from airflow.utils.state import TaskInstanceState

    if ti.state == TaskInstanceState.RUNNING:
        # A deferred task that has resumed begins again. One that still waits to resume does so.
        ti.clear_next_method_args()
    # From 3.4 on, each try has a row of its own, and the lost one becomes the history. Before, the row is used again.
    next_try = ti.prepare_db_for_next_try(session) or ti
    next_try.max_tries += 1
    next_try.state = None
    next_try.external_executor_id = None


def seconds_since(moment: Any) -> float | None:
    """Return the seconds since a time in Airflow's database; None if there is none."""
    if moment is None:
        return None
    seconds: float = (datetime.datetime.now(datetime.UTC) - moment).total_seconds()
    return max(0.0, seconds)


class SerializedDags:
    """DAGs as the scheduler reads them from Airflow's database, each read once."""

    def __init__(self) -> None:
        if AIRFLOW_V_3_1_PLUS:
            from airflow.models import dagbag

            self._of_run: Any = cast(Any, dagbag).DBDagBag().get_dag_for_run
        else:
            from airflow.jobs import scheduler_job_runner

            self._of_run = cast(Any, scheduler_job_runner).SchedulerDagBag().get_dag

    def retries_of(self, ti: Any, session: Session) -> int:
        """Return the ``retries`` of a task instance's task."""
        dag = self._of_run(dag_run=ti.dag_run, session=session)
        return int(dag.get_task(ti.task_id).retries or 0) if dag is not None else 0

    def upstream_tasks(self, dag_run: Any, session: Session) -> dict[str, frozenset[str]]:
        """Return the tasks of a DAG run, each with those that it waits for; nothing if the DAG is gone."""
        dag = self._of_run(dag_run=dag_run, session=session)
        return {} if dag is None else {task.task_id: frozenset(task.upstream_task_ids) for task in dag.tasks}


def release(executor: _Base, key: Any) -> None:
    """Remove a workload from the executor without any report to Airflow."""
    executor.running.discard(key)
    cast(Any, executor)._work_ids.pop(key, None)
    if hasattr(executor, "_pop_workload_run_id"):
        # It was queued and never reported: the key's next run would get its id.
        executor._pop_workload_run_id(key)
