"""Task logs in Airflow's API: while the task runs, and of a task that runs in several parts."""

from __future__ import annotations

import re
import time

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, start_run, the_task, wait_at_gate
from tests.support import wait_until

_TICK = re.compile(r"tick (\d+\.\d+)")
_NUMBER = re.compile(r"number (\d+)")

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


def test_lines_are_seen_within_seconds_and_odd_ones_as_well(stack: ModalStack) -> None:
    """While a task runs its lines are in Airflow's API seconds after they were printed; at the end all are there, in
    order, among them a line of a megabyte, ten thousand in no time, and bytes that are no text."""
    run_id = start_run(stack, "talks")
    ages: dict[str, float] = {}

    def ended() -> bool:
        instance = the_task(stack, "talks", run_id)
        if instance.state == "running":
            for line in stack.airflow.api.log("talks", run_id, instance):
                if found := _TICK.search(line):
                    ages.setdefault(found[0], time.time() - float(found[1]))
        return instance.state in ("success", "failed")

    wait_until(ended, 120.0, "the end of talks", interval=0.1)
    # How old they are on a machine that does nothing else is a figure of benchmarks/README.md.
    assert len(ages) > 10 and max(ages.values()) < 10, ages

    def whole() -> list[str]:
        # Airflow's supervisor reports the end as soon as the task does; the last lines follow with the next commit.
        log = stack.airflow.api.log("talks", run_id, the_task(stack, "talks", run_id))
        last = ("no end", "to stderr", "a warning of the task's own")
        return log if all(any(text in line for line in log) for text in last) else []

    log = wait_until(whole, 10.0, "the end of the log")
    numbers = [int(found[1]) for line in log if (found := _NUMBER.search(line))]
    assert numbers == list(range(10_000))
    assert any("x" * 1_000_000 in line for line in log)
    [odd] = [line for line in log if "no text" in line]
    assert "\N{REPLACEMENT CHARACTER}" in odd and "( and " in odd
    [warning] = [line for line in log if "a warning of the task's own" in line]
    assert "warning" in warning.lower()
    assert "Started on Modal, profile default" in next(line for line in log if "Started" in line)
