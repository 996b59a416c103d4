"""Freezing and thawing the processes of a container.

Owns the signals. A container is given by its first process; all descendants are included.
"""

from __future__ import annotations

import signal

from modalflow.support.linux import family, send


def freeze(root: int) -> list[int]:
    """Stop the process and its descendants; return them. Stopped processes start no others, so the loop ends."""
    stopped: list[int] = []
    while new := [pid for pid in family(root) if pid not in stopped]:
        for pid in new:
            stopped.append(pid)
            send(pid, signal.SIGSTOP)
    return stopped


def thaw(pids: list[int]) -> None:
    """Continue stopped processes; skip those that ended meanwhile."""
    for pid in reversed(pids):
        send(pid, signal.SIGCONT)
