"""Paused profiles with a real executor, a deployed worker and containers: what waits, what goes on, what is shown."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from subprocess import CompletedProcess
from typing import Any

import modal
import pytest

from modalflow import control_plane
from modalflow.emulator.local import LocalModal
from modalflow.executor.modal_executor import WAITING_EVENT
from modalflow.names import Names
from modalflow.operations.doctor import modal_side
from modalflow.operations.doctor.findings import Status
from modalflow.operations.profiles import pausing
from modalflow.operations.site import open_site, read_settings
from modalflow.protocol import profile_holds
from modalflow.protocol.profile_holds import HOLDS, HOLDS_LOCK
from modalflow.worker.deploy.deployment import deploy
from modalflow.worker.deploy.profile import Profile
from modalflow.worker.deploy.worker import Worker
from tests.command_line import CommandLine
from tests.driving import Driver

NAMES = Names("paused")
SETTINGS = {
    "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:8080/execution/",
    "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
    "AIRFLOW__MODAL_EXECUTOR__APP_NAME": NAMES.app,
    "AIRFLOW__MODAL_EXECUTOR__SWEEP_INTERVAL": "0.5",
    "AIRFLOW__MODAL_EXECUTOR__STATUS_INTERVAL": "0.3",
}


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModal]:
    with LocalModal(as_default=False) as running, pytest.MonkeyPatch.context() as environment:
        for name, value in (running.env | SETTINGS).items():
            environment.setenv(name, value)
        environment.setattr(control_plane, "_known", {})
        environment.setattr(profile_holds, "INTERVAL", 0.3)
        profiles = [Profile("default"), Profile("gpu", max_containers=1, concurrency=1)]
        deploy(NAMES, bundles={}, worker=Worker(profiles=profiles))
        yield running


@pytest.fixture
def driver(local: LocalModal) -> Iterator[Driver]:
    driver = Driver.started()
    yield driver
    executors: Any = modal.Dict.from_name(NAMES.executors, **driver.scope)
    executors.pop(HOLDS, None)
    driver.executor.terminate()


def held(driver: Driver) -> int:
    engine = driver.executor._engine
    assert engine is not None
    return engine.held


def run(command: CommandLine, *arguments: str) -> CompletedProcess[str]:
    done = command.run("profile", *arguments, environ=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextmanager
def endless() -> Iterator[tuple[list[str], Callable[[], None]]]:
    """Yield a command that runs until the test ends it, and the function for that."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = f"exec 3<>/dev/tcp/127.0.0.1/{server.getsockname()[1]}; echo up; cat <&3"
        yield ["bash", "-c", script], lambda: server.accept()[0].close()


def test_a_pause_of_a_profile(driver: Driver, modalflow_cli: CommandLine) -> None:
    """The running task ends as usual. The one in Modal's queue comes back, and new ones wait, all with the reason
    wherever users see why a task waits. Other profiles go on. A restarted scheduler knows of it. After the resumption,
    all of them run."""
    with endless() as (command, end):
        runs = driver.submit("runs", command, queue="gpu")
        driver.log_has(runs, "up")
        queued = driver.submit("queued", ["true"], queue="gpu")
        driver.stored_id(queued)
        paused = json.loads(run(modalflow_cli, "pause", "gpu", "--reason", "new drivers", "--json").stdout)
        assert (paused["profile"], paused["state"], paused["reason"]) == ("gpu", "paused", "new drivers")
        late = driver.submit("late", ["true"], queue="gpu")
        driver.until(lambda: held(driver) == 2)
        assert driver.outcome(driver.submit("other", ["true"]))[0] == "success"
        end()
        assert driver.outcome(runs)[0] == "success", "what runs goes on"
    words = f"profile gpu is paused by {paused['by']} since "
    log = driver.log_has(queued, f"Not begun, and taken off Modal's queue: {words}")
    assert "(new drivers), resume it with `modalflow profile resume gpu`." in log
    driver.log_has(late, "Not submitted to Modal yet, after ")
    driver.until(lambda: any(words in text for text in driver.event_texts(late, WAITING_EVENT)))
    driver.until(lambda: "2 tasks held by the pause of profile gpu" in status(modalflow_cli))
    page = status(modalflow_cli)
    assert page.count(words) == 3 and "held by budgets" not in page
    again = Driver.started()
    try:
        later = again.submit("later", ["true"], queue="gpu")
        again.log_has(later, words)
    finally:
        again.executor.terminate()
    resumed = run(modalflow_cli, "resume", "gpu").stdout
    assert f"Profile gpu is resumed (it was paused by {paused['by']} since " in resumed
    assert [driver.outcome(key)[0] for key in (queued, late)] == ["success", "success"]


def status(command: CommandLine) -> str:
    done = command.run("status", environ=dict(os.environ))
    return done.stdout


def test_a_drain_waits_for_what_runs(driver: Driver, modalflow_cli: CommandLine) -> None:
    """It shows what is left, and ends with the last task. Its own list then has the profile as drained."""
    with endless() as (command, end):
        runs = driver.submit("runs", command, queue="gpu")
        driver.log_has(runs, "up")
        waits = driver.submit("waits", ["true"], queue="gpu")
        driver.stored_id(waits)
        drain = [sys.executable, "-m", "modalflow.cli", "profile", "drain", "gpu"]
        with subprocess.Popen(drain, stdout=subprocess.PIPE, text=True) as draining:
            lines: list[str] = []
            assert draining.stdout is not None
            reader = threading.Thread(target=lines.extend, args=(draining.stdout,))
            reader.start()
            driver.until(lambda: any("1 running" in line for line in lines))
            driver.until(lambda: held(driver) == 1)
            end()
            driver.until(lambda: not reader.is_alive())
    assert draining.returncode == 0
    assert "Nothing runs in profile gpu any more. Waiting tasks: 1." in "".join(lines)
    assert driver.outcome(runs)[0] == "success"
    rows = {row["profile"]: row for row in json.loads(run(modalflow_cli, "list", "--json").stdout)["profiles"]}
    assert (rows["gpu"]["state"], rows["gpu"]["running"], rows["gpu"]["waiting"]) == ("drained", 0, 1)
    assert rows["default"]["state"] == "active"
    listed = run(modalflow_cli, "list").stdout.splitlines()[1:]
    # The other lines go on with a reason.
    assert [line.split()[:2] for line in listed if not line.startswith(" ")] == [
        ["default", "active"],
        ["gpu", "drained"],
    ]
    run(modalflow_cli, "resume", "gpu")
    assert driver.outcome(waits)[0] == "success"


def test_commands_at_the_same_time(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them loses the change of another one, and the token of a killed command stops no one for long. The doctor
    names each paused profile."""
    monkeypatch.setattr(pausing, "STALE", 0.5)
    site = open_site(read_settings())
    executors: Any = modal.Dict.from_name(NAMES.executors, **driver.scope)
    executors.put(HOLDS_LOCK, "of a killed command")
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            list(threads.map(lambda name: pausing.pause(site, name, "ann"), ("default", "gpu")))
            assert pausing.read_holds(site).by_profile.keys() == {"default", "gpu"}
            list(threads.map(lambda name: pausing.resume(site, name), ("default", "gpu")))
            assert not pausing.read_holds(site).by_profile
    assert not executors.contains(HOLDS_LOCK)
    pausing.pause(site, "gpu", "ann", "new drivers")
    findings, _, _ = modal_side.worker(site)
    [found] = [each for each in findings if each.name == "profile gpu"]
    assert found.status is Status.WARN and found.detail.startswith("paused by ann since ")
    assert found.advice == "Resume it: `modalflow profile resume gpu`."


def test_a_record_of_pauses_that_no_one_can_read(driver: Driver, modalflow_cli: CommandLine) -> None:
    """It costs no task, and the next command writes it again. Unknown profiles are refused, with the known ones."""
    executors: Any = modal.Dict.from_name(NAMES.executors, **driver.scope)
    executors.put(HOLDS, {"gpu": "?"})
    assert driver.outcome(driver.submit("runs", ["true"], queue="gpu"))[0] == "success"
    assert "The record of paused profiles is malformed" in run(modalflow_cli, "list").stdout
    unknown = modalflow_cli.run("profile", "pause", "gqu", environ=dict(os.environ))
    assert unknown.returncode == 1 and "deployed profiles: default, gpu" in unknown.stderr
    for action in ("pause", "resume", "list"):
        name = [] if action == "list" else ["gpu"]
        elsewhere = modalflow_cli.run("profile", action, *name, "--app", "typo", environ=dict(os.environ))
        assert elsewhere.returncode == 1 and "The worker app 'typo' is not deployed" in elsewhere.stderr
    assert "typo" not in str(modal.Dict.objects.list(client=driver.executor._control_plane().client))
    assert "Profile gpu was not paused." in run(modalflow_cli, "resume", "gpu").stdout
    assert "malformed" not in run(modalflow_cli, "list").stdout
    run(modalflow_cli, "pause", "gpu")
    assert "is already paused by" in run(modalflow_cli, "pause", "gpu").stdout
