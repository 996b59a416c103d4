"""The executor with the deployed worker: nothing lost, nothing twice, and a reason for every bad end."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import modal
import pytest
from airflow.utils.state import TaskInstanceState

from modalflow import Profile, Worker, control_plane
from modalflow.emulator.local import LocalModal
from modalflow.errors import ModalflowError
from modalflow.executor.modal_api.modal_api import ModalApi
from modalflow.executor.modal_executor import ModalExecutor
from modalflow.names import DEPLOYMENT_FILE, LOGS_MOUNT, Names
from modalflow.worker.deploy.deployment import deploy
from tests.driving import Driver, new_key
from tests.forking import in_child
from tests.support import wait_until
from tests.wired import Observer

NAMES = Names("executor-tests")


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModal]:
    with LocalModal() as running, pytest.MonkeyPatch.context() as environment:
        variables = running.env | {
            "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:8080/execution/",
            "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
            "AIRFLOW__MODAL_EXECUTOR__APP_NAME": NAMES.app,
            "AIRFLOW__MODAL_EXECUTOR__SWEEP_INTERVAL": "0.3",
        }
        for name, value in variables.items():
            environment.setenv(name, value)
        environment.setattr(control_plane, "_known", {})
        # In few containers: each imports Airflow, which costs more than the commands.
        deploy(NAMES, bundles={}, worker=Worker([Profile(concurrency=16)]))
        yield running


@pytest.fixture
def driver(local: LocalModal) -> Iterator[Driver]:
    driver = Driver.started()
    yield driver
    driver.executor.end()


def task_instance(key: Any, stored_id: str | None) -> Any:
    """What the scheduler knows of a task instance whose scheduler died."""
    ti = MagicMock(spec=["key", "external_executor_id"])
    ti.key, ti.external_executor_id = key, stored_id
    return ti


def test_many_at_once_each_end_once(driver: Driver) -> None:
    """Thirty commands, more than run at once, end each exactly once and as they should."""
    keys = {driver.submit(f"many-{n}", f"exit {n % 3}"): n % 3 for n in range(30)}
    for key, code in keys.items():
        state, info = driver.outcome(key)
        assert state is (TaskInstanceState.FAILED if code else TaskInstanceState.SUCCESS), info
    assert all(len([e for e in driver.events[key] if e[0] is not TaskInstanceState.RUNNING]) == 1 for key in keys)


def test_options_reach_modal(driver: Driver) -> None:
    """Resources of the executor_config are bound to the Function, and the workload runs with them."""
    _, (state, info) = driver.run("resources", ["true"], memory=256, timeout=60)
    assert state is TaskInstanceState.SUCCESS, info


def test_a_forked_child_has_no_engine(driver: Driver) -> None:
    """It refuses work rather than keep it for a thread that is its parent's, and its end ends nothing."""

    def child() -> str:
        driver.executor.heartbeat()
        try:
            driver.submit("of-a-child", ["true"])
        except ModalflowError as error:
            return str(error)
        finally:
            driver.executor.end()
        return "submitted"

    assert "was not started in this process" in in_child(child)
    _, (state, info) = driver.run("of-the-parent", ["true"])
    assert state is TaskInstanceState.SUCCESS, info


def test_profile_that_is_not_deployed(driver: Driver) -> None:
    """The reason lists the profiles that are."""
    key, (state, info) = driver.run("profile", ["true"], profile="gpu")
    assert state is TaskInstanceState.FAILED
    assert "Profile 'gpu' is not deployed; deployed profiles: default" in info
    driver.log_has(key, "Profile 'gpu' is not deployed")


def test_an_unreadable_record_of_the_deployment_holds_up_nothing(driver: Driver) -> None:
    """Whatever a task wrote over it: what can run runs, the rest is turned away, and a start says what to do."""
    record = b"".join(driver.volume.read_file(DEPLOYMENT_FILE))
    _, (state, info) = driver.run("overwrites", f"printf '\\377\\376' > {LOGS_MOUNT}/{DEPLOYMENT_FILE}")
    assert state is TaskInstanceState.SUCCESS, info
    try:
        wait_until(lambda: b"".join(driver.volume.read_file(DEPLOYMENT_FILE)) == b"\xff\xfe", timeout=30)
        _, (state, info) = driver.run("profile", ["true"], profile="gpu")
        assert state is TaskInstanceState.FAILED
        assert "Profile 'gpu' is not deployed" in info
        assert driver.run("goes-on", ["true"])[1][0] is TaskInstanceState.SUCCESS
        second = ModalExecutor(parallelism=1)
        with pytest.raises(ModalflowError, match=r"is malformed: .*Write it again: `modalflow deploy`"):
            second.start()
        second.end()
    finally:
        with driver.volume.batch_upload(force=True) as batch:
            batch.put_file(io.BytesIO(record), f"/{DEPLOYMENT_FILE}")


def test_lost_container(driver: Driver, local: LocalModal) -> None:
    """A container killed with -9 fails what it ran, with the reason in the event and in the log, and runs it no second
    time."""
    key = driver.submit("lost", "echo started once; sleep 300")
    driver.log_has(key, "started once")
    local.faults.now("kill", function="run-default")
    state, info = driver.outcome(key)
    assert state is TaskInstanceState.FAILED
    assert "was lost while this ran" in info
    log = driver.log_has(key, "was lost while this ran")
    assert log.count("started once") == 1


def test_function_timeout(driver: Driver) -> None:
    """A function call that Modal stops at its timeout fails with a reason that says so."""
    _, (state, info) = driver.run("timeout", ["sleep", "300"], timeout=2)
    assert state is TaskInstanceState.FAILED
    assert "cancelled" in info.lower() or "timeout" in info.lower()


def test_running_work_is_adopted(local: LocalModal) -> None:
    """What runs when its scheduler dies is delivered by the next one, and is not run again."""
    dead = Driver.started()
    key = dead.submit("adopted", "echo ran; sleep 2; exit 3")
    stored = dead.stored_id(key)
    dead.log_has(key, "ran")
    dead.executor.end()
    heir = Driver.started()
    try:
        assert heir.executor.try_adopt_task_instances([task_instance(key, stored)]) == []
        state, info = heir.outcome(key)
        assert state is TaskInstanceState.FAILED
        assert "exit code 3" in info
        assert heir.log(key).count('"ran"') == 1
    finally:
        heir.executor.end()


def test_outcome_of_a_dead_scheduler_is_delivered(local: LocalModal) -> None:
    """What ended between two schedulers is delivered by the second from the ledger."""
    dead = Driver.started()
    key = dead.submit("meanwhile", "sleep 3; exit 0")
    stored = dead.stored_id(key)
    dead.executor._engine.stop()  # type: ignore[union-attr]  # as if killed: nothing more is delivered
    ledger = dead.ledger
    work_id = stored.partition("/")[2]
    wait_until(lambda: '"success"' in (ledger.get(work_id) or ""), timeout=30)
    heir = Driver.started()
    try:
        assert heir.executor.try_adopt_task_instances([task_instance(key, stored)]) == []
        assert heir.outcome(key)[0] is TaskInstanceState.SUCCESS
        heir.until(lambda: ledger.get(work_id) is None)
    finally:
        heir.executor.end()


def test_work_without_an_id_is_given_back(driver: Driver) -> None:
    """A task that was never given an id is Airflow's to queue again: nothing on Modal can be known by it."""
    never_given = task_instance(new_key("no-id"), None)
    assert driver.executor.try_adopt_task_instances([never_given]) == [never_given]


def test_revoked_task_ends_without_an_event(driver: Driver) -> None:
    """Airflow took it back: the function call ends, and no event is told that would fail the next try."""
    key = driver.submit("revoked", "echo started; sleep 300")
    driver.log_has(key, "started")
    call = modal.FunctionCall.from_id(driver.stored_id(key).partition("/")[0], client=driver.scope["client"])
    driver.executor.revoke_task(ti=SimpleNamespace(key=key))  # type: ignore[arg-type]
    assert key not in driver.executor.running

    def ended() -> bool:
        try:
            call.get(timeout=0)
        except TimeoutError:
            return False
        except Exception:  # noqa: BLE001  However it ended.
            return True
        return True

    driver.until(ended)
    driver.beat()
    assert {state for state, _ in driver.events[key]} == {TaskInstanceState.RUNNING}


def test_task_that_airflow_gave_up_is_cancelled(driver: Driver) -> None:
    """A task without a heartbeat is failed by the scheduler through change_state: its function call ends too."""
    key = driver.submit("given-up", "echo started; sleep 300")
    driver.log_has(key, "started")
    driver.executor.change_state(key, TaskInstanceState.FAILED)
    driver.log_has(key, "ancelled")
    driver.beat()
    assert [state for state, _ in driver.events[key]].count(TaskInstanceState.FAILED) == 1


def test_late_outcome_of_an_earlier_generation_is_dropped(driver: Driver) -> None:
    """Deferral reuses a key: the first run's outcome is never taken for the second's."""
    key = driver.submit("generations", "sleep 1; exit 1")
    driver.stored_id(key)
    driver.executor.execute_async(key, ["true"])
    state, info = driver.outcome(key)
    assert state is TaskInstanceState.SUCCESS, info
    driver.until(lambda: driver.executor._engine is not None and driver.executor._engine.in_flight == 0)
    assert [state for state, _ in driver.events[key]].count(TaskInstanceState.FAILED) == 0


def test_debug_dump_tells_of_calls(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    """SIGUSR2 shows an operator what is in flight."""
    key = driver.submit("dump", ["sleep", "300"])
    driver.stored_id(key)
    assert driver.executor._engine is not None
    description = driver.executor._engine.describe()
    assert "driven.dump" in description
    assert "function call fc-" in description
    driver.executor.revoke_task(ti=SimpleNamespace(key=key))  # type: ignore[arg-type]


class Hostile:
    """Runs a command in whoever unpickles it."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


def test_hostile_entry_fails_its_own_task_alone(driver: Driver, tmp_path: Path) -> None:
    """A task that overwrites its ledger entry with code fails with a reason; nothing of it runs in the scheduler."""
    key = driver.submit("hostile", "echo started; sleep 300")
    neighbour = driver.submit("neighbour", "sleep 1; exit 0")
    driver.log_has(key, "started")
    function_call_id, _, work_id = driver.stored_id(key).partition("/")
    driver.ledger.put(work_id, Hostile(tmp_path / "proof"))
    modal.FunctionCall.from_id(function_call_id, client=driver.scope["client"]).cancel(terminate_containers=True)
    state, info = driver.outcome(key)
    assert state is TaskInstanceState.FAILED
    assert info
    assert not list(tmp_path.iterdir())
    assert driver.outcome(neighbour)[1]


def test_poll_of_an_idle_executor_is_no_error(driver: Driver) -> None:
    """Nothing happened for as long as a poll lasts: the next one follows at once, and no log mentions it."""
    api = ModalApi(driver.executor._control_plane(), NAMES, Observer())
    assert asyncio.run(api.next_events("nobody's", 10, 0.2)) == []
