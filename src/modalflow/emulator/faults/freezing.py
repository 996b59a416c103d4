"""Making processes stand still, and letting them go on.

Owns the signals. It is given the first process of a container, and takes all that descend from it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def freeze(root: int) -> list[int]:
    """Stop the process and all below it; return them. A stopped one starts no more, so this comes to an end."""
    stopped: list[int] = []
    while new := [pid for pid in family(root) if pid not in stopped]:
        for pid in new:
            stopped.append(pid)
            _send(pid, signal.SIGSTOP)
    return stopped


def thaw(pids: list[int]) -> None:
    """Let stopped processes go on; those that ended meanwhile are left alone."""
    for pid in reversed(pids):
        _send(pid, signal.SIGCONT)


def family(root: int) -> list[int]:
    """The process and all that descend from it, parents first."""
    found = [root]
    for pid in found:
        with contextlib.suppress(OSError, ValueError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
