"""The process of a task that is there before the task."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import NoReturn

import pytest

from modalflow.worker.run.prepared_task import PreparedTask


def report(variables: Mapping[str, str], files: Sequence[int]) -> NoReturn:
    """Write to the first file what this process has got."""
    facts = {"pid": os.getpid(), "variable": variables["GIVEN"], "second": os.read(files[1], 10).decode()}
    os.write(files[0], json.dumps(facts).encode())
    os._exit(0)


def test_it_runs_the_task_with_the_present_variables_and_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its parent when the task begins, and not when it was forked; however large they are."""
    other, inherited = socket.socketpair()
    task = PreparedTask.fork(report, [inherited])
    monkeypatch.setenv("GIVEN", "x" * 3_000_000)
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    os.write(write, b"second")
    pid = task.begin([theirs.fileno(), read])
    theirs.close()
    facts = json.loads(ours.makefile("rb").read())
    assert facts == {"pid": pid, "variable": "x" * 3_000_000, "second": "second"}
    assert os.waitpid(task.pid, 0)[1] == 0
    for end in (ours, other, inherited):
        end.close()
    os.close(read)
    os.close(write)


def test_without_a_task_it_ends(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is run, and nothing is left."""
    task = PreparedTask.fork(report, [])
    task.dismiss()
    assert os.waitpid(task.pid, 0)[1] == 0
    assert capfd.readouterr().err == ""


def test_one_that_has_ended_takes_no_task() -> None:
    """The supervisor then forks as usual."""
    task = PreparedTask.fork(report, [])
    os.kill(task.pid, signal.SIGKILL)
    os.waitid(os.P_PID, task.pid, os.WEXITED | os.WNOWAIT)
    assert task.begin([0]) is None
    os.waitpid(task.pid, 0)
