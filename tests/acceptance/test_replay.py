"""`airflow modalflow render` and `replay` beside a real Airflow and its database, which stays as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, in_database, start_run

pytestmark = pytest.mark.timeout(360)

IN_AIRFLOW = (sys.executable, "-m", "airflow", "modalflow")
WORKER = Path(__file__).parent / "worker.py"

#: The tables with rows of a run.
TABLES = (
    "dag_run",
    "task_instance",
    "task_instance_history",
    "task_reschedule",
    "xcom",
    "log",
    "rendered_task_instance_fields",
)


def rows(stack: ModalStack, dag_id: str) -> dict[str, list[str]]:
    """All rows of a DAG."""
    return {
        table: sorted(repr(row) for row in in_database(stack, f"SELECT * FROM {table} WHERE dag_id = :dag", dag=dag_id))
        for table in TABLES
        if in_database(
            stack, "SELECT 1 FROM information_schema.columns WHERE table_name = :t AND column_name = 'dag_id'", t=table
        )
    }


def run(stack: ModalStack, *words: str) -> subprocess.CompletedProcess[str]:
    env: dict[str, Any] = os.environ | stack.airflow.env
    return subprocess.run([*IN_AIRFLOW, *words], env=env, capture_output=True, text=True, timeout=240)


def test_a_try_is_rendered_and_replayed(stack: ModalStack) -> None:
    """With PostgreSQL, from Airflow's own command line: a task that defers itself and resumes."""
    run_id = start_run(stack, "deferred")
    assert finish_run(stack, "deferred", run_id) == "success"
    before = rows(stack, "deferred")

    rendered = run(stack, "render", "deferred", "in_two_parts", "--run", run_id, "--json")
    assert rendered.returncode == 0, rendered.stderr
    assert json.loads(rendered.stdout[rendered.stdout.index("{\n") :])["profile"]["name"] == "default"

    replayed = run(stack, "replay", "deferred", "in_two_parts", run_id, "--worker", str(WORKER), "--yes")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    shown = replayed.stdout.replace("\n", " ")
    for text in ("before the trigger", "is deferred to", "after the trigger", "The replay ended: success."):
        assert text in shown
    assert rows(stack, "deferred") == before
