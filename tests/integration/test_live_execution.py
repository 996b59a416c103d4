"""The test plan's integration tests: raw commands through the executor, the deployed worker and a container.

Run by ``pytest --integration``: against the live service where credentials are in the environment (MODAL_TOKEN_ID and
MODAL_TOKEN_SECRET, or MODAL_TOKEN as ``id:secret``), else against the local control plane; the header says which.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import modal
import pytest
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState
from modal import exception

from modalflow.emulator.local import LocalModal
from modalflow.executor.modal_executor import ModalExecutor
from modalflow.executor.workloads import log_path_of_key
from modalflow.names import Names
from modalflow.worker.deploy import deploy
from tests.live import credentials

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

#: Seconds for one command, the start of a container on the live service included.
PATIENCE = 120.0


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
        temporary = Names(f"modalflow-test-{uuid.uuid4().hex[:12]}")
        environment.setenv("AIRFLOW__MODAL_EXECUTOR__APP_NAME", temporary.app)
        stack.callback(_remove, temporary)
        deploy(temporary, bundles={})
        yield temporary


def _remove(names: Names) -> None:
    with contextlib.suppress(exception.NotFoundError):
        app: Any = modal.App.lookup(names.app)
        app.stop() if hasattr(app, "stop") else None
    modal.Dict.objects.delete(names.ledger, allow_missing=True)
    modal.Queue.objects.delete(names.events, allow_missing=True)
    modal.Volume.objects.delete(names.logs, allow_missing=True)


@dataclass
class Session:
    """A started executor and what came of the commands given to it."""

    executor: ModalExecutor
    volume: Any

    def run(self, name: str, command: Any, **config: Any) -> tuple[TaskInstanceKey, tuple[Any, Any]]:
        """Run a command as a scheduler would; return its key and its (state, info)."""
        key = TaskInstanceKey("live", name, uuid.uuid4().hex, 1, -1)
        self.executor.execute_async(key, command, executor_config={"modal": config} if config else None)
        self._until(lambda: key not in self.executor.running)
        return key, self.executor.get_event_buffer()[key]

    def log(self, key: TaskInstanceKey) -> str:
        """The log on the Volume."""
        files = self.volume.listdir(log_path_of_key(key))
        return b"".join(chunk for file in files for chunk in self.volume.read_file(file.path)).decode()

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "no outcome in time"
            self.executor.heartbeat()
            time.sleep(0.05)  # a scheduler's idle pause


@pytest.fixture
def session(names: Names) -> Iterator[Session]:
    executor = ModalExecutor(parallelism=4)
    executor.start()
    try:
        yield Session(executor, modal.Volume.from_name(names.logs))
    finally:
        executor.end()


def test_hello_world(session: Session) -> None:
    """`echo "hello"` succeeds, and "hello" is in the log on the Volume."""
    key, (state, info) = session.run("hello", ["echo", "hello"])
    assert state is TaskInstanceState.SUCCESS, info
    assert "hello" in session.log(key).splitlines()


def test_environment_variables(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable given for the task reaches the command, and none of this machine's does."""
    monkeypatch.setenv("NOT_FOR_WORKERS", "secret of the scheduler's host")
    command = 'echo "value=$MY_ENV_VAR host=$NOT_FOR_WORKERS"'
    key, (state, info) = session.run("env", command, env={"MY_ENV_VAR": "42"})
    assert state is TaskInstanceState.SUCCESS, info
    assert "value=42 host=" in session.log(key).splitlines()


def test_failure_propagation(session: Session) -> None:
    """`exit 1` becomes a failure whose reason tells the exit code."""
    key, (state, info) = session.run("failure", "echo going down; exit 1")
    assert state is TaskInstanceState.FAILED
    assert "exit code 1" in info
    assert "going down" in session.log(key)


def test_ledger_is_empty_after_delivery(session: Session, names: Names) -> None:
    """What was delivered does not stay in the Dict."""
    session.run("cleanup", ["true"])
    ledger: Any = modal.Dict.from_name(names.ledger)
    session._until(lambda: ledger.len() == 0)
