"""Airflow compatibility: a real ``airflow standalone`` with nothing but the executor's class path."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modalflow.demo.modal_stack import MODAL_EXECUTOR, ModalStack
from modalflow.demo.report import problems
from modalflow.demo.stack import STANDALONE
from tests.acceptance.airflow_on_modal import finish_run, stack_of, start_run, the_task
from tests.support import wait_until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalStack]:
    """``airflow standalone`` beside a local control plane with the worker app."""
    with stack_of(tmp_path_factory.mktemp("dags"), STANDALONE) as running:
        yield running


def test_a_simple_dag_succeeds_in_a_modal_container(standalone: ModalStack) -> None:
    """Triggered through the API that the UI reads, it ends as a success there, and Modal confirms where it ran."""
    assert standalone.airflow.env["AIRFLOW__CORE__EXECUTOR"] == MODAL_EXECUTOR
    run_id = start_run(standalone, "hello")
    assert finish_run(standalone, "hello", run_id) == "success"
    assert the_task(standalone, "hello", run_id).state == "success"
    assert problems(standalone.rows("hello", run_id)) == []
    log = standalone.airflow.api.log("hello", run_id, the_task(standalone, "hello", run_id))
    assert any("hello from a task" in line for line in log), "\n".join(log)


def test_standalone_did_not_replace_the_executor(standalone: ModalStack) -> None:
    """Airflow's command would say so; it replaces every executor that is not local."""
    log = standalone.airflow.logs / "standalone.log"
    wait_until(lambda: "Airflow is ready" in log.read_text(), 30.0, "the end of standalone's start")
    assert "Forcing executor" not in log.read_text()
