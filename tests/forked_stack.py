"""Stacks whose Airflow is imported once: its processes, and ``modalflow deploy``, are forks of one that has done so.

Five processes of a stack would spend 20 s of processor time on imports, most of them the API server's. How they start
otherwise is tested by the page of the first GPU task, and by `make demo`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from modalflow.demo.modal_stack import ModalStack
from modalflow.demo.programs.program import Guard, Program
from tests.airflows import AIRFLOW
from tests.transport import SETTINGS

_PROGRAM = Path(__file__).parent / "forking_guards.py"
#: The first version of Airflow whose processes are forks. Those of 3.1 wait forever for its database.
_FORKING = (3, 3)
#: Seconds for a fork, the imports before it included, on a busy machine.
_PATIENCE = 120.0
#: What a process that has imported Airflow may have read for good,
_READ_AT_IMPORT = ("AIRFLOW", "MODAL", "PYTHON")
#: except these.
_READ_WHEN_USED = ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL")


@contextmanager
def forked_stack(dags: Path, **options: Any) -> Iterator[ModalStack]:
    """A ModalStack with these options, except ``make_program``."""
    options["env"] = {**SETTINGS, **(options.get("env") or {})}
    with Forks() as forks, ModalStack(dags, make_program=forks.make_program, **options) as stack:
        yield stack


class Forks:
    """The process with the imports, started by the first program, in its environment."""

    def __init__(self) -> None:
        self._env: Mapping[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._control.close()
            self._process.wait()

    def make_program(self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> Program:
        """A program that is a fork, unless its environment is another one when it starts."""
        if self._process is None and AIRFLOW >= _FORKING:
            self._start(env, cwd)
        return _ForkedProgram(name, command, env, log, cwd, forks=self)

    def can_start(self, env: Mapping[str, str]) -> bool:
        """Whether the imports would have been the same with these variables."""
        return self._process is not None and _read_at_import(env) == _read_at_import(self._env)

    def fork(
        self, options: Sequence[str], command: Sequence[str], env: Mapping[str, str], cwd: Path, log: IO[bytes]
    ) -> Guard:
        """Fork a guard and, below it, the program."""
        request = json.dumps({"options": options, "command": command, "env": dict(env), "cwd": str(cwd)}).encode()
        stdin_read, stdin_write = os.pipe()
        code_read, code_write = os.pipe()
        theirs = [stdin_read, log.fileno(), code_write]
        try:
            socket.send_fds(self._control, [len(request).to_bytes(4)], theirs)
            self._control.sendall(request)
        finally:
            os.close(stdin_read)
            os.close(code_write)
        return _ForkedGuard(os.fdopen(stdin_write, "wb"), code_read)

    def _start(self, env: Mapping[str, str], cwd: Path) -> None:
        self._env = env
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=dict(env),
                cwd=cwd,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )


class _ForkedProgram(Program):
    def __init__(self, *args: Any, forks: Forks) -> None:
        super().__init__(*args)
        self._forks = forks

    def start_guard(self, options: Sequence[str], log: IO[bytes]) -> Guard:
        if not self._forks.can_start(self.env):
            return super().start_guard(options, log)
        return self._forks.fork(options, self.command, self.env, self.cwd, log)


class _ForkedGuard:
    """As ``subprocess.Popen``, for a grandchild that writes its pid and then its exit code to a pipe."""

    def __init__(self, stdin: IO[bytes], written: int) -> None:
        self.stdin: IO[bytes] | None = stdin
        self._written = written
        self._pid = 0
        self._ended: int | None = None

    def poll(self) -> int | None:
        return self._wait(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("guard", timeout or 0.0)
        return code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if not self._pid and self._ended is None:
            self._read(_PATIENCE)
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def _wait(self, timeout: float | None) -> int | None:
        until = None if timeout is None else time.monotonic() + timeout
        while self._ended is None:
            if not self._read(None if until is None else max(0.0, until - time.monotonic())):
                break
        return self._ended

    def _read(self, timeout: float | None) -> bool:
        """Read what was written next; False if nothing is."""
        if not select.select([self._written], [], [], timeout)[0]:
            return False
        if not self._pid and (pid := os.read(self._written, 4)):
            self._pid = int.from_bytes(pid)
            return True
        code = os.read(self._written, 16)
        os.close(self._written)
        # Whoever was killed has written nothing.
        self._ended = int(code) if code else -signal.SIGKILL
        return True


def _read_at_import(env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in env.items() if name.startswith(_READ_AT_IMPORT) and name not in _READ_WHEN_USED
    }
