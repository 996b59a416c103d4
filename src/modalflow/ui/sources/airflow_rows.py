"""What Airflow's database knows of task instances, DAG runs and losses. Only reads, in short sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select

from modalflow.airflow_compat.reading.task_instances import past_tries_query
from modalflow.airflow_compat.scheduler import SerializedDags
from modalflow.support.text import REASON, one_line

#: Of the audit log: a lost task that runs again without a retry (``executor.losses``), and a failure that the executor
#: reported to Airflow.
_AGAIN: Final = "infrastructure retry"
_FAILED: Final = "state mismatch"

#: Airflow's text before the executor's own, in an entry of the audit log.
_OWN: Final = "Extra info: "

#: Days and number of losses.
LOSS_DAYS: Final = 7
MOST_LOSSES: Final = 500


@dataclass(frozen=True)
class TryRow:
    """One try of a task instance. Times are seconds since the epoch, 0 if unknown."""

    try_number: int
    state: str = ""
    scheduled_at: float = 0.0
    """When it had nothing left to wait for, except slots. Like the next one, of the last part of a deferred try."""
    queued_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    function_call_id: str = ""
    """Of its newest function call; empty if another executor runs it."""
    work_id: str = ""


@dataclass(frozen=True)
class Loss:
    """An entry of the audit log about the end of a try."""

    at: float
    text: str
    """The executor's reason."""
    again: bool
    """Whether it ran again without a retry."""
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int


@dataclass(frozen=True)
class Instance:
    """One task instance with its tries, the newest first."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str
    tries: Sequence[TryRow]
    began_at: float
    """The earliest known time of its tries, or of its run."""
    ended_at: float
    """0 if it has not ended."""
    losses: Sequence[Loss] = ()


@dataclass(frozen=True)
class InstanceRow:
    """One task instance of a DAG run."""

    task_id: str
    map_index: int
    state: str
    started_at: float
    ended_at: float


@dataclass(frozen=True)
class Run:
    """One DAG run."""

    dag_id: str
    run_id: str
    state: str
    began_at: float
    ended_at: float
    """0 if it has not ended."""


@dataclass(frozen=True)
class RunRows:
    """The task instances of a run, and the DAG's tasks with those that each waits for."""

    instances: Sequence[InstanceRow] = ()
    upstream: Mapping[str, frozenset[str]] = field(default_factory=dict)


def instance_of(dag_id: str, run_id: str, task_id: str, map_index: int) -> Instance | None:
    """Return a task instance; None if there is none."""
    ids = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
    with create_session() as session:
        current = session.execute(select(*_columns(TaskInstance)).filter_by(**ids)).first()
        if current is None:
            return None
        earlier = session.execute(past_tries_query(_TRY, ids)).all()
        losses = _losses(session.execute(_loss_query().filter_by(**ids).limit(MOST_LOSSES)).all())
        run = _run_row(session, dag_id, run_id)
    by_number = {row.try_number: row for row in earlier} | {current.try_number: current}
    tries = [_try_row(row) for _, row in sorted(by_number.items(), reverse=True) if row.try_number > 0]
    times = [time for each in tries for time in (each.queued_at, each.started_at) if time]
    began = min(times, default=_seconds(run.queued_at or run.start_date) if run is not None else 0.0)
    ended = max((each.ended_at for each in tries), default=0.0) if current.state in _ENDED else 0.0
    return Instance(dag_id, run_id, task_id, map_index, current.state or "", tries, began, ended, losses)


def call_of(dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int) -> TryRow | None:
    """Return one try; None if there is none."""
    ids = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index, "try_number": try_number}
    with create_session() as session:
        for query in (select(*_columns(TaskInstance)).filter_by(**ids), past_tries_query(_TRY, ids)):
            row = session.execute(query).first()
            if row is not None:
                return _try_row(row)
    return None


def run_of(dag_id: str, run_id: str) -> Run | None:
    """Return a DAG run; None if there is none."""
    with create_session() as session:
        row = _run_row(session, dag_id, run_id)
    if row is None:
        return None
    began = _seconds(row.queued_at) or _seconds(row.start_date)
    return Run(dag_id, run_id, str(row.state or ""), began, _seconds(row.end_date))


def rows_of_run(dag_id: str, run_id: str) -> RunRows:
    """Return the task instances of a run, and the structure of its DAG."""
    with create_session() as session:
        columns = [getattr(TaskInstance, name) for name in ("task_id", "map_index", "state", "start_date", "end_date")]
        found = session.execute(select(*columns).filter_by(dag_id=dag_id, run_id=run_id)).all()
        run = session.scalar(select(DagRun).filter_by(dag_id=dag_id, run_id=run_id))
        upstream = {} if run is None else SerializedDags().upstream_tasks(run, session)
    rows = [
        InstanceRow(row.task_id, row.map_index, row.state or "", _seconds(row.start_date), _seconds(row.end_date))
        for row in found
    ]
    return RunRows(rows, upstream)


def losses() -> Sequence[Loss]:
    """Return the losses of the last days, the newest first."""
    since = datetime.now(UTC) - timedelta(days=LOSS_DAYS)
    with create_session() as session:
        return _losses(session.execute(_loss_query().where(Log.dttm >= since).limit(MOST_LOSSES)).all())


def split_id(stored: str | None) -> tuple[str, str]:
    """Return the function call id and the work id in Airflow's id of a submission; two empty texts without a call."""
    call, _, work_id = str(stored or "").rpartition("/")
    return (call, work_id) if call.startswith("fc-") else ("", "")


_TRY = ("try_number", "state", "scheduled_dttm", "queued_dttm", "start_date", "end_date", "external_executor_id")

_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


def _columns(model: Any) -> list[Any]:
    return [getattr(model, name) for name in _TRY]


def _try_row(row: Any) -> TryRow:
    call, work_id = split_id(row.external_executor_id)
    moments = row.scheduled_dttm, row.queued_dttm, row.start_date, row.end_date
    scheduled, queued, started, ended = map(_seconds, moments)
    return TryRow(row.try_number, str(row.state or ""), scheduled, queued, started, ended, call, work_id)


def _run_row(session: Any, dag_id: str, run_id: str) -> Any:
    columns = (DagRun.state, DagRun.queued_at, DagRun.start_date, DagRun.end_date)
    return session.execute(select(*columns).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).first()


def _loss_query() -> Any:
    names = ("dttm", "event", "extra", "dag_id", "task_id", "run_id", "map_index", "try_number")
    columns = [getattr(Log, name) for name in names]
    return select(*columns).where(Log.event.in_((_AGAIN, _FAILED))).order_by(Log.id.desc())


def _losses(rows: Iterable[Any]) -> list[Loss]:
    found = []
    for row in rows:
        text = str(row.extra or "")
        if row.event == _FAILED:
            executor, _, text = text.partition(_OWN)
            if "ModalExecutor" not in executor or not text:
                continue
        found.append(
            Loss(
                _seconds(row.dttm),
                one_line(text, REASON),
                row.event == _AGAIN,
                row.dag_id or "",
                row.task_id or "",
                row.run_id or "",
                -1 if row.map_index is None else row.map_index,
                row.try_number or 0,
            )
        )
    return found


def _seconds(moment: Any) -> float:
    return moment.timestamp() if moment is not None else 0.0
