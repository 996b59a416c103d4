"""Helpers that any test may use: waiting for something, looking for what a test left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 10.0, what: str = "", interval: float = 0.02) -> T:
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
    found: dict[int, str] = {}
    pending = [os.getpid() if pid is None else pid]
    while pending:
        for child in _children(pending.pop()):
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
                if status in "ZX":
                    continue
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[child] = command.strip()
                pending.append(child)
    return found


def is_running(pid: int) -> bool:
    """Whether that process exists and has not ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def _children(pid: int) -> list[int]:
    found: list[int] = []
    # A process, or a thread of it, may end while it is looked at.
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found
