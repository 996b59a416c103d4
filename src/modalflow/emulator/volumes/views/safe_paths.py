"""Access from outside to files below a directory that a container may be changing.

Owns path resolution without symlinks: none is followed at any name of a path, even if a container puts it there at the
last moment. The control plane would resolve a link from its own root, with its own rights.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from modalflow.emulator.volumes.tree import split

#: Opened as a place only: no wait, as for opening a pipe, and no need for the right to read.
_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def directory(root: Path, path: str) -> Iterator[int]:
    """Open a directory as a place. OSError if any directory of the path is missing or is a symlink.

    ``root`` itself may be a link of /proc. The descriptor is for calls with a ``dir_fd``.
    """
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in path.split("/") if path else ():
            below = os.open(name, _PLACE | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def holder(root: Path, path: str) -> Iterator[tuple[str, int]]:
    """Yield the last name of a path, and its directory, opened as a place."""
    above, name = split(path)
    with directory(root, above) as descriptor:
        yield name, descriptor


@contextlib.contextmanager
def opened(root: Path, path: str) -> Iterator[int]:
    """Open a regular file or a directory for reading, even if its mode forbids reading to its owner, this user.

    FileNotFoundError if it no longer exists.
    """
    try:
        descriptor = _opened(root, path)
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, "a directory above it has been removed", path) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def link_target(root: Path, path: str) -> str:
    """Return the target of a symlink; FileNotFoundError if it no longer exists."""
    try:
        with holder(root, path) as (name, above):
            return os.readlink(name, dir_fd=above)
    except OSError as error:
        raise FileNotFoundError(error.errno, "it is no longer a symlink", path) from error


def set_mode_and_time(root: Path, path: str, *, mode: int | None = None, mtime_ns: int) -> None:
    """Set the time of a directory, and its mode unless it is None."""
    with directory(root, path) as descriptor:
        if mode is not None:
            _proc_path(descriptor).chmod(mode)
        os.utime(_proc_path(descriptor), ns=(mtime_ns, mtime_ns))


def _opened(root: Path, path: str) -> int:
    with _place(root, path) as place:
        status = os.fstat(place)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise FileNotFoundError(errno.ENOENT, "it is no longer a regular file", path)
        readable = _proc_path(place)
        try:
            return os.open(readable, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:
            mode = stat.S_IMODE(status.st_mode)
            readable.chmod(mode | stat.S_IRUSR | stat.S_IXUSR)
            try:
                return os.open(readable, os.O_RDONLY | os.O_CLOEXEC)
            finally:
                readable.chmod(mode)


@contextlib.contextmanager
def _place(root: Path, path: str) -> Iterator[int]:
    """Open a path of any kind as a place."""
    if not path:
        with directory(root, "") as descriptor:
            yield descriptor
        return
    with holder(root, path) as (name, above):
        descriptor = os.open(name, _PLACE, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _proc_path(descriptor: int) -> Path:
    """Return a path to an open descriptor, for calls without support for place descriptors."""
    return Path(f"/proc/self/fd/{descriptor}")
