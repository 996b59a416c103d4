"""The process of a task that is there before the task."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from modalflow.airflow_compat import supervisor
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


class Locals(dict[str, Any]):
    """Local variables as a frame has them from Python 3.13 on."""

    def keys(self) -> Any:
        return list(self)


@pytest.mark.parametrize("use_exec", [False, True])
def test_the_start_of_a_task_is_recognized_by_every_python(*, use_exec: bool) -> None:
    """A supervisor that forks for its task gets the prepared process, whatever kind of mapping its variables are."""
    module = SimpleNamespace(_subprocess_main=object())
    values = dict.fromkeys(("child_requests", "child_stdout", "child_stderr", "child_logs"), None)
    values |= {"target": module._subprocess_main, "new_process_group": True, "use_exec": use_exec}
    for each in (values, Locals(values)):
        assert supervisor._starts_task(each, module) is not use_exec
