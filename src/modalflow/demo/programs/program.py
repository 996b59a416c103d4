"""A program of the stack: behind a guard, with a log file of its own.

Owns their start, watch and end. Others define the programs and their readiness.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

from modalflow.demo.programs import guard

#: Seconds for a normal end. After them, all remaining processes are killed: nothing of a demo needs saving.
GRACE: Final = 3.0


class StackError(RuntimeError):
    """A program of the stack ended, or was not ready in time. The message ends with its last log lines."""


def describe_exit(code: int) -> str:
    """Describe the end of a program behind a guard."""
    if code > 128:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(code - 128).name}"
    return f"exit code {code}"


class Guard(Protocol):
    """The handle of a guard's process, as that of ``subprocess.Popen``."""

    stdin: IO[bytes] | None

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class MakeProgram(Protocol):
    """Make a program of a stack, not started."""

    def __call__(self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> Program: ...


@dataclass
class Program:
    """One program of the stack: how to start it, and its log."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    cwd: Path
    stop_signal: str = "TERM"
    user: tuple[int, int] | None = None
    restarts: int = 0
    """How often it is started again when something killed it."""
    _seen: int | None = field(default=None, init=False, repr=False)
    _guard: Guard | None = field(default=None, init=False, repr=False)

    @property
    def pid_file(self) -> Path:
        """The guard writes the program's own pid here."""
        return self.log.with_suffix(".pid")

    @property
    def pid(self) -> int:
        """The pid of the program itself, not of its guard."""
        return int(self.pid_file.read_text())

    def start(self) -> None:
        """Start it, with its output in its log. Returns at once; call it from a thread with a longer life than the
        program."""
        self.pid_file.unlink(missing_ok=True)
        options = ["--stop-signal", self.stop_signal, "--grace", str(GRACE), "--pid-file", str(self.pid_file)]
        options += ["--restarts", str(self.restarts)]
        if self.user is not None:
            options += ["--user", f"{self.user[0]}:{self.user[1]}"]
        with self.log.open("ab") as log:
            self._guard = self.start_guard(options, log)

    def start_guard(self, options: Sequence[str], log: IO[bytes]) -> Guard:
        """Start the program behind a guard with these options, with its output in ``log``."""
        return subprocess.Popen(
            guard.command_line(options, self.command),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(self.env),
            cwd=self.cwd,
            # Ctrl-C in the terminal is for the demo. The demo then ends its programs in order.
            start_new_session=True,
        )

    def exit_code(self) -> int | None:
        """Return its exit code (128 + n for signal n); None while it runs or before its start."""
        return None if self._guard is None else self._guard.poll()

    def tail(self, lines: int = 25) -> str:
        """Return the last lines of its log."""
        try:
            text = self.log.read_text(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:]) or "(its log is empty)"

    def run(self, timeout: float) -> None:
        """Start it and wait until it ends well; StackError where it does not."""
        self.start()
        self.wait(timeout)

    def wait(self, timeout: float) -> None:
        """Wait until it ends well; StackError where it does not."""
        assert self._guard is not None
        try:
            code = self._guard.wait(timeout)
        except subprocess.TimeoutExpired:
            self.stop()
            raise StackError(f"{self.name} did not end in {timeout:.0f} s.\n{self.report()}") from None
        if code:
            raise StackError(f"{self.name} failed ({describe_exit(code)}).\n{self.report()}")

    def check(self) -> str | None:
        """Raise StackError if it has ended. Return a line if it was killed and has been started again since."""
        code = self.exit_code()
        if code is not None:
            raise StackError(f"{self.name} ended ({describe_exit(code)}).\n{self.report()}")
        with contextlib.suppress(OSError, ValueError):
            before, self._seen = self._seen, self.pid
            if before not in (None, self._seen):
                return f"{self.name} was killed; started again"
        return None

    def report(self) -> str:
        """Its log's place and tail, for an error message."""
        return f"--- {self.log}, last lines:\n{self.tail()}\n---"

    def ask_to_stop(self) -> None:
        """Ask it to end, without waiting."""
        if self._guard is not None and self._guard.poll() is None:
            self._guard.terminate()

    def stop(self) -> None:
        """End it and everything it started."""
        self.ask_to_stop()
        if self._guard is None:
            return
        try:
            self._guard.wait(GRACE + 6.0)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()


def stop_all(programs: Sequence[Program]) -> None:
    """End programs at once, in any order."""
    for program in programs:
        program.ask_to_stop()
    for program in programs:
        program.stop()
