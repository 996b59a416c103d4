"""Helpers that any test may use: waiting for something, looking for what a test left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from modalflow.emulator.options import BASE_VARIABLE, ISOLATION_VARIABLE
from modalflow.support.linux import family
from modalflow.support.linux import is_running as is_running

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 10.0, what: str = "", interval: float = 0.05) -> T:
    """Return the condition's value once it is true; AssertionError with what was waited for if that takes longer."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {what or condition}; last value: {value!r}")
        time.sleep(interval)


@dataclass
class Clock:
    """A clock that stands still until it is told to go on."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def killed(folder: Path) -> Path:
    """Return a copy of a state folder as a kill at this moment would leave it, without the lock of who lives in it."""
    copy = Path(tempfile.mkdtemp(dir=folder.parent, prefix="killed-"))
    # What is being removed meanwhile cannot be copied, and nothing reads it.
    return shutil.copytree(folder, copy, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("trash"))


def descendants(pid: int | None = None) -> dict[int, str]:
    """Return the living processes below one (this one if not given): process id → command line."""
    below = family(os.getpid() if pid is None else pid)[1:]
    return {child: command for child in below if (command := command_of(child)) is not None}


def kill_host_of_containers(control_plane: int) -> None:
    """Kill the process that starts a control plane's containers, with all of them: their machine is gone."""
    # Containers are forks of it and have its command line. It is the first of them.
    host = next(pid for pid, command in descendants(control_plane).items() if "template.main()" in command)
    os.kill(host, signal.SIGKILL)


def in_gvisor() -> bool:
    """Return whether the control planes of the tests run containers in gVisor."""
    return os.environ.get(ISOLATION_VARIABLE) == "gvisor"


def over_base() -> bool:
    """Return whether the control planes of the tests build images over another root than this machine's."""
    return bool(os.environ.get(BASE_VARIABLE))


def shows(command: str, text: str) -> bool:
    """Return whether a command line of this machine has the text. Of processes in gVisor, only the sandbox is seen."""
    return text in command or (in_gvisor() and "runsc-sandbox" in command)


def command_of(pid: int) -> str | None:
    """Return a process's command line; None if it has ended."""
    with contextlib.suppress(OSError):
        if is_running(pid):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return None
