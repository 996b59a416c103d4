"""A container's root file system, set up by its first process.

Owns the mounts. The process arrives in a new mount namespace (with isolation). Afterwards, its root is the container's:
the files of the app and its volumes are at their paths, and writes go to a private layer with the container's lifetime.
The host's files are readable, except for the state folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from modalflow.emulator.images.layer_capture import LayerCapture
from modalflow.emulator.processes import mountinfo, syscalls, volume_mounts
from modalflow.emulator.processes.container_spec import Isolation, Rootfs

#: The place of the host's root during the creation of the container's root.
_HOST = "/.modalflow-host"

#: Devices of the host that a container has: those without a state, and what computes.
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "nvidia*", "dri", "kfd")

#: What root of the host could change for all of the machine by writing a file. runc's defaults (libcontainer's
#: specconv), /sys in place of cgroups.
_THE_MACHINES = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys")


def enter(isolation: Isolation, rootfs: Rootfs) -> tuple[LayerCapture | None, list[int]]:
    """Make the container's root and enter it, with the app's current folder. Raises OSError if this fails.

    Returns the keeper of the private layer, if it is kept, and file descriptors for the first process.
    """
    if isolation is Isolation.PLAIN:
        _enter_plain(rootfs)
        return None, []
    scratch = rootfs.folder / "scratch"
    root = scratch / "root"
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    scratch.mkdir(exist_ok=True)
    # An overlay cannot have its upper directory on an overlay, which a host's root often is: a tmpfs always works.
    syscalls.mount("tmpfs", str(scratch), "tmpfs", options="mode=755")
    (scratch / "work").mkdir()
    root.mkdir()
    # Not a second lower layer: the kernel refuses layers of which one lies inside the other (ELOOP).
    _copy_tree(str(rootfs.layer), str(scratch / "upper"))
    if isolation is Isolation.ROOT:
        _one_overlay(rootfs, scratch)
    else:
        _many_overlays(rootfs, scratch)
    keeper = None if rootfs.kept is None else LayerCapture(scratch / "upper", rootfs.kept)
    os.makedirs(f"{root}{_HOST}")
    os.chdir(root)
    syscalls.pivot_root(".", f".{_HOST}")
    # From here on paths are the container's: no symlink of the host's can lead out of it.
    os.chdir("/")
    _hide(rootfs)
    held = volume_mounts.place(rootfs.volumes, isolation, _HOST)
    syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    _make_devices()
    for path in _THE_MACHINES:
        if os.path.exists(path):
            syscalls.bind(path, path, recursive=True)
            syscalls.make_read_only(path)
    syscalls.unmount(_HOST)
    os.rmdir(_HOST)
    os.makedirs(rootfs.cwd, exist_ok=True)
    os.chdir(rootfs.cwd)
    return keeper, held


def plain_home(rootfs: Rootfs) -> Path:
    """Return where ``/root`` is for a container without a root of its own."""
    return rootfs.folder / "root" / "root"


def host_mounts(hidden: Path) -> list[str]:
    """Return the mount points that an overlay over / does not show: the outermost of each tree.

    /proc and /dev are not among them: a container has its own.
    """
    points = set()
    for mounted in mountinfo.mounts():
        point = mounted.point
        there = Path(point)
        if point != "/" and not any(there.is_relative_to(place) for place in ("/proc", "/dev", hidden)):
            points.add(point)
    return sorted(p for p in points if not any(str(above) in points for above in Path(p).parents))


def _one_overlay(rootfs: Rootfs, scratch: Path) -> None:
    """Make the root of a privileged container: an overlay over all of /, and the host's other mounts."""
    _overlay("/", f"{scratch}/upper", f"{scratch}/work", f"{scratch}/root")
    for point in host_mounts(rootfs.hidden):
        # One that the host has unmounted since is not missed.
        with contextlib.suppress(FileNotFoundError):
            _show_host(rootfs, scratch, Path(point))


def _many_overlays(rootfs: Rootfs, scratch: Path) -> None:
    """Make the root of an unprivileged one. In a user namespace, the kernel makes no overlay over a folder with mounts
    below it, so each folder gets its own, and the mounts are bound."""
    root = f"{scratch}/root"
    mounted = [Path(point) for point in host_mounts(rootfs.hidden)] + [Path("/proc"), Path("/dev")]
    needed = [Path("/", v.mount_path) for v in rootfs.volumes] + [
        rootfs.hidden,
        *rootfs.also_hidden,
        *rootfs.shown,
        *rootfs.lent,
        Path("/", rootfs.cwd),
    ]
    tops = sorted(Path("/").iterdir())
    for made in sorted((scratch / "upper").iterdir()):
        if Path("/", made.name) not in tops:
            made.rename(f"{root}/{made.name}")
    # Only a mount can become a root.
    syscalls.bind(root, root)

    def place(host: Path) -> None:
        there = f"{root}{host}"
        upper, work = f"{scratch}/upper{host}", f"{scratch}/work{host}"
        if host.is_symlink():
            os.symlink(host.readlink(), there)
        elif not host.is_dir():
            Path(there).touch()
            syscalls.bind(str(host), there)
        elif host in (Path("/proc"), Path("/dev")):
            os.mkdir(there)
        elif not os.access(host, os.R_OK | os.X_OK):
            # Unreadable from here: the container has its own, with the app's files.
            os.makedirs(upper, exist_ok=True)
            os.makedirs(there, exist_ok=True)
            syscalls.bind(upper, there)
        elif not any(m.is_relative_to(host) for m in mounted):
            for folder in (upper, work, there):
                os.makedirs(folder, exist_ok=True)
            _overlay(str(host), upper, work, there, ",userxattr")
        elif any(n.is_relative_to(host) for n in needed) and host not in mounted:
            os.makedirs(there, exist_ok=True)
            for child in sorted(host.iterdir()):
                place(child)
        else:
            _show_host(rootfs, scratch, host, ",userxattr")

    for top in tops:
        place(top)


def _overlay(lower: str, upper: str, work: str, target: str, extra: str = "") -> None:
    layers = (
        (name, volume_mounts.escaped(path)) for name, path in (("lower", lower), ("upper", upper), ("work", work))
    )
    options = ",".join(f"{name}dir={path}" for name, path in layers) + extra
    syscalls.mount("overlay", target, "overlay", options=options)


def _show_host(rootfs: Rootfs, scratch: Path, host: Path, extra: str = "") -> None:
    """Show a mount of the host's, which may be a single file, so that what is written there is the container's own.

    If the kernel makes no overlay, for example because of further mounts below it, it is read-only.
    """
    there = f"{scratch}/root{host}"
    if not os.path.lexists(there):
        _make_point(str(host), there)
    if host.is_dir() and host != Path("/sys"):
        private = scratch / "mounts" / str(host).strip("/").replace("/", "-")
        (private / "work").mkdir(parents=True, exist_ok=True)
        layer = Path(f"{rootfs.layer}{host}")
        try:
            if layer.is_dir():
                _copy_tree(str(layer), str(private / "upper"))
            else:
                (private / "upper").mkdir()
                shutil.copymode(host, private / "upper")
            if not _has_mounts_below(host):
                _overlay(str(host), str(private / "upper"), str(private / "work"), there, extra)
                return
        except OSError:
            # Some file systems cannot be a layer.
            pass
    syscalls.bind(str(host), there, recursive=True)
    syscalls.make_read_only(there)


def _has_mounts_below(host: Path) -> bool:
    return any(host in Path(mounted.point).parents for mounted in mountinfo.mounts())


def _make_devices() -> None:
    """Give the container a /dev of its own: the host's has its disks, and memory that others share."""
    syscalls.mount("tmpfs", "/dev", "tmpfs", syscalls.MS_NOSUID, "mode=755")
    for pattern in _DEVICES:
        for device in Path(f"{_HOST}/dev").glob(pattern):
            there = f"/dev/{device.name}"
            _make_point(str(device), there)
            syscalls.bind(str(device), there, recursive=True)
    os.mkdir("/dev/shm", 0o1777)
    syscalls.mount("tmpfs", "/dev/shm", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=1777")
    os.mkdir("/dev/pts")
    with contextlib.suppress(OSError):
        # Only programs that talk to terminals miss it.
        syscalls.mount("devpts", "/dev/pts", "devpts", syscalls.MS_NOSUID, "newinstance,ptmxmode=0666,mode=620")
    for name, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        os.symlink(target, f"/dev/{name}")


def _make_point(like: str, there: str) -> None:
    """Make what something can be mounted on: a folder for a folder, a file for a file."""
    if os.path.isdir(like):
        os.makedirs(there, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(there), exist_ok=True)
        Path(there).touch()


def _hide(rootfs: Rootfs) -> None:
    """Lay an empty folder over each of the control plane's, and in it what the container may see."""
    for hidden in map(str, (rootfs.hidden, *rootfs.also_hidden)):
        os.makedirs(hidden, exist_ok=True)
        syscalls.mount("tmpfs", hidden, "tmpfs", options="mode=755")
    for path in map(str, (*rootfs.shown, *rootfs.lent)):
        if os.path.lexists(f"{_HOST}{path}"):
            if not os.path.lexists(path):
                _make_point(f"{_HOST}{path}", path)
            if Path(path) in rootfs.lent:
                # In a user namespace a mount of the host's keeps what it is, if that is more than this.
                with contextlib.suppress(PermissionError):
                    syscalls.bind(f"{_HOST}{path}", path, read_only=True)
            else:
                syscalls.bind(f"{_HOST}{path}", path, recursive=True)


def _copy_tree(source: str, target: str) -> None:
    """Copy a tree with its modes and times. It belongs to the container from then on."""
    os.mkdir(target)
    shutil.copystat(source, target)
    for entry in os.scandir(source):
        there = f"{target}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), there)
        elif entry.is_dir():
            _copy_tree(entry.path, there)
        else:
            shutil.copyfile(entry.path, there)
            status = entry.stat()
            os.chmod(there, status.st_mode & 0o7777)
            os.utime(there, ns=(status.st_atime_ns, status.st_mtime_ns))


def _enter_plain(rootfs: Rootfs) -> None:
    root = rootfs.folder / "root"
    if rootfs.layer.exists():
        shutil.copytree(rootfs.layer, root, dirs_exist_ok=True)
    # One that lies in another comes after that, whose view leaves out what lies in it.
    for volume in sorted(rootfs.volumes, key=volume_mounts.depth):
        path = root / volume.mount_path.strip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            # In a bucket, a folder that was made for it.
            path.rmdir()
        path.symlink_to(volume.view / volume.sub_path.strip("/"))
    home = plain_home(rootfs)
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home)
