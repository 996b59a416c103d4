"""Celery runs what names no executor, Modal what names it, and each sees the results of the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("airflow.providers.celery", reason="only the environment of `make test-celery` has Celery")

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, start_run
from tests.acceptance.evidence import instance_of, log_of, not_on_modal, said, starts_in, states_of
from tests.celery.stack import side_by_side
from tests.support import is_running, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(480)]

DAG_ID, GATE_DAG = "side_by_side", "during_a_restart"
ON_CELERY, ON_MODAL = ("extract", "report"), ("train", "score")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalStack]:
    with side_by_side(tmp_path_factory.mktemp("celery")) as running:
        yield running


@pytest.fixture(scope="module")
def run_id(stack: ModalStack) -> str:
    """An ended run of the DAG with tasks on both."""
    run_id = start_run(stack, DAG_ID)
    assert finish_run(stack, DAG_ID, run_id, 240.0) == "success", states_of(stack, DAG_ID, run_id)
    return run_id


def modalflow(stack: ModalStack, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modalflow.cli", *words]
    return subprocess.run(command, env=os.environ | stack.airflow.env, capture_output=True, text=True, timeout=150)


def status_of(stack: ModalStack) -> dict[str, Any]:
    done = modalflow(stack, "status", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ui(stack: ModalStack, path: str) -> Any:
    """The answer of the UI's API."""
    api = stack.airflow.api
    api.request("GET", "version")
    answer = api._send("GET", f"/modalflow/ui/api/{path}", headers={"authorization": f"Bearer {api._token}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_each_task_runs_on_its_executor(stack: ModalStack, run_id: str) -> None:
    """The function calls of Modal are those of the tasks that name it, and no others."""
    assert not_on_modal(stack, DAG_ID, run_id, but=ON_CELERY) == []
    for task_id in ON_CELERY:
        assert not instance_of(stack, DAG_ID, run_id, task_id).hostname.startswith("ta-")
        assert starts_in(log_of(stack, DAG_ID, run_id, task_id)) == []


def test_results_go_both_ways(stack: ModalStack, run_id: str) -> None:
    """From Celery to Modal, mapped as well, and back."""
    found = stack.airflow.api.xcom(DAG_ID, run_id, "report")
    assert found == [6, [10, 20, 30], "no container"]
    model: Any = stack.airflow.api.xcom(DAG_ID, run_id, "train")
    assert model["container"] == instance_of(stack, DAG_ID, run_id, "train").hostname


def test_the_logs_of_both_are_in_the_ui(stack: ModalStack, run_id: str) -> None:
    """That of Celery's tasks is read from the logs Volume too."""
    assert said(log_of(stack, DAG_ID, run_id, "extract"), "told: extracted on Celery") == 1
    assert said(log_of(stack, DAG_ID, run_id, "train"), "told: trained on Modal with [1, 2, 3]") == 1
    for index in range(3):
        log = log_of(stack, DAG_ID, run_id, "score", index)
        assert said(log, f"told: scored on Modal {index + 1} in profile etl") == 1, "\n".join(log)
    report = log_of(stack, DAG_ID, run_id, "report")
    assert said(report, "told: reported on Celery [6, [10, 20, 30]]") == 1, "\n".join(report)
    done = modalflow(stack, "logs", DAG_ID, "report", run_id)
    assert "told: reported on Celery" in done.stdout, done.stdout + done.stderr


def test_what_modal_is_asked_for_is_its_own_tasks_alone(stack: ModalStack, run_id: str) -> None:
    """`modalflow render` names Celery for a task of Celery, and the task's tab has no function call."""
    rendered = json.loads(modalflow(stack, "render", DAG_ID, "extract", "--json").stdout)
    assert any("CeleryExecutor" in note for note in rendered["notes"]), rendered
    rendered = json.loads(modalflow(stack, "render", DAG_ID, "train", "--json").stdout)
    assert not any("CeleryExecutor" in note for note in rendered["notes"]), rendered
    assert rendered["options"]["gpu"]["value"] == "T4"
    tab = ui(stack, f"task/{DAG_ID}/{run_id}/extract/-1")
    assert (tab["on_modal"], tab["tries"]) == (False, [])
    path = f"task/{DAG_ID}/{run_id}/train/-1"
    container = instance_of(stack, DAG_ID, run_id, "train").hostname
    wait_until(
        lambda: container in json.dumps(ui(stack, path)["tries"]), 60.0, "the container in the tab", interval=1.0
    )


def test_a_restart_of_the_scheduler_loses_no_task(stack: ModalStack) -> None:
    """Tasks of both that run meanwhile end well, once, in their first try; `modalflow status` and the UI count those of
    Modal alone."""
    started = start_run(stack, GATE_DAG)

    def both_wait() -> bool:
        states = states_of(stack, GATE_DAG, started)
        return states["on_celery"] == states["on_modal"] == "running"

    wait_until(both_wait, 120.0, "both tasks at the gate", interval=0.5)
    work = [row["label"] for row in status_of(stack)["work"]]
    assert work == [f"{GATE_DAG}.on_modal run {started} try 1"]
    seen: dict[str, Any] = wait_until(lambda: _with(ui(stack, "work"), "rows"), 60.0, "the UI's row", interval=1.0)
    (row,) = seen["rows"]
    assert GATE_DAG in row and "on_modal" in row, seen

    old = stack.airflow.programs["scheduler"].pid
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: not is_running(old) and _is_up(stack, old), 60.0, "the next scheduler")
    stack.airflow.api.set_variable("gate", "open")
    ended = finish_run(stack, GATE_DAG, started, 240.0)
    troubles = stack.airflow.api.troubles(GATE_DAG, started)
    assert ended == "success", [*troubles, *log_of(stack, GATE_DAG, started, "on_modal")]
    for executor in ("celery", "modal"):
        for task_id in (f"on_{executor}", f"after_{executor}"):
            instance = instance_of(stack, GATE_DAG, started, task_id)
            log = log_of(stack, GATE_DAG, started, task_id)
            assert (instance.state, instance.try_number) == ("success", 1)
            assert len(starts_in(log)) == (1 if executor == "modal" else 0), "\n".join(log)
        assert said(log_of(stack, GATE_DAG, started, f"on_{executor}"), "told: through") == 1
    wait_until(lambda: status_of(stack)["work"] == [], 60.0, "the executor's report")
    stack.airflow.check()


def test_the_doctor_finds_both_well(stack: ModalStack) -> None:
    """From the environment of the scheduler."""
    done = modalflow(stack, "doctor", "--json")
    found = json.loads(done.stdout)
    assert found["ok"], [each for each in found["findings"] if each["status"] == "fail"]


def _with(seen: Any, what: str) -> Any:
    return seen if seen[what] else None


def _is_up(stack: ModalStack, old: int) -> bool:
    try:
        return stack.airflow.programs["scheduler"].pid != old and not stack.airflow.api.unhealthy()
    except (OSError, ValueError):
        return False
