"""Several executors at once: ModalExecutor beside LocalExecutor, by an alias, and one for each of two teams."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import modal
import pytest

from modalflow import airflow_logging
from modalflow.demo.modal_stack import MODAL_EXECUTOR, ModalStack
from tests.acceptance.airflow_on_modal import CALM, WITHOUT_NETWORK, finish_run, start_run
from tests.acceptance.evidence import confirmed, instance_of, log_of, not_on_modal, said, starts_in, states_of
from tests.forked_stack import forked_stack
from tests.sdk import client_of
from tests.support import is_running, wait_until

pytestmark = pytest.mark.timeout(300)

FOLDER = Path(__file__).parent / "teams"
TEAMS = ("red", "blue")
BUNDLES = [
    {
        "name": name,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(FOLDER / name)},
        "team_name": name if name in TEAMS else None,
    }
    for name in ("everybody", *TEAMS)
]
ENV = {
    **CALM,
    "AIRFLOW__CORE__MULTI_TEAM": "True",
    # ModalExecutor first: it has used Modal by the time that LocalExecutor forks its workers.
    "AIRFLOW__CORE__EXECUTOR": f"modal:{MODAL_EXECUTOR},LocalExecutor;red={MODAL_EXECUTOR};blue=modal:{MODAL_EXECUTOR}",
    "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(BUNDLES),
    "AIRFLOW__RED___MODAL_EXECUTOR__APP_NAME": "modalflow-red",
    "AIRFLOW__BLUE___MODAL_EXECUTOR__APP_NAME": "modalflow-blue",
    "AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES": "door_pin,kennwort",
    # With a mutation hook, Airflow leaves the trace out of tasks: so it is not in the stack of the tests of traces.
    "PYTHONPATH": os.pathsep.join(
        filter(None, (str(FOLDER.with_name("teams_host")), os.environ.get("PYTHONPATH", "")))
    ),
}
DAGS = ("mixed", "all_away", "of_red", "of_blue")


def make_teams(stack: ModalStack) -> None:
    """The teams, as Airflow wants them, and a worker app for each with no DAGs but its own."""
    programs = [stack.airflow.program("teams", "teams", "sync")]
    for team in TEAMS:
        options = ("--app", f"modalflow-{team}", "--dags-bundle", f"{team}={FOLDER / team}")
        programs.append(stack.deploy_program(f"deploy-{team}", *options))
    try:
        for program in programs:
            program.start()
        for program in programs:
            program.wait(120.0)
    finally:
        for program in programs:
            program.stop()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalStack]:
    """An Airflow with four executors, of three kinds of ownership."""
    folder = tmp_path_factory.mktemp("dags")
    with forked_stack(folder, env=ENV, modal=WITHOUT_NETWORK, report=print, before_start=make_teams) as running:
        yield running


@pytest.fixture(scope="module")
def runs(several: ModalStack) -> dict[str, str]:
    """An ended run of each DAG."""
    runs = {dag_id: start_run(several, dag_id) for dag_id in DAGS}
    for dag_id, run_id in runs.items():
        assert finish_run(several, dag_id, run_id) == "success", states_of(several, dag_id, run_id)
    return runs


def test_a_task_names_its_executor_by_alias_or_class(several: ModalStack, runs: dict[str, str]) -> None:
    """Tasks of one DAG run on two executors, each where it says, and hand one another their results."""
    run_id = runs["mixed"]
    assert several.airflow.api.xcom("mixed", run_id, "at_home_again") == [
        "no container",
        "modalflow",
        "modalflow",
        "no app",
    ]
    assert not_on_modal(several, "mixed", run_id, but=["at_home", "at_home_again"]) == []
    assert not instance_of(several, "mixed", run_id, "at_home").hostname.startswith("ta-")


def test_logs_of_both_executors_are_readable(several: ModalStack, runs: dict[str, str]) -> None:
    """Where modalflow is what Airflow reads logs through, LocalExecutor's tasks keep theirs."""
    at_home = log_of(several, "mixed", runs["mixed"], "at_home")
    away = log_of(several, "mixed", runs["mixed"], "away")
    assert (said(at_home, "at home"), len(starts_in(at_home))) == (1, 0), "\n".join(at_home)
    assert (said(away, "away, as told by no container"), len(starts_in(away))) == (1, 1), "\n".join(away)


def test_a_log_of_this_host_is_copied_as_soon_as_its_task_has_ended(several: ModalStack, runs: dict[str, str]) -> None:
    """A worker of LocalExecutor, which is a fork of a scheduler that has used Modal, uploads like any other process."""
    with client_of(several.local.url, several.local.env) as client:
        volume = modal.Volume.from_name("modalflow-logs", client=client)
        folder = f"dag_id=mixed/run_id={runs['mixed']}/task_id=at_home"
        files = wait_until(lambda: [entry.path for entry in volume.listdir(folder, recursive=True)], 15.0, "the copy")
    assert any("/host-" in path for path in files), files


def test_a_whole_dag_can_go_to_an_executor(several: ModalStack, runs: dict[str, str]) -> None:
    """Through ``default_args``."""
    assert several.airflow.api.xcom("all_away", runs["all_away"], "by_default_args") == "modalflow"
    assert not_on_modal(several, "all_away", runs["all_away"]) == []


def test_a_mutation_hook_of_the_host_holds(several: ModalStack, runs: dict[str, str]) -> None:
    """It changes what a task asks of Modal."""
    log = log_of(several, "all_away", runs["all_away"], "by_default_args")
    assert "memory=256" in next(line for line in log if "Started on Modal" in line)


@pytest.mark.parametrize("team", TEAMS)
def test_a_team_has_an_executor_and_a_worker_app_of_its_own(
    several: ModalStack, runs: dict[str, str], team: str
) -> None:
    """Its option is read from the team's configuration, its DAGs run in its app, and their log is found there."""
    dag_id, run_id = f"of_{team}", runs[f"of_{team}"]
    assert several.airflow.api.xcom(dag_id, run_id, "say_where") == f"modalflow-{team}"
    log = log_of(several, dag_id, run_id, "say_where")
    assert said(log, f"this is team {team}") == 1, "\n".join(log)
    (start,) = starts_in(log)
    assert confirmed(several, start)
    assert not_on_modal(several, dag_id, run_id) == []


PIN, WORD = "pin-of-the-door", "word-of-the-gate"


@pytest.fixture(scope="module")
def masked_run(several: ModalStack) -> str:
    """An ended run of tasks that show what is sensitive."""
    several.airflow.api.set_variable("door_pin", PIN)
    several.airflow.api.set_connection("gate", "generic", extra=json.dumps({"kennwort": WORD, "floor": "third"}))
    run_id = start_run(several, "masked")
    assert finish_run(several, "masked", run_id) == "failed", "the one task raises what it knows"
    return run_id


def told_by_the_task(several: ModalStack, run_id: str, task_id: str) -> list[str]:
    """What a task itself has put into its log: the lines in which the executors differ are left out."""
    marks = ("printed:", "logged:", "raised:", "rendered:", "Running command", "***", PIN, WORD)
    lines = log_of(several, "masked", run_id, task_id)
    return sorted({line[line.find(mark) :] for line in lines for mark in marks if mark in line})


@pytest.mark.parametrize("task_id", ["show", "bash"])
def test_what_is_masked_at_home_is_masked_away(several: ModalStack, masked_run: str, task_id: str) -> None:
    """The host's `[core] sensitive_var_conn_names` holds on Modal as under LocalExecutor, line by line."""
    at_home = told_by_the_task(several, masked_run, f"{task_id}_home")
    away = told_by_the_task(several, masked_run, f"{task_id}_away")
    assert at_home == away
    assert any("***" in line for line in away), away
    assert PIN not in str(away) and WORD not in str(away)
    rendered = [
        several.airflow.api.request("GET", f"dags/masked/dagRuns/{masked_run}/taskInstances/{task_id}_{place}").json()
        for place in ("home", "away")
    ]
    assert rendered[0]["rendered_fields"] == rendered[1]["rendered_fields"]
    assert PIN not in json.dumps(rendered)


def test_a_modal_that_does_not_answer_holds_no_slot_and_no_scheduler(several: ModalStack, runs: dict[str, str]) -> None:
    """The upload of a log ends after its bound, so the scheduler ends on SIGTERM; the log is read from the host, headed
    by what is so. The last test of this Airflow: nothing is scheduled after it."""
    several.local.faults.add("VolumePutFiles2:lost-reply=held,for=clients")
    run_id = start_run(several, "at_home_alone")
    assert finish_run(several, "at_home_alone", run_id) == "success"
    scheduler, began = several.airflow.programs["scheduler"].pid, time.monotonic()
    os.kill(scheduler, signal.SIGTERM)
    wait_until(lambda: not is_running(scheduler), 60.0, "the end of the scheduler")
    assert time.monotonic() - began < airflow_logging.UPLOAD_SECONDS + 15.0
    log = log_of(several, "at_home_alone", run_id, "at_home")
    assert said(log, "at home") == 1, "\n".join(log)
    assert said(log, "LocalExecutor ran this task, not ModalExecutor") == 1, "\n".join(log)
    assert said(log, "No log at") == 0, "\n".join(log)
    assert said(log, "could not be copied to the logs Volume (Modal did not answer within 20 s)") == 1, "\n".join(log)
    assert "could not be copied to the logs Volume" in several.airflow.programs["scheduler"].tail(200)
