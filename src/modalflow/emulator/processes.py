"""The operating system's side of a container: a process, its pipes, its signals, its end.

Owns pipes and pids. What the process is, and in which namespaces, is namespaces.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []


class Process:
    """A running container process. Make it with ``start``."""

    def __init__(self, popen: subprocess.Popen[bytes], stdout: LinePipe, stderr: LinePipe, has_init: bool) -> None:
        self._popen = popen
        self._pipes = (stdout, stderr)
        self._has_init = has_init
        self._polling: asyncio.Task[None] | None = None
        self._ended = asyncio.get_running_loop().create_future()

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str],
        cwd: Path,
        has_init: bool,
        on_stdout: Callable[[str], None],
        on_stderr: Callable[[str], None],
        before_exec: Callable[[], None] | None = None,
    ) -> Process:
        """Start the program in a session of its own. ``has_init`` says that its only child is the real container."""
        stdout, stderr = LinePipe(on_stdout), LinePipe(on_stderr)
        try:
            popen = subprocess.Popen(
                argv,
                env=dict(environ),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stdout.writer,
                stderr=stderr.writer,
                start_new_session=True,
                preexec_fn=before_exec,
            )
        except BaseException:
            stdout.close()
            stderr.close()
            raise
        stdout.close_writer()
        stderr.close_writer()
        process = cls(popen, stdout, stderr, has_init)
        process._watch()
        return process

    @property
    def pid(self) -> int:
        return self._popen.pid

    def init_pid(self) -> int | None:
        """The host's pid of the process that is 1 in the container, None before it exists."""
        return next(iter(_children(self.pid)), None) if self._has_init else self.pid

    def drain(self) -> None:
        for pipe in self._pipes:
            pipe.drain()

    def interrupt(self) -> None:
        """Ask it to end, as Modal does: with SIGINT, on which the runtime runs exit handlers and commits volumes."""
        pid = self.init_pid()
        with contextlib.suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, signal.SIGINT)

    def kill(self) -> None:
        """End it and all it started."""
        if self._popen.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._has_init:
                # With the program its PID namespace's process 1 ends, with that all in it, and only when they are gone
                # its parent sees it end. Process 1 itself dies by SIGKILL only where there is no program yet: `unshare`
                # would complain in the container's log.
                init = self.init_pid()
                for pid in (_children(init) if init else []) or [init or self.pid]:
                    os.kill(pid, signal.SIGKILL)
            else:
                os.killpg(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for the end; return the exit code, as ``subprocess`` gives it. All output is delivered then."""
        returncode: int = await asyncio.shield(self._ended)
        return returncode

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        if not hasattr(os, "pidfd_open"):
            self._polling = loop.create_task(self._poll())
            return
        descriptor = os.pidfd_open(self.pid)

        def over() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self._over(self._popen.wait())

        loop.add_reader(descriptor, over)

    async def _poll(self) -> None:
        """Notice the end where the system has no file descriptors for processes."""
        while (returncode := self._popen.poll()) is None:
            await asyncio.sleep(0.02)
        self._over(returncode)

    def _over(self, returncode: int) -> None:
        if not self._has_init:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.drain()
        for pipe in self._pipes:
            pipe.close()
        if not self._ended.done():
            self._ended.set_result(returncode)
