"""The process between the demo and each program it starts: nothing it has started outlives it.

Runs as a separate program, with only the standard library and ``support.linux`` (``command_line``). Its standard input
is a pipe without a writer. If the pipe closes, the starter has ended in some way, so the program must end too. It must
not know the program.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from modalflow.support import linux

#: Imports modalflow from the given folder, after the standard library, without site-packages.
_PROGRAM = "import sys; sys.path.append(sys.argv.pop(1)); from modalflow.demo.programs.guard import main; main()"


def command_line(options: Sequence[str], command: Sequence[str]) -> list[str]:
    """Return the command for a program behind a guard."""
    sources = str(Path(__file__).parents[3])
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, sources, *options, "--", *command]


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
        linux.die_with_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(command[0], list(command))
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def reap(pid: int) -> int | None:
    """Reap ended processes. Return the exit code of ``pid`` if it is among them."""
    return {ended.pid: ended.code for ended in linux.reaped()}.get(pid)


def kill_all(group: int) -> None:
    """Kill the program's group and everything below this process, and collect it, until nothing is left."""
    # Once: the number may be another's as soon as the group is empty.
    linux.send_to_group(group, signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        linux.kill_children_but(())
        # A process with threads can be a zombie before it can be reaped. Otherwise it would go to another parent.
        reap(group)
        if not linux.has_children():
            return
        time.sleep(0.01)


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
    linux.adopt_orphans()

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
            linux.send(pid, stop_signal)
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
