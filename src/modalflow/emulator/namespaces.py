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
    door: Path | None = None
    """The unix socket by which the container reaches the control plane: seen at the same path."""


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
    # A process dies with the thread that started it: that is the event loop's, which ends with the control plane.
    # Should that have happened before the wish was known to the kernel, the parent is another one by now.
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
    root = room.folder / "scratch" / "root"
    lines = [
        # The container's own PATH may be anything.
        "set -e; path=$PATH; PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        f"cd {quote(str(room.folder))}; mkdir -p scratch",
        # An overlay cannot have its upper directory on an overlay, which a host's root often is: a tmpfs always works.
        "mount -t tmpfs -o mode=755 tmpfs scratch",
        "mkdir scratch/work scratch/root",
        # Not a second lower layer: the kernel refuses layers of which one lies inside the other (ELOOP).
        f"cp -a {quote(str(room.layer))} scratch/upper",
        *(_one_overlay(room) if isolation is Isolation.ROOT else _many_overlays(room)),
    ]
    for volume in room.volumes:
        lines += _volume(root, volume)
    lines += [
        _bind(root, str(room.keep)),
        *(_bind_file(root, room.door) if room.door and not room.door.is_relative_to(room.keep) else ()),
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


def _one_overlay(room: Room) -> list[str]:
    """The root of a privileged container: an overlay over all of /, and the host's other mounts where they are."""
    scratch = room.folder / "scratch"
    return [
        _overlay("/", f"{scratch}/upper", f"{scratch}/work", f"{scratch}/root", extra=""),
        *(_bind(scratch / "root", point) for point in host_mounts(room.keep)),
    ]


def _many_overlays(room: Room) -> list[str]:
    """The root of an unprivileged one: in a user namespace the kernel makes no overlay over a folder that has mounts
    below it, so each folder gets its own, and the mounts are bound."""
    scratch = room.folder / "scratch"
    mounted = [Path(point) for point in host_mounts(room.keep)] + [Path("/proc")]
    needed = [Path("/", v.mount_path) for v in room.volumes] + [room.keep, Path("/", room.cwd)]
    # Only a mount can become a root.
    lines = ["mount --bind scratch/root scratch/root"]

    def place(host: Path) -> None:
        there = f"{scratch}/root{host}"
        if host.is_symlink():
            lines.append(f"ln -s {shlex.quote(str(host.readlink()))} {shlex.quote(there)}")
        elif not host.is_dir():
            lines.append(f": > {shlex.quote(there)}; mount --bind {shlex.quote(str(host))} {shlex.quote(there)}")
        elif host == Path("/proc"):
            lines.append(f"mkdir {shlex.quote(there)}")
        elif not os.access(host, os.R_OK | os.X_OK):
            # Nobody here could look into it: the container has its own, with what the app puts there.
            lines.append(f"mkdir -p {shlex.quote(f'{scratch}/upper{host}')} {shlex.quote(there)}")
            lines.append(f"mount --bind {shlex.quote(f'{scratch}/upper{host}')} {shlex.quote(there)}")
        elif not any(m.is_relative_to(host) for m in mounted):
            upper, work = f"{scratch}/upper{host}", f"{scratch}/work{host}"
            lines.append(f"mkdir -p {shlex.quote(upper)} {shlex.quote(work)} {shlex.quote(there)}")
            lines.append(_overlay(str(host), upper, work, there, extra=",userxattr"))
        elif any(n.is_relative_to(host) for n in needed) and host not in mounted:
            lines.append(f"mkdir -p {shlex.quote(there)}")
            for child in sorted(host.iterdir()):
                place(child)
        else:
            lines.append(_bind(scratch / "root", str(host)))

    tops = sorted(Path("/").iterdir())
    for top in tops:
        place(top)
    for made in sorted(room.layer.iterdir()):
        if Path("/", made.name) not in tops:
            lines.append(f"mv {shlex.quote(f'{scratch}/upper/{made.name}')} {shlex.quote(f'{scratch}/root/')}")
    return lines


def _overlay(lower: str, upper: str, work: str, target: str, *, extra: str) -> str:
    options = f"lowerdir={_escaped(lower)},upperdir={_escaped(upper)},workdir={_escaped(work)}{extra}"
    return f"mount -t overlay -o {shlex.quote(options)} overlay {shlex.quote(target)}"


def _bind(root: Path, path: str) -> str:
    """Show the host's folder at the same path, mounts below it as well."""
    there = shlex.quote(f"{root}{path}")
    return f"mkdir -p {there}; mount --rbind {shlex.quote(path)} {there}"


def _bind_file(root: Path, file: Path) -> list[str]:
    """Show the host's file at the same path. A socket has to be the same inode: the overlay's copy leads nowhere."""
    there = f"{root}{file}"
    return [
        f"mkdir -p {shlex.quote(str(Path(there).parent))}; [ -e {shlex.quote(there)} ] || : > {shlex.quote(there)}",
        f"mount --bind {shlex.quote(str(file))} {shlex.quote(there)}",
    ]


def _volume(root: Path, volume: VolumeView) -> list[str]:
    quote = shlex.quote
    place = f"{root}{VOLUMES}/{volume.volume_id}"
    sub_path = volume.sub_path.strip("/")
    target = str(Path(VOLUMES, volume.volume_id, sub_path))
    path = f"{root}/{volume.mount_path.strip('/')}"
    lines = [
        f"mkdir -p {quote(place)} {quote(str(Path(path).parent))} {quote(str(volume.view / sub_path))}",
        f"mount --bind {quote(str(volume.view))} {quote(place)}",
        # A folder of the host that has something in it cannot become a symlink: the volume is mounted over it.
        f"if [ -d {quote(path)} ] && ! rmdir {quote(path)} 2>/dev/null; "
        f"then mount --bind {quote(f'{root}{target}')} {quote(path)}; else ln -sfn {quote(target)} {quote(path)}; fi",
    ]
    if volume.read_only:
        lines.insert(2, f"mount -o remount,bind,ro {quote(place)}")
    return lines


def _escaped(path: str) -> str:
    """A path as an overlay's option takes it."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def host_mounts(keep: Path) -> list[str]:
    """Return the mount points that an overlay over / does not show: the outermost of each tree, without /proc."""
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
            problem = problem_with(isolation)
            if not problem:
                return isolation
            log.info("isolation %r does not work here: %s", isolation.value, problem)
    log.warning(
        "containers are plain processes here, for want of namespaces: "
        "volumes and files at absolute mount paths other than /root are not where the app says"
    )
    _libc()
    return Isolation.PLAIN


def problem_with(isolation: Isolation) -> str:
    """Return why this machine does not allow a kind of isolation, empty if it does."""
    if isolation is Isolation.PLAIN:
        return ""
    if isolation is Isolation.ROOT and os.geteuid() != 0:
        return "it needs root"
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
