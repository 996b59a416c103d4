"""Airflow's database, as the engine asks it: in short sessions, on the engine's own threads.

Never call this on the scheduler's thread: it would wait there, and its session would be the scheduler's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import with_row_locks
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select, update
from sqlalchemy.orm import joinedload

from modalflow.executor.lifecycle.airflow_state import AirflowState, StateAnswer, StateQuery
from modalflow.executor.losses.repeats import Repeats
from modalflow.executor.mailbox import SubmitRequest
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.workloads import stored_work_id
from modalflow.support.described import describe

log = logger(__name__)

#: Task instances of one query.
CHUNK = 500

_STATES: Mapping[Any, AirflowState] = {
    TaskInstanceState.QUEUED: AirflowState.WAITING,
    TaskInstanceState.RUNNING: AirflowState.RUNNING,
    TaskInstanceState.RESTARTING: AirflowState.RUNNING,
}

_IN_PROGRESS = frozenset(_STATES.values())

_COLUMNS = (
    TaskInstance.dag_id,
    TaskInstance.task_id,
    TaskInstance.run_id,
    TaskInstance.map_index,
    TaskInstance.try_number,
    TaskInstance.state,
    TaskInstance.external_executor_id,
)


class AirflowDatabase:
    """Says what Airflow has for work ids. ``request_of`` makes the request of a task instance again."""

    def __init__(self, request_of: Callable[[TaskInstance], SubmitRequest]) -> None:
        self._request_of = request_of
        self._repeats = Repeats()

    def answer(self, queries: Sequence[StateQuery]) -> Mapping[str, StateAnswer]:
        """Return the answers by work id, of task instances only."""
        answers: dict[str, StateAnswer] = {}
        tasks = [query for query in queries if isinstance(query.key, TaskInstanceKey)]
        for start in range(0, len(tasks), CHUNK):
            answers |= self._answer(tasks[start : start + CHUNK])
        lost = [query for query in tasks if query.loss is not None and answers[query.work_id].state in _IN_PROGRESS]
        return {**answers, **self._repeats.answer(lost)} if lost else answers

    def renew_queued(self, queries: Sequence[StateQuery]) -> None:
        """Let the time in the queue begin again for tasks that are queued under these work ids.

        Rows that another session has locked are left out, so that no scheduler waits for this one and this one waits
        for none.
        """
        tasks = [query for query in queries if isinstance(query.key, TaskInstanceKey)]
        for start in range(0, len(tasks), CHUNK):
            self._renew_queued(tasks[start : start + CHUNK])

    @staticmethod
    def _renew_queued(queries: Sequence[StateQuery]) -> None:
        wanted = {_key(query).primary: query for query in queries}
        query = select(TaskInstance.id, *_COLUMNS).where(
            _among([_key(query) for query in queries]), TaskInstance.state == TaskInstanceState.QUEUED
        )
        with create_session() as session:
            rows = session.execute(with_row_locks(query, session, of=TaskInstance, skip_locked=True))
            ids = [
                row.id
                for row in rows
                if _state(wanted[row.dag_id, row.task_id, row.run_id, row.map_index], row) is AirflowState.WAITING
            ]
            session.execute(
                update(TaskInstance)
                .where(TaskInstance.id.in_(ids))
                .values(queued_dttm=datetime.now(UTC))
                .execution_options(synchronize_session=False)
            )

    def _answer(self, queries: Sequence[StateQuery]) -> dict[str, StateAnswer]:
        with create_session() as session:
            rows = {
                (row.dag_id, row.task_id, row.run_id, row.map_index): row
                for row in session.execute(select(*_COLUMNS).where(_among([_key(query) for query in queries])))
            }
            answers = {query.work_id: StateAnswer(_state(query, rows.get(_key(query).primary))) for query in queries}
            wanted = {
                _key(query): query.work_id
                for query in queries
                if query.with_request and answers[query.work_id].state is AirflowState.WAITING
            }
            for key, answer in self._requests(session, list(wanted)):
                answers[wanted[key]] = answer
        return answers

    def _requests(self, session: Any, keys: Sequence[TaskInstanceKey]) -> Iterator[tuple[TaskInstanceKey, StateAnswer]]:
        if not keys:
            return
        query = (
            select(TaskInstance)
            .where(_among(keys))
            .options(joinedload(TaskInstance.dag_run), joinedload(TaskInstance.dag_model))
        )
        wanted = set(keys)
        for ti in session.scalars(query):
            if ti.key not in wanted:
                continue
            try:
                yield ti.key, StateAnswer(AirflowState.WAITING, self._request_of(ti))
            except Exception as error:  # One task whose request cannot be made must not hold up the others.
                log.exception("The request of %s could not be made again", ti)
                yield ti.key, StateAnswer(AirflowState.WAITING, problem=describe(error))


def _key(query: StateQuery) -> TaskInstanceKey:
    assert isinstance(query.key, TaskInstanceKey)
    return query.key


def _among(keys: Sequence[TaskInstanceKey]) -> Any:
    return TaskInstance.filter_for_tis(keys)


def _state(query: StateQuery, row: Any) -> AirflowState:
    if row is None or row.try_number != _key(query).try_number:
        return AirflowState.GONE
    if stored_work_id(row.external_executor_id) != query.work_id:
        return AirflowState.GONE
    return _STATES.get(row.state, AirflowState.GONE)
