"""`modalflow replay` up to the start of anything: the checks, the warnings and the confirmation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from click.testing import CliRunner, Result
from sqlalchemy import select

from modalflow.airflow_compat.reading.task_instances import past_tries, task_try, tries, workload_of
from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.cli.task.replay import replay
from tests.unit.executor.airflow_tables import DAG_ID, AirflowTables, airflow_tables


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowTables]:
    bundle = [{"name": "bundle", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(tmp_path)}}]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundle))
    with airflow_tables(tmp_path) as tables:
        yield tables


@pytest.fixture
def worker(tmp_path: Path) -> str:
    """A Worker with a Secret and a Volume, which a local control plane cannot have from Modal."""
    file = tmp_path / "replays_worker.py"
    file.write_text(
        "import modal, modalflow\n"
        "secret, volume = modal.Secret.from_name('aws'), modal.Volume.from_name('models')\n"
        "worker = modalflow.Worker(profiles=[modalflow.Profile(secrets=[secret], volumes={'/models': volume})])\n"
    )
    return str(file)


def run(*words: str, answer: str = "n\n") -> Result:
    return CliRunner().invoke(replay, words, input=answer)


def test_side_effects_are_confirmed(tables: AirflowTables, worker: str) -> None:
    """The differences to Modal are named before the question, and a refusal starts nothing."""
    key = tables.add("once", "w", state="failed")
    done = run(DAG_ID, "once", key.run_id, "--worker", worker)
    assert done.exit_code == 1
    assert f"losses.once run {key.run_id} try 1: failed" in done.output
    assert "keeps no versions for this run: the files are the present ones" in done.output
    assert "Modal does not return the values of Secrets: aws." in done.output
    assert "Volume 'models' at /models is empty" in done.output
    assert "it writes again.\nReplay it? [y/N]: n" in done.output


@pytest.mark.parametrize("state", ["running", "deferred"])
def test_a_try_that_has_not_ended_is_refused(tables: AirflowTables, worker: str, state: str) -> None:
    """Its side effects would happen twice at once."""
    key = tables.add("once", "w", state=state)
    done = run(DAG_ID, "once", key.run_id, "--worker", worker, answer="y\n")
    assert done.exit_code == 1
    assert f"This try is {state} in Airflow: its side effects would happen twice" in done.output


def test_a_try_that_never_ran_is_refused(tables: AirflowTables, worker: str) -> None:
    """There is nothing to replay."""
    key = tables.add("once", "w", state="queued", start_date=None)
    done = run(DAG_ID, "once", key.run_id, "--worker", worker)
    assert done.exit_code == 1
    assert "has not run: its state is queued. `modalflow render` shows" in done.output


def test_an_earlier_try_is_as_it_was(tables: AirflowTables, worker: str) -> None:
    """After the task was cleared, its last try is in the history, with its own id and options."""
    key = tables.add("once", "w", state="failed", queue="old")
    with create_session() as session:
        ti: Any = session.scalar(select(TaskInstance).where(TaskInstance.run_id == key.run_id))
        before = ti.id
        # From Airflow 3.4 on, the next try is another object.
        ti = ti.prepare_db_for_next_try(session) or ti
        ti.state, ti.queue = None, "new"
    newest = run(DAG_ID, "once", key.run_id, "--worker", worker)
    assert "has not run: its state is none. Replay an earlier try with --try (1)." in newest.output
    assert past_tries(DAG_ID, "once", key.run_id, -1) == [1]
    assert 1 in tries(DAG_ID, "once", key.run_id, -1)
    past = task_try(DAG_ID, "once", key.run_id, -1, 1)
    assert past is not None
    assert (past.ti.id, past.ti.queue, past.state, past.is_newest) == (before, "old", "failed", False)
    workload = workload_of(past, "token")
    assert (str(workload.ti.id), workload.ti.try_number, workload.token) == (str(before), 1, "token")


def test_a_missing_bundle_version_is_named(tables: AirflowTables, worker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bundle, the reason and what to do."""
    key = tables.add("once", "w", state="failed")
    with create_session() as session:
        row: Any = session.scalar(select(DagRun).where(DagRun.run_id == key.run_id))
        row.bundle_version = "4f2a"
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", "[]")
    done = run(DAG_ID, "once", key.run_id, "--worker", worker)
    assert done.exit_code == 1
    assert "version 4f2a of DAG bundle 'bundle' could not be fetched" in done.output
    assert "Restore this version at its source" in done.output


@pytest.mark.parametrize("flag", ["--debug", "--shell"])
def test_a_debugger_needs_a_terminal(tables: AirflowTables, flag: str) -> None:
    """Without one, nothing could be typed."""
    done = run(DAG_ID, "once", "run-0", flag)
    assert done.exit_code == 2
    assert f"{flag} needs a terminal" in done.output


def test_debugger_and_shell_exclude_each_other(tables: AirflowTables) -> None:
    """One replay has one console."""
    assert "cannot be combined" in run(DAG_ID, "once", "run-0", "--debug", "--shell").output


def test_a_variable_without_a_value_is_this_machines(tables: AirflowTables) -> None:
    """A secret need not be on the command line; a missing one is an error."""
    done = run(DAG_ID, "once", "run-0", "--env", "NOT_SET_ANYWHERE")
    assert done.exit_code == 2
    assert "the variable NOT_SET_ANYWHERE is not set on this machine" in done.output
