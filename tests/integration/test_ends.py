"""What waits, what is taken back, and what goes on when credentials or the way to Modal are mended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modal
import pytest
from airflow.utils.state import TaskInstanceState

from modalflow import control_plane
from modalflow.airflow_logging import ModalVolumeLogIO
from modalflow.demo.programs.ports import free_port
from modalflow.emulator.local import LocalModal
from modalflow.executor.modal_executor import FAILED_EVENT, WAITING_EVENT
from modalflow.executor.workloads import log_path_of_key
from modalflow.names import Names
from modalflow.worker.deploy.deployment import deploy
from tests.driving import Driver, new_key
from tests.support import wait_until

NAMES = Names("ends")
SETTINGS = {
    "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:8080/execution/",
    "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
    "AIRFLOW__MODAL_EXECUTOR__APP_NAME": NAMES.app,
    "AIRFLOW__MODAL_EXECUTOR__SWEEP_INTERVAL": "0.3",
    "AIRFLOW__MODAL_EXECUTOR__CONNECT_TIMEOUT": "1",
}


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModal]:
    with LocalModal(as_default=False, gpus={"T4": 1}) as running, pytest.MonkeyPatch.context() as environment:
        for name, value in (running.env | SETTINGS).items():
            environment.setenv(name, value)
        environment.setattr(control_plane, "_known", {})
        deploy(NAMES, bundles={})
        yield running


@pytest.fixture
def driver(local: LocalModal) -> Iterator[Driver]:
    driver = Driver.started()
    yield driver
    driver.executor.end()
    local.faults.clear()


def inputs(local: LocalModal) -> list[str]:
    """What Modal's containers work on: what costs money."""
    return [item for container in local.faults.containers() for item in container.inputs]


def test_a_wait_is_explained_and_ends_with_its_revocation(driver: Driver, local: LocalModal) -> None:
    """Log and event log say since when, as which function call, and what Modal says; nothing is left on Modal after
    Airflow took the task back."""
    blocker = driver.submit("blocker", "echo has it; sleep 300", gpu="T4")
    driver.log_has(blocker, "has it")
    key = driver.submit("waits", ["true"], gpu="T4", timeout=64)
    fc = driver.stored_id(key).partition("/")[0]
    log = driver.log_has(key, "Waiting for")
    # Not before: a note from the time when the first one waited may still be on its way.
    waited = driver.event_texts(blocker, WAITING_EVENT)
    for part in (f"submitted as function call {fc}", "Modal has 1 inputs waiting", "Function run-default, gpu='T4'"):
        assert part in log
    driver.until(lambda: driver.event_texts(key, WAITING_EVENT))
    assert driver.event_texts(key, FAILED_EVENT) == []
    assert driver.event_texts(blocker, WAITING_EVENT) == waited, "nothing is said of what runs"
    driver.log_has(key, "[scheduler] task_queued_timeout")
    assert driver.log(key).count("Waiting for") == 2, "it is said ever more rarely"

    for task in (key, blocker):
        driver.executor.revoke_task(ti=SimpleNamespace(key=task))  # type: ignore[arg-type]
        driver.log_has(task, "Airflow revoked this workload")
    call = modal.FunctionCall.from_id(fc, client=driver.scope["client"])
    driver.until(lambda: call.get_call_graph()[0].status.name == "TERMINATED")
    driver.until(lambda: not inputs(local))
    assert {state for state, _ in driver.events[key]} == {TaskInstanceState.RUNNING}


def test_a_cancellation_that_modal_does_not_take_is_asked_for_again(driver: Driver, local: LocalModal) -> None:
    """An outage at the moment of the revocation leaves nothing running."""
    key = driver.submit("insisted", "echo started; sleep 300")
    driver.log_has(key, "started")
    local.faults.add("FunctionCallCancel:internal,count=6,for=clients")
    driver.executor.revoke_task(ti=SimpleNamespace(key=key))  # type: ignore[arg-type]
    driver.until(lambda: not inputs(local))


def test_refused_credentials_hold_nothing_up_once_they_are_taken(driver: Driver, local: LocalModal) -> None:
    """What runs meanwhile is delivered, and what waits is submitted, when the same credentials are good again."""
    running = driver.submit("running", "echo started; sleep 1")
    driver.log_has(running, "started")
    local.faults.add("*:unauthenticated,for=clients")
    waiting = driver.submit("waiting", ["true"])
    driver.until(lambda: driver.event_texts(waiting, WAITING_EVENT))
    assert (
        "AuthError" in driver.event_texts(waiting, WAITING_EVENT)[0]
        or "refused the credentials" in (driver.event_texts(waiting, WAITING_EVENT)[0])
    )
    local.faults.clear()
    assert driver.outcome(running)[0] is TaskInstanceState.SUCCESS
    assert driver.outcome(waiting)[0] is TaskInstanceState.SUCCESS
    driver.log_has(waiting, "Not submitted to Modal yet")


def test_an_executor_of_its_own_waits_for_what_runs(local: LocalModal) -> None:
    """Where no scheduler could adopt, end() returns when everything has ended, and its events are there."""
    driver = Driver.started()
    driver.executor.job_id = None
    key = driver.submit("waited-for", "sleep 1; exit 3")
    driver.executor.end()
    driver.events.update({key: [event] for key, event in driver.executor.get_event_buffer().items()})
    assert driver.events[key][-1][0] is TaskInstanceState.FAILED
    assert "exit code 3" in driver.events[key][-1][1]


def test_the_dump_names_each_call(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGUSR2 tells an operator what is in flight: state, since when, function call, container, partition."""
    running = driver.submit("running", "echo started; sleep 300")
    driver.log_has(running, "started")
    fc = driver.stored_id(running).partition("/")[0]
    driver.until(lambda: driver.executor._engine and "running in container ta-" in driver.executor._engine.describe())
    driver.executor.debug_dump()
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "driven.running" in line and "accepted" in line)
    for part in ("running in container ta-", f"function call {fc}", "partition executor-", "1 submissions"):
        assert part in line
    driver.executor.revoke_task(ti=SimpleNamespace(key=running))  # type: ignore[arg-type]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name, value in (SETTINGS | {"HOME": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(control_plane, "_known", {})
    return monkeypatch


def rejected(driver: Driver) -> Any:
    """A task whose executor_config is wrong, handed over as a scheduler does; its key."""
    key = new_key("rejected")
    wrong = {"modal": {"gpus": "T4"}}
    ti = SimpleNamespace(key=key, executor_config=wrong, queue="default", external_executor_id=None)
    driver.executor._process_workloads([SimpleNamespace(ti=ti, log_path=log_path_of_key(key))])
    return key


def test_modal_comes_back_and_the_token_is_another_one(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A scheduler that starts while Modal is away, and lives through a rotation of its token, needs no restart: work
    waits with the reason told, and goes on; so do logs that an API server reads, and what was said meanwhile."""
    port, state = free_port(), tmp_path / "state"
    with LocalModal(as_default=False, port=port, state_dir=state) as first:
        for name, value in first.env.items():
            settings.setenv(name, value)
        deploy(NAMES, bundles={})
    control_plane._known.clear()
    driver = Driver.started()
    try:
        key, bad = driver.submit("early", ["true"]), rejected(driver)
        driver.until(lambda: driver.event_texts(key, WAITING_EVENT))
        assert "has not answered yet" in driver.event_texts(key, WAITING_EVENT)[0]
        with LocalModal(as_default=False, port=port, state_dir=state):
            assert driver.outcome(key)[0] is TaskInstanceState.SUCCESS
            driver.told(bad, "'gpus'", "did you mean 'gpu'")
            reader = ModalVolumeLogIO()
            assert reader.read(log_path_of_key(key), None)[1]
        with LocalModal(as_default=False, port=port, state_dir=state, token_id="ak-new", token_secret="as-new"):
            late = driver.submit("late", ["true"])
            driver.until(lambda: driver.event_texts(late, WAITING_EVENT))
            settings.setenv("AIRFLOW_CONN_MODAL_DEFAULT", "modal://ak-new:as-new@")
            assert driver.outcome(late)[0] is TaskInstanceState.SUCCESS
            driver.log_has(late, "refused the credentials")
            assert wait_until(lambda: reader.read(log_path_of_key(late), None)[1], 20.0)
    finally:
        driver.executor.end()
