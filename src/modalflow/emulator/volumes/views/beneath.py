"""Access from outside to files below a directory that a container may be changing.

Owns the way to them: it follows no symlink at any name of a path, for any moment of its creation by a container. The
control plane's root would resolve such a link, with its rights.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from modalflow.emulator.volumes.tree import split

#: Opened for its place alone: that neither waits, as opening a pipe does, nor needs the right to read.
_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def directory(root: Path, path: str) -> Iterator[int]:
    """Open a directory for its place. OSError if it, or one above it, is missing or is a symlink.

    ``root`` itself may be a link of /proc. The descriptor is for calls that take a ``dir_fd``.
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
    """Yield the last name of a path, and the directory that holds it, opened for its place."""
    above, name = split(path)
    with directory(root, above) as descriptor:
        yield name, descriptor


@contextlib.contextmanager
def opened(root: Path, path: str) -> Iterator[int]:
    """Open a regular file or a directory for reading, also one that its owner, who is this user, may not read.

    FileNotFoundError if none is there any more.
    """
    try:
        descriptor = _opened(root, path)
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, "a directory above it is gone", path) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def link_target(root: Path, path: str) -> str:
    """Return what a symlink points at; FileNotFoundError if none is there any more."""
    try:
        with holder(root, path) as (name, above):
            return os.readlink(name, dir_fd=above)
    except OSError as error:
        raise FileNotFoundError(error.errno, "it is no symlink any more", path) from error


def dress(root: Path, path: str, *, mode: int | None = None, mtime_ns: int) -> None:
    """Set the time of a directory, and its mode unless that is None."""
    with directory(root, path) as descriptor:
        if mode is not None:
            _again(descriptor).chmod(mode)
        os.utime(_again(descriptor), ns=(mtime_ns, mtime_ns))


def _opened(root: Path, path: str) -> int:
    with _place(root, path) as place:
        status = os.fstat(place)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise FileNotFoundError(errno.ENOENT, "it is no regular file any more", path)
        readable = _again(place)
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
    """Open any kind of node at a path, for its place."""
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


def _again(descriptor: int) -> Path:
    """Return a path to what is open, for calls that take no descriptor of a place."""
    return Path(f"/proc/self/fd/{descriptor}")
