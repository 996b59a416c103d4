"""The search for a log on the logs Volume, and the wait for one."""

from __future__ import annotations

from typing import Any
from unittest.mock import create_autospec

import pytest

from modalflow.names import TRY_LOG
from modalflow.operations import task_logs
from modalflow.operations.site import Site
from modalflow.operations.targets import NothingMatchesError, Target
from modalflow.operations.task_logs import NoLogYetError, NoTraceError, Outcome, TaskLog, follow

TARGET = Target("acme", "load", "r7")


def test_names_of_another_form_are_no_tries() -> None:
    """A container can put any name there: digits that are no numbers, and numbers without an end, are left out."""
    endless = f"attempt={'9' * 200}.log"
    names = ["attempt=10.log", "attempt=2.log", "attempt=².log", endless, "attempt=1", "xattempt=1.log"]
    assert task_logs._numbers(TRY_LOG, names) == [2, 10]


def without_trace(monkeypatch: pytest.MonkeyPatch, *, goes_on: list[bool], log: TaskLog | None = None) -> None:
    """Let each search find nothing, with or without work of the run, and after them the log if there is one."""

    def find(site: Site, target: Target) -> TaskLog:
        if not goes_on and log is not None:
            return log
        raise NoTraceError("There is no log")

    def next_state(site: Any, target: Any) -> bool:
        return goes_on.pop(0) if goes_on else False

    monkeypatch.setattr(task_logs, "find", find)
    monkeypatch.setattr(task_logs, "_run_goes_on", next_state)


def test_following_a_task_waits_until_airflow_queues_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user types it right after the trigger. While the run has other work, no time limit counts."""
    log = create_autospec(TaskLog, instance=True)
    log.new_lines.return_value = ["line"]
    log.outcome.return_value = Outcome("ended: success")
    without_trace(monkeypatch, goes_on=[True, True, True], log=log)
    waiting, *lines = follow(create_autospec(Site, instance=True), TARGET, pause=0.01, patience=0.001)
    assert isinstance(waiting, NoLogYetError) and "waiting up to 0.001 s for Airflow to queue it" in str(waiting)
    assert lines == ["line", "line", Outcome("ended: success")]


def test_following_a_task_without_a_trace_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name may be wrong, and the error names the nearest one."""
    without_trace(monkeypatch, goes_on=[True, False])
    with pytest.raises(NothingMatchesError, match="There is no log"):
        list(follow(create_autospec(Site, instance=True), TARGET, pause=0.01, patience=0.02))
