"""The operating system's side of a container: a process, its pipes, its signals, its end.

Owns pipes and pids. How the process comes to be is fork_server.py's, what it is made of the template's.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Sequence

from modalflow.emulator.processes.output import Lines
from modalflow.support.linux import children

#: Seconds after which the beginning of a line is delivered although its end has not come: half of the second in which
#: a person expects to see a prompt. A program that writes byte by byte makes two deliveries a second of it.
BEGUN_AFTER = 0.5

#: What one read of a pipe takes at most: its whole capacity.
PIPE_CAPACITY = 64 * 1024


class LinePipe:
    """One of a process's outputs, delivered line by line while it comes, and at once on ``drain``.

    The beginning of a line is delivered after ``BEGUN_AFTER`` seconds, so that prompts and progress bars are seen.
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
        """Deliver all that was written so far, an unfinished line as well."""
        # Not more than the pipe holds: a process that writes all the time would keep this going.
        left = PIPE_CAPACITY if self._reader < 0 else fcntl.fcntl(self._reader, fcntl.F_GETPIPE_SZ)
        while left > 0 and self._reader >= 0 and (size := self._read()):
            left -= size
        self._deliver_some(self._lines.drained())

    def end(self) -> None:
        """Deliver what is left and close: no more will come."""
        self.drain()
        self._deliver_some(self._lines.ended())
        self.close()

    def close_writer(self) -> None:
        """Close this process's end for writing: the child has it."""
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
        """Read once; return how many bytes there were."""
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
        """Deliver the beginning of a line, if it has waited for long enough."""
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
    """A container's first process, and with it all the others. fork_server.py makes it and tells of its end."""

    def __init__(self, pid: int, descriptor: int | None, pipes: Sequence[LinePipe]) -> None:
        """``descriptor`` is one of the process, by which it is meant even after its end; it belongs to this object."""
        self.pid = pid
        self._descriptor = descriptor
        self._pipes = pipes
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def drain(self) -> None:
        for pipe in self._pipes:
            pipe.drain()

    def interrupt(self) -> None:
        """Ask it to end, as Modal does: with SIGINT, on which the runtime runs exit handlers and commits volumes."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End it and all it started."""
        # The first process ends all others when the runtime has ended. Its own end does that only in a process
        # namespace.
        for pid in () if self._ended.done() else children(self.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                return
        self._signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for the end; return the exit code, as ``subprocess`` gives it. All output is delivered then."""
        return await asyncio.shield(self._ended)

    def ended(self, returncode: int) -> None:
        """It has ended, and all it started."""
        if self._ended.done():
            return
        for pipe in self._pipes:
            pipe.end()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._ended.set_result(returncode)

    def lost(self) -> None:
        """The process that starts containers is gone, and takes this one with it: wait for that."""
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
