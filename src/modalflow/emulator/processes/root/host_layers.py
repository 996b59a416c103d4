"""A root made of the host's files, with the container's writes in private layers.

Owns which mount of the host is shown how. Runs in the container's own mount namespace, before its root is entered.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self
from urllib.parse import quote

from modalflow.emulator.processes import mountinfo, syscalls
from modalflow.emulator.processes.container_spec import Layers, Rootfs
from modalflow.emulator.processes.root import volume_mounts

#: Each layer of an image is complete in itself, whatever the defaults of the kernel are.
_PLAIN_MARKS = "redirect_dir=off,index=off,metacopy=off"

#: Writable whatever is mounted beside them or in them: Docker and Podman mount below /var, and /tmp can be a mount.
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))


@dataclass(frozen=True)
class HostMounts:
    """The mounts of the host that count for a container: neither its own /proc and /dev, nor what is hidden from it."""

    points: list[Path]
    """Outer ones first."""
    with_files: set[Path]
    """The folders with files of the container, or for temporary ones, somewhere in them."""

    @classmethod
    def of(cls, rootfs: Rootfs) -> Self:
        apart = (Path("/proc"), Path("/dev"), rootfs.hidden)
        points = {Path(mounted.point) for mounted in mountinfo.mounts()} - {Path("/")}
        needed = {rootfs.hidden, Path("/", rootfs.cwd), *rootfs.also_hidden, *rootfs.shown, *rootfs.lent, *_TEMPORARY}
        needed |= {Path("/", volume.mount_path) for volume in rootfs.volumes}
        return cls(
            sorted(point for point in points if not any(point.is_relative_to(place) for place in apart)),
            {above for path in needed for above in (path, *path.parents)},
        )

    @cached_property
    def with_mounts(self) -> set[Path]:
        """All folders with a mount somewhere in them."""
        return {above for point in self.points for above in point.parents}

    def shown(self) -> list[Path]:
        """Return the mounts to be shown each by itself. Others are shown with the one that they are in."""
        shown: list[Path] = []
        for point in self.points:
            if all(above in self.with_files for above in shown if above in point.parents):
                shown.append(point)
        return shown

    def is_read_only(self, host: Path) -> bool:
        """Whether a folder is shown together with the mounts in it: an overlay would not have them."""
        return host in self.with_mounts and host not in self.with_files


def one_overlay(rootfs: Rootfs, scratch: Path) -> None:
    """Make the root of a privileged container: an overlay over all of /, and the host's other mounts in place."""
    mounts = HostMounts.of(rootfs)
    points = mounts.shown()
    _make_folders_of(points, scratch / "upper")
    _overlay("/", f"{scratch}/upper", f"{scratch}/work", f"{scratch}/root")
    for point in points:
        # A mount removed by the host meanwhile is not needed.
        with contextlib.suppress(FileNotFoundError):
            _show_host(scratch, point, read_only=mounts.is_read_only(point))


def image_over_host(rootfs: Rootfs, layers: Layers, scratch: Path) -> None:
    """Make the root of a container of an image with file layers, in the same way for each mount of the host."""
    (scratch / "layers").mkdir()
    upper, work = (scratch / "upper", scratch / "work") if layers.upper is None else (layers.upper, layers.work)
    assert work is not None
    mounts = HostMounts.of(rootfs)
    points = mounts.shown() if layers.base == Path("/") else []
    of_machine = [point for point in points if point.is_relative_to("/sys") or point.is_relative_to("/run")]
    _make_folders_of(of_machine, scratch / "upper")
    _make_folders_of((point for point in points if point not in of_machine), upper)
    _layered_overlay(layers.base, layers.lower, upper, work, scratch, scratch / "root")
    for point in points:
        there = f"{scratch}/root{point}"
        if not point.exists():
            continue
        if not point.is_dir() or point in of_machine:
            _show_host(scratch, point, read_only=mounts.is_read_only(point))
            continue
        above = [layer / point.relative_to("/") for layer in layers.lower]
        own = upper / point.relative_to("/")
        try:
            its_work = _work_folder(scratch if layers.upper is None else work, point)
            _layered_overlay(point, [path for path in above if path.is_dir()], own, its_work, scratch, Path(there))
        except OSError:
            # Some file systems cannot be a layer.
            _show_read_only(point, there)


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


def _make_folders_of(points: Iterable[Path], upper: Path) -> None:
    """Make the folders for the writes of each mount. In a layer that is mounted already, nothing may change."""
    for point in points:
        with contextlib.suppress(OSError):
            if point.is_dir():
                _make_like_host(upper, upper / point.relative_to("/"))


def _make_like_host(root: Path, folder: Path) -> None:
    """Make a folder in a tree, and its parents, with the modes of the host's folders of the same path."""
    missing = [path for path in (folder, *folder.parents) if path.is_relative_to(root) and not path.exists()]
    for path in reversed(missing):
        path.mkdir()
        shutil.copymode(Path("/", path.relative_to(root)), path)


def many_overlays(rootfs: Rootfs, scratch: Path) -> None:
    """Make the root of an unprivileged container.

    In a user namespace the kernel makes no overlay over a folder with mounts below it. Each folder therefore gets its
    own overlay, and the mounts are bound.
    """
    root = f"{scratch}/root"
    mounts = HostMounts.of(rootfs)
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
            _show_read_only(host, there)
        elif host in (Path("/proc"), Path("/dev")):
            os.mkdir(there)
        elif not os.access(host, os.R_OK | os.X_OK):
            # This user cannot read it: the container has its own, with the app's files.
            os.makedirs(upper, exist_ok=True)
            os.makedirs(there, exist_ok=True)
            syscalls.bind(upper, there)
        elif host not in mounts.with_mounts and host not in mounts.points:
            for folder in (upper, work, there):
                os.makedirs(folder, exist_ok=True)
            _overlay(str(host), upper, work, there, ",userxattr")
        elif host in mounts.with_mounts and host in mounts.with_files:
            os.makedirs(there, exist_ok=True)
            shutil.copymode(host, there)
            place_all(sorted(host.iterdir()), place)
        else:
            _make_folders_of([host], scratch / "upper")
            _show_host(scratch, host, ",userxattr", read_only=mounts.is_read_only(host))

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


def _show_host(scratch: Path, host: Path, extra: str = "", *, read_only: bool) -> None:
    """Show a mount of the host, possibly a single file, with the container's writes kept private.

    With ``read_only``, or if the kernel makes no overlay, it is read-only, and shown with the mounts in it.
    """
    there = f"{scratch}/root{host}"
    if not os.path.lexists(there):
        make_point(str(host), there)
    if host.is_dir() and host != Path("/sys") and not read_only:
        # In the layer of the root, as in an image: both are kept as one.
        try:
            _overlay(str(host), f"{scratch}/upper{host}", str(_work_folder(scratch, host)), there, extra)
            return
        except OSError:
            # Some file systems cannot be a layer.
            pass
    _show_read_only(host, there)


def _show_read_only(host: Path, there: str) -> None:
    syscalls.bind(str(host), there, recursive=True)
    syscalls.make_read_only(there)


def _work_folder(folder: Path, point: Path) -> Path:
    """Make the folder that overlayfs needs for the writes to a mount: one for each, none inside of another."""
    made = folder / f"work-{quote(str(point), safe='')}"
    made.mkdir(parents=True)
    return made


def make_point(like: str, there: str) -> None:
    """Make a mount point: a folder for a folder, a file for a file."""
    if os.path.isdir(like):
        os.makedirs(there, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(there), exist_ok=True)
        Path(there).touch()


def copy_tree(source: str, target: str) -> None:
    """Copy a tree with its modes and times, owned by the container."""
    os.mkdir(target)
    shutil.copystat(source, target)
    for entry in os.scandir(source):
        there = f"{target}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), there)
        elif entry.is_dir():
            copy_tree(entry.path, there)
        else:
            shutil.copyfile(entry.path, there)
            status = entry.stat()
            os.chmod(there, status.st_mode & 0o7777)
            os.utime(there, ns=(status.st_atime_ns, status.st_mtime_ns))
