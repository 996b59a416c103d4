"""What a scheduler leaves in the buffer that it got from an executor, in every supported version of Airflow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from airflow.executors.base_executor import BaseExecutor
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models import import_all_models
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState
from sqlalchemy.orm import configure_mappers

from modalflow.executor.reporting.dropped_events import TIMES, DroppedEvents

STORED, LOCKED = (TaskInstanceKey("dag", task_id, "run", 1, -1) for task_id in ("stored", "locked"))
#: The present work id of each.
ORIGINS = {STORED: "stored", LOCKED: "locked"}


class Executor(BaseExecutor):
    """One that keeps the buffer which it hands over."""

    buffer: dict[Any, Any]

    def get_event_buffer(self, dag_ids: Any = None) -> dict[Any, Any]:
        self.buffer = super().get_event_buffer(dag_ids)
        return self.buffer


def test_a_scheduler_takes_out_of_the_buffer_what_it_handles() -> None:
    """What stays is what it dropped: here the event of a row that the query for unlocked rows left out."""
    # Its query names relations of models that it does not import.
    import_all_models()  # type: ignore[no-untyped-call]  # untyped in Airflow
    configure_mappers()
    executor = Executor()
    for key in (STORED, LOCKED):
        executor.running_state(key, f"fc-1/{key.task_id}")
    row = SimpleNamespace(key=STORED, try_number=1, external_executor_id="stored", state="running")
    session = MagicMock()
    session.scalars.return_value = iter([row])
    runner: Any = SchedulerJobRunner
    runner.process_executor_events(executor=executor, job_id=1, scheduler_dag_bag=MagicMock(), session=session)
    assert row.external_executor_id == "fc-1/stored"
    dropped = DroppedEvents(TaskInstanceKey)
    dropped.handed_over(executor.buffer)
    assert dropped.ids(ORIGINS, {}) == [(LOCKED, "fc-1/locked")]


def test_an_id_is_reported_again_a_few_times_only() -> None:
    """Its row may be gone; one that was stored meanwhile may be dropped anew later."""
    dropped = DroppedEvents(TaskInstanceKey)
    buffer = {LOCKED: (TaskInstanceState.RUNNING, "fc-1/locked")}
    for _ in range(TIMES):
        dropped.handed_over(buffer)
        assert dropped.ids(ORIGINS, {}) == [(LOCKED, "fc-1/locked")]
    dropped.handed_over(buffer)
    assert dropped.ids(ORIGINS, {}) == []
    dropped.handed_over(buffer)
    assert dropped.ids(ORIGINS, {}) == [(LOCKED, "fc-1/locked")]


def test_ends_are_not_reported_again_here() -> None:
    """A task reports its success itself, and a dropped failure is found in Airflow's database."""
    dropped = DroppedEvents(TaskInstanceKey)
    dropped.handed_over({STORED: (TaskInstanceState.SUCCESS, ""), LOCKED: (TaskInstanceState.FAILED, "why")})
    assert dropped.ids(ORIGINS, {}) == []
    assert dropped.ids(ORIGINS, {}) == []


def test_only_ids_of_the_present_submission_of_a_task_are_reported_again() -> None:
    """Not of an earlier submission, of a key with a newer event, or of anything but a task."""
    dropped, event = DroppedEvents(TaskInstanceKey), (TaskInstanceState.RUNNING, "fc-1/locked")
    dropped.handed_over({LOCKED: event})
    assert dropped.ids({LOCKED: "another"}, {}) == []
    dropped.handed_over({LOCKED: event})
    assert dropped.ids(ORIGINS, {LOCKED: event}) == []
    dropped.handed_over({"a connection test": event})
    assert dropped.ids({"a connection test": "locked"}, {}) == []
