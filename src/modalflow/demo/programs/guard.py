"""The process between the demo and each program it starts: nothing it has started outlives it.

Runs as a separate script, with only the standard library (``python -I -S guard.py -- CMD …``). Its standard input is a
pipe without a writer. If the pipe closes, the starter has ended in some way, so the program must end too. It must not
know the program.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36


def prctl(option: int, value: int) -> None:
    """Set a process option where the kernel has it; elsewhere the process group has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """Return every live process below ``pid``, in any session; empty without /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        # The process may have ended since the listing; its name, between parentheses, may hold spaces.
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = entry.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.parent.name))
    found: list[int] = []
    pending = [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def start(command: Sequence[str], user: tuple[int, int] | None) -> int:
    """Fork the program into a process group of its own and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        if user is not None:
            os.setgroups([])
            os.setgid(user[1])
            os.setuid(user[0])
        # After the change of user, because that clears it.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(command[0], list(command))
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def reap(pid: int) -> int | None:
    """Reap ended processes. Return the exit code of ``pid`` if it is among them."""
    code = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if ended == 0:
            return code
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)


def kill_all(group: int) -> None:
    """Kill the program's group and everything below this process, and collect it, until nothing is left."""
    # Once: the number may be another's as soon as the group is empty.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # A process with threads can be a zombie before it can be reaped. Otherwise it would go to another parent.
        reap(group)
        if not has_children():
            return
        time.sleep(0.01)


def has_children() -> bool:
    """Return whether a process, live or dead, is a child of this one."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def guard(
    command: Sequence[str],
    *,
    stop_signal: int,
    grace: float,
    user: tuple[int, int] | None,
    pid_file: str,
    restarts: int,
) -> int:
    """Run the program until it ends, its starter ends, or a stop arrives. Return its exit code.

    A killed program is started again, at most ``restarts`` times. A failed one is not.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    stopping = False

    def on_stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_stop)
    signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
    prctl(PR_SET_CHILD_SUBREAPER, 1)

    def begin() -> int:
        child = start(command, user)
        if pid_file:
            # Renamed into place: a reader sees a whole number or none.
            incoming = Path(f"{pid_file}.incoming")
            incoming.write_text(f"{child}\n")
            incoming.replace(pid_file)
        return child

    pid = begin()
    deadline: float | None = None
    watched = [readable, 0]
    while True:
        code = reap(pid)
        if code is not None:
            kill_all(pid)
            if code >= 0 or stopping or restarts == 0:
                return code
            restarts -= 1
            pid = begin()
        if stopping and deadline is None:
            deadline = time.monotonic() + grace
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, stop_signal)
        if deadline is not None and time.monotonic() >= deadline:
            kill_all(pid)
            return -signal.SIGKILL
        ready, _, _ = select.select(
            watched, [], [], None if deadline is None else max(0.0, deadline - time.monotonic())
        )
        if readable in ready:
            os.read(readable, 4096)
        if 0 in ready and not os.read(0, 4096):
            watched = [readable]
            stopping = True


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Read the command line, run the program, end with its exit code (128 + n for signal n)."""
    parser = argparse.ArgumentParser(prog="guard")
    parser.add_argument("--stop-signal", default="TERM", help="signal for the program's end")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds it is given to do so")
    parser.add_argument("--user", default="", help="uid:gid to run it as")
    parser.add_argument("--pid-file", default="", help="where to write its pid")
    parser.add_argument("--restarts", type=int, default=0, help="restarts after a kill")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(argv)
    user: tuple[int, int] | None = None
    if options.user:
        uid, _, gid = str(options.user).partition(":")
        user = (int(uid), int(gid))
    code = guard(
        options.command,
        stop_signal=signal.Signals[f"SIG{options.stop_signal}"],
        grace=options.grace,
        user=user,
        pid_file=options.pid_file,
        restarts=options.restarts,
    )
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
