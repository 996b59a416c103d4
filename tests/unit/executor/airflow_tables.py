"""Airflow's own tables in a SQLite file, with a DAG, its runs and task instances, as a scheduler leaves them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import airflow.models
import pytest
from airflow import settings
from airflow.models.base import Base
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.sdk import DAG, task
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import scoped_session, sessionmaker

from tests.airflows import AIRFLOW

DAG_ID = "losses"
JOB_ID = 7


def do_nothing() -> None:
    """The tasks' function."""


@contextmanager
def airflow_tables(folder: Path) -> Iterator[AirflowTables]:
    """Airflow's sessions lead to a new database with the DAG ``losses``: tasks ``once`` and ``twice`` (1 retry)."""
    engine = create_engine(f"sqlite:///{folder / 'airflow.db'}", connect_args={"timeout": 30})
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    cast(Any, airflow.models).import_all_models()
    Base.metadata.create_all(engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "engine", engine)
        patch.setattr(
            settings, "Session", scoped_session(sessionmaker(engine, autoflush=False, expire_on_commit=False))
        )
        tables = AirflowTables()
        tables.add_dag()
        yield tables
    engine.dispose()


class AirflowTables:
    """The tables, as a test reads and writes them."""

    def __init__(self) -> None:
        self._runs = itertools.count()

    def add_dag(self, dag_id: str = DAG_ID) -> None:
        """Serialise the DAG, as the DAG processor does."""
        with DAG(dag_id, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
            for task_id, retries in (("once", 0), ("twice", 1)):
                task(task_id=task_id, retries=retries)(do_nothing)()
        serializable: Any = LazyDeserializedDAG
        with create_session() as session:
            session.merge(DagBundleModel(name="bundle"))
            session.flush()
            session.add(cast(Any, DagModel)(dag_id=dag_id, bundle_name="bundle", fileloc="losses.py", is_paused=False))
            session.flush()
            lazy: Any = serializable.from_dag(dag) if hasattr(serializable, "from_dag") else dag
            SerializedDagModel.write_dag(lazy, bundle_name="bundle", session=session)

    def add(
        self,
        task_id: str,
        work_id: str,
        *,
        map_index: int = -1,
        dag_id: str = DAG_ID,
        beside: TaskInstanceKey | None = None,
        **columns: object,
    ) -> TaskInstanceKey:
        """Add a running task instance, begun a minute ago, in a run of its own or ``beside`` another one.

        Returns the key of its first try.
        """
        run_id = beside.run_id if beside is not None else f"run-{next(self._runs)}"
        with create_session() as session:
            version = session.scalar(select(DagVersion).where(DagVersion.dag_id == dag_id))
            assert version is not None, "the DAG is serialised"
            serialized = session.scalar(select(SerializedDagModel).where(SerializedDagModel.dag_id == dag_id))
            assert serialized is not None
            if beside is None:
                run = DagRun(dag_id=dag_id, run_id=run_id, run_type=DagRunType.MANUAL, state=cast(Any, "running"))
                run.created_dag_version_id = version.id
                session.add(run)
                session.flush()
            ti = TaskInstance(
                cast(Any, serialized.dag.get_task(task_id)),
                dag_version_id=version.id,
                run_id=run_id,
                map_index=map_index,
            )
            values: dict[str, object] = {
                "state": "running",
                "try_number": 1,
                "max_tries": 0 if task_id == "once" else 1,
                "external_executor_id": f"fc-1/{work_id}",
                "queued_by_job_id": JOB_ID,
                "hostname": "ta-1",
                "start_date": datetime.now(UTC) - timedelta(minutes=1),
            }
            for name, value in (values | columns).items():
                setattr(ti, name, value)
            session.add(ti)
            return ti.key

    def change(self, key: TaskInstanceKey, **columns: object) -> None:
        """Change columns of a task instance, as another part of Airflow does."""
        with create_session() as session:
            ti = _task_instance(session, key)
            for name, value in columns.items():
                setattr(ti, name, value)

    def end_run(self, key: TaskInstanceKey, state: str) -> None:
        """Set the state of a DAG run."""
        with create_session() as session:
            run = session.scalar(select(DagRun).where(DagRun.run_id == key.run_id))
            assert run is not None
            run.state = cast(Any, state)

    def schedule(self, key: TaskInstanceKey) -> int:
        """Let Airflow schedule the tasks of a run that are ready; their number."""
        with create_session() as session:
            run = session.scalar(select(DagRun).where(DagRun.run_id == key.run_id))
            assert run is not None
            run.dag = cast(Any, session.scalar(select(SerializedDagModel))).dag
            ready = run.task_instance_scheduling_decisions(session=session).schedulable_tis
            return int(run.schedule_tis(ready, session=session))

    def task_instance(self, key: TaskInstanceKey) -> TaskInstance:
        """The row of a task instance now."""
        with create_session() as session:
            return _task_instance(session, key)

    def history(self, key: TaskInstanceKey) -> list[Any]:
        """The earlier tries of a task instance."""
        model: Any = TaskInstance
        if AIRFLOW < (3, 4):
            from airflow.models.taskinstancehistory import TaskInstanceHistory as model
        with create_session() as session:
            query = select(model).where(model.run_id == key.run_id).order_by(model.try_number)
            if model is TaskInstance:
                query = query.where(model.working_set.is_(None)).execution_options(include_all_attempts=True)
            return list(session.scalars(query))

    def log(self, key: TaskInstanceKey, event: str, text: str) -> None:
        """Write an entry into the audit log."""
        with create_session() as session:
            session.add(Log(event=event, task_instance=key, extra=text))

    def audit_of(self, dag_id: str) -> list[str]:
        """What the audit log has about a DAG."""
        with create_session() as session:
            query = select(Log).where(Log.dag_id == dag_id).order_by(Log.id)
            return [f"{entry.event}: {entry.extra}" for entry in session.scalars(query)]

    def audit(self, key: TaskInstanceKey) -> list[str]:
        """What the audit log has about a run."""
        with create_session() as session:
            query = select(Log).where(Log.run_id == key.run_id).order_by(Log.id)
            return [f"{entry.event}: {entry.extra}" for entry in session.scalars(query)]


def _task_instance(session: Any, key: TaskInstanceKey) -> TaskInstance:
    query = select(TaskInstance).where(TaskInstance.run_id == key.run_id, TaskInstance.task_id == key.task_id)
    (ti,) = session.scalars(query.where(TaskInstance.map_index == key.map_index))
    return cast(TaskInstance, ti)
