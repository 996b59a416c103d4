"""Logs of what runs on the Airflow host itself: copied within a time, and found where they are."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from modal import exception

from modalflow import airflow_logging
from modalflow.airflow_logging import ModalVolumeLogIO
from modalflow.control_plane import ControlPlane
from modalflow.logs.log_volume import LogVolume
from modalflow.names import Names
from tests.airflows import use_executors

MODAL_EXECUTOR = "modalflow.executor.modal_executor.ModalExecutor"
PATH = "dag_id=d/run_id=r/task_id=t/attempt=1.log"
LINE = b'{"event": "hello"}\n'


class UserExecutor:
    """Stands for an executor that is neither Airflow's nor modalflow's."""


class Volume(LogVolume):
    """A logs Volume without any log, on which an upload does what a test says."""

    def __init__(self) -> None:
        super().__init__(ControlPlane(cast(Any, None), None), Names())
        self.gate = threading.Event()
        self.gate.set()
        self.error: BaseException | None = None
        self.added: list[tuple[str, str, bytes]] = []

    def _files(self, log_path: str) -> list[Any]:
        return []

    def add(self, log_path: str, name: str, content: bytes) -> None:
        self.gate.wait(30.0)
        if self.error:
            raise self.error
        self.added.append((log_path, name, content))


@pytest.fixture
def volume(monkeypatch: pytest.MonkeyPatch) -> Iterator[Volume]:
    volume = Volume()
    monkeypatch.setattr(airflow_logging, "_open", lambda team: volume)
    yield volume
    volume.gate.set()


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The log file of a task that ran on this host."""
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path))
    file = tmp_path / PATH
    file.parent.mkdir(parents=True)
    file.write_bytes(LINE)
    return file


@pytest.fixture
def executors(monkeypatch: pytest.MonkeyPatch) -> None:
    """LocalExecutor is the default one, ModalExecutor has an alias, and there is one that nobody knows."""
    use_executors(monkeypatch, f"LocalExecutor,modal:{MODAL_EXECUTOR},own:{__name__}.UserExecutor")


def ti(executor: str | None, state: str = "success", hostname: str = "host-7") -> Any:
    return SimpleNamespace(dag_id="d", executor=executor, state=state, hostname=hostname)


def test_a_log_of_this_host_is_copied(volume: Volume, local: Path) -> None:
    """Under the name of the host, and nothing is added to the file."""
    ModalVolumeLogIO().upload(PATH)
    assert volume.added == [(PATH, f"host-{socket.gethostname()}.log", LINE)]
    assert local.read_bytes() == LINE


def test_an_upload_holds_its_caller_no_longer_than_its_bound(
    volume: Volume, local: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where Modal does not answer, the file and this process's log say so; the next upload waits even less."""
    monkeypatch.setattr(airflow_logging, "UPLOAD_SECONDS", 0.3)
    monkeypatch.setattr(airflow_logging, "IMPATIENT_SECONDS", 0.05)
    volume.gate.clear()
    reader = ModalVolumeLogIO()
    took = []
    for _ in range(2):
        began = time.monotonic()
        reader.upload(PATH)
        took.append(time.monotonic() - began)
    assert 0.3 <= took[0] < 5.0
    assert took[1] < took[0]
    lines = [json.loads(line) for line in local.read_bytes().splitlines()]
    assert [line.get("level") for line in lines] == [None, "error", "error"]
    assert "Modal did not answer within 0.3 s" in lines[1]["event"]
    assert f"It is in {local} on {socket.gethostname()}" in lines[1]["event"]
    assert [record.levelno for record in caplog.records if record.name == "modalflow.airflow_logging"] == [
        logging.ERROR
    ] * 2


@pytest.mark.parametrize(
    "error",
    [exception.ConnectionError("no route"), OSError("disk"), ValueError("a fault of ours"), exception.AuthError("no")],
    ids=lambda error: type(error).__name__,
)
def test_an_upload_that_fails_raises_nothing(
    volume: Volume, local: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """An error would end a triggerer of Airflow 3.0, or fail a task that succeeded. The file says why it stays."""
    volume.error = error
    ModalVolumeLogIO().upload(PATH)
    assert f"({type(error).__name__}: {error})" in local.read_text()
    assert str(error) in caplog.text
    assert ("Traceback" in caplog.text) == isinstance(error, ValueError)


def test_what_modal_said_of_an_upload_is_one_line(
    volume: Volume, local: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot forge a line of the scheduler's log, nor do anything to a terminal."""
    volume.error = exception.ConnectionError("no route\n2026-01-01 INFO all is well\x1b[2J\x00\udce9")
    ModalVolumeLogIO().upload(PATH)
    assert "no route\\n2026-01-01 INFO all is well\\x1b[2J\\x00\\udce9" in caplog.text
    assert "\x1b" not in caplog.text


def test_the_file_cannot_be_written(volume: Volume, local: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A log that is gone by then costs nothing but another line."""
    volume.error = OSError("full")

    def add(*args: Any) -> None:
        local.unlink()
        local.parent.rmdir()
        raise OSError("full")

    volume.add = add  # type: ignore[method-assign, assignment]
    ModalVolumeLogIO().upload(PATH)
    assert "could not be added" in caplog.text


def test_a_reader_waits_no_longer_than_its_bound(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no connection comes about, the API server's request ends with that."""
    monkeypatch.setattr(airflow_logging, "READ_SECONDS", 0.1)
    monkeypatch.setattr(airflow_logging, "_open", lambda team: volume.gate.wait(30.0))
    volume.gate.clear()
    assert ModalVolumeLogIO().read(PATH, None) == (["Modal did not answer within 0.1 s"], None)


@pytest.mark.parametrize("executor", [None, "LocalExecutor", "own", "GoneExecutor"])
def test_a_log_of_another_executor_is_said_to_be_there(volume: Volume, executors: None, executor: str | None) -> None:
    """A task that did not run on Modal has no log to wait for on the Volume: the source names its executor and host."""
    name = executor or "LocalExecutor"
    reader = ModalVolumeLogIO()
    [source], parts = reader.read(PATH, ti(executor))
    assert parts is None
    assert source.startswith(f"{name} ran this task, not ModalExecutor, and its log is not on Volume modalflow-logs")
    assert PATH in source
    assert "host-7" in source
    [source], _ = reader.read(PATH, ti(executor, state="running"))
    assert source.startswith(f"{name} runs this task on host-7, not ModalExecutor: its log is there until")
    [source], _ = reader.read(PATH, ti(executor, state="queued", hostname=""))
    assert source == f"{name} runs this task, not ModalExecutor, and has not started it"


@pytest.mark.parametrize("executor", ["modal", MODAL_EXECUTOR])
@pytest.mark.parametrize("state", ["running", "success"])
def test_a_log_of_modal_executor_is_awaited(volume: Volume, executors: None, executor: str, state: str) -> None:
    """Whatever name its user has for it."""
    [source], _ = ModalVolumeLogIO().read(PATH, ti(executor, state))
    assert source == f"No log at {PATH} on Volume modalflow-logs yet"


def test_a_log_of_nobody_in_particular(volume: Volume, executors: None) -> None:
    """A callback's log has no task instance."""
    assert ModalVolumeLogIO().read(PATH, None) == ([f"No log at {PATH} on Volume modalflow-logs yet"], None)
