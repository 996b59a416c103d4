"""Whatever is killed while a task runs: the task ends, and Airflow tells why; nothing hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass

import pytest

from modalflow.demo.airflow_api import TaskInstance
from modalflow.demo.modal_stack import ModalStack
from modalflow.demo.programs.program import Program
from tests.acceptance.airflow_on_modal import (
    finish_run,
    in_database,
    scheduler_log,
    start_run,
    the_task,
    wait_at_gate,
)
from tests.support import wait_until

pytestmark = pytest.mark.timeout(300)


STORED_ID = "SELECT external_executor_id AS id FROM task_instance WHERE run_id = :run_id AND dag_id = 'gate_once'"
ADOPTED = (
    "SELECT job.state = 'running' AS adopted FROM task_instance JOIN job ON job.id = queued_by_job_id"
    " WHERE run_id = :run_id AND task_instance.dag_id = 'gate_once'"
)


def kill_the_scheduler(stack: ModalStack) -> None:
    """Kill it, and wait for the next one."""
    scheduler = stack.airflow.programs["scheduler"]
    os.kill(killed := scheduler.pid, signal.SIGKILL)
    wait_until(lambda: scheduler.pid != killed and not stack.airflow.api.unhealthy(), 60.0, "a new scheduler")


@pytest.mark.matrix
def test_a_task_survives_the_scheduler(stack: ModalStack) -> None:
    """A new scheduler adopts what the killed one had running: the same try, in the same container, succeeds."""
    run_id = start_run(stack, "gate_once", gate="scheduler_killed")
    before = wait_at_gate(stack, "gate_once", run_id)
    kill_the_scheduler(stack)
    stack.airflow.api.set_variable("scheduler_killed", "open")
    assert finish_run(stack, "gate_once", run_id) == "success"
    after = the_task(stack, "gate_once", run_id)
    assert (after.try_number, after.hostname) == (1, before.hostname)


@pytest.mark.matrix
def test_a_task_survives_a_scheduler_that_never_heard_of_its_function_call(stack: ModalStack) -> None:
    """Airflow stores the work id when it queues a task, so a task whose scheduler died between the spawn and its answer
    runs on: the same try, in the same container."""
    fault = stack.local.faults.add("FunctionMap:lost-reply=held,for=clients,count=1")
    try:
        run_id = start_run(stack, "gate_once", gate="scheduler_unaware")
        before = wait_at_gate(stack, "gate_once", run_id)
        (stored,) = in_database(stack, STORED_ID, run_id=run_id)
        assert stored["id"] and not stored["id"].startswith("fc-"), stored
        kill_the_scheduler(stack)
        wait_until(lambda: in_database(stack, ADOPTED, run_id=run_id)[0]["adopted"], 60.0, "adoption")
    finally:
        stack.local.faults.clear([fault.id])
    stack.airflow.api.set_variable("scheduler_unaware", "open")
    assert finish_run(stack, "gate_once", run_id) == "success"
    after = the_task(stack, "gate_once", run_id)
    assert (after.try_number, after.hostname) == (1, before.hostname)


@pytest.mark.matrix
def test_a_task_whose_container_dies_is_retried(stack: ModalStack) -> None:
    """The retry that the task has is used, in another container."""
    run_id = start_run(stack, "gate_twice", gate="container_killed")
    before = wait_at_gate(stack, "gate_twice", run_id)
    stack.local.faults.now("kill", container=before.hostname)
    wait_at_gate(stack, "gate_twice", run_id, try_number=2)
    stack.airflow.api.set_variable("container_killed", "open")
    assert finish_run(stack, "gate_twice", run_id) == "success"
    after = the_task(stack, "gate_twice", run_id)
    assert after.try_number == 2
    assert after.hostname.startswith("ta-")
    assert after.hostname != before.hostname


@pytest.mark.matrix
def test_a_task_without_retries_fails_with_its_container_and_says_why(stack: ModalStack) -> None:
    """Airflow's event log names the lost container's fate, where a user looks for it."""
    run_id = start_run(stack, "gate_once", gate="container_killed_for_good")
    stack.local.faults.now("kill", container=wait_at_gate(stack, "gate_once", run_id).hostname)
    assert finish_run(stack, "gate_once", run_id) == "failed"
    reasons = stack.airflow.api.events("gate_once", run_id)
    (reason,) = (reason for reason in reasons if reason.startswith("modal executor: "))
    assert "container" in reason.lower(), reasons


@dataclass(frozen=True)
class ToldToEnd:
    """What became of a scheduler, and of the task that it had running."""

    dumped: bool
    exit_code: int | None
    before: TaskInstance
    after: TaskInstance


def _function_call_id(stack: ModalStack, run_id: str) -> str | None:
    ids = stack.airflow.metadata.function_call_ids("gate_once", run_id).values()
    return next((stored for stored in ids if stored.startswith("fc-")), None)


def _ask_to_end(program: Program) -> None:
    """Send SIGTERM, and again after 20 s: Python drops the exit that a handler raises within a finalizer."""
    for _ in range(3):
        os.kill(program.pid, signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: program.exit_code() is not None, 20.0)
            return
    raise AssertionError("the scheduler did not end within 20 s of each of three SIGTERM")


@pytest.fixture(scope="module")
def told_to_end(stack: ModalStack) -> ToldToEnd:
    """A scheduler that dumped what it has and was told to end, and the next one. Of module scope, as the next one
    stays."""
    run_id = start_run(stack, "gate_once", gate="scheduler_told_to_end")
    before = wait_at_gate(stack, "gate_once", run_id)
    scheduler = stack.airflow.programs["scheduler"]
    call = wait_until(lambda: _function_call_id(stack, run_id), 60.0, "the task's function call id in Airflow")
    os.kill(scheduler.pid, signal.SIGUSR2)
    told = f"function call {call}"
    dumped = wait_until(lambda: any(told in line and run_id in line for line in scheduler_log(stack)), 30.0, "a dump")
    began = time.monotonic()
    _ask_to_end(scheduler)
    print(f"the scheduler ended in {time.monotonic() - began:.1f} s")
    exit_code = scheduler.exit_code()
    scheduler.start()
    wait_until(lambda: not stack.airflow.api.unhealthy(), 60.0, "the next scheduler")
    stack.airflow.api.set_variable("scheduler_told_to_end", "open")
    assert finish_run(stack, "gate_once", run_id) == "success"
    return ToldToEnd(dumped, exit_code, before, the_task(stack, "gate_once", run_id))


def test_a_scheduler_is_asked_what_it_has_and_told_to_end(told_to_end: ToldToEnd) -> None:
    """SIGUSR2 names the task's function call in the scheduler's log. SIGTERM ends it in order, long before the task:
    the next scheduler goes on with the same try in the same container."""
    assert told_to_end.dumped
    assert told_to_end.exit_code == 0
    assert (told_to_end.after.try_number, told_to_end.after.hostname) == (1, told_to_end.before.hostname)
