"""The operating system's side of a container: a process, its pipes, its signals, its end.

Owns pipes and pids. How the process comes to be is fork_server.py's, what it is made of the template's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence

from modalflow.emulator.processes.syscalls import children

#: A line longer than this is delivered in parts.
LONGEST_LINE = 64 * 1024

#: What one read of a pipe takes at most: its whole capacity.
PIPE_CAPACITY = 64 * 1024


class LinePipe:
    """One of a process's outputs, delivered line by line while it comes, and at once on ``drain``."""

    def __init__(self, deliver: Callable[[str], None]) -> None:
        self._deliver = deliver
        self._rest = b""
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader, self._readable)

    def drain(self) -> None:
        """Deliver all that was written so far, an unfinished line as well."""
        while self._reader >= 0 and self._readable():
            pass
        if self._rest:
            self._deliver(self._rest.decode(errors="replace"))
            self._rest = b""

    def close_writer(self) -> None:
        """Close this process's end for writing: the child has it."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        self.close_writer()
        self._close_reader()

    def _close_reader(self) -> None:
        if self._reader >= 0:
            self._loop.remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1

    def _readable(self) -> bool:
        """Read once; return whether there may be more."""
        try:
            data = os.read(self._reader, PIPE_CAPACITY)
        except BlockingIOError:
            return False
        if not data:
            self._close_reader()
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._deliver(line.decode(errors="replace") + "\n")
        if len(self._rest) >= LONGEST_LINE:
            self._deliver(self._rest.decode(errors="replace"))
            self._rest = b""
        return True


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
        # The first process ends all others when the runtime has ended, and so does its own end: but for that it must
        # have a process namespace.
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
        self.drain()
        for pipe in self._pipes:
            pipe.close()
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
