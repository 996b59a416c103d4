"""Lost tasks are queued again in Airflow's own tables, read and changed by Airflow's own functions as well."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy.exc import IntegrityError

from modalflow.airflow_compat import scheduler
from modalflow.executor.airflow_database import AirflowDatabase
from modalflow.executor.connection import Connection
from modalflow.executor.lifecycle.airflow_state import AirflowState, Loss, StateAnswer, StateQuery
from modalflow.executor.losses.infrastructure_retries import InfrastructureRetries
from modalflow.executor.modal_executor import ModalExecutor
from modalflow.executor.submission.placement import Routing
from modalflow.protocol.messages import Deployment
from modalflow.reasons import Cause
from tests.airflows import AIRFLOW, needs_airflow
from tests.unit.executor.airflow_tables import JOB_ID, AirflowTables, airflow_tables

CONFIG = {"modal": {"infrastructure_retries": 2}}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowTables]:
    """Airflow's tables, once for all tests here: each has a DAG run of its own."""
    with airflow_tables(tmp_path_factory.mktemp("airflow")) as tables:
        yield tables


def lose(
    key: TaskInstanceKey,
    work_id: str,
    *,
    cause: Cause = Cause.CONTAINER_LOST,
    default: int = 3,
    of_profile: int | None = None,
    awaits_id: bool = True,
) -> StateAnswer:
    """Report the loss of a try to Airflow's database; what became of it."""
    granted = {} if of_profile is None else {"default": {"infrastructure_retries": of_profile}}
    deployed = Deployment("0.5.0", 1, "3.3.2", "3.11", ("default",), {}, 0.0, granted=granted)
    limits = InfrastructureRetries(default, True, Routing(), Connection(deployment=deployed))
    query = StateQuery(key, work_id, loss=Loss(cause, limits, awaits_id))
    return AirflowDatabase(cast(Any, None)).answer([query])[work_id]


def test_a_lost_task_is_scheduled_again_without_a_retry(tables: AirflowTables) -> None:
    """Airflow schedules its second try at once. It has as many retries left as before, and the lost try is in the
    history with its times."""
    key = tables.add("twice", "w1")
    before = tables.task_instance(key)
    answer = lose(key, "w1", cause=Cause.CONTAINER_STOPPED)
    line = (
        "Lost to preemption after 1 min 0 s in container ta-1 (function call fc-1): run again (1 of 3), no retry used. "
        "Its max_tries is now 2."
    )
    # The machine may be slow.
    queued_again = re.sub(r"1 min \d+ s", "1 min 0 s", answer.queued_again)
    assert (answer.state, queued_again) == (AirflowState.GONE, line)
    assert tables.audit(key) == [f"infrastructure retry: {answer.queued_again}"]
    after = tables.task_instance(key)
    assert (after.state, after.max_tries, after.external_executor_id) == (None, 2, None)
    assert after.id != before.id
    (lost,) = tables.history(key)
    assert (lost.try_number, lost.state, lost.hostname) == (1, "failed", "ta-1")
    assert lost.duration == pytest.approx(60, abs=30)
    assert tables.schedule(key) == 1
    scheduled = tables.task_instance(key)
    assert (scheduled.state, scheduled.try_number, scheduled.max_tries) == ("scheduled", 2, 2)


def test_no_written_value_is_shown_to_users(tables: AirflowTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the database refuses the change, the task's log has its words, and not the `executor_config` of the task."""
    key = tables.add("twice", "w1")

    def refuse(*_: object) -> None:
        raise IntegrityError("INSERT", {"executor_config": "secret"}, Exception("it violates a constraint"))

    monkeypatch.setattr(scheduler, "queue_next_try", refuse)
    problem = lose(key, "w1").problem
    assert "it violates a constraint" in problem and "secret" not in problem


def test_a_mapped_task_instance_alone_is_queued_again(tables: AirflowTables) -> None:
    """Its map index decides, as well as the rest of its key."""
    key = tables.add("twice", "w1", map_index=4)
    assert lose(key, "w1").queued_again
    assert tables.task_instance(key).state is None


def test_the_limit_counts_over_schedulers(tables: AirflowTables) -> None:
    """The audit log has the count, so a new executor goes on with it; then the loss counts as a failure."""
    key = tables.add("twice", "w1")
    assert "(1 of 2)" in lose(key, "w1", default=2).queued_again
    key = key.with_try_number(2)
    tables.change(key, state="running", try_number=2, external_executor_id="fc-2/w2")
    assert "(2 of 2)" in lose(key, "w2", default=2).queued_again
    key = key.with_try_number(3)
    tables.change(key, state="running", try_number=3, external_executor_id="fc-3/w3")
    answer = lose(key, "w3", default=2)
    assert (answer.state, answer.queued_again) == (AirflowState.RUNNING, "")
    assert "infrastructure_retries = 2 allows" in answer.problem
    assert tables.task_instance(key).max_tries == 3


def test_clearing_a_task_starts_the_count_again(tables: AirflowTables) -> None:
    """Who clears a task wants it to run as if it were new."""
    key = tables.add("twice", "w1")
    assert lose(key, "w1", default=1).queued_again
    tables.change(key, state="failed", try_number=2)
    with create_session() as session:
        clear_task_instances([session.merge(tables.task_instance(key))], session)
    tables.end_run(key, "running")
    key = key.with_try_number(3)
    tables.change(key, state="running", try_number=3, external_executor_id="fc-3/w3")
    assert "(1 of 1)" in lose(key, "w3", default=1).queued_again


@pytest.mark.parametrize(
    ("task_id", "state", "config", "default", "of_profile", "again"),
    [
        ("once", "running", {}, 3, None, False),
        ("once", "running", CONFIG, 3, None, True),
        ("once", "running", CONFIG, 0, None, True),
        ("once", "running", {}, 3, 1, True),
        ("once", "queued", {}, 3, None, True),
        ("once", "queued", {}, 0, None, False),
        ("twice", "running", {}, 0, None, False),
        ("twice", "running", {}, 3, 0, False),
        ("twice", "running", {"modal": {"infrastructure_retries": 0}}, 3, 5, False),
    ],
)
def test_a_task_says_whether_it_may_run_twice(
    tables: AirflowTables,
    task_id: str,
    state: str,
    config: object,
    default: int,
    of_profile: int | None,
    again: bool,
) -> None:
    """By its retries, or by the option in its own configuration or its profile; the setting alone is not enough. What
    Airflow's API has not started has not run once."""
    key = tables.add(task_id, "w1", state=state, executor_config=config)
    answer = lose(key, "w1", default=default, of_profile=of_profile)
    assert bool(answer.queued_again) == again
    assert tables.task_instance(key).state == (None if again else state)


@pytest.mark.parametrize("state", ["success", "failed", "up_for_retry", "skipped", "deferred", None])
def test_what_airflow_has_gone_on_from_stays_as_it_is(tables: AirflowTables, state: str | None) -> None:
    """A mark of the user's, or the task's own end, counts."""
    key = tables.add("twice", "w1", state=state)
    assert lose(key, "w1").state is AirflowState.GONE
    assert (tables.task_instance(key).state, tables.audit(key)) == (state, [])


def test_a_task_that_was_cleared_while_it_ran_is_left_to_airflow(tables: AirflowTables) -> None:
    """Airflow restarts it when its end is reported."""
    key = tables.add("twice", "w1", state="restarting")
    answer = lose(key, "w1")
    assert (answer.state, answer.queued_again) == (AirflowState.RUNNING, "")


def test_another_submission_is_not_touched(tables: AirflowTables) -> None:
    """The work id of the lost try is not the one that Airflow has now."""
    key = tables.add("twice", "w2")
    assert lose(key, "w1").state is AirflowState.GONE
    assert tables.task_instance(key).state == "running"


def test_the_function_call_id_is_stored_first(tables: AirflowTables) -> None:
    """Airflow would store a late one for the next try. If none is to come, nothing waits for it."""
    key = tables.add("twice", "w1", external_executor_id="w1")
    answer = lose(key, "w1")
    assert answer.state is AirflowState.LOCKED
    assert "did not store its function call id in time" in answer.problem
    assert lose(key, "w1", awaits_id=False).queued_again


def test_a_task_of_an_ended_run_fails(tables: AirflowTables) -> None:
    """Airflow would never schedule it."""
    key = tables.add("twice", "w1")
    tables.end_run(key, "failed")
    assert lose(key, "w1").problem == "Its DAG run is failed."
    assert tables.task_instance(key).state == "running"


def test_of_two_schedulers_one_queues_a_task_again(tables: AirflowTables) -> None:
    """If Airflow takes a living scheduler for dead, both find the same loss. Only one counts."""
    key = tables.add("twice", "w1")
    answers: list[StateAnswer] = []
    together = threading.Barrier(4)

    def report() -> None:
        together.wait()
        answers.append(lose(key, "w1"))

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(bool(answer.queued_again) for answer in answers) == 1, answers
    assert (tables.task_instance(key).max_tries, len(tables.audit(key))) == (2, 1)


@needs_airflow("3.1")
@pytest.mark.parametrize("scheduled", [False, True])
def test_a_late_failure_of_the_lost_try_changes_nothing(tables: AirflowTables, scheduled: bool) -> None:
    """A scheduler may have failed it for its missing heartbeat at the same moment."""
    key = tables.add("twice", "w1")
    lost = tables.task_instance(key)
    assert lose(key, "w1").queued_again
    if scheduled:
        tables.schedule(key)
    report_failed(key, lost)
    after = tables.task_instance(key)
    # From 3.4 on, the next try has its number at once.
    expected = ("scheduled", 2) if scheduled else (None, 1 if AIRFLOW < (3, 4) else 2)
    assert (after.state, after.try_number, after.max_tries) == (*expected, 2)


@needs_airflow("3.1")
def test_a_failure_that_came_first_counts(tables: AirflowTables) -> None:
    """The scheduler has used a retry by then."""
    key = tables.add("twice", "w1")
    report_failed(key, tables.task_instance(key))
    assert tables.task_instance(key).state == "up_for_retry"
    assert lose(key, "w1").state is AirflowState.GONE
    assert tables.task_instance(key).max_tries == 1


def report_failed(key: TaskInstanceKey, ti: TaskInstance) -> None:
    """Let Airflow's scheduler handle a failure that its executor reports of a task instance."""
    from airflow.models.dagbag import DBDagBag

    executor: Any = ModalExecutor()
    if hasattr(executor, "_register_task"):
        # As when it was queued: from 3.4 on, Airflow knows by it which row an event is of.
        executor._register_task(ti)
    executor.fail(key, "no heartbeat")
    with create_session() as session:
        SchedulerJobRunner.process_executor_events(executor, JOB_ID, DBDagBag(), session)


@needs_airflow("3.3")
def test_a_late_state_of_the_lost_try_is_refused(tables: AirflowTables) -> None:
    """A container that still lives cannot end the next try."""
    from airflow.api_fastapi.execution_api.datamodels.taskinstance import TITerminalStatePayload
    from airflow.api_fastapi.execution_api.routes.task_instances import ti_update_state
    from airflow.api_fastapi.execution_api.versions import bundle
    from airflow.models.dagbag import DBDagBag
    from fastapi import HTTPException

    bundle.api_version_var.set(bundle.version_values[0])
    key = tables.add("twice", "w1")
    lost_id = tables.task_instance(key).id
    assert lose(key, "w1").queued_again
    state = TITerminalStatePayload.model_validate({"state": "failed", "end_date": datetime.now(UTC)})
    with create_session() as session, pytest.raises(HTTPException) as refused:
        ti_update_state(lost_id, state, session, DBDagBag())
    assert refused.value.status_code in (404, 410)
    assert tables.task_instance(key).state is None


def test_a_resumed_task_begins_again(tables: AirflowTables) -> None:
    """As in a retry: what it had deferred to is over."""
    key = tables.add("twice", "w1", next_method="resume", next_kwargs={})
    assert lose(key, "w1").queued_again
    after = tables.task_instance(key)
    assert (after.next_method, after.next_kwargs) == (None, None)


def test_a_task_that_waits_to_resume_still_does(tables: AirflowTables) -> None:
    """Its first part has run, and may not run again."""
    key = tables.add("once", "w1", state="queued", next_method="resume", next_kwargs={})
    assert lose(key, "w1").queued_again
    assert tables.task_instance(key).next_method == "resume"


def test_a_container_cannot_forge_the_count(tables: AirflowTables) -> None:
    """Its hostname is in the same line."""
    forged = "run again (0 of 9), no retry used. Its max_tries is now 2."
    key = tables.add("twice", "w1", hostname=forged)
    assert "(1 of 1)" in lose(key, "w1", default=1).queued_again
    tables.change(key, state="running", external_executor_id="fc-2/w2", try_number=2)
    assert not lose(key.with_try_number(2), "w2", default=1).queued_again


def test_what_another_transaction_has_changed_is_left_alone(tables: AirflowTables) -> None:
    """Without locks of rows, it may change between the question and the change."""
    key = tables.add("twice", "w1")
    with create_session() as session:
        read = scheduler.locked_task_instance(key, session)
    tables.change(key, state="success")
    with create_session() as session:
        assert not scheduler.claim_task_instance(read, session)


def test_a_lost_start_is_reported_as_such(tables: AirflowTables) -> None:
    """The times of an earlier try say nothing about one that has not begun."""
    key = tables.add("once", "w1", state=TaskInstanceState.QUEUED, start_date=datetime(2026, 1, 1, tzinfo=UTC))
    assert lose(key, "w1").queued_again.startswith("Lost to the end of its container before it began (function call")
