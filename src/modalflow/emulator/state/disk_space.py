"""Free disk space: checks, error texts, and a reserve for a full disk.

Owns the reserve file and the definition of an unwritable disk. It refuses nothing itself.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from pathlib import Path

log = logging.getLogger(__name__)

#: The size of the reserve. The small records of ended calls, stops and removals still fit into it.
RESERVE = 2**20

#: The free bytes needed before the reserve is made again: otherwise it would come and go.
RESTORE_AT = 4 * RESERVE

#: Requests up to this size are not worth a check of the disk; most are smaller.
SMALL = 32 * 1024

#: The bytes needed by a small change: a transaction writes whole pages, into the write-ahead log and then the file.
MARGIN = 128 * 1024

#: The number of copies of a request: in the write-ahead log, and in the file after folding.
COPIES = 2

RESERVED = "state.reserve"

#: The operating system's errors for an unwritable disk.
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO})

#: SQLite's codes for the same errors.
_BY_SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_IOERR: errno.EIO,
}


class StateError(RuntimeError):
    """The error for an unusable or unwritable state folder. The text has the reason and the way to fix it."""


def unwritable(error: OSError) -> bool:
    """Return whether the error is caused by the disk, and not by the data."""
    return error.errno in _UNWRITABLE


def is_full(error: sqlite3.Error) -> bool:
    """Return whether the error means a full disk."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def is_of_disk(error: sqlite3.Error) -> bool:
    """Return whether the error is caused by the disk, and not by a damaged file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {*_BY_SQLITE, sqlite3.SQLITE_CANTOPEN}


def reason(error: BaseException) -> str:
    """Return the reason for a failed write, in the operating system's words."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, sqlite3.Error):
        number = _BY_SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        return str(error) if number is None else f"{os.strerror(number)} ({error})"
    return str(error)


def error_text(folder: Path, why: str) -> str:
    """Return the error text for a caller with data to be kept."""
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
    """Return the number of free bytes at the folder, for this user."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def short_of(folder: Path, size: int) -> str:
    """Return the reason if the folder's disk has not enough bytes with some to spare; empty if it has."""
    left = free(folder)
    if left >= size + MARGIN:
        return ""
    return error_text(folder, f"{os.strerror(errno.ENOSPC)}: it takes {size:,} bytes, {left:,} are left")


class DiskReserve:
    """A file of zeros, removed when the disk is full, so that important records can be written.

    It outlives the control plane, so that the next one can start on a full disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / RESERVED
        self.is_held = False

    def hold(self) -> bool:
        """Make the reserve if there is plenty of space beside it; return whether it exists."""
        if self.is_held:
            return True
        try:
            if not self._path.exists() and free(self._folder) < RESTORE_AT:
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
        """Remove the reserve."""
        self.is_held = False
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.debug("the reserve in %s cannot be removed: %s", self._folder, error)
