"""Many at once: mapped tasks, priorities, pools."""

from __future__ import annotations

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, start_run
from tests.acceptance.dags.urgent import WEIGHTS
from tests.acceptance.evidence import calls_by_task, created, not_on_modal, states_of
from tests.support import wait_until

pytestmark = pytest.mark.timeout(300)

#: More than one container takes. A thousand are run by hand: they take minutes on two cores.
MANY = 24


@pytest.fixture(scope="module")
def runs(stack: ModalStack) -> dict[str, str]:
    """Ended runs of the module's DAGs: DAG id → run id. What ``urgent`` waits for opens when all of it waits."""
    for name, slots in (("closed_at_first", 0), ("two_at_a_time", 2)):
        stack.airflow.api.request("POST", "pools", json={"name": name, "slots": slots})
    runs = {dag_id: start_run(stack, dag_id) for dag_id in ("urgent", "narrow")}

    def all_wait() -> bool:
        return set(states_of(stack, "urgent", runs["urgent"]).values()) == {"scheduled"}

    wait_until(all_wait, 60.0, "tasks that wait for the pool")
    opened = {"pool": "closed_at_first", "slots": len(WEIGHTS), "include_deferred": False}
    stack.airflow.api.request("PATCH", "pools/closed_at_first", json=opened)
    for dag_id, run_id in runs.items():
        assert finish_run(stack, dag_id, run_id) == "success", states_of(stack, dag_id, run_id)
    return runs


def test_priorities_order_the_function_calls(stack: ModalStack, runs: dict[str, str]) -> None:
    """Of tasks that may all run at once, the control plane takes those of the highest priority first."""
    calls = calls_by_task(stack, "urgent", runs["urgent"])
    order = list(created(stack, calls))
    assert order == sorted(WEIGHTS, key=lambda name: -WEIGHTS[name])
    assert not_on_modal(stack, "urgent", runs["urgent"]) == []


def test_a_pool_bounds_what_runs_at_once(stack: ModalStack, runs: dict[str, str]) -> None:
    """Two slots: of six tasks never more than two are under way, by their own clocks."""
    times = [
        stack.airflow.api.request(
            "GET",
            f"dags/narrow/dagRuns/{runs['narrow']}/taskInstances/pass_through/xcomEntries/return_value",
            params={"map_index": index},
        ).json()["value"]
        for index in range(6)
    ]
    changes = sorted([(began, 1) for began, _ in times] + [(ended, -1) for _, ended in times])
    under_way = [sum(change for _, change in changes[: position + 1]) for position in range(len(changes))]
    assert max(under_way) <= 2
    assert not_on_modal(stack, "narrow", runs["narrow"]) == []


def test_a_task_is_mapped_many_times(stack: ModalStack) -> None:
    """Each index is a function call of its own that ran once, and what they return is gathered in order."""
    run_id = start_run(stack, "many", many=MANY)
    assert finish_run(stack, "many", run_id, timeout=240.0) == "success", states_of(stack, "many", run_id)
    assert stack.airflow.api.xcom("many", run_id, "add_up") == sum(n * n for n in range(MANY))
    calls = calls_by_task(stack, "many", run_id)
    assert len(set(calls.values())) == len(calls) == MANY + 2
    assert not_on_modal(stack, "many", run_id) == []
