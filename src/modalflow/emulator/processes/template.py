"""The template: a process that has imported Modal's runtime and is forked for each container.

Owns the process: its loop, its children, its reports to the control plane. It has one thread, no event loop and no
connection except the socket to the control plane, so that its forks are clean. It ends with the control plane, and all
containers end with it.

On the socket each byte from the control plane comes with file descriptors. A START comes with a file with the
ContainerSpec, the writing ends of the container's stdout and stderr and, for a container with a network of its own, the
receiver of its listening socket. A SOCKET comes with a descriptor of the process whose network is meant. Each report is
a line of JSON:

``{"isolation", "problems", "overlays"}`` first: the isolation of containers, and the reasons against a better one; the
                                        reason if a Volume cannot be an overlay mount, otherwise empty
``{"preloaded", "problem"}``            whether containers can be forks
``{"pid", "attached"}``                 the oldest requested container has started; a file descriptor of the process
                                        comes with it, if the machine has them
``{"failed"}``                          it could not be started
``{"socket"}``                          a TCP socket of the oldest requested network comes with it
``{"no_socket"}``                       why there is none
``{"pid", "exit"}``                     a container has ended
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modalflow.emulator.network import namespace
from modalflow.emulator.processes import exec_runtime, init, syscalls
from modalflow.emulator.processes.container_spec import ContainerSpec, Isolation, Rootfs, VolumeView
from modalflow.emulator.processes.sandboxes.direct import Direct
from modalflow.emulator.processes.sandboxes.gvisor import INSTALL, GVisor
from modalflow.emulator.processes.sandboxes.sandbox import Sandbox
from modalflow.support import linux

#: The requests of the control plane.
START, SOCKET = b"+", b"@"

#: The number of the receiver's descriptor in a container's first process, after stdin, stdout and stderr.
_RECEIVER = 3

#: The network of containers: the machine's, or each one's own.
HOST, OWN = "host", "own"

#: Seconds in which a sandbox must have run a program of no duration.
PROBE_SECONDS = 30


def main() -> None:
    """Serve until the control plane is gone; in a container, return from the loop and run it."""
    descriptor, parent, isolation, preload, network, folder, runsc = sys.argv[1:8]
    linux.die_with_parent()
    if os.getppid() != int(parent):
        return
    template = Template(socket.socket(fileno=int(descriptor)))
    template.isolate(isolation, folder or None, own_network=network == OWN, runsc=runsc or None)
    if preload == "preload":
        template.preload()
    spec = template.serve()
    if spec is not None:
        template.sandbox.run(spec)


class Template:
    """The template's side of the protocol."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._isolation = Isolation.PLAIN
        """Of the room: a container in gVisor is in one of another kind."""
        self._containers: set[int] = set()
        self.sandbox: Sandbox = Direct(None)

    def isolate(self, wanted: str, folder: str | None, *, own_network: bool = False, runsc: str | None = None) -> None:
        """Choose the isolation of containers: as wanted, or, for ``best``, the best one possible on the machine.

        With ``own_network`` only a kind counts as possible that can also separate networks. ``runsc`` is the path of
        gVisor's program, by default the one on PATH.
        """
        problems: dict[str, str] = {}
        if wanted == "best":
            self._isolation, overlays, problems = best_isolation(folder, own_network=own_network)
            self._report(isolation=self._isolation.value, problems=problems, overlays=overlays)
            return
        isolation = Isolation(wanted)
        self._isolation = room_of(isolation)
        overlays = problem_with(self._isolation, folder, overlay=True)
        problem = overlays and problem_with(self._isolation, folder, own_network=own_network)
        if isolation is Isolation.GVISOR and not problem:
            self.sandbox, problem = _in_gvisor(runsc, self._isolation, folder, own_network=own_network)
        if problem:
            problems[isolation.value] = problem
        self._report(isolation=isolation.value, problems=problems, overlays=overlays)

    def preload(self) -> None:
        if self.sandbox.keeps_rights:
            # The program of a container is a new interpreter on another kernel.
            self._report(preloaded=True, problem="")
            return
        try:
            self.sandbox = Direct(exec_runtime.preload())
            self._report(preloaded=True, problem="")
        except Exception:  # noqa: BLE001 (after any failed import, containers are new interpreters)
            self._report(preloaded=False, problem=traceback.format_exc())

    def serve(self) -> ContainerSpec | None:
        """Return None when the control plane is gone, or the ContainerSpec in a forked container."""
        wake, woken = os.pipe()
        for end in (wake, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 4096)
                    self._report_ended()
                    continue
                received, descriptors, _, _ = socket.recv_fds(self._control, 1, 4)
                if not received:
                    return None
                if received == SOCKET:
                    self._open_socket(descriptors)
                    continue
                spec = self._start(descriptors)
                if spec is not None:
                    return spec

    def _start(self, descriptors: list[int]) -> ContainerSpec | None:
        """Start a container; in the container, return its ContainerSpec."""
        request, stdout, stderr, *receiver = descriptors

        def prepare() -> None:
            signal.set_wakeup_fd(-1)
            kept = (stdout, stderr, *receiver)
            for number, descriptor in enumerate(kept, 1):
                os.dup2(descriptor, number)
            lowest = 1 + len(kept)
            for descriptor in self.sandbox.descriptors:
                os.closerange(lowest, descriptor)
                lowest = descriptor + 1
            os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))

        try:
            spec = ContainerSpec.loads(_content(request))
            address = spec.own_network
            own_network = None if address is None else functools.partial(namespace.listen, address, _RECEIVER)
            keep_rights = self.sandbox.keeps_rights
            pid, is_container = init.start(self._isolation, spec.rootfs, prepare, own_network, keep_rights=keep_rights)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._report(failed=f"{type(error).__name__}: {error}")
            pid, is_container = 0, False
        if is_container:
            return spec
        for descriptor in descriptors:
            os.close(descriptor)
        if pid:
            self._containers.add(pid)
            with _process_descriptor(pid) as attached:
                self._report(attached, pid=pid, attached=len(attached))
        return None

    def _open_socket(self, descriptors: list[int]) -> None:
        """Report a socket of the network of a process."""
        (process,) = descriptors
        namespaces = syscalls.CLONE_NEWNET
        if self._isolation is Isolation.USER:
            # It owns the network.
            namespaces |= syscalls.CLONE_NEWUSER
        try:
            with namespace.open_socket(process, namespaces) as opened:
                self._report([opened.fileno()], socket=1)
        except OSError as error:
            self._report(no_socket=str(error))
        os.close(process)

    def _report_ended(self) -> None:
        for pid, code, _ in linux.reaped():
            self._containers.discard(pid)
            self._report(pid=pid, exit=code)

    def _report(self, attached: Sequence[int] = (), /, **what: Any) -> None:
        line = json.dumps(what).encode() + b"\n"
        sent = socket.send_fds(self._control, [line], attached)
        self._control.sendall(line[sent:])


def best_isolation(folder: str | None, *, own_network: bool = False) -> tuple[Isolation, str, dict[str, str]]:
    """Return the best isolation on this machine, found by trying, and the problems of better ones.

    The second value is the problem of overlay mounts for Volumes, empty if they work.
    """
    problems: dict[str, str] = {}
    for isolation in (Isolation.ROOT, Isolation.USER):
        # Most often both work, and one attempt shows it.
        overlays = problem_with(isolation, folder, overlay=True, own_network=own_network)
        problem = overlays and problem_with(isolation, folder, own_network=own_network)
        if not problem:
            return isolation, overlays, problems
        problems[isolation.value] = problem
    return Isolation.PLAIN, "", problems


def room_of(isolation: Isolation) -> Isolation:
    """Return the kind of root and namespaces around a container; around one in gVisor, root's or a user's."""
    if isolation is not Isolation.GVISOR:
        return isolation
    return Isolation.ROOT if os.geteuid() == 0 else Isolation.USER


def _in_gvisor(runsc: str | None, room: Isolation, folder: str | None, *, own_network: bool) -> tuple[Sandbox, str]:
    """Return gVisor and an empty text; if containers cannot run in it, containers on this kernel and the problem."""
    try:
        sandbox = GVisor.find(runsc)
    except OSError as error:
        return Direct(None), str(error)
    problem = problem_with(room, folder, own_network=own_network, sandbox=sandbox)
    if not problem:
        return sandbox, ""
    return Direct(None), f"a container cannot be started with `runsc` ({problem}); {INSTALL}"


def problem_with(
    isolation: Isolation,
    within: str | None = None,
    *,
    overlay: bool = False,
    own_network: bool = False,
    sandbox: Sandbox | None = None,
) -> str:
    """Return the problem of a kind of isolation on this machine, empty if there is none. Call it without other threads.

    A test container writes a file to a Volume, at a path missing on the host, in a folder of its own below ``within``.
    With ``overlay`` the Volume is an overlay mount; with ``own_network`` the container has a loopback of its own. With
    ``sandbox`` a program in it writes the file.
    """
    if isolation is Isolation.PLAIN:
        return ""
    if isolation is Isolation.GVISOR:
        room = room_of(isolation)
        problem = problem_with(room, within, overlay=overlay, own_network=own_network)
        return problem or _in_gvisor(None, room, within, own_network=own_network)[1]
    if not syscalls.has_namespaces():
        return "this program does not support namespaces on this machine"
    if isolation is Isolation.ROOT and os.geteuid() != 0:
        return "it needs root"
    with tempfile.TemporaryDirectory(prefix="modalflow-probe-", dir=within) as name:
        folder = Path(name).resolve()
        for made in ("layer/root", "view/upper", "view/work", "lower", "container"):
            (folder / made).mkdir(parents=True)
        layers = (folder / "lower",) if overlay else ()
        volume = VolumeView("vo-probe", folder / "view", "/modalflow-probe/here", layers=layers)
        rootfs = Rootfs(folder / "container", folder / "layer", hidden=folder, volumes=(volume,))
        output = folder / "output"
        with output.open("wb") as file:
            keep_rights = sandbox is not None and sandbox.keeps_rights
            pid, is_container = _tried(isolation, rootfs, file.fileno(), own_network, keep_rights=keep_rights)
        if is_container:
            os._exit(_write_to_volume() if sandbox is None else _write_in(sandbox, rootfs))
        _, status = os.waitpid(pid, 0) if pid else (0, 0)
        if (folder / ("view/upper" if overlay else "view") / "file").exists():
            return ""
        return output.read_text(errors="replace").strip() or f"exit code {os.waitstatus_to_exitcode(status)}"


def _tried(
    isolation: Isolation, rootfs: Rootfs, output: int, own_network: bool, *, keep_rights: bool
) -> tuple[int, bool]:
    def prepare() -> None:
        os.dup2(output, 2)

    try:
        return init.start(
            isolation, rootfs, prepare, namespace.bring_up_loopback if own_network else None, keep_rights=keep_rights
        )
    except OSError as error:
        os.write(output, str(error).encode())
        return 0, False


def _write_to_volume() -> int:
    try:
        Path("/modalflow-probe/here/file").write_text("seen")
    except OSError as error:
        os.write(2, str(error).encode())
        return 1
    return 0


def _write_in(sandbox: Sandbox, rootfs: Rootfs) -> int:
    program = ("/bin/sh", "-c", "echo seen > /modalflow-probe/here/file")
    try:
        # A sandbox that hangs would keep the control plane waiting.
        signal.alarm(PROBE_SECONDS)
        sandbox.run(ContainerSpec(rootfs, {"PATH": os.defpath}, program=program))
    except OSError as error:
        os.write(2, str(error).encode())
    return 1


def _content(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


@contextlib.contextmanager
def _process_descriptor(pid: int) -> Iterator[list[int]]:
    """Yield a file descriptor of the process, empty if the system has none."""
    if not hasattr(os, "pidfd_open"):
        yield []
        return
    descriptor = os.pidfd_open(pid)
    try:
        yield [descriptor]
    finally:
        os.close(descriptor)
