"""The control plane's side of the template: keep one running, request containers, receive their exits.

Owns the template's process and the socket to it. If the template ends, all containers end with it: they are reported
as lost, and another template is started. ``template`` documents the messages.
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
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from modalflow.emulator.processes.container_spec import ContainerSpec, Isolation
from modalflow.emulator.processes.process import LinePipe, Process
from modalflow.emulator.processes.template import HOST, OWN, SOCKET, START, room_of

log = logging.getLogger(__name__)

#: Consecutive templates that may end before they are ready; after that no template of this kind is started.
START_TRIES = 3

#: The namespace of overlayfs attributes: root's overlays use one, those in user namespaces another.
_ATTRIBUTES = {Isolation.ROOT: "trusted", Isolation.USER: "user", Isolation.PLAIN: ""}

#: Seconds to wait for an answer of the template. Before its first answer it imports Modal's runtime: one second, tens
#: of seconds on an overloaded machine. Without a limit, an input would wait forever for a template that hangs.
ANSWER_PATIENCE = 120.0

T = TypeVar("T")

#: Run by path, not by name: containers inherit the module path, and modalflow must not be on it.
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
class _Request:
    """A container that was requested and has not started."""

    pipes: tuple[LinePipe, LinePipe]
    started: asyncio.Future[Process]


class ForkServer:
    """One template at a time. Use it on one event loop, in a thread that lives as long as the control plane."""

    def __init__(
        self,
        variables: Mapping[str, str],
        *,
        isolation: Isolation | None = None,
        preload: bool = True,
        own_network: bool = False,
        folder: Path | None = None,
        runsc: Path | None = None,
    ) -> None:
        """Use ``variables``, common to all containers, for the template: it could not become a container otherwise.

        Without ``isolation``, use the best kind that works on this machine. Without ``preload``, every container is a
        new interpreter. With ``own_network``, only a kind that can separate networks counts as working. Try the kinds
        in ``folder``, by default the folder for temporary files. ``runsc`` is gVisor's program, by default on PATH.
        """
        self.problems: Mapping[str, str] = {}
        """Why kinds of isolation do not work here, once that is known."""
        self._network = OWN if own_network else HOST
        self._folder = folder
        self._runsc = runsc
        self._variables = dict(variables)
        self._wanted = isolation.value if isolation else "best"
        self._preload = preload
        self._template: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._isolation: asyncio.Future[Isolation] | None = None
        self._has_overlays = False
        self._requests: deque[_Request] = deque()
        self._awaited_sockets: deque[asyncio.Future[socket.socket]] = deque()
        self._processes: dict[int, Process] = {}
        self._received = b""
        self._descriptors: deque[int] = deque()
        self._failed_starts = 0
        self._turn = asyncio.Lock()

    def start(self) -> None:
        """Start a template. Requests may be sent immediately; it answers once it is ready."""
        if self._isolation is None or self._isolation.done():
            self._isolation = asyncio.get_running_loop().create_future()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        home = str(Path(__file__).parents[3])
        arguments = [str(theirs.fileno()), str(os.getpid()), self._wanted, "preload" if self._preload else "bare"]
        arguments += [self._network, *("" if path is None else str(path) for path in (self._folder, self._runsc))]
        try:
            self._template = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(home=home), *arguments],
                env=self._variables,
                cwd="/",
                stdin=subprocess.DEVNULL,
                # This process writes its ready line to stdout.
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
        self._received = b""
        asyncio.get_running_loop().add_reader(ours, self._readable)

    async def isolation(self) -> Isolation:
        """Wait until the kind of isolation is known and return it."""
        if self._isolation is None:
            raise TemplateError("the fork server was not started")
        return await _in_time(asyncio.shield(self._isolation))

    async def overlays(self) -> str:
        """Return the namespace of the extended attributes of overlays in the folder, once it is known.

        Empty if containers cannot mount such overlays.
        """
        isolation = await self.isolation()
        return _ATTRIBUTES[room_of(isolation)] if self._has_overlays else ""

    async def launch(
        self, spec: ContainerSpec, on_stdout: Callable[[str], None], on_stderr: Callable[[str], None]
    ) -> Process:
        """Start a container; TemplateError if it cannot be started."""
        pipes = (LinePipe(on_stdout), LinePipe(on_stderr))
        request = _Request(pipes, asyncio.get_running_loop().create_future())
        file = _file(spec.dumps())
        ours, theirs = (None, None) if spec.own_network is None else socket.socketpair()
        try:
            sent = [file, *(pipe.writer for pipe in pipes), *([] if theirs is None else [theirs.fileno()])]
            await self._send(START, sent, lambda: self._requests.append(request))
            for pipe in pipes:
                pipe.close_writer()
            if theirs is not None:
                theirs.close()
            process = await _in_time(request.started)
        except BaseException:
            for pipe in pipes:
                pipe.close()
            for end in filter(None, (ours, theirs)):
                end.close()
            raise
        finally:
            os.close(file)
        if ours is not None:
            await self._take_listener(process, ours)
        return process

    async def _take_listener(self, process: Process, receiver: socket.socket) -> None:
        """Wait for the listening socket of a container. If its network cannot be set up, it ends without one."""
        try:
            with receiver:
                receiver.setblocking(False)
                await _in_time(_ready(receiver))
                _, descriptors, _, _ = socket.recv_fds(receiver, 1, 1)
        except BaseException:
            process.kill()
            raise
        process.listener = socket.socket(fileno=descriptors[0]) if descriptors else None

    async def socket_in(self, process: Process) -> socket.socket:
        """Return an unconnected TCP socket of a container's own network; OSError if there is none."""
        if process.descriptor is None:
            raise OSError("the container has ended, or this machine has no pidfds (Linux before 5.3)")
        answer: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        await self._send(SOCKET, [process.descriptor], lambda: self._awaited_sockets.append(answer))
        return await _in_time(answer)

    async def _send(self, request: bytes, descriptors: list[int], sent: Callable[[], None]) -> None:
        async with self._turn:
            while True:
                if self._control is None:
                    raise TemplateError("the process that starts containers cannot be kept running; see the log")
                try:
                    socket.send_fds(self._control, [request], descriptors)
                except BlockingIOError:
                    await self._writable(self._control)
                except OSError as error:
                    raise TemplateError(f"the process that starts containers has ended ({error})") from error
                else:
                    sent()
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
        """End the template and all containers."""
        if self._control is not None:
            self._end_template()

    def _end_template(self) -> None:
        assert self._control is not None and self._template is not None
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = None
        self._template.kill()
        self._template.wait()
        while self._requests:
            self._fail(self._requests.popleft(), "the process that starts containers has ended")
        while self._awaited_sockets:
            self._no_socket("the process that starts containers has ended")
        while self._descriptors:
            os.close(self._descriptors.popleft())
        for process in list(self._processes.values()):
            process.lost()
        self._processes.clear()

    def _readable(self) -> None:
        assert self._control is not None
        try:
            received, descriptors, _, _ = socket.recv_fds(self._control, 65536, 64)
        except BlockingIOError:
            return
        except OSError:
            received, descriptors = b"", []
        self._descriptors.extend(descriptors)
        if not received:
            self._on_exit()
            return
        *lines, self._received = (self._received + received).split(b"\n")
        try:
            for line in lines:
                self._on_message(json.loads(line))
        except Exception:
            # The boundary of a callback: a template with unreadable messages is treated as one that has ended.
            log.exception("the process for container starts sent an unreadable message: %r", lines)
            self._on_exit()

    def _on_message(self, received: dict[str, Any]) -> None:
        match received:
            case {"isolation": kind, "problems": problems, "overlays": overlays}:
                self._has_overlays = not overlays and Isolation(kind) is not Isolation.PLAIN
                if overlays and Isolation(kind) is not Isolation.PLAIN:
                    log.warning(
                        "the state folder cannot hold overlay mounts, so each container gets a copy of its Volumes: %s",
                        overlays,
                    )
                self._on_isolation(Isolation(kind), problems)
                if not self._preload:
                    self._failed_starts = 0
            case {"preloaded": preloaded, "problem": problem}:
                self._failed_starts = 0
                if not preloaded:
                    log.warning("containers are started one by one: Modal's runtime cannot be imported: %s", problem)
            case {"pid": pid, "exit": returncode}:
                process = self._processes.pop(pid, None)
                if process is not None:
                    process.ended(returncode)
            case {"pid": pid, "attached": attached}:
                self._on_started(pid, self._descriptors.popleft() if attached else None)
            case {"failed": why}:
                self._fail(self._requests.popleft(), why)
            case {"socket": _}:
                opened, answer = socket.socket(fileno=self._descriptors.popleft()), self._awaited_sockets.popleft()
                if answer.done():
                    opened.close()
                else:
                    answer.set_result(opened)
            case {"no_socket": why}:
                self._no_socket(why)

    def _no_socket(self, why: str) -> None:
        answer = self._awaited_sockets.popleft()
        if not answer.done():
            answer.set_exception(OSError(why))

    def _on_isolation(self, isolation: Isolation, problems: Mapping[str, str]) -> None:
        self.problems = problems
        if self._isolation is None or self._isolation.done():
            return
        if isolation.value in problems:
            self._isolation.set_exception(
                TemplateError(f"--isolation {isolation.value} does not work here: {problems[isolation.value]}")
            )
            return
        for kind, problem in problems.items():
            log.info("isolation %r does not work here: %s", kind, problem)
        if isolation is Isolation.PLAIN and problems:
            log.warning(
                "containers are plain processes here, because namespaces are unavailable: "
                "volumes and files at absolute mount paths other than /root are not at their paths, "
                "and a container has all rights of this user"
            )
        self._isolation.set_result(isolation)

    def _on_started(self, pid: int, descriptor: int | None) -> None:
        request = self._requests.popleft()
        process = self._processes[pid] = Process(pid, descriptor, request.pipes)
        if request.started.done():
            # The caller was cancelled in the meantime.
            process.kill()
        else:
            request.started.set_result(process)

    @staticmethod
    def _fail(request: _Request, why: str) -> None:
        if not request.started.done():
            request.started.set_exception(TemplateError(f"it could not be started: {why}"))

    def _on_exit(self) -> None:
        """Handle the unexpected exit of the template."""
        self._failed_starts += 1
        assert self._template is not None
        lost = len(self._processes)
        with contextlib.suppress(subprocess.TimeoutExpired):
            # It has closed the socket, so it is about to exit.
            self._template.wait(1.0)
        self._end_template()
        ending = self._template.returncode
        log.error("the process for container starts ended (exit code %s), and its %d containers with it", ending, lost)
        if self._failed_starts >= START_TRIES and self._preload:
            log.error("it ended repeatedly before it was ready: from now on every container is a new interpreter")
            self._preload, self._failed_starts = False, 0
        if self._failed_starts < START_TRIES:
            self.start()
        elif self._isolation is not None and not self._isolation.done():
            self._isolation.set_exception(
                TemplateError(f"no containers can be started: the process that does so ended with exit code {ending}")
            )


async def _ready(receiver: socket.socket) -> None:
    """Wait until something can be read."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(receiver, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(receiver)


async def _in_time(answer: Awaitable[T]) -> T:
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
