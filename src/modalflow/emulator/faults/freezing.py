"""Freezing and thawing the processes of a container.

Owns the signals. A container is given by its first process; all descendants are included.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def freeze(root: int) -> list[int]:
    """Stop the process and its descendants; return them. Stopped processes start no others, so the loop ends."""
    stopped: list[int] = []
    while new := [pid for pid in family(root) if pid not in stopped]:
        for pid in new:
            stopped.append(pid)
            _send(pid, signal.SIGSTOP)
    return stopped


def thaw(pids: list[int]) -> None:
    """Continue stopped processes; skip those that ended meanwhile."""
    for pid in reversed(pids):
        _send(pid, signal.SIGCONT)


def family(root: int) -> list[int]:
    """Return the process and its descendants, parents first."""
    found = [root]
    for pid in found:
        with contextlib.suppress(OSError, ValueError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
