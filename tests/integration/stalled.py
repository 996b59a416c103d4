"""What a control plane and its containers do while a test waits in vain, as text for the error of that test.

Collects whatever can still be read: a part that fails is in the text as its error.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from modalflow.emulator.faults.fault_control import FaultControl
from modalflow.support import linux
from tests.inside import asked, debugged
from tests.support import command_of, in_gvisor

#: The end of an app's log, in characters.
_LOG_TAIL = 6000

#: The beginning of a command line.
_LONGEST_COMMAND = 160

#: Seconds for the app's log.
_PATIENCE = 30.0

#: The functions of gVisor in which a program waits, in a stack.
_CALLS = "gvisor.dev/gvisor/pkg/sentry/syscalls/linux."

#: At most so many lines about one sandbox.
_MOST_LINES = 300


def report(app: str, faults: FaultControl, variables: Mapping[str, str]) -> str:
    """Return the containers of a control plane, their processes and stacks, and the log of an app."""
    parts = [f"processes of this machine:\n{_indented(_machine())}"]
    try:
        containers = faults.containers()
    except Exception as error:  # noqa: BLE001 (the other parts may still be readable)
        return "\n".join([*parts, f"containers: {error!r}"])
    for each in containers:
        parts.append(str(each))
        if in_gvisor():
            parts.append(_indented(_tried(partial(_processes, each.container_id))))
            parts.append(_indented(_tried(partial(_stacks, each.container_id))))
    parts.append(f"log of the app:\n{_indented(_tried(partial(_app_log, app, variables)))}")
    return "\n".join(parts)


def states() -> list[str]:
    """Return a line about each process that is seen from here."""
    return [_line(pid) for pid in sorted(linux.table()) if pid != os.getpid()]


def _machine() -> str:
    return "\n".join(map(_line, linux.family(os.getpid())[1:]))


def _line(pid: int) -> str:
    command = " ".join((command_of(pid) or "").split())
    return f"{pid} {_state(pid)} {command[:_LONGEST_COMMAND]}"


def _state(pid: int) -> str:
    """Return the parent of a process, and the state of each thread with the place in the kernel where it waits."""
    process = linux.read(pid)
    try:
        threads = [_thread(each) for each in sorted(Path(f"/proc/{pid}/task").iterdir())]
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError as error:
        return f"({error.strerror})"
    return f"below {process.parent if process else '?'} [{' '.join(threads)}] {files} files"


def _thread(folder: Path) -> str:
    state = (folder / "stat").read_text().rpartition(") ")[2][:1]
    try:
        return f"{state}:{(folder / 'wchan').read_text()}"
    except OSError:
        return state


def _processes(container: str) -> str:
    return "\n".join(asked(container, states))


def _stacks(container: str) -> str:
    """Return the system calls in which the programs of a sandbox are, from the stacks of gVisor itself."""
    found = []
    for goroutine in debugged(container, "--stacks").split("\n\n"):
        first, *lines = goroutine.splitlines() or [""]
        if any("(*Task).run" in line for line in lines):
            calls = [line.removeprefix(_CALLS).partition("(")[0] for line in lines if line.startswith(_CALLS)]
            found.append(f"{first} {' < '.join(calls) or 'runs'}")
    return "\n".join(found[:_MOST_LINES])


def _app_log(app: str, variables: Mapping[str, str]) -> str:
    command = [sys.executable, "-m", "modal", "app", "logs", app, "--since", "1h"]
    done = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    return (done.stdout + done.stderr)[-_LOG_TAIL:]


def _tried(part: Callable[[], str]) -> str:
    try:
        return part()
    except Exception as error:  # noqa: BLE001 (the reason is the answer)
        return repr(error)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
