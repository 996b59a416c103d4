"""Processes as Linux shows them: who descends from whom, and how to end a family for good.

Knows nothing of Airflow or Modal. Everything here is safe to call between ``fork`` and ``exec``, with one thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

#: A family may fork while it is being killed; after this many looks it is left to its reaper.
_KILL_ROUNDS = 10

#: Seconds between two looks at a child that is about to end.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    group: int
    session: int
    is_zombie: bool


#: Bytes for the variables and arguments of a process, whatever the stack limit is: Linux's _STK_LIM, 3/4 of it.
_MOST_FOR_EXEC = 6 << 20
#: Bytes of those that are left for arguments.
_FOR_ARGUMENTS = 64 << 10


def most_for_variables() -> int:
    """Return how many bytes the variables of a process that is started here can have together."""
    most = os.sysconf("SC_ARG_MAX")
    return (min(most, _MOST_FOR_EXEC) if most > 0 else _MOST_FOR_EXEC) - _FOR_ARGUMENTS


def _prctl(option: int, value: int) -> None:
    # Its refusal is no error: a sandbox's kernel may lack it, and then orphans end with the container at the latest.
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def die_with(parent: int) -> None:
    """Be killed when ``parent``, which must be the caller's parent and have one thread, ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It was gone before the request was made, and then nothing will send the signal.
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none leaves the family."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def table() -> dict[int, Process]:
    """Every process of this PID namespace, by PID."""
    found: dict[int, Process] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (process := _read(int(entry.name))) is not None:
            found[process.pid] = process
    return found


def _read(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the program's name in parentheses, and may itself hold blanks and parentheses.
    state, parent, group, session = stat[stat.rindex(b")") + 2 :].split()[:4]
    return Process(pid, int(parent), int(group), int(session), state == b"Z")


def _family(roots: Iterable[int], processes: Mapping[int, Process]) -> set[int]:
    """``roots``, their descendants and the members of the sessions they lead, also the dead that nobody has reaped."""
    members = {pid for pid in roots if pid in processes}
    members |= {p.pid for p in processes.values() if p.session in set(roots)}
    grown = True
    while grown:
        found = {p.pid for p in processes.values() if p.parent in members} - members
        members |= found
        grown = bool(found)
    return members


def kill_family(roots: Iterable[int]) -> None:
    """Kill ``roots`` and everything that descends from them."""
    wanted = set(roots)
    _kill(lambda processes: wanted)


def kill_children_but(known: Container[int]) -> None:
    """Kill every child of this process that is not ``known``, and what descends from it: whoever was adopted."""
    us = os.getpid()
    _kill(lambda processes: {p.pid for p in processes.values() if p.parent == us and p.pid not in known})


def _kill(roots_among: Callable[[Mapping[int, Process]], set[int]]) -> None:
    for _ in range(_KILL_ROUNDS):
        processes = table()
        members = _family(roots_among(processes), processes) - {os.getpid()}
        # A group dies at once. One that forks and ends each millisecond is never seen alive, but its dead are.
        for group in {processes[pid].group for pid in members} - {os.getpgrp()}:
            send_to_group(group, signal.SIGKILL)
        alive = [pid for pid in members if not processes[pid].is_zombie]
        for pid in alive:
            send(pid, signal.SIGKILL)
        if not alive:
            return


def send(pid: int, number: int) -> None:
    """Send a signal to a process, which may be gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def send_to_group(group: int, number: int) -> None:
    """Send a signal to a process group, which may be gone."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def ends_within(child: int, seconds: float) -> bool:
    """Wait for a child of this process to end, and leave it to be reaped; False if it has not ended in that time."""
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while not _has_ended(child):
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    return True


def _has_ended(child: int) -> bool:
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def describe_exit(code: int) -> str:
    """Tell a human how a process ended: ``exit code 3`` or ``signal 9 (SIGKILL)``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"signal {-code} ({name})"
