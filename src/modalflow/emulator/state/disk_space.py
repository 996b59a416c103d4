"""Free disk space: checks, error texts, and a reserve for a full disk.

Owns the file of the reserve and what counts as a disk that cannot be written to. It refuses nothing itself.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from pathlib import Path

log = logging.getLogger(__name__)

#: Bytes that are set aside. With them the small records of calls that end, of stops and of removals still fit.
RESERVE = 2**20

#: Bytes that have to be free before the reserve is set aside again: otherwise it would come and go.
ROOMY = 4 * RESERVE

#: Bytes of a request that is not worth asking the disk about; most are smaller.
SMALL = 32 * 1024

#: Bytes that a small change may take: a transaction writes whole pages, into the write-ahead log and then the file.
MARGIN = 128 * 1024

#: How often the bytes of a request are written: into the write-ahead log, and into the file when that is folded.
COPIES = 2

RESERVED = "state.reserve"

#: The operating system's errors for a disk that does not take what is written.
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO})

#: What SQLite says instead.
_BY_SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_IOERR: errno.EIO,
}


class StateError(RuntimeError):
    """The state folder cannot be used, or not be written to. Its text says why and what to do."""


def unwritable(error: OSError) -> bool:
    """Whether the error is the disk's, and no fault of what is written."""
    return error.errno in _UNWRITABLE


def is_full(error: sqlite3.Error) -> bool:
    """Whether the error says that there is no room."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def is_of_disk(error: sqlite3.Error) -> bool:
    """Whether the error is the disk's, and no damage of the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {*_BY_SQLITE, sqlite3.SQLITE_CANTOPEN}


def reason(error: BaseException) -> str:
    """Return why a disk did not take something, in the operating system's words."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, sqlite3.Error):
        number = _BY_SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        return str(error) if number is None else f"{os.strerror(number)} ({error})"
    return str(error)


def words(folder: Path, why: str) -> str:
    """Return what to report to the caller who wanted something kept."""
    return (
        f"the local control plane cannot keep this: {why}, in its state folder {folder}{_without_inodes(folder)}. "
        "Make room there and try again. You can still read and remove existing data"
    )


def _without_inodes(folder: Path) -> str:
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    return " (there are too many files: no inode is free)" if found.f_files and not found.f_favail else ""


def free(folder: Path) -> int:
    """Return the bytes that are free where the folder is, for this user."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def short_of(folder: Path, size: int) -> str:
    """Return why the folder's disk does not have that many bytes and some to spare; an empty text if it has."""
    left = free(folder)
    if left >= size + MARGIN:
        return ""
    return words(folder, f"{os.strerror(errno.ENOSPC)}: it takes {size:,} bytes, {left:,} are left")


class DiskReserve:
    """A file of nothing, which is removed when the disk is full, so that what must be written can be.

    It outlives the control plane, so that the next one can start on a full disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / RESERVED
        self.is_held = False

    def hold(self) -> bool:
        """Set the reserve aside, if there is plenty of room beside it; return whether it is."""
        if self.is_held:
            return True
        try:
            if not self._path.exists() and free(self._folder) < ROOMY:
                return False
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.debug("no reserve in %s: %s", self._folder, error)
            self.release()
            return False
        self.is_held = True
        return True

    def release(self) -> None:
        """Give the room back."""
        self.is_held = False
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.debug("the reserve in %s cannot be removed: %s", self._folder, error)
