"""A raw command: start it, write its output to its log as structured lines, and end as it ended.

Called in a process that the zygote has forked for the command. That process reads the command's output until the end,
leads its session, and forwards SIGTERM to its process group. Must not import Airflow.
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
from modalflow.support import linux
from modalflow.worker.logs.log_files import PartWriter
from modalflow.worker.run.command_output import LineClock, OutputLines, OutputPipes
from modalflow.worker.zygote.protocol import ForkRequest, Outcome

#: The exit codes of a shell for a command that does not exist, and for one that cannot be executed.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126

#: Sent by the kernel. It is no signal that programs send to a parent.
_ZYGOTE_ENDED = signal.SIGRTMAX

#: Bytes of lines that are collected before they are written, while the command prints more.
_BATCH = 1 << 16


def run_command(request: ForkRequest) -> Outcome:
    """Run a command and end this process as it ended; return only if the command could not be started."""
    command = request.command
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command or ())
    if not argv:
        return Outcome(State.FAILED, reason="The command is empty; expected a program and its arguments.")
    supervisor = CommandSupervisor(PartWriter(Path(request.log_file)))
    try:
        supervisor.start(argv, dict(request.env))
    except OSError as error:
        code = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        return Outcome(State.FAILED, code, reason=f"{argv[0]!r} cannot be executed in the container: {error.strerror}")
    _end_like(supervisor.supervise())


class CommandSupervisor:
    """The parent of a command: it logs the command's output and waits for its end."""

    def __init__(self, log: PartWriter) -> None:
        clock = LineClock()
        self._log = log
        self._pending = bytearray()
        # The names and levels that Airflow uses for the streams of a task.
        self._streams = (OutputLines("task.stdout", "info", clock), OutputLines("task.stderr", "error", clock))
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._pipes = OutputPipes(self._wake_read.fileno())
        self._pid = 0
        self._terminated = False
        self._child_ended = True

    def start(self, argv: list[str], env: dict[str, str]) -> None:
        """Start the command as the leader of a process group; raise OSError if that is impossible."""
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._on_sigchld)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        self._end_with_zygote()
        # Without a function for the child, which would need a copy of all memory: in gVisor, four times the time.
        started = subprocess.Popen(argv, env=env, stdout=self._pipes.out, stderr=self._pipes.err, process_group=0)
        self._pipes.close_writers()
        self._pid = started.pid
        started.returncode = 0  # Popen must not wait for it: this class does, as for every process that it adopts.
        if self._terminated:
            linux.send_to_group(self._pid, signal.SIGTERM)

    def supervise(self) -> int:
        """Log what the command prints until it has ended; return its exit code."""
        while (code := self._exit_code()) is None:
            self._write(self._pipes.read(self._timeout()))
        self._write(self._pipes.read_rest())
        self._pipes.close()
        for stream in self._streams:
            self._add(stream.close(time.time()))
        self._flush()
        self._log.close()
        return code

    def _end_with_zygote(self) -> None:
        """End the command with the zygote. If this process alone is killed, the zygote ends the command."""
        zygote = os.getppid()

        def end(*_: object) -> None:
            # Anyone could have sent it.
            if os.getppid() != zygote:
                linux.kill_family([os.getpid()])
                os._exit(1)

        signal.signal(_ZYGOTE_ENDED, end)
        linux.die_with(zygote, _ZYGOTE_ENDED)

    def _on_sigchld(self, *_: object) -> None:
        self._child_ended = True

    def _on_sigterm(self, *_: object) -> None:
        self._terminated = True
        if self._pid:
            linux.send_to_group(self._pid, signal.SIGTERM)

    def _exit_code(self) -> int | None:
        if not self._child_ended:
            return None
        self._child_ended = False
        with suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass
        return next((ended.code for ended in linux.reaped() if ended.pid == self._pid), None)

    def _timeout(self) -> float | None:
        if self._pending:
            return 0
        due = [at for stream in self._streams if (at := stream.due()) is not None]
        return max(0.0, min(due) - time.time()) if due else None

    def _write(self, written: Iterator[tuple[int, bytes]]) -> None:
        is_idle = True
        for number, data in written:
            is_idle = False
            self._add(self._streams[number].feed(data, time.time()))
        for stream in self._streams:
            self._add(stream.unfinished(time.time()))
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


def _end_like(code: int) -> NoReturn:
    """End this process with an exit code, or by the signal whose negative number it is."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError):  # SIGKILL has no handler that could be reset.
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)
