"""Task instances, their tries and their DAGs, as Airflow's database has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalflow.airflow_compat.versions import AIRFLOW_V_3_4_PLUS

#: The most names that an error compares with a mistyped one.
MOST_NAMES = 2_000

#: States of a task instance whose present try has not begun. Its start date may be that of an earlier try.
_NOT_BEGUN = frozenset({"", "scheduled", "queued", "upstream_failed", "removed"})


@dataclass(frozen=True)
class TaskTryRecord:
    """One try of a task instance, the present or an earlier one."""

    ti: Any
    """Airflow's object, detached, with its columns as in this try, its DAG run and its DAG model."""
    is_newest: bool
    bundle: str
    version: str | None
    """The version of the DAG bundle; None if the run has none."""

    @property
    def number(self) -> int:
        return int(self.ti.try_number)

    @property
    def state(self) -> str:
        """Airflow's state; empty for none."""
        return _state(self.ti)

    @property
    def has_started(self) -> bool:
        """Whether a worker has begun it."""
        return self.ti.start_date is not None and self.state not in _NOT_BEGUN


def dag_ids() -> list[str]:
    """Return the DAGs that Airflow knows."""
    from airflow.models.dag import DagModel
    from sqlalchemy import select

    return _texts(select(DagModel.dag_id).limit(MOST_NAMES))


def run_ids(dag_id: str) -> list[str]:
    """Return the runs of a DAG, the newest first."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    query = select(DagRun.run_id).where(DagRun.dag_id == dag_id).order_by(DagRun.run_after.desc())
    return _texts(query.limit(MOST_NAMES))


def task_ids(dag_id: str) -> list[str]:
    """Return the tasks of the newest version of a DAG; none without one."""
    dag = _serialized(dag_id)
    return [] if dag is None else [str(task_id) for task_id in dag.dag.task_dict]


def run_task_ids(dag_id: str, run_id: str) -> list[str]:
    """Return the tasks of a run."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    mine = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
    return _texts(select(TaskInstance.task_id).where(*mine).distinct().limit(MOST_NAMES))


def map_indexes(dag_id: str, task_id: str, run_id: str) -> list[int]:
    """Return the map indexes of a task in a run: ``[-1]`` if it is not mapped, and none if it is not there."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = select(TaskInstance.map_index).where(
        TaskInstance.dag_id == dag_id, TaskInstance.task_id == task_id, TaskInstance.run_id == run_id
    )
    with create_session() as session:
        return sorted(int(index) for index in session.scalars(query))


def tries(dag_id: str, task_id: str, run_id: str, map_index: int) -> list[int]:
    """Return the numbers of the tries of a task instance, the present one included."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = select(TaskInstance.try_number).filter_by(**_ids(dag_id, task_id, run_id, map_index))
    with create_session() as session:
        present = {int(number) for number in session.scalars(query)}
    return sorted({*present, *past_tries(dag_id, task_id, run_id, map_index)})


def past_tries(dag_id: str, task_id: str, run_id: str, map_index: int) -> list[int]:
    """Return the numbers of the tries of a task instance that are in its history."""
    from airflow.utils.session import create_session

    query = past_tries_query(("try_number",), _ids(dag_id, task_id, run_id, map_index))
    with create_session() as session:
        return sorted({int(number) for number in session.scalars(query)})


def past_tries_query(columns: Iterable[str], ids: Mapping[str, Any]) -> Any:
    """Return a query of these columns of tries in the history; ``ids`` are values of columns that they have."""
    model = _history_model()
    return _past_tries(model, [getattr(model, name) for name in columns], ids)


def _history_model() -> Any:
    """Return Airflow's model of tries in the history."""
    if AIRFLOW_V_3_4_PLUS:
        from airflow.models.taskinstance import TaskInstance

        return TaskInstance
    # A table of its own.
    from airflow.models.taskinstancehistory import TaskInstanceHistory

    return TaskInstanceHistory


def _past_tries(model: Any, selected: Sequence[Any], ids: Mapping[str, Any]) -> Any:
    """Return a query of the history alone, where the present tries may have the same model."""
    from sqlalchemy import select

    query = select(*selected).filter_by(**ids)
    if AIRFLOW_V_3_4_PLUS:
        return query.where(model.working_set.is_(None)).execution_options(include_all_attempts=True)
    return query


def task_try(dag_id: str, task_id: str, run_id: str, map_index: int, number: int | None) -> TaskTryRecord | None:
    """Return a try of a task instance, by default the newest; None if it is not there."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.orm import joinedload

    ids = _ids(dag_id, task_id, run_id, map_index)
    with create_session() as session:
        mine = select(TaskInstance).filter_by(**ids)
        related = (joinedload(TaskInstance.dag_run), joinedload(TaskInstance.dag_model))
        ti = session.scalars(mine.options(*related)).unique().one_or_none()
        if ti is None:
            return None
        newest = number in (None, ti.try_number)
        past = None
        # After it was cleared, a task instance still has the number of its last try.
        if not newest or (number is not None and not _state(ti)):
            model = _history_model()
            history = _past_tries(model, [model], {**ids, "try_number": number})
            past = session.scalars(history.limit(1)).one_or_none()
            if past is None and not newest:
                return None
            newest = past is None
        session.expunge_all()
    if past is not None:
        _as_in(ti, past)
    bundle, version = _bundle_of(ti)
    return TaskTryRecord(ti, newest, bundle, version)


def planned_instance(dag_id: str, task_id: str, run_id: str, map_index: int) -> Any | None:
    """Return the task instance that the scheduler would make for a task; None without this DAG or task.

    It is not in the database. The host's ``task_instance_mutation_hook`` has changed it as it would then.
    """
    from airflow.models.taskinstance import TaskInstance

    dag = _serialized(dag_id)
    if dag is None or task_id not in dag.dag.task_dict:
        return None
    made: Any = TaskInstance
    ti = made(dag.dag.get_task(task_id), dag_version_id=dag.dag_version_id, run_id=run_id, map_index=map_index)
    ti.try_number = 1
    return ti


def _state(ti: Any) -> str:
    return str(getattr(ti.state, "value", ti.state) or "")


def _ids(dag_id: str, task_id: str, run_id: str, map_index: int) -> dict[str, Any]:
    return {"dag_id": dag_id, "task_id": task_id, "run_id": run_id, "map_index": map_index}


def _as_in(ti: Any, past: Any) -> None:
    """Give a detached task instance the columns of an earlier try."""
    own = type(ti).__mapper__.column_attrs.keys()
    for name in set(type(past).__mapper__.column_attrs.keys()).intersection(own):
        setattr(ti, name, getattr(past, name))
    ti.id = past.id if AIRFLOW_V_3_4_PLUS else past.task_instance_id


def _bundle_of(ti: Any) -> tuple[str, str | None]:
    """Return the DAG bundle of a try and its version, as a worker would get them then."""
    from airflow.models.dag_version import DagVersion
    from airflow.utils.session import create_session

    bundle, version = str(ti.dag_model.bundle_name or ""), ti.dag_run.bundle_version
    if version is not None and ti.dag_version_id is not None:
        with create_session() as session:
            row = session.get(DagVersion, ti.dag_version_id)
            if row is not None and row.bundle_version:
                bundle, version = str(row.bundle_name or bundle), row.bundle_version
    return bundle, None if version is None else str(version)


def _serialized(dag_id: str) -> Any | None:
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session

    model: Any = SerializedDagModel
    with create_session() as session:
        row = model.get(dag_id, session=session)
        if row is not None:
            # Loaded while there is a session.
            _ = row.dag, row.dag_version_id
        session.expunge_all()
    return row


def _texts(query: Any) -> list[str]:
    from airflow.utils.session import create_session

    with create_session() as session:
        return [str(text) for text in session.scalars(query)]


def workload_of(record: TaskTryRecord, token: str) -> Any:
    """Return the workload of a try as its executor had it, with another token and without a version of its bundle.

    The caller has the files of the version in a folder.
    """
    from airflow.executors import workloads

    info = workloads.BundleInfo(name=record.bundle, version=None)
    # Before 3.1, Airflow raises TypeError for a DAG without a file.
    file = Path(record.ti.dag_model.relative_fileloc or "")
    made: Any = workloads.ExecuteTask.make(record.ti, dag_rel_path=file, bundle_info=info)
    # It is neither queued nor known to another executor.
    unqueued = {"external_executor_id": None} if hasattr(made.ti, "external_executor_id") else {}
    return made.model_copy(update={"token": token, "ti": made.ti.model_copy(update=unqueued)})


def files_of_bundle(name: str, version: str | None) -> str:
    """Return the folder with a version of a DAG bundle on this machine. Raises the bundle's errors."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    manager: Any = DagBundlesManager
    bundle = manager().get_bundle(name, version)
    bundle.initialize()
    return str(bundle.path)
