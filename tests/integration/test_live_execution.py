"""The test plan's integration tests: raw commands through the executor, the deployed worker and a container.

Run by ``pytest --integration``: against the live service where credentials are in the environment (MODAL_TOKEN_ID and
MODAL_TOKEN_SECRET, or MODAL_TOKEN as ``id:secret``), else against the local control plane; the header says which.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import modal
import pytest
from airflow.utils.state import TaskInstanceState

from modalflow import control_plane
from modalflow.airflow_compat.configuration import modal_hook
from modalflow.emulator.local import LocalModal
from modalflow.names import Names
from modalflow.worker.deploy.deployment import deploy
from tests.driving import Driver
from tests.live import credentials

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def names() -> Iterator[Names]:
    """A temporary app, with its Dict, Modal Queue and Volume, removed at the end."""
    live = credentials()
    with contextlib.ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        variables = live or stack.enter_context(LocalModal()).env
        for name, value in variables.items():
            environment.setenv(name, value)
        environment.setenv(
            "AIRFLOW_CONN_MODAL_DEFAULT", f"modal://{variables['MODAL_TOKEN_ID']}:{variables['MODAL_TOKEN_SECRET']}@"
        )
        environment.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "https://airflow.invalid/execution/")
        environment.setenv("AIRFLOW__MODAL_EXECUTOR__EXECUTION_API", "direct")
        temporary = Names(f"modalflow-test-{uuid.uuid4().hex[:12]}")
        environment.setenv("AIRFLOW__MODAL_EXECUTOR__APP_NAME", temporary.app)
        stack.callback(_remove, temporary)
        deploy(temporary, bundles={})
        yield temporary


def _remove(names: Names) -> None:
    client: Any = control_plane.connect(conn_id="modal_default", hook=modal_hook).client
    # The SDK can stop an app from its command line only.
    subprocess.run([sys.executable, "-m", "modal", "app", "stop", "--yes", names.app], check=False, capture_output=True)
    modal.Dict.objects.delete(names.ledger, allow_missing=True, client=client)
    modal.Queue.objects.delete(names.events, allow_missing=True, client=client)
    modal.Volume.objects.delete(names.logs, allow_missing=True, client=client)


@pytest.fixture
def driver(names: Names) -> Iterator[Driver]:
    driver = Driver.started()
    yield driver
    driver.executor.end()


def printed(log: str) -> list[str]:
    """What the command wrote to its standard output."""
    lines = [json.loads(line) for line in log.splitlines()]
    return [line["event"] for line in lines if line["logger"] == "task.stdout"]


def test_hello_world(driver: Driver) -> None:
    """`echo "hello"` succeeds, and "hello" is in the log on the Volume."""
    key, (state, info) = driver.run("hello", ["echo", "hello"])
    assert state is TaskInstanceState.SUCCESS, info
    assert "hello" in printed(driver.log(key))


def test_environment_variables(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable given for the task reaches the command, and none of this machine's does."""
    monkeypatch.setenv("NOT_FOR_WORKERS", "secret of the scheduler's host")
    command = 'echo "value=$MY_ENV_VAR host=$NOT_FOR_WORKERS"'
    key, (state, info) = driver.run("env", command, env={"MY_ENV_VAR": "42"})
    assert state is TaskInstanceState.SUCCESS, info
    assert "value=42 host=" in printed(driver.log(key))


def test_failure_propagation(driver: Driver) -> None:
    """`exit 1` becomes a failure whose reason tells the exit code."""
    key, (state, info) = driver.run("failure", "echo going down; exit 1")
    assert state is TaskInstanceState.FAILED
    assert "exit code 1" in info
    assert "going down" in driver.log(key)


def test_entry_leaves_the_ledger_after_delivery(driver: Driver) -> None:
    """What was delivered does not stay in the Dict."""
    _, (_, info) = driver.run("cleanup", ["true"])
    work_id = info.partition("/")[2]
    assert work_id
    driver.until(lambda: not driver.ledger.contains(work_id))
