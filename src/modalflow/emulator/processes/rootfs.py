"""A container's root file system, set up by its first process.

Owns the mounts. On entry the process is in a new mount namespace (with isolation); on return its root is the
container's. The app's files and Volumes are at the app's paths. Writes go to a private layer, removed with the
container. The host's files are readable, except for the state folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from modalflow.emulator.images.layer_capture import LayerCapture
from modalflow.emulator.processes import mountinfo, syscalls, volume_mounts
from modalflow.emulator.processes.container_spec import Isolation, Layers, Rootfs

#: The place of the host's root during the setup.
_HOST = "/.modalflow-host"

#: The host's devices in a container: those without a state, and those for computing.
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "nvidia*", "dri", "kfd")

#: Files of the host with effects on the whole machine if root writes them. runc's defaults (libcontainer's specconv),
#: with /sys in place of cgroups.
_MACHINE_WIDE = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys")

#: Each layer of an image is complete in itself, whatever the defaults of the kernel are.
_PLAIN_MARKS = "redirect_dir=off,index=off,metacopy=off"

#: Has a layer of its own, even if something is mounted below /var: Docker and Podman do that.
_TEMPORARY = Path("/var/tmp")

#: Files of this machine that another root needs as well: names of hosts, and certificates by their variable.
_OF_MACHINE = ("/etc/resolv.conf", "/etc/hosts")
_CERTIFICATES = "SSL_CERT_FILE"


def enter(isolation: Isolation, rootfs: Rootfs) -> tuple[LayerCapture | None, list[int]]:
    """Set up the root file system and enter it, with the app's current folder. OSError if it cannot be set up.

    Returns the capture of the private layer, if it is to be kept, and file descriptors for the first process to hold.
    """
    if rootfs.layers is not None and isolation is not Isolation.ROOT:
        raise OSError(
            "the image was built by a control plane with isolation 'root' or 'gvisor', and works only with that; "
            "build it again, for example with force_build"
        )
    if isolation is Isolation.PLAIN:
        _enter_plain(rootfs)
        return None, []
    scratch = rootfs.folder / "scratch"
    root = scratch / "root"
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    scratch.mkdir(exist_ok=True)
    # An overlay's upper directory cannot be on an overlay, and a host's root often is one: a tmpfs always works.
    syscalls.mount("tmpfs", str(scratch), "tmpfs", options="mode=755")
    (scratch / "work").mkdir()
    root.mkdir()
    # Not a second lower layer: the kernel refuses layers inside each other (ELOOP).
    _copy_tree(str(rootfs.layer), str(scratch / "upper"))
    if rootfs.layers is not None:
        _layered(rootfs, rootfs.layers, scratch)
    elif isolation is Isolation.ROOT:
        _one_overlay(rootfs, scratch)
    else:
        _many_overlays(rootfs, scratch)
    # A symlink of the host would lead into the container later.
    machines_own = {
        path: os.path.realpath(path) for path in filter(None, (*_OF_MACHINE, os.environ.get(_CERTIFICATES)))
    }
    capture = None if rootfs.kept is None else LayerCapture(scratch / "upper", rootfs.kept)
    os.makedirs(f"{root}{_HOST}")
    os.chdir(root)
    syscalls.pivot_root(".", f".{_HOST}")
    # All later paths are the container's: no symlink of the host can lead out of it.
    os.chdir("/")
    if rootfs.layers is not None and rootfs.layers.base != Path("/"):
        _complete_base(machines_own)
    elif rootfs.layers is not None and rootfs.layers.upper is not None:
        _own_run()
    _hide(rootfs)
    descriptors = volume_mounts.mount_all(rootfs.volumes, isolation, _HOST)
    syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    _make_devices()
    for path in _MACHINE_WIDE:
        if os.path.exists(path):
            syscalls.bind(path, path, recursive=True)
            syscalls.make_read_only(path)
    syscalls.unmount(_HOST)
    os.rmdir(_HOST)
    os.makedirs(rootfs.cwd, exist_ok=True)
    os.chdir(rootfs.cwd)
    return capture, descriptors


def plain_home(rootfs: Rootfs) -> Path:
    """Return the path of ``/root`` for a container without a root of its own."""
    return rootfs.folder / "root" / "root"


def host_mounts(hidden: Path) -> list[str]:
    """Return the mount points not shown by an overlay over /: the outermost of each tree.

    /proc and /dev are left out: a container has its own.
    """
    points = set()
    for mounted in mountinfo.mounts():
        point = mounted.point
        there = Path(point)
        if point != "/" and not any(there.is_relative_to(place) for place in ("/proc", "/dev", hidden)):
            points.add(point)
    return sorted(p for p in points if not any(str(above) in points for above in Path(p).parents))


def _one_overlay(rootfs: Rootfs, scratch: Path) -> None:
    """Make the root of a privileged container: an overlay over all of /, and the host's other mounts in place."""
    _overlay("/", f"{scratch}/upper", f"{scratch}/work", f"{scratch}/root")
    for point in host_mounts(rootfs.hidden):
        # A mount removed by the host meanwhile is not needed.
        with contextlib.suppress(FileNotFoundError):
            _show_host(rootfs, scratch, Path(point))


def _layered(rootfs: Rootfs, layers: Layers, scratch: Path) -> None:
    """Make the root of a container of an image with file layers, in the same way for each mount of the host."""
    (scratch / "layers").mkdir()
    upper, work = (scratch / "upper", scratch / "work") if layers.upper is None else (layers.upper, layers.work)
    assert work is not None
    _layered_overlay(layers.base, layers.lower, upper, work, scratch, scratch / "root")
    if layers.base != Path("/"):
        return
    for point in map(Path, host_mounts(rootfs.hidden)):
        there = f"{scratch}/root{point}"
        if not point.exists():
            continue
        if not point.is_dir() or point.is_relative_to("/sys") or point.is_relative_to("/run"):
            _show_host(rootfs, scratch, point)
            continue
        name = str(point).strip("/").replace("/", "-")
        above = [layer / point.relative_to("/") for layer in layers.lower]
        own, its_work = upper / point.relative_to("/"), (scratch if layers.upper is None else work) / f"work-{name}"
        try:
            _make_like_host(upper, own)
            its_work.mkdir(parents=True)
            _layered_overlay(point, [path for path in above if path.is_dir()], own, its_work, scratch, Path(there))
        except OSError:
            # Some file systems cannot be a layer.
            syscalls.bind(str(point), there, recursive=True)
            syscalls.make_read_only(there)


def _layered_overlay(base: Path, layers: Sequence[Path], upper: Path, work: Path, scratch: Path, target: Path) -> None:
    """Mount the layers over a folder. If they are inside of it, an overlay of the folder alone is the lowest layer."""
    made = len(os.listdir(scratch / "layers"))
    names = []
    for number, path in enumerate(layers, made):
        # Options of a mount may have 4096 characters.
        name = f"layers/{number}"
        (scratch / name).mkdir()
        syscalls.bind(str(path), str(scratch / name))
        names.append(name)
    os.chdir(scratch)
    own = f"upperdir={volume_mounts.escaped(str(upper))},workdir={volume_mounts.escaped(str(work))},{_PLAIN_MARKS}"
    below = volume_mounts.escaped(str(base))
    try:
        syscalls.mount("overlay", str(target), "overlay", options=f"lowerdir={':'.join([*names, below])},{own}")
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        name = f"layers/{made + len(layers)}"
        empty = f"{name}-empty"
        for folder in (name, empty):
            (scratch / folder).mkdir()
        syscalls.mount("overlay", str(scratch / name), "overlay", options=f"lowerdir={below}:{empty}")
        syscalls.mount("overlay", str(target), "overlay", options=f"lowerdir={':'.join([*names, name])},{own}")


def _make_like_host(root: Path, folder: Path) -> None:
    """Make a folder in a tree, and its parents, with the modes of the host's folders of the same path."""
    missing = [path for path in (folder, *folder.parents) if path.is_relative_to(root) and not path.exists()]
    for path in reversed(missing):
        path.mkdir()
        shutil.copymode(Path("/", path.relative_to(root)), path)


def _complete_base(real_paths: Mapping[str, str]) -> None:
    """Add the folders for file systems to another root, and files of the machine: their path → the one to show."""
    for folder in ("/proc", "/dev", "/sys", "/run"):
        os.makedirs(folder, exist_ok=True)
    os.makedirs("/tmp", 0o1777, exist_ok=True)
    for path, real in real_paths.items():
        if not os.path.exists(f"{_HOST}{real}"):
            continue
        if os.path.islink(path):
            os.unlink(path)
        if not os.path.exists(path):
            _make_point(f"{_HOST}{path}", path)
        syscalls.bind(f"{_HOST}{real}", path, read_only=True)


def _own_run() -> None:
    """Cover /run: the host's services listen there, and a package's installation would restart them."""
    name_servers = Path("/etc/resolv.conf")
    real = name_servers.resolve()
    text = name_servers.read_bytes() if real.is_relative_to("/run") and real.exists() else None
    os.makedirs("/run", exist_ok=True)
    syscalls.mount("tmpfs", "/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
    os.mkdir("/run/lock", 0o1777)
    if text is not None:
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(text)


def _many_overlays(rootfs: Rootfs, scratch: Path) -> None:
    """Make the root of an unprivileged container.

    In a user namespace the kernel makes no overlay over a folder with mounts below it. Each folder therefore gets its
    own overlay, and the mounts are bound.
    """
    root = f"{scratch}/root"
    mounted = [Path(point) for point in host_mounts(rootfs.hidden)] + [Path("/proc"), Path("/dev")]
    needed = {rootfs.hidden, Path("/", rootfs.cwd), *rootfs.also_hidden, *rootfs.shown, *rootfs.lent}
    needed |= {Path("/", v.mount_path) for v in rootfs.volumes}
    apart = {above for path in needed for above in (path, *path.parents)} | set(_TEMPORARY.parents)
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
            syscalls.make_read_only(there)
        elif host in (Path("/proc"), Path("/dev")):
            os.mkdir(there)
        elif not os.access(host, os.R_OK | os.X_OK):
            # This user cannot read it: the container has its own, with the app's files.
            os.makedirs(upper, exist_ok=True)
            os.makedirs(there, exist_ok=True)
            syscalls.bind(upper, there)
        elif not any(m.is_relative_to(host) for m in mounted):
            for folder in (upper, work, there):
                os.makedirs(folder, exist_ok=True)
            _overlay(str(host), upper, work, there, ",userxattr")
        elif host in apart and host not in mounted:
            os.makedirs(there, exist_ok=True)
            place_all(sorted(host.iterdir()), place)
        else:
            _show_host(rootfs, scratch, host, ",userxattr")

    place_all(tops, place)


def place_all(paths: Iterable[Path], place: Callable[[Path], None]) -> None:
    """Place each of these files of the host, except for those removed meanwhile, as in a folder for temporary files."""
    for path in paths:
        try:
            place(path)
        except FileNotFoundError:
            if os.path.lexists(path):
                raise


def _overlay(lower: str, upper: str, work: str, target: str, extra: str = "") -> None:
    layers = (
        (name, volume_mounts.escaped(path)) for name, path in (("lower", lower), ("upper", upper), ("work", work))
    )
    options = ",".join(f"{name}dir={path}" for name, path in layers) + extra
    syscalls.mount("overlay", target, "overlay", options=options)


def _show_host(rootfs: Rootfs, scratch: Path, host: Path, extra: str = "") -> None:
    """Show a mount of the host, possibly a single file, with the container's writes kept private.

    If the kernel makes no overlay, for example because of further mounts below it, the mount is read-only.
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
            if not _has_mounts_below(host, rootfs.hidden):
                _overlay(str(host), str(private / "upper"), str(private / "work"), there, extra)
                return
        except OSError:
            # Some file systems cannot be a layer.
            pass
    syscalls.bind(str(host), there, recursive=True)
    syscalls.make_read_only(there)


def _has_mounts_below(host: Path, hidden: Path) -> bool:
    """Return whether there are mounts below a folder, except for the control plane's own in its hidden folder."""
    points = [Path(mounted.point) for mounted in mountinfo.mounts()]
    return any(host in point.parents and not point.is_relative_to(hidden) for point in points)


def _make_devices() -> None:
    """Make a /dev for the container: the host's has its disks, and memory shared with others."""
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
        # Only programs with terminals need it.
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
    """Make a mount point: a folder for a folder, a file for a file."""
    if os.path.isdir(like):
        os.makedirs(there, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(there), exist_ok=True)
        Path(there).touch()


def _hide(rootfs: Rootfs) -> None:
    """Cover each of the control plane's folders with an empty one, except the parts for the container."""
    for hidden in map(str, (rootfs.hidden, *rootfs.also_hidden)):
        os.makedirs(hidden, exist_ok=True)
        syscalls.mount("tmpfs", hidden, "tmpfs", options="mode=755")
    for path in map(str, (*rootfs.shown, *rootfs.lent)):
        if os.path.lexists(f"{_HOST}{path}"):
            if not os.path.lexists(path):
                _make_point(f"{_HOST}{path}", path)
            if Path(path) in rootfs.lent:
                # In a user namespace a mount of the host keeps its options if they are stricter.
                with contextlib.suppress(PermissionError):
                    syscalls.bind(f"{_HOST}{path}", path, read_only=True)
            else:
                syscalls.bind(f"{_HOST}{path}", path, recursive=True)


def _copy_tree(source: str, target: str) -> None:
    """Copy a tree with its modes and times, owned by the container."""
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
    # A Volume inside another comes later, because the outer view excludes it.
    for volume in sorted(rootfs.volumes, key=volume_mounts.depth):
        path = root / volume.mount_path.strip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            # In a bucket, a folder made for it.
            path.rmdir()
        path.symlink_to(volume.view / volume.sub_path.strip("/"))
    home = plain_home(rootfs)
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home)
