"""Where a container's process lives: its own view of the file system and of processes, on this machine.

Owns the ways to isolate a process and the choice among them. Three, the best one that the machine allows:

``root``     as root: mount and PID namespaces, an overlay over ``/`` as a private root.
``user``     the same inside a user namespace, for anybody where the kernel lets them.
``plain``    a mere process: mount paths are symlinks inside a private folder, so absolute ones do not work.

In the first two the container's files (mounts of the app, volumes) are at the paths that the app says, writes go to a
private layer that ends with the container, and the host's files are there to be read. When the first process of a PID
namespace ends the kernel kills all others in it, so nothing that a container starts outlives it; and that process is
killed when the control plane ends, however it ends.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

#: Where the runtime expects volumes; mount paths are symlinks to here, as on Modal.
VOLUMES = "/__modal/volumes"

#: How long the probe of a kind of isolation may take.
PROBE_SECONDS = 10


class Isolation(enum.Enum):
    """How containers are kept apart."""

    ROOT = "root"
    USER = "user"
    PLAIN = "plain"


@dataclass(frozen=True)
class VolumeView:
    """A volume as one container sees it."""

    volume_id: str
    view: Path
    """The directory with the volume's files, on the host."""
    mount_path: str
    sub_path: str = ""
    read_only: bool = False


@dataclass(frozen=True)
class Room:
    """All that a container's file system is made of."""

    folder: Path
    """A folder of the container's own, on the host."""
    layer: Path
    """A tree of files that lies over the host's root."""
    keep: Path
    """The state folder: seen by the container as it is, not as a private copy."""
    volumes: tuple[VolumeView, ...]
    cwd: str


@dataclass(frozen=True)
class Command:
    """What to start for a container."""

    argv: list[str]
    cwd: Path
    has_init: bool
    before_exec: Callable[[], None] | None
    home: str
    """Where ``/root`` is for the container."""


def command(isolation: Isolation, room: Room, program: list[str]) -> Command:
    """Return how to run the program in the room."""
    if isolation is Isolation.PLAIN:
        return _plain(room, program)
    script = room.folder / "enter.sh"
    script.write_text(_script(isolation, room, program))
    # A process dies with the thread that started it: that is the event loop's, which ends with the control plane. Should
    # that have happened before the wish was known to the kernel, the parent is another one by now.
    guard = f'[ "$PPID" = {os.getpid()} ] || exit 1; exec "$@"'
    guarded = [_tool("setpriv"), "--pdeathsig", "KILL", "/bin/sh", "-c", guard, "sh"]
    return Command(
        argv=[*guarded, *_unshare(isolation), "/bin/sh", str(script)],
        cwd=room.folder,
        has_init=True,
        before_exec=None,
        home="/root",
    )


def _tool(name: str) -> str:
    """The path of a program of the host's, whatever the PATH of the container will be."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise FileNotFoundError(f"{name} (of util-linux) is not installed")
    return found


def _unshare(isolation: Isolation) -> list[str]:
    user = ["--user", "--map-root-user"] if isolation is Isolation.USER else []
    return [_tool("unshare"), *user, "--mount", "--pid", "--fork", "--kill-child=KILL"]


def _script(isolation: Isolation, room: Room, program: list[str]) -> str:
    """The container's first process: it makes the root, enters it, runs the program and passes signals on."""
    quote = shlex.quote
    scratch = room.folder / "scratch"
    root = scratch / "root"
    options = f"lowerdir=/,upperdir={_escaped(scratch)}/upper,workdir={_escaped(scratch)}/work"
    if isolation is Isolation.USER:
        options += ",userxattr"
    lines = [
        # The container's own PATH may be anything.
        "set -e; path=$PATH; PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        f"cd {quote(str(room.folder))}; mkdir -p scratch",
        # An overlay cannot have its upper directory on an overlay, which a host's root often is: a tmpfs always works.
        "mount -t tmpfs -o mode=755 tmpfs scratch",
        "mkdir scratch/work scratch/root",
        # Not a second lower layer: the kernel refuses layers of which one lies inside the other (ELOOP).
        f"cp -a {quote(str(room.layer))} scratch/upper",
        f"mount -t overlay -o {quote(options)} overlay scratch/root",
    ]
    for volume in room.volumes:
        place = f"{root}{VOLUMES}/{volume.volume_id}"
        target = f"{VOLUMES}/{volume.volume_id}" + (f"/{volume.sub_path.strip('/')}" if volume.sub_path else "")
        path = f"{root}/{volume.mount_path.strip('/')}"
        lines += [
            f"mkdir -p {quote(place)} {quote(str(Path(path).parent))}",
            f"mount --bind {quote(str(volume.view))} {quote(place)}",
        ]
        if volume.sub_path:
            lines.append(f"mkdir -p {quote(str(volume.view / volume.sub_path.strip('/')))}")
        if volume.read_only:
            lines.append(f"mount -o remount,bind,ro {quote(place)}")
        lines.append(
            # A folder of the host that has something in it cannot become a symlink: the volume is mounted over it.
            f"if [ -d {quote(path)} ] && ! rmdir {quote(path)} 2>/dev/null; "
            f"then mount --bind {quote(str(root) + target)} {quote(path)}; else ln -sfn {quote(target)} {quote(path)}; fi"
        )
    for point in host_mounts(room.keep):
        there = quote(f"{root}{point}")
        lines.append(f"mkdir -p {there} && mount --rbind {quote(point)} {there}")
    lines += [
        f"mkdir -p {quote(f'{root}{room.keep}')}",
        f"mount --rbind {quote(str(room.keep))} {quote(f'{root}{room.keep}')}",
        f"mount -t proc proc {quote(f'{root}/proc')}",
        f"mkdir -p {quote(str(root / room.cwd.strip('/')))}",
        f"cd {quote(str(root))}; pivot_root . .; umount -l .",
        f"cd {quote(room.cwd)}",
        "set +e",
        # A shell starts background processes with SIGINT ignored, and the runtime needs it.
        "env=$(command -v env); PATH=$path",
        f'"$env" --default-signal=INT,QUIT {shlex.join(program)} &',
        "child=$!",
        'trap "kill -INT $child" INT; trap "kill -TERM $child" TERM',
        # A trapped signal ends `wait` early.
        'while :; do wait "$child"; code=$?; kill -0 "$child" 2>/dev/null || break; done',
        "exit $code",
    ]
    return "\n".join(lines) + "\n"


def _escaped(path: Path) -> str:
    """A path as an overlay's option takes it."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def host_mounts(keep: Path) -> list[str]:
    """Return the host's mount points that an overlay over / does not show: the outermost of each tree, without /proc."""
    points = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4].encode().decode("unicode_escape")
        if point not in ("/", "/proc") and not point.startswith("/proc/") and not Path(point).is_relative_to(keep):
            points.add(point)
    return sorted(p for p in points if not any(str(above) in points for above in Path(p).parents))


def _plain(room: Room, program: list[str]) -> Command:
    root = room.folder / "root"
    if room.layer.exists():
        shutil.copytree(room.layer, root, dirs_exist_ok=True)
    for volume in room.volumes:
        path = root / volume.mount_path.strip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(volume.view / volume.sub_path.strip("/"))
    home = root / "root"
    home.mkdir(parents=True, exist_ok=True)
    return Command(argv=program, cwd=home, has_init=False, before_exec=_die_with_parent, home=str(home))


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends (Linux; elsewhere nothing does)."""
    if sys.platform == "linux":
        _libc().prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@functools.cache
def best_isolation() -> Isolation:
    """Return the best kind that works on this machine, found by trying it once."""
    if sys.platform == "linux":
        for isolation in (Isolation.ROOT, Isolation.USER):
            if isolation is Isolation.ROOT and os.geteuid() != 0:
                continue
            problem = _probe(isolation)
            if not problem:
                return isolation
            log.info("isolation %r does not work here: %s", isolation.value, problem)
    log.warning(
        "containers are plain processes here, for want of namespaces: "
        "volumes and files at absolute mount paths other than /root are not where the app says"
    )
    _libc()
    return Isolation.PLAIN


def _probe(isolation: Isolation) -> str:
    """Return what is wrong with a kind of isolation on this machine, empty if nothing."""
    with tempfile.TemporaryDirectory(prefix="modalflow-probe-") as name:
        folder = Path(name).resolve()
        for made in ("layer/root", "view", "container"):
            (folder / made).mkdir(parents=True)
        room = Room(
            folder=folder / "container",
            layer=folder / "layer",
            keep=folder,
            volumes=(VolumeView("vo-probe", folder / "view", "/modalflow-probe/here"),),
            cwd="/root",
        )
        try:
            probe = command(isolation, room, ["/bin/sh", "-c", "echo seen > /modalflow-probe/here/file"])
            done = subprocess.run(
                probe.argv,
                cwd=probe.cwd,
                env={"LC_ALL": "C"},
                capture_output=True,
                timeout=PROBE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode != 0 or not (folder / "view" / "file").exists():
            return done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        return ""
