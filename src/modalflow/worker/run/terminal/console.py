"""A task's debugger or shell on the terminal of `modalflow replay`, over a connection to this machine's loopback.

A container has no terminal. The task connects to the command, which passes on the user's lines. Must not import
Airflow.
"""

from __future__ import annotations

import code
import contextlib
import inspect
import os
import pdb
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from modalflow.airflow_compat import replaced as rows
from modalflow.names import CONSOLE_VARIABLE, SHELL_CONSOLE
from modalflow.support.replaced import replace

#: Exceptions by which a task ends its execution without an error. Their modules differ between versions of Airflow.
_NO_ERRORS = frozenset(
    {
        "AirflowRescheduleException",
        "AirflowSkipException",
        "DagRunTriggerException",
        "DownstreamTasksSkipped",
        "TaskAwaitingInput",
        "TaskDeferred",
    }
)

_SHELL_BANNER = """\
A Python shell in place of the task's execution, in its environment.
  context, ti, task, dag, params   as the task has them
  task.execute(context)            run it
  sh("ls -l")                      run a command of the system
The task succeeds when you leave with Ctrl-D or exit(), and fails with exit(1).
"""


class _LeftError(RuntimeError):
    """The user left the shell with an exit code other than 0."""


def attach_console(wanted: str) -> None:
    """Offer a console to the tasks of this process, and of its forks. ``wanted`` is the value of the variable."""
    mode, port, token = wanted.split(" ")
    original = rows.EXECUTE_TASK.original()
    signature = inspect.signature(original)

    def _execute_task(*args: Any, **kwargs: Any) -> Any:
        # No process that the task starts needs it.
        os.environ.pop(CONSOLE_VARIABLE, None)
        with contextlib.closing(_Terminal(int(port), token)) as terminal:
            if mode == SHELL_CONSOLE:
                given = signature.bind(*args, **kwargs).arguments
                _shell(terminal, given["context"], given["ti"])
                return None
            return _debugged(terminal, lambda: original(*args, **kwargs))

    replace(rows.EXECUTE_TASK, _execute_task)


class _Terminal:
    """The user's terminal. It is opened at its first use."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self._token = port, token
        self._connection: socket.socket | None = None

    def open(self) -> None:
        if self._connection is not None:
            return
        self._connection = socket.create_connection(("127.0.0.1", self._port))
        self._connection.sendall(f"{self._token}\n".encode())
        # One file for both directions would drop lines that came before it writes.
        self.input: TextIO = self._connection.makefile("r", encoding="utf-8", errors="replace", newline="\n")
        self.output: TextIO = self._connection.makefile("w", encoding="utf-8", errors="replace", newline="\n")

    def close(self) -> None:
        if self._connection is None:
            return
        for each in (self.input, self.output, self._connection):
            # The user may have left already.
            with contextlib.suppress(OSError):
                each.close()


def _debugged(terminal: _Terminal, execute: Callable[[], Any]) -> Any:
    def stop_here(*_: Any, **__: Any) -> None:
        _debugger(terminal).set_trace(sys._getframe(1))

    sys.breakpointhook = stop_here
    try:
        return execute()
    except BaseException as error:  # A task can also fail by SystemExit.
        if not any(each.__name__ in _NO_ERRORS for each in type(error).__mro__):
            _post_mortem(terminal, error)
        raise
    finally:
        sys.breakpointhook = sys.__breakpointhook__


def _post_mortem(terminal: _Terminal, error: BaseException) -> None:
    debugger = _debugger(terminal)
    terminal.output.write("".join(traceback.format_exception(error)))
    terminal.output.write("The task failed: a debugger at the error. Leave it with q: the try then fails as before.\n")
    debugger.reset()
    debugger.interaction(None, error.__traceback__)


def _debugger(terminal: _Terminal) -> pdb.Pdb:
    """Return Python's debugger, without a ``.pdbrc``: the container has another home."""
    terminal.open()
    return pdb.Pdb(stdin=terminal.input, stdout=terminal.output, nosigint=True, readrc=False)


def _shell(terminal: _Terminal, context: Any, ti: Any) -> None:
    """Run a shell until the user leaves it. Raises _LeftError for an exit code other than 0."""
    terminal.open()

    def sh(command: str) -> int:
        """Run a command of the system, show its output, and return its exit code."""
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, errors="replace", check=False)
        terminal.output.write(done.stdout + done.stderr)
        return done.returncode

    names = {
        "context": context,
        "ti": ti,
        "task": ti.task,
        "dag": getattr(ti.task, "dag", None),
        "params": context.get("params"),
        "sh": sh,
    }
    # Python's console passes errors to a hook of others if there is one: Airflow's writes them into the task's log.
    hook, sys.excepthook = sys.excepthook, sys.__excepthook__
    with contextlib.redirect_stdout(terminal.output), contextlib.redirect_stderr(terminal.output):
        try:
            _Shell(terminal, names).interact(_SHELL_BANNER, exitmsg="")
        except SystemExit as left:
            if left.code not in (None, 0):
                raise _LeftError(f"The shell was left with exit({left.code!r})") from None
        finally:
            sys.excepthook = hook


class _Shell(code.InteractiveConsole):
    """Python's interactive console on another terminal than the process's own."""

    def __init__(self, terminal: _Terminal, names: dict[str, Any]) -> None:
        super().__init__(names, filename="<replay>")
        self._terminal = terminal

    def raw_input(self, prompt: str = "") -> str:
        self.write(prompt)
        self._terminal.output.flush()
        line = self._terminal.input.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    def write(self, data: str) -> None:
        self._terminal.output.write(data)
