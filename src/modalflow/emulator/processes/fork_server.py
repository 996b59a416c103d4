"""The control plane's side of the template: keeping one, asking it for containers, hearing of their ends.

Owns the template's process and the socket to it. Should the template end, all containers end with it: they are
reported as lost, and another template is started. What goes over the socket is in template.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from modalflow.emulator.processes.container_spec import Isolation, Start
from modalflow.emulator.processes.process import LinePipe, Process

log = logging.getLogger(__name__)

#: Templates that ended before they were ready, one after another, until no further one of that kind is tried.
START_TRIES = 3

#: Where overlayfs keeps its attributes: root's overlays in one name space, those of user namespaces in another.
_ATTRIBUTES = {Isolation.ROOT: "trusted", Isolation.USER: "user", Isolation.PLAIN: ""}

#: Seconds for an answer of the template's. It imports Modal's runtime before its first one, which takes a second, and
#: some tens of seconds on a machine that is overloaded; without a bound an input would wait forever for a template
#: that hangs.
ANSWER_PATIENCE = 120.0

T = TypeVar("T")

#: Run by path and not by name: the module path is the containers', on which modalflow may not be.
_PROGRAM = """
import sys
sys.path.pop(0)
sys.path.append({home!r})
from modalflow.emulator.processes import template
sys.path.remove({home!r})
template.main()
"""


class TemplateError(RuntimeError):
    """No containers can be started."""


@dataclass(eq=False)
class _Asked:
    """A container that was asked for and has not begun."""

    pipes: tuple[LinePipe, LinePipe]
    begun: asyncio.Future[Process]


class ForkServer:
    """One template at a time. Use it on one event loop, from the thread that lives as long as the control plane."""

    def __init__(
        self,
        variables: Mapping[str, str],
        *,
        isolation: Isolation | None = None,
        preload: bool = True,
        folder: Path | None = None,
    ) -> None:
        """``variables`` are those that all containers have alike: a template with others could not become one.

        Without ``isolation`` it is the best kind that works here; without ``preload`` every container is a new
        interpreter. What is tried out is tried out in ``folder``, else where temporary files are.
        """
        self._folder = folder
        self._variables = dict(variables)
        self._wanted = isolation.value if isolation else "best"
        self._preload = preload
        self._template: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._isolation: asyncio.Future[Isolation] | None = None
        self._has_overlays = False
        self._asked: deque[_Asked] = deque()
        self._processes: dict[int, Process] = {}
        self._said = b""
        self._descriptors: deque[int] = deque()
        self._mute = 0
        self._turn = asyncio.Lock()

    def start(self) -> None:
        """Start a template. It is asked at once, and answers when it is ready."""
        if self._isolation is None or self._isolation.done():
            self._isolation = asyncio.get_running_loop().create_future()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        home = str(Path(__file__).parents[3])
        arguments = [str(theirs.fileno()), str(os.getpid()), self._wanted, "preload" if self._preload else "bare"]
        arguments.append("" if self._folder is None else str(self._folder))
        try:
            self._template = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(home=home), *arguments],
                env=self._variables,
                cwd="/",
                stdin=subprocess.DEVNULL,
                # Its stdout is this process's only in name: there the ready line is written.
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._control = ours
        self._said = b""
        asyncio.get_running_loop().add_reader(ours, self._readable)

    async def isolation(self) -> Isolation:
        """Return how containers are kept apart, as soon as that is known."""
        if self._isolation is None:
            raise TemplateError("the fork server was not started")
        return await _in_time(asyncio.shield(self._isolation))

    async def overlays(self) -> str:
        """Return, as soon as it is known, where overlays over files of the folder keep their extended attributes.

        Empty if containers cannot mount such overlays.
        """
        isolation = await self.isolation()
        return _ATTRIBUTES[isolation] if self._has_overlays else ""

    async def launch(self, start: Start, on_stdout: Callable[[str], None], on_stderr: Callable[[str], None]) -> Process:
        """Start a container; TemplateError if that cannot be."""
        pipes = (LinePipe(on_stdout), LinePipe(on_stderr))
        asked = _Asked(pipes, asyncio.get_running_loop().create_future())
        request = _file(start.dumps())
        try:
            await self._ask(asked, [request, *(pipe.writer for pipe in pipes)])
            for pipe in pipes:
                pipe.close_writer()
            return await _in_time(asked.begun)
        except BaseException:
            for pipe in pipes:
                pipe.close()
            raise
        finally:
            os.close(request)

    async def _ask(self, asked: _Asked, descriptors: list[int]) -> None:
        async with self._turn:
            while True:
                if self._control is None:
                    raise TemplateError("the process that starts containers cannot be kept running; see the log")
                try:
                    socket.send_fds(self._control, [b"+"], descriptors)
                except BlockingIOError:
                    await self._writable(self._control)
                except OSError as error:
                    raise TemplateError(f"the process that starts containers has ended ({error})") from error
                else:
                    self._asked.append(asked)
                    return

    @staticmethod
    async def _writable(control: socket.socket) -> None:
        loop, writable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(control, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(control)

    def close(self) -> None:
        """End the template, and with it what still runs."""
        if self._control is not None:
            self._end_template()

    def _end_template(self) -> None:
        assert self._control is not None and self._template is not None
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = None
        self._template.kill()
        self._template.wait()
        while self._asked:
            self._fail(self._asked.popleft(), "the process that starts containers has ended")
        while self._descriptors:
            os.close(self._descriptors.popleft())
        for process in list(self._processes.values()):
            process.lost()
        self._processes.clear()

    def _readable(self) -> None:
        assert self._control is not None
        try:
            said, descriptors, _, _ = socket.recv_fds(self._control, 65536, 64)
        except BlockingIOError:
            return
        except OSError:
            said, descriptors = b"", []
        self._descriptors.extend(descriptors)
        if not said:
            self._over()
            return
        *lines, self._said = (self._said + said).split(b"\n")
        try:
            for line in lines:
                self._heard(json.loads(line))
        except Exception:
            # The boundary of a callback: a template that cannot be understood is as good as one that has ended.
            log.exception("the process that starts containers said %r", lines)
            self._over()

    def _heard(self, said: dict[str, Any]) -> None:
        match said:
            case {"isolation": kind, "problems": problems, "overlays": overlays}:
                self._has_overlays = not overlays and Isolation(kind) is not Isolation.PLAIN
                if overlays and Isolation(kind) is not Isolation.PLAIN:
                    log.warning(
                        "the state folder cannot hold overlay mounts, so each container gets a copy of its Volumes: %s",
                        overlays,
                    )
                self._settled(Isolation(kind), problems)
                if not self._preload:
                    self._mute = 0
            case {"preloaded": preloaded, "problem": problem}:
                self._mute = 0
                if not preloaded:
                    log.warning("containers are started one by one: Modal's runtime cannot be imported: %s", problem)
            case {"pid": pid, "exit": returncode}:
                process = self._processes.pop(pid, None)
                if process is not None:
                    process.ended(returncode)
            case {"pid": pid, "attached": attached}:
                self._begun(pid, self._descriptors.popleft() if attached else None)
            case {"failed": why}:
                self._fail(self._asked.popleft(), why)

    def _settled(self, isolation: Isolation, problems: Mapping[str, str]) -> None:
        if self._isolation is None or self._isolation.done():
            return
        for kind, problem in problems.items():
            log.info("isolation %r does not work here: %s", kind, problem)
        if isolation is Isolation.PLAIN and problems:
            log.warning(
                "containers are plain processes here, for want of namespaces: "
                "volumes and files at absolute mount paths other than /root are not where the app says, "
                "and a container can read and signal whatever this user can"
            )
        self._isolation.set_result(isolation)

    def _begun(self, pid: int, descriptor: int | None) -> None:
        asked = self._asked.popleft()
        process = self._processes[pid] = Process(pid, descriptor, asked.pipes)
        if asked.begun.done():
            # Whoever asked has gone away meanwhile.
            process.kill()
        else:
            asked.begun.set_result(process)

    @staticmethod
    def _fail(asked: _Asked, why: str) -> None:
        if not asked.begun.done():
            asked.begun.set_exception(TemplateError(f"it could not be started: {why}"))

    def _over(self) -> None:
        """The template has ended, of itself."""
        self._mute += 1
        assert self._template is not None
        lost = len(self._processes)
        with contextlib.suppress(subprocess.TimeoutExpired):
            # It has let go of the socket, so it is about to be gone.
            self._template.wait(1.0)
        self._end_template()
        ending = self._template.returncode
        log.error("the process that starts containers ended (exit code %s), with it %d containers", ending, lost)
        if self._mute >= START_TRIES and self._preload:
            log.error("from now on every container is a new interpreter: it ended so before it was ready, repeatedly")
            self._preload, self._mute = False, 0
        if self._mute < START_TRIES:
            self.start()
        elif self._isolation is not None and not self._isolation.done():
            self._isolation.set_exception(
                TemplateError(f"no containers can be started: the process that does so ended with exit code {ending}")
            )


async def _in_time(answer: asyncio.Future[T]) -> T:
    try:
        async with asyncio.timeout(ANSWER_PATIENCE):
            return await answer
    except TimeoutError:
        raise TemplateError(f"the process that starts containers did not answer in {ANSWER_PATIENCE:g} s") from None


def _file(data: bytes) -> int:
    """Return the file descriptor of a nameless file that holds the data."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("modalflow-start")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return descriptor
