"""The process of a container: its pipes, signals and exit.

Owns pipes and pids. ``fork_server`` starts processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Sequence

from modalflow.emulator.processes.output import Lines
from modalflow.emulator.processes.sandboxes.supervision import CHECKPOINT
from modalflow.support.linux import children

#: Seconds before an incomplete line is delivered. A person expects a prompt within a second; a program that writes byte
#: by byte causes two deliveries a second.
BEGUN_AFTER = 0.5

#: Bytes per read of a pipe: its whole capacity.
PIPE_CAPACITY = 64 * 1024


class LinePipe:
    """One output of a process, delivered line by line, and immediately on ``drain``.

    An incomplete line is delivered after ``BEGUN_AFTER`` seconds, so that prompts and progress bars appear.
    """

    def __init__(self, deliver: Callable[[str], None]) -> None:
        self._deliver = deliver
        self._lines = Lines()
        self._begun_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader, self._read)

    def drain(self) -> None:
        """Deliver everything written so far, including an incomplete line."""
        # At most one pipeful: a process that writes continuously would keep this loop running.
        left = PIPE_CAPACITY if self._reader < 0 else fcntl.fcntl(self._reader, fcntl.F_GETPIPE_SZ)
        while left > 0 and self._reader >= 0 and (size := self._read()):
            left -= size
        self._deliver_some(self._lines.drained())

    def end(self) -> None:
        """Deliver the rest and close the pipe."""
        self.drain()
        self._deliver_some(self._lines.ended())
        self.close()

    def close_writer(self) -> None:
        """Close the writing end in this process, after the child has received it."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        self.close_writer()
        self._close_reader()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_reader(self) -> None:
        if self._reader >= 0:
            self._loop.remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1

    def _read(self) -> int:
        """Read once; return the number of bytes."""
        try:
            data = os.read(self._reader, PIPE_CAPACITY)
        except BlockingIOError:
            return 0
        if not data:
            self._close_reader()
            return 0
        had_rest = self._lines.has_rest
        lines = self._lines.feed(data)
        for line in lines:
            self._deliver(line)
        if self._lines.has_rest and (lines or not had_rest or self._timer is None):
            self._begun_at = self._loop.time()
            if self._timer is None:
                self._timer = self._loop.call_later(BEGUN_AFTER, self._due)
        return len(data)

    def _due(self) -> None:
        """Deliver an incomplete line that has waited long enough."""
        self._timer = None
        if not self._lines.has_rest:
            return
        left = self._begun_at + BEGUN_AFTER - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._due)
        else:
            self._deliver_some(self._lines.begun())

    def _deliver_some(self, text: str) -> None:
        if text:
            self._deliver(text)


class Process:
    """The first process of a container; all others end with it. ``fork_server`` starts it and reports its exit."""

    def __init__(self, pid: int, descriptor: int | None, pipes: Sequence[LinePipe]) -> None:
        """Take over ``descriptor``, a pidfd: it names this process even after another one has got its pid."""
        self.pid = pid
        self.listener: socket.socket | None = None
        """The listening socket in a network of its own; whoever takes it closes it."""
        self._descriptor = descriptor
        self._pipes = pipes
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def descriptor(self) -> int | None:
        """The pidfd; None after the end, and on machines without pidfds."""
        return self._descriptor

    def drain(self) -> None:
        for pipe in self._pipes:
            pipe.drain()

    def interrupt(self) -> None:
        """Ask the process to exit, as Modal does: on SIGINT the runtime runs exit handlers and commits Volumes."""
        self._signal(signal.SIGINT)

    def checkpoint(self) -> None:
        """Take the memory snapshot of a container that started with one to be taken."""
        self._signal(CHECKPOINT)

    def kill(self) -> None:
        """Kill the process and its descendants."""
        # When the runtime exits, the first process kills the rest. Its own death does so only in a process namespace.
        for pid in () if self._ended.done() else children(self.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                # In a frozen container, the first process is stopped as well, and would not notice.
                self._signal(signal.SIGCONT)
                return
        self._signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for the exit, deliver all output, and return the exit code as ``subprocess`` does."""
        return await asyncio.shield(self._ended)

    def ended(self, returncode: int) -> None:
        """Record the exit of the process and its descendants."""
        if self._ended.done():
            return
        for pipe in self._pipes:
            pipe.end()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._ended.set_result(returncode)

    def lost(self) -> None:
        """Wait for the exit after the template, which takes the container with it, has ended."""
        if self._descriptor is None:
            self.kill()
            self.ended(-signal.SIGKILL)
            return
        loop, descriptor = asyncio.get_running_loop(), self._descriptor

        def over() -> None:
            loop.remove_reader(descriptor)
            self.ended(-signal.SIGKILL)

        loop.add_reader(descriptor, over)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._ended.done():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._descriptor is None:
                os.kill(self.pid, number)
            else:
                signal.pidfd_send_signal(self._descriptor, number)
