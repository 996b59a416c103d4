"""A raw command: starts it, writes what it prints into its log as structured lines, and ends as it ended.

Called in a process that the zygote has forked for it. That process stays beside the command, whose session it leads,
since somebody has to read what the command prints; it passes SIGTERM on to the command's process group. Must not import
Airflow.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from modalflow.protocol.messages import State
from modalflow.worker.logs.parts import PartWriter
from modalflow.worker.run.command_output import Clock, Printed
from modalflow.worker.run.streams import Streams
from modalflow.worker.zygote import processes
from modalflow.worker.zygote.protocol import Order, Outcome

#: What a shell reports for a command that is not there, and for one that cannot be executed.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126

#: Bytes of lines that are collected while more keeps coming.
_BATCH = 1 << 16


def run_command(order: Order) -> Outcome:
    """Run a command and end this process as it ended; return only if it could not be started."""
    command = order.command
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command or ())
    if not argv:
        return Outcome(State.FAILED, reason="The command is empty; expected a program and its arguments.")
    keeper = Keeper(PartWriter(Path(order.segment)))
    try:
        keeper.start(argv, dict(order.env))
    except OSError as error:
        code = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        return Outcome(State.FAILED, code, reason=f"{argv[0]!r} cannot be executed in the container: {error.strerror}")
    _end_like(keeper.keep())


class Keeper:
    """Stays beside a command until it has ended."""

    def __init__(self, log: PartWriter) -> None:
        clock = Clock()
        self._log = log
        self._pending = bytearray()
        # As Airflow calls the streams of a task, and their levels.
        self._printed = (Printed("task.stdout", "info", clock), Printed("task.stderr", "error", clock))
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._streams = Streams(self._wake_read.fileno())
        self._pid = 0
        self._is_to_end = False
        self._has_news = True

    def start(self, argv: list[str], env: dict[str, str]) -> None:
        """Start the command as the leader of a process group; OSError if that is impossible."""
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._look_for_ends)
        signal.signal(signal.SIGTERM, self._pass_on)
        keeper = os.getpid()
        started = subprocess.Popen(
            argv,
            env=env,
            stdout=self._streams.out,
            stderr=self._streams.err,
            process_group=0,
            preexec_fn=lambda: processes.die_with(keeper),
        )
        self._streams.close_writers()
        self._pid = started.pid
        started.returncode = 0  # It is waited for here, with all else that this process adopts.
        if self._is_to_end:
            processes.send_to_group(self._pid, signal.SIGTERM)

    def keep(self) -> int:
        """Write what the command prints until it has ended; return its wait status."""
        while (status := self._ended()) is None:
            self._write(self._streams.read(self._patience()))
        self._write(self._streams.read_rest())
        self._streams.close()
        for printed in self._printed:
            self._add(printed.close(time.time()))
        self._flush()
        self._log.close()
        return status

    def _look_for_ends(self, *_: object) -> None:
        self._has_news = True

    def _pass_on(self, *_: object) -> None:
        self._is_to_end = True
        if self._pid:
            processes.send_to_group(self._pid, signal.SIGTERM)

    def _ended(self) -> int | None:
        if not self._has_news:
            return None
        self._has_news = False
        with suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._pid:
                    return found[1]
        return None

    def _patience(self) -> float | None:
        if self._pending:
            return 0
        due = [at for printed in self._printed if (at := printed.due()) is not None]
        return max(0.0, min(due) - time.time()) if due else None

    def _write(self, written: Iterator[tuple[int, bytes]]) -> None:
        is_idle = True
        for number, data in written:
            is_idle = False
            self._add(self._printed[number].feed(data, time.time()))
        for printed in self._printed:
            self._add(printed.unfinished(time.time()))
        if is_idle:
            self._flush()

    def _add(self, lines: Iterator[bytes]) -> None:
        for line in lines:
            self._pending += line
        if len(self._pending) > _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._log.write(bytes(self._pending))
            self._pending.clear()


def _end_like(status: int) -> NoReturn:
    """End this process with the exit code, or by the signal, that another one ended with."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError):  # SIGKILL has no handler that could be reset.
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)
