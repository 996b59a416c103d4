"""Whoever ends a task: its function call on Modal ends, and its container has nothing left to do."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, scheduler_log, start_run, the_task
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
        if not instance.try_number:
            return []
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
    wait_until(lambda: any("no longer waits" in line for line in scheduler_log(stack)), 60.0, "a look at what waits")
    assert not any("Started on Modal" in line for line in unbegun.log())
    for run in (greedy, cleared):
        run.patch("success")
    wait_until(lambda: at_work(stack) <= before, 30.0, "the end of the last ones")
    assert [the_task(stack, run.dag_id, run.run_id).state for run in (failed, succeeded)] == ["failed", "success"]
