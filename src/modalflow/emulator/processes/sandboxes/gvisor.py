"""Containers in gVisor, the sandbox in which Modal runs containers.

Owns the program ``runsc``: its options, and the description of the container (the runtime specification of OCI). The
root of the container is already in place, with its mounts: gVisor serves it to the program inside. Imports only what
every new process has, because the template holds this module for all containers.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modalflow.emulator.processes import mountinfo, syscalls
from modalflow.emulator.processes.container_spec import RESTORE_FOLDER, SNAPSHOT_VARIABLE, VOLUMES, ContainerSpec
from modalflow.emulator.processes.exec_runtime import RUNTIME
from modalflow.emulator.processes.sandboxes.supervision import AWAITED, Start, Supervision

PROGRAM = "runsc"

#: The name of a container's machine on Modal.
HOSTNAME = "modal"

#: Where runsc keeps the state of the container. The container's own /dev covers it.
_FOLDER = Path("/dev/.runsc")

#: The options of runsc, each as it is written by newer versions and by older ones; the first known one is used.
#: An option that no known version lacks, or whose lack changes nothing, has one form.
_OPTIONS: tuple[tuple[str, ...], ...] = (
    # The sandbox is in the network of the room: the machine's, or a loopback of its own.
    ("--network=host",),
    # The socket of the control plane is the host's.
    ("--host-uds=open", "--fsgofer-host-uds"),
    # The room has a private layer already, which an image keeps.
    ("--overlay2=none",),
    ("--ignore-cgroups",),
    # No one but the container changes its root; Volumes are mounts, which are shared by default.
    ("--file-access=exclusive",),
)

_LOWEST_DESCRIPTOR = 100

#: The file in memory with the pages of all programs of a sandbox, as /proc shows it.
_MEMORY_FILE = "/memfd:runsc-memory (deleted)"

#: The options that differ in a container with a memory snapshot. gVisor cannot write connections to this machine's
#: network to a file. The container's own files are part of the snapshot only if gVisor keeps them.
#: The gateway needs raw sockets for that network.
_FOR_SNAPSHOTS = ("--network=none", "--net-raw", "--overlay2=root:memory")

#: The commands of runsc that read the container's configuration.
_STARTING = ("run", "restore")

#: The capabilities of the gateway, which the container's program does not get.
_OF_GATEWAY = ("CAP_NET_ADMIN", "CAP_NET_RAW")

_GATEWAY = "import sys; sys.path.append(sys.argv[2]); from inside.gateway import main; main(*sys.argv[1:])"

#: The folder of the snapshot in the container's room.
_IMAGE = _FOLDER / "image"

#: The options of mounts. With a cache, gVisor keeps files of a Volume open after the container has closed them.
_SHARED = ["rbind", "dcache=0"]

#: Seconds to wait for an answer of runsc to a question about itself.
_PATIENCE = 20.0

INSTALL = (
    "install Debian's package `runsc` (Debian 13 or newer) or a release of gVisor, "
    "and pass its path with --runsc if it is not on PATH"
)


class GVisor:
    """A way to run a container in gVisor."""

    keeps_rights = True

    def __init__(self, descriptor: int, options: Sequence[str]) -> None:
        """Take over ``descriptor``, the program opened with O_PATH: a container's files may cover its path."""
        # Above those that a container gets.
        self._descriptor = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LOWEST_DESCRIPTOR)
        os.close(descriptor)
        self.descriptors = (self._descriptor,)
        self.options = tuple(options)

    @classmethod
    def find(cls, path: str | None) -> GVisor:
        """Return the sandbox with the ``runsc`` at a path, by default the one on PATH; OSError if it is unusable.

        The error says what is missing and what to do.
        """
        found = path or shutil.which(PROGRAM)
        if found is None:
            raise OSError(f"gVisor's program `{PROGRAM}` is not on PATH; {INSTALL}")
        try:
            known = _known_options(found)
            descriptor = os.open(found, os.O_PATH | os.O_CLOEXEC)
        except (OSError, subprocess.SubprocessError) as error:
            raise OSError(f"{found} cannot be used as gVisor's `{PROGRAM}` ({error}); {INSTALL}") from error
        chosen = (next((form for form in forms if _name(form) in known), None) for forms in _OPTIONS)
        return cls(descriptor, [option for option in chosen if option is not None])

    def run(self, spec: ContainerSpec) -> None:
        """Run the container, pass signals on to it, and end this process with its exit code."""
        _FOLDER.mkdir(mode=0o700)
        if spec.snapshot is not None:
            _IMAGE.mkdir()
            # Out of the sight of the container.
            syscalls.bind(str(spec.snapshot.folder), str(_IMAGE))
            syscalls.unmount(str(spec.snapshot.folder))
        signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
        start = functools.partial(self._start, spec)
        Supervision(start, _container_id(spec.variables), _FOLDER, _IMAGE, spec.snapshot).run()

    def _start(self, spec: ContainerSpec, start: Start, *command: str, log: Path | None = None) -> int:
        """Start runsc with a command; return the process id. It writes its errors to the ``log``."""
        if command[0] in _STARTING:
            (_FOLDER / "config.json").write_text(json.dumps(self._configuration(spec, start)))
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
            logged = [] if log is None else [f"--log={log}", "--log-format=json"]
            arguments = [PROGRAM, f"--root={_FOLDER / 'state'}", *self._options_of(start), *logged, *command]
            os.execve(self._descriptor, arguments, _own_variables())
        return pid

    def _options_of(self, start: Start) -> list[str]:
        if start is Start.PLAIN:
            return list(self.options)
        replaced = {_name(option) for option in _FOR_SNAPSHOTS}
        return [*(option for option in self.options if _name(option) not in replaced), *_FOR_SNAPSHOTS]

    def _configuration(self, spec: ContainerSpec, start: Start) -> dict[str, Any]:
        rights = [*syscalls.KEPT_CAPABILITIES, *(() if start is Start.PLAIN else _OF_GATEWAY)]
        return {
            "ociVersion": "1.0.2",
            "hostname": HOSTNAME,
            "root": {"path": "/"},
            "process": {
                "args": _command(spec) if start is Start.PLAIN else _with_gateway(spec),
                "cwd": str(Path.cwd()),
                "env": [f"{name}={value}" for name, value in _variables(spec, start).items()],
                "user": dict(zip(("uid", "gid"), spec.user, strict=True)),
                "capabilities": {kind: rights for kind in ("bounding", "effective", "permitted")},
                "rlimits": [{"type": name, "soft": value, "hard": value} for name, value in spec.limits.items()],
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
                *({"destination": path, "type": "bind", "source": path, "options": _SHARED} for path in shared(spec)),
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
        }


def memory_kib(processes: Iterable[int]) -> int:
    """Return the memory that the programs of a sandbox use; 0 if none of the processes is a sandbox.

    It is a file in memory, which the sandbox opens at its start.
    """
    for pid in processes:
        for number in range(_LOWEST_DESCRIPTOR):
            descriptor = Path(f"/proc/{pid}/fd/{number}")
            with contextlib.suppress(OSError):
                if str(descriptor.readlink()) == _MEMORY_FILE:
                    # In units of 512 bytes, whatever the file system.
                    return descriptor.stat().st_blocks // 2
    return 0


def _command(spec: ContainerSpec) -> list[str]:
    return list(spec.program) or [_python(spec), "-m", RUNTIME]


def _with_gateway(spec: ContainerSpec) -> list[str]:
    """Return the command that starts a gateway, and then the command of the container in the same process."""
    assert spec.snapshot is not None
    return [_python(spec), "-I", "-S", "-c", _GATEWAY, spec.snapshot.network, RESTORE_FOLDER, *_command(spec)]


def _python(spec: ContainerSpec) -> str:
    return str(spec.python or sys.executable)


def shared(spec: ContainerSpec) -> list[str]:
    """Return the mount points of files that others change meanwhile, outer ones first: Volumes, and compiled modules.

    A Volume inside another one has a second mount there, of the same files.
    """
    mounts = mountinfo.mounts()
    volumes = [mounted for mounted in mounts if mounted.point.startswith(f"{VOLUMES}/")]
    # Not all mounts of the same device: a user's room has one for each file of /tmp, and gVisor fails with hundreds.
    points = {mounted.point for mounted in mounts if any(_is_part(mounted, volume) for volume in volumes)}
    for path in spec.rootfs.shown:
        # A file has another path in each container, and no one changes it.
        (points.add if path.is_dir() else points.discard)(str(path))
    points.discard("/")
    if spec.snapshot is not None:
        points.discard(str(spec.snapshot.folder))
    return sorted(points, key=lambda point: point.count("/"))


def _is_part(mounted: mountinfo.Mounted, volume: mountinfo.Mounted) -> bool:
    return mounted.device == volume.device and Path(mounted.part).is_relative_to(volume.part)


def _variables(spec: ContainerSpec, start: Start) -> dict[str, str]:
    if start is not Start.PLAIN:
        return spec.variables
    return {name: value for name, value in spec.variables.items() if name != SNAPSHOT_VARIABLE}


def _container_id(variables: Mapping[str, str]) -> str:
    return variables.get("MODAL_TASK_ID") or "program"


def _own_variables() -> dict[str, str]:
    """Return the variables of runsc itself; it reads only where programs and temporary files are."""
    return {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}


def _known_options(program: str) -> set[str]:
    """Return the names of the options that this version has, as ``runsc flags`` lists them."""
    listed = subprocess.run([program, "flags"], capture_output=True, text=True, timeout=_PATIENCE, check=False)
    names = {line.split()[0].lstrip("-") for line in f"{listed.stdout}\n{listed.stderr}".splitlines() if _lists(line)}
    if "network" not in names:
        raise OSError(f"`{PROGRAM} flags` lists no options: {(listed.stderr or listed.stdout).strip()[:200]}")
    return names


def _lists(line: str) -> bool:
    return line.startswith("  -")


def _name(option: str) -> str:
    return option.lstrip("-").partition("=")[0]
