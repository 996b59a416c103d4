"""Whoever ends a task: its function call on Modal ends, and its container has nothing left to do; and so do schedulers
that are told to end, without taking tasks along."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, start_run, the_task, wait_at_gate
from tests.support import wait_until

pytestmark = pytest.mark.timeout(300)


@dataclass
class Run:
    """One run of a DAG with one task that waits for its end."""

    stack: ModalStack
    dag_id: str
    run_id: str

    @classmethod
    def of(cls, stack: ModalStack, dag_id: str) -> Run:
        return cls(stack, dag_id, start_run(stack, dag_id))

    def log(self) -> list[str]:
        instance = the_task(self.stack, self.dag_id, self.run_id)
        return self.stack.airflow.api.log(self.dag_id, self.run_id, instance)

    def begun(self) -> None:
        wait_until(lambda: any("waiting for its end" in line for line in self.log()), 90.0, f"{self} to begin")

    def call(self) -> str:
        """Its function call."""

        def known() -> str:
            calls = self.stack.airflow.metadata.function_call_ids(self.dag_id, self.run_id)
            return next((call for call in calls.values() if call.startswith("fc-")), "")

        return wait_until(known, 60.0, f"the function call of {self}")

    def patch(self, state: str) -> None:
        """Set the task's state, as the buttons of the UI do."""
        path = f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/wait"
        self.stack.airflow.api.request("PATCH", path, json={"new_state": state})

    def clear(self) -> None:
        body = {"dry_run": False, "dag_run_id": self.run_id, "task_ids": ["wait"], "only_failed": False}
        self.stack.airflow.api.request("POST", f"dags/{self.dag_id}/clearTaskInstances", json=body)


def at_work(stack: ModalStack) -> int:
    """How many inputs Modal's containers work on, by the control plane's own word: what costs money."""
    return sum(len(container.inputs) for container in stack.local.faults.containers())


def test_function_calls_end_with_their_tasks(stack: ModalStack) -> None:
    """Marked failed or success, cleared, out of time alone or with its DAG run: within seconds the control plane has
    nothing left of it. One that was marked while it waited for a container never begins, and its function call ends."""
    before = at_work(stack)
    greedy = Run.of(stack, "ends_greedily")
    by_hand = [Run.of(stack, "ends_by_hand") for _ in range(3)]
    timed = [Run.of(stack, "ends_with_its_run"), Run.of(stack, "ends_in_time")]
    greedy.begun()
    unbegun = Run.of(stack, "ends_unbegun")
    for run in by_hand:
        run.begun()
    assert unbegun.call()
    unbegun.patch("failed")
    failed, succeeded, cleared = by_hand
    failed.patch("failed")
    succeeded.patch("success")
    cleared.clear()
    began = time.monotonic()
    for run in timed:
        assert finish_run(stack, run.dag_id, run.run_id) == "failed"
    # Left are the greedy one, and the second try of what was cleared.
    wait_until(lambda: the_task(stack, cleared.dag_id, cleared.run_id).try_number == 2, 60.0, "the second try")
    cleared.begun()
    wait_until(lambda: at_work(stack) <= before + 2, 30.0, "the end of what nobody wants any more")
    print(f"ended within {time.monotonic() - began:.1f} s of what ended them")
    wait_until(lambda: any("no longer waits" in line for line in _scheduler_log(stack)), 60.0, "a look at what waits")
    assert not any("Started on Modal" in line for line in unbegun.log())
    for run in (greedy, cleared):
        run.patch("success")
    wait_until(lambda: at_work(stack) <= before, 30.0, "the end of the last ones")
    assert [the_task(stack, run.dag_id, run.run_id).state for run in (failed, succeeded)] == ["failed", "success"]


def _scheduler_log(stack: ModalStack) -> list[str]:
    return stack.airflow.programs["scheduler"].log.read_text(errors="replace").splitlines()


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
    wait_until(lambda: any(told in line and run_id in line for line in _scheduler_log(stack)), 30.0, "a dump")
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
