"""Airflow's handler of task logs, as its API server has it."""

from __future__ import annotations

import errno
import logging.config
from pathlib import Path

import pytest

from modalflow.airflow_logging import LOGGING_CONFIG
from modalflow.names import TaskTry
from modalflow.task_log_handler import TaskLogHandler

LONG = TaskTry("d" * 250, "任务" * 45, "r" * 250)


def test_a_log_of_long_names_is_not_looked_for_on_this_disk(tmp_path: Path) -> None:
    """No file can have such a name: Airflow's own look for one is an error that its API answers with HTTP 500."""
    handler = TaskLogHandler(str(tmp_path))
    assert handler._read_from_local(tmp_path / LONG.log_path) == ([], [])


def test_what_is_there_is_read(tmp_path: Path) -> None:
    """As Airflow's own handler does."""
    log = tmp_path / TaskTry("d", "t", "r").log_path
    log.parent.mkdir(parents=True)
    log.write_text("a line\n")
    sources, streams = TaskLogHandler(str(tmp_path))._read_from_local(log)
    assert len(sources) == len(streams) == 1


def test_other_errors_are_airflows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails is no missing log."""

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("airflow.utils.log.file_task_handler.FileTaskHandler._read_from_local", fails)
    with pytest.raises(OSError, match="broken"):
        TaskLogHandler(str(tmp_path))._read_from_local(tmp_path / "x")


def test_the_configuration_has_it() -> None:
    """Every component that logs through modalflow reads task logs so."""
    configuration = logging.config.DictConfigurator(LOGGING_CONFIG)
    assert configuration.resolve(LOGGING_CONFIG["handlers"]["task"]["class"]) is TaskLogHandler
