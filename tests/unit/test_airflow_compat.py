"""What differs between versions of Airflow, on the one that is installed, and on a stand-in for the next."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.workloads import ExecuteTask
from airflow.models.taskinstancekey import TaskInstanceKey

from modalflow.airflow_compat import scheduler, task_logs, versions
from modalflow.executor.modal_executor import ModalExecutor
from tests.airflows import AIRFLOW, needs_airflow


def task(task_id: str, priority: int = 1) -> ExecuteTask:
    """A workload as the scheduler makes it."""
    ti = {
        "id": str(uuid.uuid4()),
        "dag_version_id": str(uuid.uuid4()),
        "task_id": task_id,
        "dag_id": "dag",
        "run_id": "run",
        "try_number": 1,
        "pool_slots": 1,
        "queue": "default",
        "priority_weight": priority,
        "external_executor_id": f"id-of-{task_id}",
    }
    of = {"dag_rel_path": "dag.py", "bundle_info": {"name": "dags"}, "log_path": "a.log", "token": ""}
    return ExecuteTask.model_validate({"ti": ti, **of})


class Recorder(ModalExecutor):
    """ModalExecutor without an engine: what it would submit is noted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.submitted: list[Any] = []

    def _submit(self, requests: Any) -> None:
        self.submitted += requests


@pytest.fixture
def executor() -> Iterator[Recorder]:
    yield Recorder(parallelism=1)


def test_the_highest_priority_goes_first(executor: Recorder) -> None:
    """Where slots are short the most important task gets one, in every version; 3.2's own order is the reverse."""
    for name, priority in (("low", 1), ("high", 9), ("middle", 5)):
        executor.queue_workload(task(name, priority), MagicMock())
    executor.heartbeat()
    assert [request.draft.label.split()[0] for request in executor.submitted] == ["dag.high"]


def test_the_id_that_is_stored_when_a_task_is_queued_is_its_work_id(executor: Recorder) -> None:
    """What a new scheduler finds in the database is what the old one submitted under, whoever had stored it there."""
    executor.queue_workload(task("one"), session := MagicMock())
    stored = "id-of-one"
    if AIRFLOW < (3, 2):
        (statement,) = session.execute.call_args.args
        stored = statement.compile().params["external_executor_id"]
    executor.heartbeat()
    assert [request.draft.work_id for request in executor.submitted] == [stored]
    assert not executor._work_ids


def test_the_configuration_has_what_settings_are_read_with(executor: Recorder) -> None:
    """3.0's executors have no configuration of their own, and 3.1's no sections."""
    assert executor.settings.submit_attempts == 3


@needs_airflow("3.2")
def test_a_callback_that_fails_does_not_break_the_heartbeat(executor: Recorder) -> None:
    """Its key is no task instance's, so there is no event log to write to."""
    executor.log_task_event(event="modal executor", extra="…", ti_key=callback_key())
    assert not executor._task_event_logs


def callback_key() -> Any:
    """The key of a callback: before 3.3 a text."""
    try:
        from airflow.models.callback import CallbackKey
    except ImportError:
        return "callback"
    return CallbackKey("callback")


def test_it_is_known_how_task_logs_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a configuration of its own Airflow reads no remote logs, and that is not taken for something else."""
    assert task_logs.remote_task_log() is None


def test_what_a_version_lacks_includes_what_newer_ones_lack() -> None:
    """A user of an old Airflow reads everything that it has not, the newest things first."""
    assert versions.lacking("3.3") == ()
    assert set(versions.lacking("3.2")) < set(versions.lacking("3.1")) < set(versions.lacking("3.0"))


class Next:
    """A stand-in for the BaseExecutor that Airflow's main branch has, as far as the compatibility module asks of it.

    `make matrix AIRFLOW=3.4` runs a beta of the real thing, which has some of this and not all.
    """

    def __init__(self) -> None:
        self.executor_queues = {"ExecuteTask": {"key": "workload"}, "ExecuteCallback": {}}
        self.running = {"key"}
        self.events: list[Any] = []
        self._work_ids: dict[Any, str] = {}
        self.run_ids = {"key": ["first run", "second run"]}

    def fail(self, key: Any, info: Any = None, *, failure_kind: str = "user", reason: str | None = None) -> None:
        self.events.append((key, info, failure_kind, reason))

    def _pop_workload_run_id(self, key: Any) -> str:
        return self.run_ids[key].pop(0)


def test_the_next_versions_queues_are_looked_through() -> None:
    """They are kept by type of workload there."""
    queues = list(scheduler.queued_workloads(Next()))  # type: ignore[arg-type]  # a stand-in
    assert {"key": "workload"} in queues and len(queues) == 2


def test_the_next_version_is_told_the_reason_of_a_failure() -> None:
    """The reason has a place of its own there, beside the info of older versions."""
    scheduler.report_failed(executor := Next(), "key", "its container was lost")  # type: ignore[arg-type]  # a stand-in
    assert executor.events == [("key", "its container was lost", "user", "its container was lost")]


def test_the_next_versions_run_ids_stay_in_step() -> None:
    """A deferred task ends without an event, so its run's id must not be left for the next run's event to use up."""
    scheduler.release(executor := Next(), "key")  # type: ignore[arg-type]  # a stand-in
    assert executor.run_ids == {"key": ["second run"]}
    assert not executor.running


def test_this_versions_executor_is_told_the_reason_as_info() -> None:
    """Where there is one place only, the reason goes there."""
    key = TaskInstanceKey("dag", "task", "run", 1, -1)
    scheduler.report_failed(executor := BaseExecutor(), key, "its container was lost")
    assert "its container was lost" in executor.event_buffer[key]


def test_a_workload_without_a_key_of_its_own_has_its_tasks() -> None:
    """Before 3.3 workloads have no key; what they are about has."""
    key = TaskInstanceKey("dag", "task", "run", 1, -1)
    of_old = SimpleNamespace(ti=SimpleNamespace(key=key))
    assert scheduler.workload_key(BaseExecutor(), of_old) == key
    assert scheduler.workload_key(BaseExecutor(), SimpleNamespace(callback=SimpleNamespace(key="c"))) == "c"
    assert scheduler.workload_key(BaseExecutor(), SimpleNamespace(key="k")) == "k"
