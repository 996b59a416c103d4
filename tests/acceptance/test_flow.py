"""What a DAG is made of: branches, groups, mapped tasks, trigger rules, XComs, retries, callbacks."""

from __future__ import annotations

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, start_run
from tests.acceptance.evidence import confirmed, instance_of, log_of, not_on_modal, said, starts_in, states_of

pytestmark = pytest.mark.timeout(240)

#: What becomes of each task instance, on any executor.
STATES = {
    "numbers": "success",
    "double [0]": "success",
    "double [1]": "success",
    "double [2]": "success",
    "total": "success",
    "for_each.add [0]": "success",
    "for_each.add [1]": "success",
    "for_each.tell [0]": "success",
    "for_each.tell [1]": "success",
    "choose": "success",
    "chosen.left": "success",
    "chosen.right": "skipped",
    "join": "success",
    "go_no_further": "success",
    "never_reached": "skipped",
    "skip_itself": "skipped",
    "fail": "failed",
    "fail_once": "success",
    "make_up_for_it": "success",
    "behind_the_failure": "upstream_failed",
    "at_last": "success",
}


@pytest.fixture(scope="module")
def runs(stack: ModalStack) -> dict[str, list[str]]:
    """Runs of the module's DAGs, side by side, that have ended: DAG id → run ids."""
    started = {
        "flow": [start_run(stack, "flow", greeting="good evening")],
        "past": [start_run(stack, "past"), start_run(stack, "past")],
    }
    for dag_id, run_ids in started.items():
        for run_id in run_ids:
            assert finish_run(stack, dag_id, run_id) == "success", states_of(stack, dag_id, run_id)
    return started


@pytest.fixture(scope="module")
def flow(runs: dict[str, list[str]]) -> str:
    return runs["flow"][0]


def test_every_task_ends_as_airflow_says_it_should(stack: ModalStack, flow: str) -> None:
    """Branches, short circuits, skips, failures and what follows them; all that ran did so in containers."""
    assert states_of(stack, "flow", flow) == STATES
    assert not_on_modal(stack, "flow", flow) == []


def test_what_ran_ran_once_a_try(stack: ModalStack, flow: str) -> None:
    """Each try's log tells of one start on Modal; what the scheduler settled by itself never got there."""
    for instance in stack.airflow.api.task_instances("flow", flow):
        settled = instance.state == "upstream_failed" or instance.label in ("chosen.right", "never_reached")
        for number in range(1, 1 if settled else instance.try_number + 1):
            log = stack.airflow.api.log("flow", flow, instance, number)
            assert len(starts_in(log)) == 1, "\n".join([f"{instance.label}, try {number}:", *log])
        assert not (settled and instance.hostname)


def test_values_go_from_container_to_container(stack: ModalStack, flow: str) -> None:
    """Through mapped tasks and mapped groups, and the run's configuration arrives."""
    xcom = stack.airflow.api.xcom
    assert xcom("flow", flow, "total") == 12
    assert xcom("flow", flow, "join") == "joined"
    assert xcom("flow", flow, "fail_once") == 2
    assert xcom("flow", flow, "at_last") == {"run": flow, "greeting": "good evening"}


def test_a_failure_calls_back_in_the_container(stack: ModalStack, flow: str) -> None:
    """``on_failure_callback`` ran once, beside the task, with the task's exception."""
    log = log_of(stack, "flow", flow, "fail")
    (start,) = starts_in(log)
    assert confirmed(stack, start)
    assert said(log, f"called back for fail in {start.container}: no more of this") == 1, "\n".join(log)


def test_a_task_waits_for_its_own_last_run(stack: ModalStack, runs: dict[str, list[str]]) -> None:
    """Of two runs that were triggered at once the later one's task begins when the first one's has ended."""
    earlier, later = runs["past"]
    first, second = (stack.airflow.api.xcom("past", run, "after_the_last_one") for run in (earlier, later))
    assert isinstance(first, list) and isinstance(second, list)
    assert first[1] < second[0]
    assert not_on_modal(stack, "past", earlier) + not_on_modal(stack, "past", later) == []
    assert instance_of(stack, "past", later, "after_the_last_one").try_number == 1
