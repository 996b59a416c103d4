"""The template: a process that has imported Modal's runtime and is forked for each container.

Owns the process: its loop, its children, what it says to the control plane. It has one thread, no event loop and no
connection but the socket to the control plane, so that a fork of it is as good as new. It ends with the control plane,
and all containers end with it.

On the socket each byte from the control plane comes with three file descriptors: a file with the Start, and the
writing ends of the container's stdout and stderr. What it says is a line of JSON each time:

``{"isolation", "problems", "overlays"}`` first of all: how it keeps containers apart, and why not better; why a
                                        volume cannot be an overlay mount, empty if it can
``{"preloaded", "problem"}``            whether containers can be forks
``{"pid", "attached"}``                 the container that was asked for longest has begun; with it comes, where there
                                        are such, a file descriptor of the process
``{"failed"}``                          it could not be begun
``{"pid", "exit"}``                     a container has ended
"""

from __future__ import annotations

import contextlib
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

from modalflow.emulator.processes import exec_runtime, init, syscalls
from modalflow.emulator.processes.container_spec import ContainerSpec, Isolation, Rootfs, VolumeView
from modalflow.support import linux


def main() -> None:
    """Serve until the control plane is gone; in a container, run that."""
    descriptor, parent, isolation, preload, folder = sys.argv[1:6]
    linux.die_with_parent()
    if os.getppid() != int(parent):
        return
    template = Template(socket.socket(fileno=int(descriptor)))
    template.isolate(isolation, folder or None)
    if preload == "preload":
        template.preload()
    spec = template.serve()
    if spec is not None:
        _be(spec, template.preloaded)


def _be(spec: ContainerSpec, preloaded: exec_runtime.Preloaded | None) -> None:
    exec_runtime.limit(spec.limits)
    if spec.fresh or spec.program or preloaded is None or preloaded.unfit(spec):
        exec_runtime.execute(spec)
    else:
        exec_runtime.run(spec, preloaded)


class Template:
    """The template's side of the conversation."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._isolation = Isolation.PLAIN
        self._containers: set[int] = set()
        self.preloaded: exec_runtime.Preloaded | None = None

    def isolate(self, wanted: str, folder: str | None) -> None:
        """Settle how containers are kept apart: as wanted, or, if that is ``best``, as well as the machine allows."""
        problems: dict[str, str] = {}
        if wanted == "best":
            self._isolation, overlays, problems = best_isolation(folder)
        else:
            self._isolation = Isolation(wanted)
            overlays = problem_with(self._isolation, folder, overlay=True)
        self._say(isolation=self._isolation.value, problems=problems, overlays=overlays)

    def preload(self) -> None:
        try:
            self.preloaded = exec_runtime.preload()
            self._say(preloaded=True, problem="")
        except Exception:  # noqa: BLE001 (whatever an import raises: containers are new interpreters then)
            self._say(preloaded=False, problem=traceback.format_exc())

    def serve(self) -> ContainerSpec | None:
        """Start containers until the control plane is gone (None), or this process is one (its Start)."""
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
                said, descriptors, _, _ = socket.recv_fds(self._control, 1, 3)
                if not said:
                    return None
                spec = self._start(descriptors)
                if spec is not None:
                    return spec

    def _start(self, descriptors: list[int]) -> ContainerSpec | None:
        """Start a container; in it, return its Start."""
        request, stdout, stderr = descriptors

        def prepare() -> None:
            signal.set_wakeup_fd(-1)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))

        try:
            spec = ContainerSpec.loads(_content(request))
            pid, is_container = init.start(self._isolation, spec.rootfs, prepare)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._say(failed=f"{type(error).__name__}: {error}")
            pid, is_container = 0, False
        if is_container:
            return spec
        for descriptor in descriptors:
            os.close(descriptor)
        if pid:
            self._containers.add(pid)
            with _process_descriptor(pid) as attached:
                self._say(attached, pid=pid, attached=len(attached))
        return None

    def _report_ended(self) -> None:
        for pid, code, _ in linux.reaped():
            self._containers.discard(pid)
            self._say(pid=pid, exit=code)

    def _say(self, attached: Sequence[int] = (), /, **what: Any) -> None:
        line = json.dumps(what).encode() + b"\n"
        sent = socket.send_fds(self._control, [line], attached)
        self._control.sendall(line[sent:])


def best_isolation(folder: str | None) -> tuple[Isolation, str, dict[str, str]]:
    """Return the best kind that works on this machine, found by trying it, and what is the matter with better ones.

    The second value is what is the matter with overlay mounts for volumes, empty if they work.
    """
    problems: dict[str, str] = {}
    for isolation in (Isolation.ROOT, Isolation.USER):
        # Most often both work, and one try shows it.
        overlays = problem_with(isolation, folder, overlay=True)
        problem = overlays and problem_with(isolation, folder)
        if not problem:
            return isolation, overlays, problems
        problems[isolation.value] = problem
    return Isolation.PLAIN, "", problems


def problem_with(isolation: Isolation, within: str | None = None, *, overlay: bool = False) -> str:
    """Return why this machine does not allow a kind of isolation, empty if it does. Call it where there are no threads.

    Tried with a container that writes a file to a volume, at a path that the host does not have, in a folder of its own
    below ``within``. With ``overlay`` the volume is an overlay mount.
    """
    if isolation is Isolation.PLAIN:
        return ""
    if not syscalls.has_namespaces():
        return "this program does not know how to ask this machine for namespaces"
    if isolation is Isolation.ROOT and os.geteuid() != 0:
        return "it needs root"
    with tempfile.TemporaryDirectory(prefix="modalflow-probe-", dir=within) as name:
        folder = Path(name).resolve()
        for made in ("layer/root", "view/upper", "view/work", "lower", "container"):
            (folder / made).mkdir(parents=True)
        layers = (folder / "lower",) if overlay else ()
        volume = VolumeView("vo-probe", folder / "view", "/modalflow-probe/here", layers=layers)
        rootfs = Rootfs(folder / "container", folder / "layer", hidden=folder, volumes=(volume,))
        said = folder / "said"
        with said.open("wb") as file:
            pid, is_container = _tried(isolation, rootfs, file.fileno())
        if is_container:
            os._exit(_write_to_volume())
        _, status = os.waitpid(pid, 0) if pid else (0, 0)
        if (folder / ("view/upper" if overlay else "view") / "file").exists():
            return ""
        return said.read_text(errors="replace").strip() or f"exit code {os.waitstatus_to_exitcode(status)}"


def _tried(isolation: Isolation, rootfs: Rootfs, said: int) -> tuple[int, bool]:
    def prepare() -> None:
        os.dup2(said, 2)

    try:
        return init.start(isolation, rootfs, prepare)
    except OSError as error:
        os.write(said, str(error).encode())
        return 0, False


def _write_to_volume() -> int:
    try:
        Path("/modalflow-probe/here/file").write_text("seen")
    except OSError as error:
        os.write(2, str(error).encode())
        return 1
    return 0


def _content(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


@contextlib.contextmanager
def _process_descriptor(pid: int) -> Iterator[list[int]]:
    """A file descriptor of the process, none where there is no such thing."""
    if not hasattr(os, "pidfd_open"):
        yield []
        return
    descriptor = os.pidfd_open(pid)
    try:
        yield [descriptor]
    finally:
        os.close(descriptor)
