"""Making processes stand still, and letting them go on.

Owns the signals. It is given the first process of a container, and takes all that descend from it.
"""

from __future__ import annotations

import signal

from modalflow.support.linux import family, send


def freeze(root: int) -> list[int]:
    """Stop the process and all below it; return them. A stopped one starts no more, so this comes to an end."""
    stopped: list[int] = []
    while new := [pid for pid in family(root) if pid not in stopped]:
        for pid in new:
            stopped.append(pid)
            send(pid, signal.SIGSTOP)
    return stopped


def thaw(pids: list[int]) -> None:
    """Let stopped processes go on; those that ended meanwhile are left alone."""
    for pid in reversed(pids):
        send(pid, signal.SIGCONT)
