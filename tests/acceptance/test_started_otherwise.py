"""DAG runs that an asset event or a backfill starts, and the trace that a run carries into its tasks."""

from __future__ import annotations

from typing import Any

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, in_database, start_run
from tests.acceptance.evidence import not_on_modal, states_of
from tests.support import wait_until

pytestmark = pytest.mark.timeout(300)

DAYS = ("2026-01-05", "2026-01-06", "2026-01-07")


@pytest.fixture(scope="module")
def runs(stack: ModalStack) -> dict[str, list[str]]:
    """Ended runs, side by side: DAG id → run ids."""
    api = stack.airflow.api
    for dag_id in ("consumer", "daily"):
        stack.airflow.wait_for_dag(dag_id)
        api.unpause(dag_id)
    started = {dag_id: [start_run(stack, dag_id)] for dag_id in ("producer", "traced")}
    body = {"dag_id": "daily", "from_date": f"{DAYS[0]}T00:00:00Z", "to_date": f"{DAYS[-1]}T00:00:00Z"}
    api.request("POST", "backfills", json=body)

    def runs_of(dag_id: str, kind: str, number: int) -> list[str]:
        answer: dict[str, Any] = api.request("GET", f"dags/{dag_id}/dagRuns", params={"run_type": kind}).json()
        found = sorted(answer["dag_runs"], key=lambda run: str(run["run_after"]))
        return [str(run["dag_run_id"]) for run in found] if len(found) >= number else []

    for dag_id, kind, number in (("daily", "backfill", len(DAYS)), ("consumer", "asset_triggered", 1)):
        started[dag_id] = wait_until(lambda: runs_of(dag_id, kind, number), 120.0, f"runs of {dag_id}", 0.5)  # noqa: B023
    for dag_id, run_ids in started.items():
        for run_id in run_ids:
            assert finish_run(stack, dag_id, run_id) == "success", states_of(stack, dag_id, run_id)
    return started


def test_an_asset_event_starts_what_waits_for_it(stack: ModalStack, runs: dict[str, list[str]]) -> None:
    """What the producing task says of the event, in one container, reaches the consuming task in another, once."""
    (run_id,) = runs["consumer"]
    assert stack.airflow.api.xcom("consumer", run_id, "count") == [7]
    assert not_on_modal(stack, "producer", runs["producer"][0]) + not_on_modal(stack, "consumer", run_id) == []


def test_a_backfill_runs_every_day_once(stack: ModalStack, runs: dict[str, list[str]]) -> None:
    """Each of its runs has its own day."""
    days = [stack.airflow.api.xcom("daily", run_id, "tell_day") for run_id in runs["daily"]]
    assert sorted(map(str, days)) == list(DAYS)
    assert [problem for run_id in runs["daily"] for problem in not_on_modal(stack, "daily", run_id)] == []


def test_a_task_is_within_the_trace_of_its_run(stack: ModalStack, runs: dict[str, list[str]]) -> None:
    """OpenTelemetry's context travels in the workload: the task's trace id is the one that Airflow gave the run."""
    (run_id,) = runs["traced"]
    trace = str(stack.airflow.api.xcom("traced", run_id, "tell_trace"))
    query = "SELECT context_carrier FROM dag_run WHERE dag_id = 'traced' AND run_id = :run_id"
    (row,) = in_database(stack, query, run_id=run_id)
    assert int(trace, 16) != 0
    assert f"-{trace}-" in str(row["context_carrier"])
    assert not_on_modal(stack, "traced", run_id) == []
