"""The process of a task, forked together with its supervisor before there is a task.

A supervisor that forks a task shares all its memory again, and in gVisor both copy it at their next writes: a quarter
of a second of a core. A process that was forked before the request only gets its variables and its channels. It has
nothing of the supervisor's work for the request, the task's token included. Must not import Airflow.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from modalflow.support import linux
from modalflow.worker.gvisor.copies import copy_own_memory

#: Runs a task in this process, and ends the process: the variables of the supervisor, and the numbers of the files of
#: the task's channels.
RunTask: TypeAlias = Callable[[Mapping[str, str], Sequence[int]], NoReturn]

#: Before the variables: their size in bytes.
_HEADER = struct.Struct("!I")

_MOST_FILES = 8

#: The exit code with which Airflow reports an error before the task's own code.
_BROKEN = 124


@dataclass(frozen=True)
class PreparedTask:
    """A child of this process that waits for a task."""

    pid: int
    channel: socket.socket

    @classmethod
    def fork(cls, run: RunTask, close: Sequence[socket.socket]) -> PreparedTask:
        """Fork it. ``close`` are sockets that only this process may have."""
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            for each in (ours, *close):
                each.close()
            _wait(theirs, parent, run)
        theirs.close()
        return cls(pid, ours)

    def begin(self, files: Sequence[int]) -> int | None:
        """Let it run a task with these files and this process's variables; return its PID. None if it has ended."""
        variables = json.dumps(dict(os.environ)).encode()
        try:
            with self.channel:
                socket.send_fds(self.channel, [_HEADER.pack(len(variables))], files)
                self.channel.sendall(variables)
        except OSError:
            self.dismiss()
            return None
        return self.pid

    def dismiss(self) -> None:
        """Let it end without a task. It stays to be reaped."""
        self.channel.close()


def _wait(channel: socket.socket, parent: int, run: RunTask) -> NoReturn:
    try:
        linux.die_with(parent)
        copy_own_memory(until=channel)
        with channel:
            header, files, *_ = socket.recv_fds(channel, _HEADER.size, _MOST_FILES)
            if not header:
                os._exit(0)
            variables = channel.makefile("rb").read(*_HEADER.unpack(header))
        run(json.loads(variables), files)
    except BaseException:  # noqa: BLE001  A forked process must never return to the code of its parent.
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(_BROKEN)
