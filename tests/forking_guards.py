"""A process that imports Airflow once and forks guards with programs of it: run by ``forked_stack``, with a socket.

A request is its length in four bytes, with the open files for the guard's standard input, its output and its exit code,
and then JSON. The guard writes its pid, in four bytes, and its exit code to the latter. The process ends when the other
side of the socket is closed.
"""

from __future__ import annotations

import atexit

# First, or all forks hang with Airflow's option `[traces] otel_service`: see docs/upstream-notes.md.
import concurrent.futures.thread  # noqa: F401
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from modalflow.demo.programs import guard
from modalflow.support import linux

#: What the first programs of a stack need, and what the others need: those start while the rest is imported.
_STAGES: Final = (
    ("airflow.__main__", "airflow.cli.cli_parser", "airflow.utils.db", "modalflow.cli.deploy", "modal", "modal.cli"),
    (
        "airflow.jobs.scheduler_job_runner",
        "airflow.jobs.triggerer_job_runner",
        "airflow.dag_processing.manager",
        "modalflow.executor.modal_executor",
    ),
    ("airflow.api_fastapi.app", "airflow.api_fastapi.core_api.app"),
    ("airflow.api_fastapi.core_api.routes.public",),
    ("airflow.api_fastapi.core_api.routes.ui",),
    ("airflow.api_fastapi.execution_api.app", "airflow.api_fastapi.execution_api.routes", "uvicorn"),
)
#: What starts with the first stage done. The API server needs all of them, which is most of them; others need two.
_EARLY: Final = (["modalflow.cli", "deploy"], ["airflow", "db"])
_LATE: Final = (["airflow", "api-server"],)

_Request = tuple[dict[str, Any], list[int]]


def main() -> None:
    """Import, and fork, until the socket is closed."""
    # `python -m` puts the current folder first, not that of a script.
    sys.path[0] = str(Path.cwd())
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.disable()
    waiting: list[_Request] = []
    for done, stage in enumerate(_STAGES):
        for module in stage:
            # Older versions of Airflow lack some.
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
        while select.select([control], [], [], 0)[0]:
            if (request := _receive(control)) is None:
                return
            waiting.append(request)
        for request in [each for each in waiting if _stages(each) <= done + 1]:
            waiting.remove(request)
            _fork(control, *request)
    gc.freeze()
    for request in waiting:
        _fork(control, *request)
    while (next_one := _receive(control)) is not None:
        _fork(control, *next_one)


def _stages(request: _Request) -> int:
    """How many stages a program waits for."""
    program = request[0]["command"][2:4]
    return 1 if program in _EARLY else len(_STAGES) if program in _LATE else 2


def _receive(control: socket.socket) -> _Request | None:
    length, files, *_ = socket.recv_fds(control, 4, 3)
    if not length:
        return None
    return json.loads(control.recv(int.from_bytes(length), socket.MSG_WAITALL)), files


def _fork(control: socket.socket, request: dict[str, Any], files: list[int]) -> None:
    if os.fork() == 0:
        code = 1
        try:
            control.close()
            os.write(files[2], os.getpid().to_bytes(4))
            code = _guard(request, files)
        except BaseException:  # noqa: BLE001  It is written to the program's log.
            traceback.print_exc()
        os.write(files[2], str(code).encode())
        os._exit(0)
    for file in files:
        os.close(file)


def _guard(request: dict[str, Any], files: list[int]) -> int:
    """Do what the guard's own program does, with a fork in place of a new program; its exit code."""
    os.setsid()
    for number, file in enumerate((files[0], files[1], files[1])):
        os.dup2(file, number)
    for file in files[:2]:
        os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    guard.start = _start
    try:
        guard.main([*request["options"], "--", *request["command"]])
    except SystemExit as end:
        return int(str(end.code))


def _start(command: Sequence[str], user: tuple[int, int] | None) -> int:
    """Fork the program, as guard.start does with a new one."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        linux.die_with_parent()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.closerange(3, 256)
        gc.freeze()
        gc.enable()
        code = _run(command)
    except BaseException:  # noqa: BLE001  It is written to the program's log.
        traceback.print_exc()
    _end(code)


def _run(command: Sequence[str]) -> int:
    """Run ``python -m PROGRAM ARGUMENT…``; its exit code."""
    program, *arguments = command[2:]
    sys.argv = [program.partition(".")[0], *arguments]
    module = importlib.import_module(f"{program}.__main__")
    try:
        module.main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0


def _end(code: int) -> NoReturn:
    """End as an interpreter does."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
