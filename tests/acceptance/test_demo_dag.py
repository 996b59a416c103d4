"""The example DAG in a real Airflow, on the real SDK and container runtime."""

from __future__ import annotations

import pytest

from modalflow.demo import run as demo
from modalflow.demo.airflow_api import TaskInstance
from modalflow.demo.dags import DEMO_DAG
from modalflow.demo.modal_stack import ModalStack
from modalflow.demo.report import Row, problems
from tests.acceptance.airflow_on_modal import finish_run

pytestmark = [pytest.mark.timeout(240), pytest.mark.matrix]


@pytest.fixture(scope="module")
def run_id(stack: ModalStack) -> str:
    """A run of the example DAG that has ended."""
    run_id = demo.trigger(stack)
    finish_run(stack, DEMO_DAG, run_id)
    return run_id


@pytest.fixture(scope="module")
def rows(stack: ModalStack, run_id: str) -> list[Row]:
    """What Airflow and Modal say of its task instances."""
    return stack.rows(DEMO_DAG, run_id)


def instance_of(rows: list[Row], task_id: str, map_index: int = -1) -> TaskInstance:
    """The task instance of that name."""
    (found,) = (r.instance for r in rows if (r.instance.task_id, r.instance.map_index) == (task_id, map_index))
    return found


def test_every_task_succeeds_in_a_container_that_modal_knows(stack: ModalStack, run_id: str, rows: list[Row]) -> None:
    """Airflow says success, and Modal confirms the container, for all that the branch did not skip."""
    assert stack.airflow.api.run_state(DEMO_DAG, run_id) == "success"
    assert problems(rows) == []
    assert len(rows) == 12


def test_the_flaky_task_needed_two_tries(rows: list[Row]) -> None:
    """The retry ran on Modal as well."""
    assert instance_of(rows, "fetch_flaky").try_number == 2


def test_results_travel_by_xcom(stack: ModalStack, run_id: str) -> None:
    """What a task returned in one container arrived in another, through a mapped task."""
    assert stack.airflow.api.xcom(DEMO_DAG, run_id, "sum_up") == sum(map(ord, "northsoutheastwest"))


def test_a_variable_and_a_connection_reach_the_container(stack: ModalStack, run_id: str) -> None:
    """Both were made in Airflow's database alone, which no container can reach."""
    settings = stack.airflow.api.xcom(DEMO_DAG, run_id, "read_settings")
    assert settings == {"greeting": "Good morning", "warehouse": "warehouse.example.com"}


@pytest.mark.parametrize(
    ("task_id", "map_index", "try_number", "says"),
    [
        ("read_settings", -1, 1, "Good morning from a Modal container"),
        ("count_orders", 0, 1, "north: 555 orders"),
        ("count_orders", 3, 1, "west: 451 orders"),
        ("fetch_flaky", -1, 1, "the first try always fails"),
        ("fetch_flaky", -1, 2, "try 2 succeeded"),
        ("send_report", -1, 1, "1998 orders on 2026-01-02"),
        ("wait_a_moment", -1, 1, "Pausing task as DEFERRED"),
    ],
)
def test_logs_are_readable_after_the_run(
    stack: ModalStack, run_id: str, rows: list[Row], task_id: str, map_index: int, try_number: int, says: str
) -> None:
    """Airflow's API returns the log of every try of every task instance, and no complaint of a log it cannot get."""
    log = stack.airflow.api.log(DEMO_DAG, run_id, instance_of(rows, task_id, map_index), try_number)
    assert any(says in line for line in log), "\n".join(log)
    assert not any("Could not read" in line for line in log), "\n".join(log)
