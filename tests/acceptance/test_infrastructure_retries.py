"""A task that loses its container through no fault of its own runs again at once, and keeps its retries."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, in_database, start_run, the_task, wait_at_gate
from tests.airflows import AIRFLOW
from tests.command_line import CommandLine
from tests.support import wait_until

pytestmark = [pytest.mark.timeout(300), pytest.mark.matrix]

OF_RUN = "WHERE run_id = :run_id AND dag_id = :dag_id"
NOW = f"SELECT try_number, max_tries FROM task_instance {OF_RUN}"
EARLIER = f"SELECT try_number, state, duration, hostname FROM task_instance_history {OF_RUN}"
if AIRFLOW >= (3, 4):
    # Each try has a row of its own there.
    NOW = f"{NOW} AND working_set IS TRUE"
    EARLIER = f"{EARLIER} AND working_set IS NULL".replace("task_instance_history", "task_instance")
EARLIER += " ORDER BY try_number"


def tries(stack: ModalStack, dag_id: str, run_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of the one task instance, and those of its earlier tries."""
    (now,) = in_database(stack, NOW, run_id=run_id, dag_id=dag_id)
    return now, in_database(stack, EARLIER, run_id=run_id, dag_id=dag_id)


def run_again(stack: ModalStack, dag_id: str, run_id: str) -> list[str]:
    """What Airflow's audit log has about runs after a loss."""
    events = stack.airflow.api.events(dag_id, run_id)
    return [event for event in events if event.startswith("infrastructure retry: ")]


def wait_in_log(stack: ModalStack, dag_id: str, run_id: str, words: str, try_number: int = 1) -> list[str]:
    """Wait until the log of a try has these words; all of it then."""

    def log() -> list[str]:
        instance = the_task(stack, dag_id, run_id)
        if instance.try_number < try_number:
            return []
        lines = stack.airflow.api.log(dag_id, run_id, instance, try_number)
        return lines if any(words in line for line in lines) else []

    return wait_until(log, 90.0, f"{words!r} in the log of {dag_id}", interval=0.2)


def test_a_killed_container_costs_no_retry(stack: ModalStack, modalflow: CommandLine) -> None:
    """The second try begins long before the retry would. The task has its one retry left. The lost try is in the
    history, and its log, the audit log and the status say that it runs again."""
    run_id = start_run(stack, "lost_with_retry", gate="lost_with_retry")
    before = wait_at_gate(stack, "lost_with_retry", run_id)
    stack.local.faults.now("kill", container=before.hostname)
    after = wait_at_gate(stack, "lost_with_retry", run_id, try_number=2)
    assert after.hostname != before.hostname
    stack.airflow.api.set_variable("lost_with_retry", "open")
    assert finish_run(stack, "lost_with_retry", run_id) == "success"
    now, earlier = tries(stack, "lost_with_retry", run_id)
    assert now == {"try_number": 2, "max_tries": 2}
    ((lost),) = earlier
    assert (lost["try_number"], lost["state"], lost["hostname"]) == (1, "failed", before.hostname)
    assert lost["duration"] > 0
    (line,) = run_again(stack, "lost_with_retry", run_id)
    assert "run again (1 of 3), no retry used" in line
    wait_in_log(stack, "lost_with_retry", run_id, "run again (1 of 3), no retry used")

    def counted() -> bool:
        executors = json.loads(modalflow("status", "--json"))["executors"]
        return any(name.startswith("run_again.") for each in executors for name in each["counts"])

    # The executor publishes its counts from time to time.
    wait_until(counted, 60.0, "the count of tasks that ran again")


@pytest.mark.parametrize("dag_id", ["stopped_with_retry", "stopped_with_option"])
def test_a_preempted_task_that_fails_in_time_costs_no_retry(stack: ModalStack, dag_id: str) -> None:
    """It gets SIGTERM and ends with an error. That is not its failure: no callback of one runs."""
    run_id = start_run(stack, dag_id)
    wait_in_log(stack, dag_id, run_id, "waiting at the start")
    stack.local.faults.now("preempt", container=the_task(stack, dag_id, run_id).hostname)
    assert finish_run(stack, dag_id, run_id) == "success"
    now, earlier = tries(stack, dag_id, run_id)
    retries = 1 if dag_id == "stopped_with_retry" else 0
    assert (now["try_number"], now["max_tries"], len(earlier)) == (2, retries + 1, 1)
    (line,) = run_again(stack, dag_id, run_id)
    assert line.startswith("infrastructure retry: Lost to preemption after ")
    log = wait_in_log(stack, dag_id, run_id, "no retry used")
    assert any("asked to end" in line for line in log), log
    assert not any("a callback of the failure ran" in line for line in log), log


def test_a_limit_ends_it(stack: ModalStack) -> None:
    """The task says one run after a loss, and has no retries: the second loss is its failure."""
    run_id = start_run(stack, "lost_with_option", gate="lost_with_option")
    for number in (1, 2):
        at_gate = wait_at_gate(stack, "lost_with_option", run_id, try_number=number)
        stack.local.faults.now("kill", container=at_gate.hostname)
    assert finish_run(stack, "lost_with_option", run_id) == "failed"
    assert len(run_again(stack, "lost_with_option", run_id)) == 1
    reasons = stack.airflow.api.events("lost_with_option", run_id)
    # Airflow 3.4 lists an event of an executor once for each try.
    (reason,) = {reason for reason in reasons if reason.startswith("modal executor: ")}
    assert "infrastructure_retries = 1 allows" in reason
