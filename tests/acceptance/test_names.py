"""Names of DAGs, tasks and runs: whatever Airflow takes runs, and has a log in its UI."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, the_task
from tests.acceptance.dags.named import NAMED

pytestmark = pytest.mark.timeout(240)

RUNS = {"d" * 250: "r" * 250, "ж" * 100: "manual__2026-01-02T00:00:00+00:00", "named_é": "A.~b:+C"}


@pytest.fixture(scope="module")
def started(stack: ModalStack) -> dict[str, str]:
    """A run of each DAG, all at once: DAG id → run id."""
    for number, dag_id in enumerate(NAMED):
        stack.airflow.wait_for_dag(dag_id)
        stack.airflow.api.unpause(dag_id)
        when = datetime(2026, 1, 2 + number, tzinfo=UTC).isoformat()
        run = {"logical_date": when, "dag_run_id": RUNS.get(dag_id, "plain")}
        stack.airflow.api.request("POST", f"dags/{dag_id}/dagRuns", json=run)
    return {dag_id: RUNS.get(dag_id, "plain") for dag_id in NAMED}


@pytest.mark.parametrize("dag_id", NAMED)
def test_every_name_runs_and_its_log_is_shown(stack: ModalStack, started: dict[str, str], dag_id: str) -> None:
    """The task runs in a container; Airflow's API shows its log, which also names what its executor_config has for
    another executor."""
    run_id = started[dag_id]
    assert finish_run(stack, dag_id, run_id) == "success"
    instance = the_task(stack, dag_id, run_id)
    log = "\n".join(stack.airflow.api.log(dag_id, run_id, instance))
    assert f"this is run {run_id}" in log
    assert "ModalExecutor ignores these keys of the task's executor_config: 'pod_override'" in log
    assert stack.airflow.api.xcom(dag_id, run_id, instance.task_id) == "ü"
