"""Task logs in Airflow's API: while the task runs, and of a task that runs in several parts."""

from __future__ import annotations

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, start_run, the_task, wait_at_gate
from tests.support import wait_until

pytestmark = [pytest.mark.timeout(240), pytest.mark.matrix]


def test_a_log_is_readable_while_its_task_runs(stack: ModalStack) -> None:
    """What a task printed is in Airflow's API before the task ends, and what it printed later is there after."""
    run_id = start_run(stack, "gate_once", gate="live_log")
    instance = wait_at_gate(stack, "gate_once", run_id)
    during = stack.airflow.api.log("gate_once", run_id, instance)
    assert not any("through live_log" in line for line in during)
    stack.airflow.api.set_variable("live_log", "open")
    assert finish_run(stack, "gate_once", run_id) == "success"
    after = stack.airflow.api.log("gate_once", run_id, instance)
    assert sum("through live_log" in line for line in after) == 1, "\n".join(after)
    assert sum("waiting at live_log" in line for line in after) == 1, "\n".join(after)


def test_the_log_of_a_deferred_task_tells_all_of_it_in_order(stack: ModalStack) -> None:
    """Both function calls that worked on the task, and the trigger between them, are in one log, each once."""
    run_id = start_run(stack, "deferred")
    assert finish_run(stack, "deferred", run_id) == "success"
    instance = the_task(stack, "deferred", run_id)

    def complete() -> list[str]:
        # The triggerer adds its part when it has closed it, which may be after the end of the task.
        log = stack.airflow.api.log("deferred", run_id, instance)
        return log if any("yielding event" in line for line in log) else []

    log = wait_until(complete, 30.0, "the trigger's part of the log", interval=0.3)
    story = (
        "Started on Modal",
        "before the trigger",
        "Pausing task as DEFERRED",
        "trigger starting",
        "yielding event",
        "Started on Modal",
        "after the trigger",
    )
    assert [part for line in log for part in dict.fromkeys(story) if part in line] == list(story), "\n".join(log)
