"""What cannot be tried on an Airflow that others use: each of these tests has one of its own, and breaks it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, scheduler_log, start_run, the_task, wait_at_gate
from tests.support import descendants, is_running, wait_until

pytestmark = pytest.mark.timeout(300)


def test_a_scheduler_is_asked_what_it_has_and_told_to_end(own_stack: ModalStack) -> None:
    """SIGUSR2 names the task's function call in the scheduler's log. SIGTERM ends it in order, long before the task:
    the next scheduler goes on with the same try in the same container."""
    stack = own_stack
    run_id = start_run(stack, "gate_once", gate="scheduler_told_to_end")
    before = wait_at_gate(stack, "gate_once", run_id)
    scheduler = stack.airflow.programs["scheduler"]
    (call,) = stack.airflow.metadata.function_call_ids("gate_once", run_id).values()
    os.kill(scheduler.pid, signal.SIGUSR2)
    told = f"function call {call}"
    wait_until(lambda: any(told in line and run_id in line for line in scheduler_log(stack)), 30.0, "a dump")
    began = time.monotonic()
    os.kill(scheduler.pid, signal.SIGTERM)
    wait_until(lambda: scheduler.exit_code() is not None, 60.0, "the scheduler's end")
    print(f"the scheduler ended in {time.monotonic() - began:.1f} s")
    assert scheduler.exit_code() == 0
    scheduler.start()
    wait_until(lambda: not stack.airflow.api.unhealthy(), 60.0, "the next scheduler")
    stack.airflow.api.set_variable("scheduler_told_to_end", "open")
    assert finish_run(stack, "gate_once", run_id) == "success"
    after = the_task(stack, "gate_once", run_id)
    assert (after.try_number, after.hostname) == (1, before.hostname)


def test_a_task_fails_when_the_control_plane_goes_away(own_stack: ModalStack) -> None:
    """Nobody is left to ask, its container is gone as well: the task fails, and does not hang."""
    run_id = start_run(own_stack, "gate_once", gate="control_plane_killed")
    wait_at_gate(own_stack, "gate_once", run_id)
    containers = descendants(own_stack.local.pid)
    assert any("airflow" in command for command in containers.values())
    os.kill(own_stack.local.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, containers)), 20.0, "the end of the containers")
    assert finish_run(own_stack, "gate_once", run_id, timeout=200.0) == "failed"
    own_stack.airflow.check()
