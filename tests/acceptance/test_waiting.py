"""Tasks that wait without a container: sensors in reschedule mode, and in the triggerer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, in_database, start_run
from tests.acceptance.evidence import confirmed, instance_of, log_of, not_on_modal, said, starts_in, states_of
from tests.acceptance.test_operations import IN_AIRFLOW
from tests.acceptance.test_operations import run as operate
from tests.command_line import CommandLine
from tests.support import wait_until

pytestmark = pytest.mark.timeout(240)

GATE = "patience"


@pytest.fixture(scope="module")
def run_id(stack: ModalStack) -> str:
    """An ended run whose sensor looked in vain at least twice before it saw what it waits for."""
    run_id = start_run(stack, "patient", gate=GATE)

    def looked_twice() -> bool:
        has_begun = instance_of(stack, "patient", run_id, "look").try_number > 0
        return has_begun and said(log_of(stack, "patient", run_id, "look"), "looked: closed") >= 2

    wait_until(looked_twice, 90.0, "two looks in vain", interval=0.3)
    stack.airflow.api.set_variable(GATE, "open")
    assert finish_run(stack, "patient", run_id) == "success", states_of(stack, "patient", run_id)
    return run_id


def test_a_rescheduled_sensor_is_a_function_call_for_each_look(stack: ModalStack, run_id: str) -> None:
    """Between two looks it has no container; all looks are one try, and the log tells of each, once."""
    query = (
        "SELECT count(*) AS n FROM task_reschedule JOIN task_instance ON task_instance.id = task_reschedule.ti_id"
        " WHERE run_id = :run_id AND dag_id = 'patient' AND task_id = 'look'"
    )
    (row,) = in_database(stack, query, run_id=run_id)
    log = log_of(stack, "patient", run_id, "look")
    starts = starts_in(log)
    assert len({start.call for start in starts}) == len(starts) == row["n"] + 1 >= 3, "\n".join(log)
    assert said(log, "looked: closed") == row["n"], "\n".join(log)
    assert said(log, "looked: open") == 1, "\n".join(log)
    assert all(confirmed(stack, start) for start in starts)
    assert instance_of(stack, "patient", run_id, "look").try_number == 1


def test_what_follows_a_sensor_gets_what_it_saw(stack: ModalStack, run_id: str) -> None:
    """The value of the last look, from its container, reaches the next task."""
    last = starts_in(log_of(stack, "patient", run_id, "look"))[-1]
    assert stack.airflow.api.xcom("patient", run_id, "go_on") == f"seen in {last.container}"


def test_a_sensor_that_the_triggerer_ends_takes_one_function_call(stack: ModalStack, run_id: str) -> None:
    """It defers and never comes back: that its function call ended is not taken for the end of the task."""
    instance = instance_of(stack, "patient", run_id, "defer")
    log = log_of(stack, "patient", run_id, "defer")
    assert (instance.state, instance.try_number, len(starts_in(log))) == ("success", 1, 1), "\n".join(log)
    assert said(log, "Pausing task as DEFERRED") == 1, "\n".join(log)
    assert not_on_modal(stack, "patient", run_id) == []


def test_a_sensor_that_gives_up_is_skipped_where_it_may_fail_softly(stack: ModalStack, run_id: str) -> None:
    """Its time to wait counts over all its looks, each in a function call of its own."""
    assert states_of(stack, "patient", run_id)["give_up"] == "skipped"
    assert len(starts_in(log_of(stack, "patient", run_id, "give_up"))) >= 2


def test_all_looks_of_a_sensor_are_summed(stack: ModalStack, modalflow: CommandLine, run_id: str) -> None:
    """What a DAG run cost is seen by task: a try that had several containers is one, with as many function calls as the
    log tells of; in Airflow's own command line too, and at the end of the log."""

    def told() -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(modalflow(*cost, "--json"))
        return answer

    # A record is published with the end of the log, which comes after Airflow was told of the end of the task.
    cost = ("cost", "--run", run_id, "--by", "try")
    wait_until(lambda: len(told()["groups"]) == 4, 30.0, "the records of all tasks", interval=0.5)
    calls = {group["task"]: (group["tasks"], group["function_calls"]) for group in told()["groups"]}
    for task_id in ("look", "defer"):
        assert calls[task_id] == (1, len(starts_in(log_of(stack, "patient", run_id, task_id)))), calls
    total = told()["total"]
    assert total["tasks"] == 4 and total["function_calls"] == sum(number for _, number in calls.values())
    assert total["running_seconds"] > 0 and total["memory_used_mib"] > 50 and float(total["dollars"]) > 0
    page = operate(stack, *IN_AIRFLOW, "cost", "--dag", "patient", "--since", "1h").stdout
    assert f"  patient  {run_id}  4 " in page and "The dollars are an estimate" in page, page
    assert said(log_of(stack, "patient", run_id, "go_on"), "Occupied 0.125 cores, 128 MiB for ") == 1
