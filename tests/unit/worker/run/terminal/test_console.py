"""A task's console over a real connection: the user's lines go in, and what they show comes out."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from modalflow.airflow_compat import replaced as rows
from modalflow.names import CONSOLE_VARIABLE, DEBUG_CONSOLE, SHELL_CONSOLE
from modalflow.operations.single_task import console
from modalflow.operations.single_task.console import Console
from modalflow.worker.run.terminal.console import attach_console


class AirflowSkipException(Exception):
    """As Airflow's: no error of the task."""


class Typed:
    """What a user types, and what the user sees."""

    def __init__(self, *lines: str) -> None:
        self._lines = iter(lines)
        self._shown: list[str] = []

    def read_line(self) -> str:
        return next(self._lines, "")

    def show(self, text: str) -> None:
        self._shown.append(text)

    @property
    def screen(self) -> str:
        return "".join(self._shown)


@contextlib.contextmanager
def attached(
    mode: str, typed: Typed, execute: Callable[[], Any], context: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Any]]:
    """Airflow's function that executes a task, with a console; ``execute`` is the task."""

    def _execute_task(context: object, ti: object, log: object) -> Any:
        return execute()

    monkeypatch.setattr(rows.EXECUTE_TASK.owner(), rows.EXECUTE_TASK.attribute, _execute_task)
    with Console(mode, typed.read_line, typed.show) as console:
        monkeypatch.setenv(CONSOLE_VARIABLE, console.variable)
        attach_console(console.variable)
        ti = SimpleNamespace(task=SimpleNamespace(execute=lambda context: context["params"]["n"] + 1, dag=None))
        yield lambda: rows.EXECUTE_TASK.original()(context=context, ti=ti, log=None)


def failing() -> None:
    rows = 41 + 1
    raise ValueError(f"no table, {rows} rows")


def test_a_debugger_reads_the_frame_of_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is shown, each line is answered, and the task fails with its own error."""
    typed = Typed("p rows\n", "p rows * 2\n", "q\n")
    with attached(DEBUG_CONSOLE, typed, failing, {}, monkeypatch) as run, pytest.raises(ValueError, match="42 rows"):
        run()
    assert "ValueError: no table, 42 rows" in typed.screen
    assert "(Pdb) 42" in typed.screen
    assert "(Pdb) 84" in typed.screen


def test_a_breakpoint_stops_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """`breakpoint()` opens the same terminal, and the task goes on from it."""

    def stopping() -> int:
        number = 5
        breakpoint()
        return number

    typed = Typed("number = 6\n", "c\n")
    with attached(DEBUG_CONSOLE, typed, stopping, {}, monkeypatch) as run:
        assert run() in (5, 6)
    assert "stopping" in typed.screen


def test_the_end_of_the_input_leaves_the_debugger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for a user who is gone."""
    with attached(DEBUG_CONSOLE, Typed(), failing, {}, monkeypatch) as run, pytest.raises(ValueError, match="42"):
        run()


def test_a_skipped_task_opens_no_debugger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exceptions by which tasks end normally are no errors."""

    def skipping() -> None:
        raise AirflowSkipException

    typed = Typed()
    with (
        attached(DEBUG_CONSOLE, typed, skipping, {}, monkeypatch) as run,
        pytest.raises(AirflowSkipException),
    ):
        run()
    assert typed.screen == ""


def test_a_shell_has_the_context_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in place of the task, which it can execute, and programs do not see the console's variable.

    Errors are on the screen, although Airflow has them logged in the process of a task.
    """
    logged: list[object] = []

    def log_error(*error: object) -> None:
        logged.append(error)

    monkeypatch.setattr(sys, "excepthook", log_error)
    typed = Typed("params['n']\n", "task.execute(context)\n", "print('hi')\n", "1 / 0\n", "sh('echo $((40 + 3))')\n")
    with attached(SHELL_CONSOLE, typed, failing, {"params": {"n": 6}}, monkeypatch) as run:
        assert run() is None
    for text in (">>> 6\n", ">>> 7\n", ">>> hi\n", "ZeroDivisionError", ">>> 43\n0\n"):
        assert text in typed.screen
    assert CONSOLE_VARIABLE not in os.environ
    assert logged == [] and sys.excepthook is log_error


def test_a_shell_left_with_a_code_fails_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """exit(1) is for users who need the outcome."""
    typed = Typed("exit(1)\n")
    with (
        attached(SHELL_CONSOLE, typed, failing, {}, monkeypatch) as run,
        pytest.raises(RuntimeError, match=r"exit\(1\)"),
    ):
        run()


def test_a_connection_without_the_token_gets_nothing() -> None:
    """Another process of the machine can neither type nor read."""
    typed = Typed("secret\n")
    with Console(SHELL_CONSOLE, typed.read_line, typed.show) as console:
        port = int(console.variable.split(" ")[1])
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"guess\nhello\n")
            stranger.settimeout(10)
            # Its end, also where the kernel reports the unread rest.
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(100) == b""
    assert (typed.screen, console.connections) == ("", 0)


def test_a_character_in_two_parts_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network cuts the output anywhere."""
    monkeypatch.setattr(console, "_CHUNK", 1)
    typed = Typed()
    with Console(SHELL_CONSOLE, typed.read_line, typed.show) as open_console:
        _, port, token = open_console.variable.split(" ")
        with socket.create_connection(("127.0.0.1", int(port))) as connection:
            connection.sendall(f"{token}\nzürich".encode())
    assert typed.screen == "zürich"
