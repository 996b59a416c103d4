"""Every way in which work is lost: the right end, and a reason wherever a user may look for it."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modal
import pytest
from airflow.utils.state import TaskInstanceState
from modal_proto import api_pb2

from modalflow import control_plane
from modalflow.cost.usage import OUT_OF_MEMORY
from modalflow.emulator.local import LocalModal
from modalflow.executor import workloads
from modalflow.executor.lifecycle.call import Call
from modalflow.executor.modal_api.modal_api import ModalApi
from modalflow.executor.submission import submission_queue
from modalflow.names import LOGS_MOUNT, Names
from modalflow.operations.costs import read_usage
from modalflow.operations.site import Site
from modalflow.protocol.messages import PROTOCOL, Entry, Submission
from modalflow.reasons import Cause
from modalflow.worker.deploy.deployment import deploy
from tests.driving import Driver
from tests.sdk import rpc
from tests.support import kill_host_of_containers
from tests.wired import Observer

NAMES = Names("lost-work")


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModal]:
    with LocalModal(gpus={"T4": 1}) as running, pytest.MonkeyPatch.context() as environment:
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
        deploy(NAMES, bundles={})
        yield running


@pytest.fixture
def driver(local: LocalModal) -> Iterator[Driver]:
    driver = Driver.started()
    yield driver
    driver.executor.end()
    local.faults.clear()


def call_of(driver: Driver, key: Any) -> Call:
    """What the engine knows of a key."""
    assert driver.executor._engine is not None
    call = driver.executor._engine.wiring.calls.of_key(key)
    assert call is not None
    return call


def container_of(driver: Driver, key: Any) -> str:
    """Where a key runs, once a look has found that it does."""
    driver.stored_id(key)
    return driver.until(lambda: call_of(driver, key).container_id)


def test_container_killed(driver: Driver, local: LocalModal) -> None:
    """It ran once; the reason names the container and the function call, and says what to do."""
    key = driver.submit("killed", "echo started once; sleep 300")
    container = container_of(driver, key)
    driver.log_has(key, "started once")
    local.faults.now("kill", container=container)
    fc = driver.stored_id(key).partition("/")[0]
    driver.told(key, f"Container {container} was lost while this ran as function call {fc}", "`retries`")
    assert driver.log(key).count("started once") == 1


def test_host_of_all_containers_gone(driver: Driver, local: LocalModal) -> None:
    """What ran there is lost, once, with the reason. What waited for its GPU runs on the next host."""
    lost = [driver.submit(f"gone-{n}", "echo started once; sleep 300", gpu=gpu) for n, gpu in enumerate((None, "T4"))]
    for key in lost:
        driver.log_has(key, "started once")
    waits = driver.submit("waits", "echo ran on the next host", gpu="T4")
    driver.stored_id(waits)
    kill_host_of_containers(local.pid)
    for key in lost:
        driver.told(key, "was lost while this ran as function call", "`retries`")
        assert driver.log(key).count("started once") == 1
    assert driver.outcome(waits)[0] is TaskInstanceState.SUCCESS
    driver.log_has(waits, "ran on the next host")


def test_silent_host_gone(driver: Driver, local: LocalModal) -> None:
    """Its containers are cut off, and later given up: until then nothing is reported, then their loss."""
    key = driver.submit("silent", "echo started once; sleep 300")
    container = container_of(driver, key)
    driver.log_has(key, "started once")
    local.faults.now("freeze", "300s", container=container)
    silent_since = time.monotonic()
    driver.until(lambda: time.monotonic() > silent_since + 2.0)
    assert call_of(driver, key).container_id == container
    local.faults.now("kill", container=container)
    driver.told(key, f"Container {container} was lost while this ran")
    assert driver.log(key).count("started once") == 1


def test_container_killed_where_commands_may_be_run_again(local: LocalModal, monkeypatch: pytest.MonkeyPatch) -> None:
    """With lost_command_policy = retry, a raw command whose container was lost is run again, and its log says why."""
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__LOST_COMMAND_POLICY", "retry")
    driver = Driver.started()
    try:
        mark = f"{LOGS_MOUNT}/run-again"
        key = driver.submit("again", f"[ -e {mark} ] && exit 0; touch {mark}; echo begun; sleep 300")
        driver.log_has(key, "begun")
        local.faults.now("kill", container=container_of(driver, key))
        state, info = driver.outcome(key)
        assert state is TaskInstanceState.SUCCESS, info
        driver.log_has(key, "It runs again because of [modal_executor] lost_command_policy")
    finally:
        driver.executor.end()


def test_container_preempted(driver: Driver, local: LocalModal) -> None:
    """Modal asks a container to end: the reason says so, and what ran did end."""
    key = driver.submit("preempted", "echo started; sleep 300")
    container = container_of(driver, key)
    driver.log_has(key, "started")
    local.faults.now("preempt", container=container)
    driver.told(key, f"Modal stopped container {container}", "it was preempted", "`retries`")


def test_out_of_memory(driver: Driver) -> None:
    """The reason has both figures, and names the option that gives more. With growth, the next try has enough: by
    another scheduler, which knows the end from the ledger, and its log says from what to what."""
    eat = f"{sys.executable} -c 'import time; x = bytearray(900 << 20); time.sleep(%d)'"
    grows: dict[str, Any] = {"memory": (128, 512), "memory_growth": 4, "memory_limit": "1.5GiB"}
    key = driver.submit("memory", eat % 300, **grows)
    driver.told(key, "ran out of memory", "the limit is 512 MiB", '{"modal": {"memory": 4096}}')
    other = Driver.started()
    try:
        again = other.submit(key._replace(try_number=2), eat % 2, **grows)
        state, info = other.outcome(again)
        assert state is TaskInstanceState.SUCCESS, info
        log = other.log_has(again, "This try may use 1.5 GiB of memory instead of 512 MiB")
        assert "384 to 1536 MiB" in log
    finally:
        other.executor.end()
    # What the killed container could not record.
    site = Site(driver.executor.settings, driver.executor._control_plane())
    records = read_usage(site, datetime.now(UTC) - timedelta(hours=1)).records
    (dead,) = [record for record in records if record.outcome == OUT_OF_MEMORY]
    assert (dead.run_id, dead.try_number, dead.limit_mib) == (key.run_id, 1, 512)


def test_crash_loop_is_submitted_again(driver: Driver, local: LocalModal) -> None:
    """Containers that crash before they take the work cost no retry of the task's: it is submitted again."""
    local.faults.add("container:crash-start,count=4")
    key = driver.submit("crashes", ["true"], timeout=61)
    state, info = driver.outcome(key)
    assert state is TaskInstanceState.SUCCESS, info


def test_crash_loop_without_end(driver: Driver, local: LocalModal) -> None:
    """After submit_attempts function calls it fails, with how the containers ended."""
    local.faults.add("container:crash-start")
    key = driver.submit("loops", ["true"], timeout=62)
    driver.told(key, "Not started on Modal in 3 submissions: no container could be started", "exited with code 1")


def test_function_timeout(driver: Driver) -> None:
    """The timeout that Modal keeps is told from a cancellation, with its length and the option that raises it. With
    growth, the next try has more time."""
    key = driver.submit("timeout", ["sleep", "300"], timeout=2)
    driver.told(key, "at the timeout of its Function", "2 s", '{"modal": {"timeout": 7200}}')
    again = driver.submit(key._replace(try_number=2), ["sleep", "3"], timeout=2, timeout_growth=10)
    assert driver.outcome(again)[0] is TaskInstanceState.SUCCESS
    driver.log_has(again, "This try may take 20 s instead of 2 s, at which Modal ended an earlier try")


def test_task_timeout(local: LocalModal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor's own timeout names its setting, and the command does end."""
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__TASK_TIMEOUT", "1.5")
    driver = Driver.started()
    try:
        key = driver.submit("slow", "trap 'echo told to end; exit' TERM; sleep 300 & wait")
        driver.told(key, "longer than [modal_executor] task_timeout", "task_timeout = 1.5 s")
        driver.log_has(key, "told to end")
    finally:
        driver.executor.end()


def test_impossible_resources(driver: Driver) -> None:
    """What no machine can give is said with its name, and not tried for ever."""
    key = driver.submit("impossible", ["true"], gpu="H100")
    driver.told(key, "Not started on Modal", "H100")


BROKEN = """
import modal
if not modal.is_local():
    raise ImportError("libpq.so.5: cannot open shared object file")

def run(submission):
    return {}
"""


def test_worker_that_cannot_be_imported(driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image in which the worker cannot start: the error of its import is in the reason."""
    (tmp_path / "broken_worker.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    app = modal.App("broken", include_source=False)
    image = modal.Image.debian_slim().add_local_python_source("broken_worker")
    app.function(name="run-default", image=image)(importlib.import_module("broken_worker").run)
    app.deploy(client=driver.scope["client"])
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__APP_NAME", "broken")
    broken = Driver.started()
    try:
        broken.told(broken.submit("import", ["true"]), "Not started on Modal", "libpq.so.5", "`modalflow deploy`")
    finally:
        broken.executor.end()


def test_app_stopped_in_flight(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ran fails as the app's end, what waited as not deployed, both with the command that mends it. What comes
    while it is away waits for another deployment, and then runs."""
    names = Names("stopped")
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__APP_NAME", names.app)
    deploy(names, bundles={})
    stopped = Driver.started()
    try:
        running = stopped.submit("running", "echo started; sleep 300")
        stopped.log_has(running, "started")
        client = stopped.scope["client"]
        app = modal.App.lookup(names.app, client=client)
        rpc(client, "AppStop", api_pb2.AppStopRequest(app_id=app.app_id or "", source=api_pb2.APP_STOP_SOURCE_CLI))
        stopped.told(running, "stopped", "`modalflow deploy`")
        waits = stopped.submit("waits", ["true"])
        deploy(names, bundles={})
        assert stopped.outcome(waits)[0] is TaskInstanceState.SUCCESS
        app = modal.App.lookup(names.app, client=client)
        rpc(client, "AppStop", api_pb2.AppStopRequest(app_id=app.app_id or "", source=api_pb2.APP_STOP_SOURCE_CLI))
        monkeypatch.setattr(submission_queue, "DEPLOYMENT", 1.0)
        stopped.told(stopped.submit("late", ["true"]), "Not started on Modal", "`modalflow deploy")
    finally:
        stopped.executor.end()


def test_app_redeployed_in_flight(driver: Driver) -> None:
    """A deployment over the running one ends nothing: what runs and what waits go on, and new work runs on the new."""
    running = driver.submit("running", "echo started; sleep 4; echo ended in order")
    driver.log_has(running, "started")
    deploy(NAMES, bundles={})
    after = driver.submit("after", ["true"])
    assert driver.outcome(after)[0] is TaskInstanceState.SUCCESS
    state, info = driver.outcome(running)
    assert state is TaskInstanceState.SUCCESS, info
    assert "ended in order" in driver.log(running)


def test_function_call_that_modal_does_not_know(driver: Driver) -> None:
    """Before its claim work is submitted again, and the first call, which there was after all, is followed where it is
    the one that began; after its claim it fails."""
    blocker = driver.submit("blocker", "sleep 2", gpu="T4")
    container_of(driver, blocker)
    waiting = driver.submit("waiting", ["true"], gpu="T4", timeout=63)
    driver.stored_id(waiting)
    call_of(driver, waiting).function_call_id = "fc-unknown"
    assert driver.outcome(waiting)[0] is TaskInstanceState.SUCCESS
    running = driver.submit("running", "sleep 300")
    container_of(driver, running)
    work_id = call_of(driver, running).work_id
    claimed = Entry.from_json(driver.ledger.get(work_id))
    driver.ledger.put(work_id, dataclasses.replace(claimed, function_call_id="fc-unknown").to_json())
    call_of(driver, running).function_call_id = "fc-unknown"
    driver.told(running, "function call fc-unknown")


def test_result_that_has_expired(driver: Driver, local: LocalModal) -> None:
    """Whoever adopts work of last week, of which the ledger has nothing any more, is told by Modal that its result is
    gone: no failure to ask, and the reason."""
    key = driver.submit("expired", ["true"])
    stored = driver.stored_id(key)
    driver.outcome(key)
    driver.until(lambda: driver.ledger.get(stored.rpartition("/")[2]) is None)
    local.faults.add("clock:skew=8d")
    api = ModalApi(driver.executor._control_plane(), NAMES, Observer())
    status = asyncio.run(api.call_status(stored.partition("/")[0]))
    assert (status.ended, status.cause) == (True, Cause.OUTPUT_EXPIRED)
    ti: Any = SimpleNamespace(key=key, external_executor_id=stored)
    assert driver.executor.try_adopt_task_instances([ti]) == []
    driver.told(key, f"Modal no longer has the result of function call {stored.partition('/')[0]}", "seven days")


def test_worker_of_another_protocol_in_flight(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker deployed by another modalflow while the scheduler runs: the reason names both and the command."""
    newer = PROTOCOL + 1
    monkeypatch.setattr(
        workloads, "Submission", lambda **values: dataclasses.replace(Submission(**values), protocol=newer)
    )
    driver.told(driver.submit("newer", ["true"]), f"protocol {newer}", f"protocol {PROTOCOL}", "`modalflow deploy`")


def test_neighbouring_version_of_the_same_protocol(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that only the other side knows are passed over."""

    class Newer(Submission):
        def to_wire(self) -> dict[str, Any]:
            return super().to_wire() | {"invented_later": {"some": "thing"}}

    monkeypatch.setattr(workloads, "Submission", Newer)
    assert driver.run("neighbour", ["true"])[1][0] is TaskInstanceState.SUCCESS
