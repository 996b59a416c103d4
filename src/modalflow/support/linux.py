"""Linux processes: descendants, the final end of a family, and reaping.

The one reader of the process table in ``/proc`` and the one user of prctl(2). A leaf on the standard library: the guard
imports it without site-packages. Everything here is safe between ``fork`` and ``exec``, with one thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

#: A family may fork while it is being killed; after this many rounds the rest is left to its reaper.
_KILL_ROUNDS = 10

#: Seconds between two checks of an ending child.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02

#: Processes of one family whose use is added up.
_MOST_IN_USE = 64

#: Up to so many processes, the whole table is cheaper to read than the children of one: a container has a few.
FEW = 48

#: Limit of a process's variables and arguments in bytes, for any stack limit: Linux's _STK_LIM, 3/4 of it.
_MOST_FOR_EXEC = 6 << 20
#: Bytes reserved for arguments.
_FOR_ARGUMENTS = 64 << 10


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    group: int
    session: int
    is_zombie: bool
    """It has ended, and its parent has not collected it."""
    started: int
    """Clock ticks from the start of the machine to the start of the process; 0 if the kernel does not report it."""


class Use(NamedTuple):
    """The resources of a family of processes at one moment."""

    cpu_seconds: float
    """Of its processes and of the ended ones that they waited for, from their start on."""
    peak_mib: float
    """The largest memory of one of its processes."""


class Ended(NamedTuple):
    """An ended and reaped child."""

    pid: int
    code: int
    """Its exit code, or the negative number of the signal."""
    usage: resource.struct_rusage
    """Its use of resources, including its reaped children."""


def most_for_variables() -> int:
    """Return the limit of all variables of a new process here, in bytes."""
    most = os.sysconf("SC_ARG_MAX")
    return (min(most, _MOST_FOR_EXEC) if most > 0 else _MOST_FOR_EXEC) - _FOR_ARGUMENTS


def return_freed_memory() -> None:
    """Return freed memory of this process to the system.

    The C library keeps freed blocks, so a process that had many large ones once would stay as large.
    """
    # Some C libraries have no such function.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


# --- ends of a process ---


def _prctl(option: int, value: int) -> None:
    # Its refusal is no error: a sandbox's kernel may lack it, and then orphans end with the container at the latest.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Let the kernel kill this process at the end of its starting thread. Check then whether it has ended already.

    A change of user clears it. ``number`` is the signal.
    """
    _prctl(_PR_SET_PDEATHSIG, number)


def die_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Get a signal at the end of ``parent``. It must be the caller's parent and have one thread."""
    die_with_parent(number)
    if os.getppid() != parent:
        # It was gone before the request was made, and then nothing will send the signal.
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of all orphaned descendants, so none leaves the family."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


# --- the process table ---


def read(pid: int | str) -> Process | None:
    """Return the line of one process, ``"self"`` for this one; None if there is none, or no ``/proc``."""
    found = _stat(pid)
    if found is None:
        return None
    number, fields = found
    state, parent, group, session = fields[:4]
    # A sandbox's kernel may have fewer fields.
    started = int(fields[19]) if len(fields) > 19 else 0
    return Process(number, int(parent), int(group), int(session), state in b"ZX", started)


def _stat(pid: int | str) -> tuple[int, list[bytes]] | None:
    """Return the PID of a process, and the fields of its line after the program's name."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return None
    # The second field is the program's name in parentheses, and may itself hold blanks and parentheses.
    number = int(stat.partition(b" ")[0])
    # gVisor still has a file for a process that was just reaped, with PID 0: as if it were the first process's parent.
    return (number, stat[stat.rindex(b")") + 2 :].split()) if number else None


def is_running(pid: int) -> bool:
    """Return whether a process exists and has not ended."""
    process = read(pid)
    return process is not None and not process.is_zombie


def table() -> dict[int, Process]:
    """Return every process of this PID namespace by its PID; empty if there is no ``/proc``."""
    found: dict[int, Process] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdecimal() and (process := read(name)) is not None:
                found[process.pid] = process
    return found


def children(pid: int) -> list[int]:
    """Return the children of this process, from all its threads.

    Cheaper than ``table``, but a child forked during the call may be missing.
    """
    found: list[int] = []
    # A process, or a thread of it, may end meanwhile.
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/task/{thread}/children") as listed:
                found += map(int, listed.read().split())
    return found


def family(pid: int, most: int = sys.maxsize) -> list[int]:
    """Return the process and all its descendants, parents first; no further ones if there are ``most`` of them."""
    found = [pid]
    for each in found:
        if len(found) >= most:
            break
        found += children(each)
    return found[:most]


def use_of_family(pid: int) -> Use | None:
    """Return the use of a process and its descendants now; None if there is none, or the kernel does not report it.

    Of a family with very many processes, only the eldest count.
    """
    ticks = pages = 0
    for fields in _stats_of_family(pid):
        # A sandbox's kernel may have fewer fields.
        if len(fields) > 21:
            ticks += sum(map(int, fields[11:15]))
            pages = max(pages, int(fields[21]))
    if not pages:
        return None
    return Use(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20))


def _stats_of_family(pid: int) -> list[list[bytes]]:
    pids: list[str] = []
    with contextlib.suppress(OSError):
        pids = [name for name in os.listdir("/proc") if name.isdecimal()]
    if len(pids) > FEW:
        return [found[1] for each in family(pid, _MOST_IN_USE) if (found := _stat(each)) is not None]
    # One file for each process. In gVisor, the files of all threads take three times as long.
    stats = dict(found for each in pids if (found := _stat(each)) is not None)
    members = [pid] if pid in stats else []
    for member in members:
        # Without those there already: the files were read one after another, and a PID may have two meanings in them.
        members += [each for each, fields in stats.items() if int(fields[1]) == member and each not in members]
    return [stats[each] for each in members]


def with_variable(name: str, value: str) -> list[int]:
    """Return the processes started with a variable of this value."""
    mark, found = f"{name}={value}".encode(), []
    for pid in table():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if mark in file.read().split(b"\0"):
                found.append(pid)
    return found


# --- the end of processes ---


def kill_family(roots: Iterable[int]) -> None:
    """Kill ``roots`` and all their descendants."""
    wanted = set(roots)
    _kill(lambda processes: wanted)


def kill_children_but(known: Container[int]) -> None:
    """Kill every child of this process outside ``known``, including adopted orphans, and its descendants."""
    us = os.getpid()
    _kill(lambda processes: {p.pid for p in processes.values() if p.parent == us and p.pid not in known})


def _kill(roots_among: Callable[[Mapping[int, Process]], set[int]]) -> None:
    for _ in range(_KILL_ROUNDS):
        processes = table()
        members = _members(roots_among(processes), processes) - {os.getpid()}
        # A group dies at once. A process with a new fork each millisecond is never seen alive, but its dead are.
        for group in {processes[pid].group for pid in members} - {os.getpgrp()}:
            send_to_group(group, signal.SIGKILL)
        alive = [pid for pid in members if not processes[pid].is_zombie]
        for pid in alive:
            send(pid, signal.SIGKILL)
        if not alive:
            return


def _members(roots: set[int], processes: Mapping[int, Process]) -> set[int]:
    """Return ``roots``, their descendants and the members of their sessions, including ended ones."""
    members = {pid for pid in roots if pid in processes}
    members |= {p.pid for p in processes.values() if p.session in roots}
    grown = True
    while grown:
        found = {p.pid for p in processes.values() if p.parent in members} - members
        members |= found
        grown = bool(found)
    return members


def send(pid: int, number: int) -> None:
    """Send a signal to a process. It may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def send_to_group(group: int, number: int) -> None:
    """Send a signal to a process group. It may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def reaped() -> Iterator[Ended]:
    """Reap the ended children, one by one, without waiting for others."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield Ended(pid, os.waitstatus_to_exitcode(status), usage)


def has_children() -> bool:
    """Return whether a process, living or ended, is this one's to collect."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def ends_within(child: int, seconds: float) -> bool:
    """Wait for the end of a child, and leave it for reaping. Return False if it has not ended in time."""
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
    """Return in words how a process ended: ``exit code 3`` or ``signal 9 (SIGKILL)``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"signal {-code} ({name})"
