"""Where tasks on Modal find their DAG files: shipped versions, commits, and Airflow's own examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, in_database, start_run
from tests.acceptance.dag_sources import GIT, HAS_GIT, SHIPPED, Sources, parse
from tests.acceptance.evidence import log_of, not_on_modal, states_of
from tests.command_line import CommandLine
from tests.support import wait_until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", autouse=True)
def parsed(stack: ModalStack, sources: Sources) -> Iterator[None]:
    """Edits are parsed during these tests alone."""
    with sources.parsed(stack):
        yield


def version_of(stack: ModalStack, dag_id: str) -> str | None:
    """The version of the bundle that a new run of the DAG would get."""
    query = "select bundle_version from dag_version where dag_id = :dag_id order by version_number desc limit 1"
    rows = in_database(stack, query, dag_id=dag_id)
    return rows[0]["bundle_version"] if rows else None


def versions_of_runs(stack: ModalStack, dag_id: str) -> dict[str, str]:
    rows = in_database(stack, "select run_id, bundle_version from dag_run where dag_id = :dag_id", dag_id=dag_id)
    return {row["run_id"]: row["bundle_version"] for row in rows}


def first_task_runs(stack: ModalStack, dag_id: str, run_id: str) -> bool:
    """Whether it does; its log where it never will."""
    state = states_of(stack, dag_id, run_id)["wait"]
    assert state not in ("failed", "up_for_retry", "up_for_reschedule"), log_of(stack, dag_id, run_id, "wait")
    return state == "running"


def edit_during_a_run(
    stack: ModalStack,
    bundle: str,
    file: Path,
    edit: Callable[[], None],
    meanwhile: Callable[[str], None] = lambda version: None,
) -> tuple[str, str]:
    """Start a run of the DAG in ``file``, edit the code while its first task runs, start another run. Return both run
    ids, once they have ended.

    ``meanwhile`` is called with the first run's version if there is a newer one.
    """
    dag_id = file.stem
    gate = f"gate-of-{dag_id}"
    old = start_run(stack, dag_id, gate=gate)
    before = version_of(stack, dag_id)
    wait_until(lambda: first_task_runs(stack, dag_id, old), 90, "the first task to run", interval=0.2)
    edit()
    # A file that was parsed under the earlier version is parsed again after ``min_file_process_interval``, 30 s.
    wait_until(lambda: version_of(stack, dag_id) != before, 90, "Airflow to see the edit", interval=0.5)
    new = start_run(stack, dag_id, gate=gate)
    meanwhile(str(before))
    stack.airflow.api.set_variable(gate, "open")
    for run in (old, new):
        ended = finish_run(stack, dag_id, run)
        assert ended == "success", [states_of(stack, dag_id, run), *log_of(stack, dag_id, run, "wait")]
    assert versions_of_runs(stack, dag_id)[old] == before != versions_of_runs(stack, dag_id)[new]
    assert not_on_modal(stack, dag_id, old) == not_on_modal(stack, dag_id, new) == []
    return old, new


def test_a_run_keeps_the_code_that_it_was_made_with(
    stack: ModalStack, sources: Sources, modalflow: CommandLine
) -> None:
    """An edit while a run is under way: its later tasks run the old code, and the next run runs the new one. Nobody
    runs a command; whoever removes old versions meanwhile leaves those that a run still needs."""

    def nothing_old_is_removed(version: str) -> None:
        options = ("--dry-run", "--prune", "--keep-newest", "0", "--keep-days", "0", "--json")
        pruned = json.loads(modalflow("sync", *options))["pruned"]["versions"]
        assert version not in pruned.get(SHIPPED, [])

    old, new = edit_during_a_run(
        stack,
        SHIPPED,
        sources.shipped / "pinned.py",
        lambda: sources.edit(sources.shipped, "pinned", "two"),
        nothing_old_is_removed,
    )
    xcom = stack.airflow.api.xcom
    assert (xcom("pinned", old, "say"), xcom("pinned", new, "say")) == ("one", "two")


@pytest.mark.skipif(not HAS_GIT, reason="apache-airflow-providers-git is not part of this environment")
def test_a_task_runs_the_commit_of_its_run(stack: ModalStack, sources: Sources) -> None:
    """Airflow's own Git bundle: cloned in the container, with a connection that only the Airflow host has."""
    old, new = edit_during_a_run(stack, GIT, sources.repository / "committed.py", lambda: sources.commit("two"))
    xcom = stack.airflow.api.xcom
    assert (xcom("committed", old, "say"), xcom("committed", new, "say")) == ("one", "two")


#: Airflow's own and a provider's: bundle → DAG.
EXAMPLES = {
    "example_dags": "example_simplest_dag",
    "apache-airflow-providers-standard-example-dags": "example_short_circuit_operator",
}


@pytest.fixture(scope="module")
def examples(stack: ModalStack) -> dict[str, str]:
    """Runs of the examples, side by side: DAG → run."""
    parse(stack, {bundle: f"{dag_id}.py" for bundle, dag_id in EXAMPLES.items()})
    return {dag_id: start_run(stack, dag_id) for dag_id in EXAMPLES.values()}


@pytest.mark.parametrize("dag_id", EXAMPLES.values())
def test_examples_of_airflow_and_of_its_providers_run(stack: ModalStack, examples: dict[str, str], dag_id: str) -> None:
    """With `[core] load_examples` on the Airflow host, and without the worker having been told."""
    run = examples[dag_id]
    assert finish_run(stack, dag_id, run) == "success", states_of(stack, dag_id, run)
    # An EmptyOperator runs nowhere.
    instances = stack.airflow.api.task_instances(dag_id, run)
    nowhere = [ti.label for ti in instances if not ti.hostname]
    assert len(nowhere) < len(instances) and not_on_modal(stack, dag_id, run, but=nowhere) == []
