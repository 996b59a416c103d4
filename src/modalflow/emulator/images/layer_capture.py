"""The files that a container wrote, captured as a layer of an image.

The container's first process makes the copy (``LayerCapture``): only it still sees the private layer when the container
ends. Afterwards the control plane removes what was there before (``prune``). Files, folders and symlinks are kept; what
a function removed stays in the image.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

#: Folders at a container's root that are not part of an image.
_NOT_KEPT = frozenset({"__modal", ".modalflow-host", "dev", "proc", "run", "sys"})


class LayerCapture:
    """The private layer, which has no path once the root is entered, and the folder that receives the copy."""

    def __init__(self, layer: Path, target: Path) -> None:
        self._layer = os.open(layer, os.O_RDONLY | os.O_DIRECTORY)
        self._target = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        self._host = frozenset(path.name for path in Path("/").iterdir())

    def close(self) -> None:
        os.close(self._layer)
        os.close(self._target)

    def keep(self) -> None:
        """Copy the layer. Call it inside the container's root, after the container's own process has ended."""
        target = Path(f"/proc/self/fd/{self._target}")
        here = list(Path(f"/proc/self/fd/{self._layer}").iterdir())
        # In a user namespace, folders that the host does not have lie in the root itself.
        seen = self._host.union(path.name for path in here)
        here += [path for path in Path("/").iterdir() if path.name not in seen]
        for path in here:
            if path.name not in _NOT_KEPT:
                _copy(path, target / path.name)


def prune(written: Path, layer: Path, hidden: Path) -> None:
    """Remove from a captured layer the unchanged files of the layer below, and empty mount points."""
    for name in _NOT_KEPT:
        shutil.rmtree(written / name, ignore_errors=True)
    shutil.rmtree(written / str(hidden).lstrip("/"), ignore_errors=True)
    for folder, names, files in os.walk(written, topdown=False):
        for name in (*files, *names):
            path = Path(folder, name)
            original = layer / path.relative_to(written)
            if path.is_symlink():
                if str(path.readlink()).startswith("/__modal/") or original.is_symlink():
                    path.unlink()
            elif path.is_dir():
                if (original.is_dir() or Path("/", path.relative_to(written)).is_dir()) and not any(path.iterdir()):
                    path.rmdir()
            elif original.is_file() and _same(path.stat(), original.stat()):
                path.unlink()


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns, one.st_mode) == (other.st_size, other.st_mtime_ns, other.st_mode)


def _copy(source: Path, target: Path) -> None:
    """Copy a folder or file, without the attributes that overlayfs adds."""
    status = source.lstat()
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISDIR(status.st_mode):
        target.mkdir()
        for path in source.iterdir():
            _copy(path, target / path.name)
        target.chmod(stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
    elif stat.S_ISREG(status.st_mode):
        shutil.copyfile(source, target)
        target.chmod(stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
