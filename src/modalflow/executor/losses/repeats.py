"""Lost tasks, queued again in Airflow's database without using a retry.

Runs on the engine's thread for the database, never on the scheduler's. Each task instance is changed in a transaction
of its own, which also writes Airflow's audit log. The entry there is the count of earlier losses, too: it outlives
schedulers, and two of them share it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm.exc import StaleDataError

from modalflow.airflow_compat import scheduler
from modalflow.cost.figures import duration
from modalflow.errors import WorkloadRejectedError
from modalflow.executor.lifecycle.airflow_state import AirflowState, StateAnswer, StateQuery
from modalflow.executor.losses.infrastructure_retries import Limit
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.submission.resources import TaskRequest, read_executor_config
from modalflow.executor.workloads import stored_work_id
from modalflow.reasons import EXPLANATIONS
from modalflow.support.described import describe
from modalflow.support.text import STORED, clean

log = logger(__name__)

#: What Airflow's audit log calls a lost task that runs again.
EVENT: Final = "infrastructure retry"

#: Seconds after which the rest of a batch waits for the next one: the query as a whole has a time limit.
BUDGET: Final = 10.0

_AGAIN: Final = "It could not run again without using a retry:"
#: The problems of these count only if the question is not asked any more.
_LOCKED: Final = StateAnswer(
    AirflowState.LOCKED, problem=f"{_AGAIN} its row in Airflow's database stayed locked by another transaction."
)
_AWAITS_ID: Final = StateAnswer(
    AirflowState.LOCKED,
    problem=f"{_AGAIN} Airflow's scheduler did not store its function call id in time. Check the scheduler's load.",
)
_NOT_REACHED: Final = StateAnswer(
    AirflowState.LOCKED, problem=f"{_AGAIN} too many tasks were lost at once for the time limit of Airflow's database."
)
_GONE: Final = StateAnswer(AirflowState.GONE)

#: In Airflow's audit log: which loss it was, and the task's ``max_tries`` from then on. At the end: what comes before
#: has a container's own words.
_COUNTED: Final = re.compile(r"run again \((\d+) of \d+\), no retry used\. Its max_tries is now (\d+)\.$")

#: The states of a DAG run in which Airflow schedules its tasks.
_ALIVE: Final = frozenset({DagRunState.QUEUED, DagRunState.RUNNING})


class Repeats:
    """Queues lost tasks again."""

    def answer(self, queries: Sequence[StateQuery]) -> Mapping[str, StateAnswer]:
        """Queue each query's task again if it may run again. Return what became of each, by work id."""
        answers: dict[str, StateAnswer] = {}
        dags = scheduler.SerializedDags()
        until = time.monotonic() + BUDGET
        for query in queries:
            if time.monotonic() > until:
                answers[query.work_id] = _NOT_REACHED
                continue
            try:
                answers[query.work_id] = self._repeat(query, dags)
            except (OperationalError, StaleDataError) as error:
                # A deadlock, SQLite's only lock, or another id by now: the next attempt finds the row as it is then.
                log.info("%s is not queued again yet: %s", query.key, _words(error))
                answers[query.work_id] = _LOCKED
            except Exception as error:  # One task must not hold up the others; its loss is reported as a failure.
                log.exception("%s could not be queued again", query.key)
                problem = f"{_AGAIN} {_words(error)}."
                answers[query.work_id] = StateAnswer(AirflowState.RUNNING, problem=problem)
        return answers

    def _repeat(self, query: StateQuery, dags: scheduler.SerializedDags) -> StateAnswer:
        key = query.key
        assert isinstance(key, TaskInstanceKey), "only tasks are queued again"
        with create_session() as session:
            ti = scheduler.locked_task_instance(key, session)
            if ti is None:
                # Locked, or removed: the next query of its state shows which.
                return _LOCKED
            if ti.try_number != key.try_number or stored_work_id(ti.external_executor_id) != query.work_id:
                return _GONE
            if ti.state not in (TaskInstanceState.QUEUED, TaskInstanceState.RUNNING):
                return _GONE if ti.state != TaskInstanceState.RESTARTING else StateAnswer(AirflowState.RUNNING)
            if query.loss is not None and query.loss.awaits_id and ti.external_executor_id == query.work_id:
                # Airflow still has to store its function call id. It would store it for the next try.
                return _AWAITS_ID
            return self._decide(query, ti, dags, session)

    def _decide(self, query: StateQuery, ti: TaskInstance, dags: scheduler.SerializedDags, session: Any) -> StateAnswer:
        assert query.loss is not None, "only losses come here"
        request = _request_of(ti)
        limit = query.loss.limits.of(request.infrastructure_retries, request.profile, ti.queue)
        started = ti.state == TaskInstanceState.RUNNING
        # Nothing of a task has run that Airflow's API has not started, so it needs no permission to run twice.
        if not limit.times or (started and not limit.stated and not dags.retries_of(ti, session)):
            return StateAnswer(AirflowState.RUNNING)
        if ti.dag_run.state not in _ALIVE:
            return StateAnswer(AirflowState.RUNNING, problem=f"Its DAG run is {ti.dag_run.state}.")
        before = _losses_before(ti, session)
        if before >= limit.times:
            return StateAnswer(AirflowState.RUNNING, problem=_used_up(limit))
        if not scheduler.claim_task_instance(ti, session):
            return _LOCKED
        line = _line(query, ti, before + 1, limit)
        # Not its key: from 3.4 on, the entry also has the id of the try, and without it the UI shows the entry twice.
        session.add(Log(event=EVENT, task_instance=ti, extra=clean(line, STORED)))
        scheduler.queue_next_try(ti, session)
        return StateAnswer(AirflowState.GONE, queued_again=line)


def _words(error: Exception) -> str:
    """Return an error as the database's driver reports it: SQLAlchemy's own text also has the written values."""
    return describe(getattr(error, "orig", None) or error)


def _request_of(ti: TaskInstance) -> TaskRequest:
    try:
        return read_executor_config(ti.executor_config)
    except WorkloadRejectedError:
        return TaskRequest()


def _losses_before(ti: TaskInstance, session: Any) -> int:
    """Return how often the task was lost since it was first scheduled, or last cleared.

    Clearing raises ``max_tries`` above the one that the last loss has left, and nothing else changes it.
    """
    last = session.scalar(
        select(Log.extra)
        .where(
            Log.event == EVENT,
            Log.dag_id == ti.dag_id,
            Log.task_id == ti.task_id,
            Log.run_id == ti.run_id,
            Log.map_index == ti.map_index,
        )
        .order_by(Log.id.desc())
        .limit(1)
    )
    found = _COUNTED.search(last or "")
    return int(found[1]) if found is not None and int(found[2]) == ti.max_tries else 0


def _line(query: StateQuery, ti: TaskInstance, number: int, limit: Limit) -> str:
    assert query.loss is not None, "only losses come here"
    took = scheduler.seconds_since(ti.start_date) if ti.state == TaskInstanceState.RUNNING else None
    when = "before it began" if took is None else f"after {duration(took)}"
    where = f" in container {ti.hostname}" if ti.hostname and took is not None else ""
    call = str(ti.external_executor_id).rpartition("/")[0]
    return (
        f"Lost to {EXPLANATIONS[query.loss.cause].lost_to} {when}{where} (function call {call}): "
        f"run again ({number} of {limit.times}), no retry used. Its max_tries is now {ti.max_tries + 1}."
    )


def _used_up(limit: Limit) -> str:
    return (
        f"It has already run again {limit.times} times without using a retry, as often as "
        f"infrastructure_retries = {limit.times} allows."
    )
