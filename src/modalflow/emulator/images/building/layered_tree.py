"""The files of an image as its containers see them, read on the host without a mount.

Owns the rules of overlayfs for merged folders, removed files and symlinks inside the image. Folders of layers are upper
directories of overlayfs, so a file can be placed in the uppermost one while nothing has it mounted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_OPAQUE = "trusted.overlay.opaque"

#: As in Linux.
_MOST_SYMLINKS = 40


@dataclass(frozen=True)
class _Entry:
    """A file or folder of the image."""

    path: Path
    """The place on the host that shows it."""
    status: os.stat_result
    folders: tuple[Path, ...] = ()
    """The folders merged into this one, uppermost first; empty for other files."""


class LayeredTree:
    """The files of layers, uppermost first, over a root file system."""

    def __init__(self, layers: Sequence[Path], base: Path) -> None:
        self._folders = (*layers, base)

    def real_path(self, path: str) -> str:
        """Return the path without symlinks; missing parts stay as they are. OSError for a circle of symlinks."""
        left = [part for part in posixpath.normpath(f"/{path}").split("/") if part]
        found, links = "/", 0
        while left:
            part = left.pop(0)
            if part == "..":
                found = posixpath.dirname(found)
                continue
            here = posixpath.join(found, part)
            entry = self._entry(here)
            if entry is None or not stat.S_ISLNK(entry.status.st_mode):
                found = here
                continue
            links += 1
            if links > _MOST_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = str(entry.path.readlink())
            if target.startswith("/"):
                found = "/"
            left = [name for name in target.split("/") if name not in ("", ".")] + left
        return found

    def on_host(self, path: str) -> Path | None:
        """Return the host's path of a file or folder of the image; None if the image has none of that path."""
        entry = self._entry(self.real_path(path))
        return None if entry is None else entry.path

    def is_of_layer(self, path: str) -> bool:
        """Return whether a layer, and not the root file system below, has the file of this path."""
        folder, _, name = self.real_path(posixpath.dirname(path)).rstrip("/"), "", posixpath.basename(path)
        entry = self._entry(f"{folder}/{name}")
        return entry is not None and any(entry.path.is_relative_to(layer) for layer in self._folders[:-1])

    def names(self, path: str) -> set[str]:
        """Return the names in a folder of the image; empty if there is no such folder."""
        entry = self._entry(self.real_path(path))
        found: set[str] = set()
        hidden: set[str] = set()
        for folder in () if entry is None else entry.folders:
            for child in _children(folder):
                if child.name not in hidden:
                    (hidden if _is_removed(child.stat(follow_symlinks=False)) else found).add(child.name)
            hidden |= found
        return found

    def make_folder(self, path: str) -> Path:
        """Return the folder of this path in the uppermost layer, made if needed; NotADirectoryError if it is a file."""
        top = self._folders[0]
        found = top
        here = "/"
        for part in self.real_path(path).strip("/").split("/"):
            if not part:
                continue
            here = posixpath.join(here, part)
            entry, found = self._entry(here), found / part
            if entry is not None and not stat.S_ISDIR(entry.status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), here)
            if found.is_dir() and not found.is_symlink():
                continue
            was_removed = os.path.lexists(found)
            if was_removed:
                found.unlink()
            found.mkdir()
            if was_removed:
                os.setxattr(found, _OPAQUE, b"y")
            if entry is None:
                found.chmod(0o755)
            else:
                os.chown(found, entry.status.st_uid, entry.status.st_gid)
                found.chmod(stat.S_IMODE(entry.status.st_mode))
        return found

    def place(self, path: str) -> Path:
        """Return the host's path to write a file of the image to, in the uppermost layer; nothing is there."""
        path = self.real_path(path)
        entry = self._entry(path)
        if entry is not None and stat.S_ISDIR(entry.status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        target = self.make_folder(posixpath.dirname(path)) / posixpath.basename(path)
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        return target

    def _entry(self, path: str) -> _Entry | None:
        """Return what is at a path without symlinks among its folders."""
        folders = self._folders
        entry = _Entry(self._folders[0], self._folders[-1].stat(), folders)
        for part in path.strip("/").split("/"):
            if not part:
                continue
            below = _below(folders, part)
            if below is None:
                return None
            entry, folders = below, below.folders
        return entry


def _below(folders: Sequence[Path], name: str) -> _Entry | None:
    merged: list[Path] = []
    first: os.stat_result | None = None
    for folder in folders:
        path = folder / name
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if _is_removed(status):
            break
        if not stat.S_ISDIR(status.st_mode):
            return _Entry(path, status) if first is None else _Entry(merged[0], first, tuple(merged))
        first = first or status
        merged.append(path)
        if _is_opaque(path):
            break
    return None if first is None else _Entry(merged[0], first, tuple(merged))


def _children(folder: Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        yield from entries


def _is_removed(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(folder: Path) -> bool:
    try:
        return os.getxattr(folder, _OPAQUE) == b"y"
    except OSError:
        return False
