"""The processes of a container: seen in /proc of this machine or, in gVisor, by a process beside them in the sandbox.

Process ids are those of the place from which they are seen. Functions that run in the sandbox belong into modules with
few imports: a new process costs most there.
"""

from __future__ import annotations

import json
import os
import posix
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from modalflow.emulator.options import RUNSC_VARIABLE
from modalflow.support import linux
from tests.support import command_of, descendants, in_gvisor

P = ParamSpec("P")
T = TypeVar("T")

_ROOT = Path(__file__).parents[1]

#: Where the sandbox of a container keeps its state, in the container's own mounts.
_STATE = "/dev/.runsc/state"

#: Seconds for one command of runsc on a busy machine: a sandbox that hangs must not hang its test.
_PATIENCE = 120.0

_SCRIPT = """
import importlib, json, sys
name, attribute, arguments = sys.argv[1:]
print(json.dumps(getattr(importlib.import_module(name), attribute)(*json.loads(arguments))))
"""


def asked(container: str, function: Callable[P, T], *arguments: P.args, **none: P.kwargs) -> T:
    """Return the answer of a function that runs where a container's processes are seen.

    Arguments and answer are plain JSON types. LookupError if the container has ended.
    """
    if not in_gvisor():
        return function(*arguments, **none)
    # Without this capability, open files of other processes cannot be read.
    command = ["exec", "--cap=CAP_SYS_PTRACE", f"--cwd={_ROOT}", container, sys.executable, "-c", _SCRIPT]
    done = _runsc(container, *command, function.__module__, function.__name__, json.dumps(arguments))
    if done.returncode:
        raise LookupError(f"container {container}: {done.stderr}")
    answer: T = json.loads(done.stdout)
    return answer


def debugged(container: str, *options: str) -> str:
    """Return what ``runsc debug`` writes about the sandbox of a container; LookupError if it has ended."""
    done = _runsc(container, "debug", *options, container)
    return done.stdout + done.stderr


def _runsc(container: str, *command: str) -> subprocess.CompletedProcess[str]:
    # The state names sockets and processes by what they are in the room.
    enter = ["nsenter", f"--target={_room_of(container)}", "--mount", "--pid"]
    runsc = [os.environ[RUNSC_VARIABLE], f"--root={_STATE}"]
    return subprocess.run([*enter, *runsc, *command], capture_output=True, text=True, check=False, timeout=_PATIENCE)


def _room_of(container: str) -> int:
    for pid, command in descendants().items():
        if " --bundle=" in command and command.endswith(f" {container}"):
            return pid
    raise LookupError(f"container {container} has no sandbox")


def processes_in(container: str, command: str) -> list[int]:
    """Return what runs in a container and has ``command`` in its command line; empty if the container has ended."""
    try:
        return asked(container, _started_in, container, command)
    except LookupError:
        return []


def zygotes_in(container: str) -> list[int]:
    """Return those that have imported Airflow, without their forks that have no other title yet."""
    return asked(container, zygotes_of, container)


def send_to(container: str, pid: int, number: int) -> None:
    """Send a signal to a process of a container."""
    asked(container, posix.kill, pid, number)


def parent_of(pid: int) -> int:
    """Return the parent of a process that is seen from here."""
    process = linux.read(pid)
    assert process is not None
    return process.parent


def _started_in(container: str, command: str) -> list[int]:
    found = []
    for pid in linux.with_variable("MODAL_TASK_ID", container):
        line = command_of(pid)
        if pid != os.getpid() and line is not None and command in line:
            found.append(pid)
    return found


def zygotes_of(container: str) -> list[int]:
    """Return the zygotes that are seen from here and were started in a container."""
    found = _started_in(container, "--airflow")
    return [pid for pid in found if parent_of(pid) not in found]
