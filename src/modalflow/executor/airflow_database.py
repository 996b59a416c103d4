"""Airflow's database, as the engine asks it: reads only, in short sessions, on threads of the engine's.

Never called on the scheduler's thread: there it would wait, and its session would be the scheduler's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select
from sqlalchemy.orm import joinedload

from modalflow.executor.lifecycle.airflow_state import Answer, Question, Standing
from modalflow.executor.mailbox import Order
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.workloads import stored_work_id
from modalflow.support.described import describe

log = logger(__name__)

#: Task instances of one query.
CHUNK = 500

_STANDINGS: Mapping[Any, Standing] = {
    TaskInstanceState.QUEUED: Standing.WAITING,
    TaskInstanceState.RUNNING: Standing.RUNNING,
    TaskInstanceState.RESTARTING: Standing.RUNNING,
}

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
    """Answers how Airflow stands to work ids. ``order_of`` makes the order of a task instance anew."""

    def __init__(self, order_of: Callable[[Any], Order]) -> None:
        self._order_of = order_of

    def look(self, questions: Sequence[Question]) -> Mapping[str, Answer]:
        """Answer by work id; what is no task instance is left out."""
        answers: dict[str, Answer] = {}
        tasks = [question for question in questions if isinstance(question.key, TaskInstanceKey)]
        for start in range(0, len(tasks), CHUNK):
            answers |= self._look(tasks[start : start + CHUNK])
        return answers

    def _look(self, questions: Sequence[Question]) -> dict[str, Answer]:
        with create_session() as session:
            found = {
                (row.dag_id, row.task_id, row.run_id, row.map_index): row
                for row in session.execute(select(*_COLUMNS).where(_among([_key(question) for question in questions])))
            }
            answers = {
                question.work_id: Answer(_standing(question, found.get(_key(question).primary)))
                for question in questions
            }
            wanted = {
                _key(question): question.work_id
                for question in questions
                if question.with_order and answers[question.work_id].standing is Standing.WAITING
            }
            for key, answer in self._orders(session, list(wanted)):
                answers[wanted[key]] = answer
        return answers

    def _orders(self, session: Any, keys: Sequence[TaskInstanceKey]) -> Iterator[tuple[TaskInstanceKey, Answer]]:
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
                yield ti.key, Answer(Standing.WAITING, self._order_of(ti))
            except Exception as error:  # One task that cannot be made anew is no reason to leave the others.
                log.exception("The workload of %s could not be created again", ti)
                yield ti.key, Answer(Standing.WAITING, problem=describe(error))


def _key(question: Question) -> TaskInstanceKey:
    assert isinstance(question.key, TaskInstanceKey)
    return question.key


def _among(keys: Sequence[TaskInstanceKey]) -> Any:
    return TaskInstance.filter_for_tis(keys)


def _standing(question: Question, row: Any) -> Standing:
    if row is None or row.try_number != _key(question).try_number:
        return Standing.GONE
    if stored_work_id(row.external_executor_id) != question.work_id:
        return Standing.GONE
    return _STANDINGS.get(row.state, Standing.GONE)
