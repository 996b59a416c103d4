"""The mounts of a container's Volumes, also of one Volume inside another.

Owns the mounts of Volumes inside a container. The container's first process calls ``mount_all`` in its mount namespace
and its root, and keeps a file descriptor of each overlay mount. Each Volume is mounted at the place expected by Modal's
runtime, with a symlink from its mount path, as on Modal. A mount path inside another Volume gets a mount instead, so
that nothing is written into that Volume. If the folder is missing there, a layer of this container's own shows it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from modalflow.emulator.processes import syscalls
from modalflow.emulator.processes.container_spec import VOLUMES, Isolation, VolumeView

#: An existing folder can be renamed, as in any file system, and a file's mode or time changes without a copy of its
#: content. In user namespaces the kernel supports neither: renaming such a folder is EXDEV.
_ROOTS_OVERLAY = "redirect_dir=on,metacopy=on"


def mount_all(volumes: Sequence[VolumeView], isolation: Isolation, host: str) -> list[int]:
    """Mount the Volumes. Their paths are the host's, and its root is at ``host``.

    Returns a file descriptor of each overlay mount, for the control plane's writes to the Volume.
    """
    mounts = _Mounts(isolation, host)
    # A Volume inside another comes later.
    outermost_first = sorted(volumes, key=depth)
    while not all(mounts.place(volume) for volume in outermost_first):
        # A folder was missing: all is mounted again, with a layer showing it.
        mounts.undo()
    return mounts.descriptors


def depth(volume: VolumeView) -> int:
    """Return the number of folders on a Volume's mount path."""
    return len(Path(volume.mount_path.strip("/")).parts)


def escaped(path: str) -> str:
    """Return a path in the form of an overlay's option."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


class _Mounts:
    """The mounts made so far."""

    def __init__(self, isolation: Isolation, host: str) -> None:
        self._host = host
        self._options = _ROOTS_OVERLAY if isolation is Isolation.ROOT else "userxattr"
        self._mounted: dict[str, VolumeView] = {}
        """Mount point → Volume, each after those around it."""
        self._with_points: set[str] = set()
        self.descriptors: list[int] = []

    def place(self, volume: VolumeView) -> bool:
        """Mount a Volume; False if the folder for it is missing, until the next attempt."""
        place = f"{VOLUMES}/{volume.volume_id}"
        self._mount(volume, place)
        target = str(Path(place, volume.sub_path.strip("/")))
        above, name = os.path.split(f"/{volume.mount_path.strip('/')}")
        path = os.path.join(os.path.realpath(above), name)
        if self._mount_around(path) is not None:
            # A symlink of that Volume is followed; one of the host is replaced.
            path = os.path.realpath(path)
        self._check(path)
        holder = self._mount_around(path)
        if holder is None:
            self._link(path, target, volume)
            return True
        if not os.path.isdir(path):
            point, outer = holder
            if outer.layers:
                self._show_folder(outer, point, path)
                return False
            os.makedirs(path)
        self._bind(target, path, volume)
        return True

    def undo(self) -> None:
        """Unmount all Volumes."""
        for point, volume in reversed(self._mounted.items()):
            syscalls.unmount(point)
            if volume.layers and volume.read_only and point == f"{VOLUMES}/{volume.volume_id}":
                syscalls.unmount(point)
        self._mounted.clear()
        while self.descriptors:
            os.close(self.descriptors.pop())

    def _mount(self, volume: VolumeView, place: str) -> None:
        os.makedirs(place, exist_ok=True)
        if not volume.layers:
            self._bind(f"{self._host}{volume.view}", place, volume)
        else:
            # As names in the current folder: the options of a mount have to fit into one page.
            os.chdir(f"{self._host}{volume.layers[0].parent}")
            lower = [layer.name for layer in volume.layers]
            if volume.volume_id in self._with_points:
                lower.insert(0, escaped(self._points(volume)))
            upper, work = (escaped(f"{self._host}{volume.view}/{name}") for name in ("upper", "work"))
            options = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work},index=off,{self._options}"
            syscalls.mount(volume.volume_id, place, "overlay", options=options)
            self._mounted[place] = volume
            os.chdir("/")
            # The control plane writes through this descriptor when it reloads the Volume. The container can replace the
            # path, and a read-only mount covers it.
            self.descriptors.append(os.open(place, os.O_RDONLY | os.O_DIRECTORY))
        shown = os.path.join(place, volume.sub_path.strip("/"))
        self._check(os.path.realpath(shown))
        os.makedirs(shown, exist_ok=True)
        if volume.read_only:
            if volume.layers:
                syscalls.bind(place, place)
            syscalls.make_read_only(place)

    def _check(self, path: str) -> None:
        """Refuse a resolved path if a symlink of a Volume led to the host, because the host is still mounted."""
        if path == self._host or path.startswith(f"{self._host}/"):
            raise OSError(errno.EXDEV, "a symlink in a volume leads out of the container", path)

    def _bind(self, source: str, point: str, volume: VolumeView) -> None:
        syscalls.bind(source, point)
        self._mounted[point] = volume

    def _mount_around(self, path: str) -> tuple[str, VolumeView] | None:
        """Return the mount, and its Volume, around a path without symlinks; None if there is none."""
        holding = [point for point in self._mounted if path.startswith(f"{point}/")]
        return max(((point, self._mounted[point]) for point in holding), key=lambda it: len(it[0]), default=None)

    def _link(self, path: str, target: str, volume: VolumeView) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.isdir(path) and not os.path.islink(path):
            try:
                os.rmdir(path)
            except OSError:
                # A host's folder with content cannot become a symlink: the Volume is mounted over it.
                self._bind(target, path, volume)
                return
        elif os.path.lexists(path):
            os.unlink(path)
        os.symlink(target, path)

    def _show_folder(self, outer: VolumeView, point: str, path: str) -> None:
        """Show a folder missing in a Volume, in the uppermost of its lower layers."""
        below = path[len(point) :]
        if point != f"{VOLUMES}/{outer.volume_id}":
            # The Volume is mounted there from its sub_path on.
            below = f"/{outer.sub_path.strip('/')}{below}".replace("//", "/")
        seen, made = Path(VOLUMES, outer.volume_id), Path(self._points(outer))
        made.mkdir(exist_ok=True)
        made.chmod(0o755)
        folders = []
        for part in Path(below.strip("/")).parts:
            seen, made = seen / part, made / part
            made.mkdir(exist_ok=True)
            folders.append((seen, made))
        for seen, made in reversed(folders):
            if seen.is_dir():
                # The Volume's own folders keep their appearance.
                shutil.copystat(seen, made)
            else:
                made.chmod(0o755)
        self._with_points.add(outer.volume_id)

    def _points(self, volume: VolumeView) -> str:
        return f"{self._host}{volume.view}/points"
