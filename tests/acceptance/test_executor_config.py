"""What a task asks for in ``executor_config`` or by its queue, and what becomes of one that asks badly."""

from __future__ import annotations

import pytest

from modalflow.demo.airflow_api import TaskInstance
from modalflow.demo.modal_stack import ModalStack
from modalflow.demo.report import problems
from tests.acceptance.airflow_on_modal import finish_run, start_run

pytestmark = pytest.mark.timeout(240)

#: The key, and the way to mend it; the same of a queue.
NO_PROFILE = ("Queue 'gpus' has no profile", "deployed profiles: default, etl", "[modal_executor] queues")
REASON = ("'gpus'", "did you mean 'gpu'")


@pytest.fixture(scope="module")
def run_id(stack: ModalStack) -> str:
    """An ended run of tasks that ask well and of some that ask badly."""
    run_id = start_run(stack, "asks")
    assert finish_run(stack, "asks", run_id) == "failed"
    return run_id


def instance_of(stack: ModalStack, run_id: str, task_id: str) -> TaskInstance:
    instances = stack.airflow.api.task_instances("asks", run_id)
    return next(instance for instance in instances if instance.task_id == task_id)


def test_what_a_task_asks_for_reaches_its_container(stack: ModalStack, run_id: str) -> None:
    """The task beside a bad one runs, in a container, with the variable that it asked for."""
    rows = [row for row in stack.rows("asks", run_id) if row.instance.task_id == "ask_well"]
    assert [row.instance.state for row in rows] == ["success"]
    assert problems(rows) == []
    assert stack.airflow.api.xcom("asks", run_id, "ask_well") == "good morning"


def test_an_unknown_key_fails_that_task_alone(stack: ModalStack, run_id: str) -> None:
    """It never reached Modal, and its log in Airflow's API says what is wrong and how to mend it."""
    instance = instance_of(stack, run_id, "ask_badly")
    assert instance.state == "failed"
    assert instance.hostname == ""
    log = stack.airflow.api.log("asks", run_id, instance)
    assert any(all(part in line for part in REASON) for line in log), "\n".join(log)


def test_an_unknown_key_is_in_airflows_event_log(stack: ModalStack, run_id: str) -> None:
    """The same reason is among the events of the DAG run."""
    events = stack.airflow.api.events("asks", run_id)
    told = [event for event in events if event.startswith("modal executor: ")]
    assert len(told) == 3
    assert all(any(all(part in event for part in reason) for event in told) for reason in (REASON, NO_PROFILE)), told


def test_a_try_after_one_that_ran_out_of_memory_fits(stack: ModalStack, run_id: str) -> None:
    """It dies in its first try and succeeds in its second, whose log in Airflow's API says from what to what."""
    instance = instance_of(stack, run_id, "ask_for_too_little")
    assert (instance.state, instance.try_number) == ("success", 2)
    log = stack.airflow.api.log("asks", run_id, instance)
    assert any("This try may use 2 GiB of memory instead of 512 MiB" in line for line in log), "\n".join(log)
    assert any("profile default: 512 to 2048 MiB" in line for line in log)
    events = stack.airflow.api.events("asks", run_id)
    assert any("ran out of memory" in event and "the limit is 512 MiB" in event for event in events)


def test_the_queue_picks_the_profile(stack: ModalStack, run_id: str) -> None:
    """With the image and the variables of that profile, below what the task itself asks for."""
    assert stack.airflow.api.xcom("asks", run_id, "ask_elsewhere") == ["etl", "its own", "task", "etl"]


def test_a_queue_without_a_profile_is_turned_away(stack: ModalStack, run_id: str) -> None:
    """The task's log in Airflow's API lists the profiles that there are, and what to do."""
    instance = instance_of(stack, run_id, "ask_nowhere")
    assert (instance.state, instance.hostname) == ("failed", "")
    log = stack.airflow.api.log("asks", run_id, instance)
    assert any(all(part in line for part in NO_PROFILE) for line in log), "\n".join(log)
