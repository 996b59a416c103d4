"""The file of the journal: opened, locked, migrated.

Owns the pragmas and the version of the format. ``journal`` reads and writes the records.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from modalflow.emulator.state import disk_space
from modalflow.emulator.state.disk_space import StateError

#: The version of the records' format. A change that makes older files unreadable needs a migration.
FORMAT = 1

#: The steps from one format to the next, by the older one.
MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {}

#: The length of the write-ahead log, in bytes, at which it is folded into the main file.
FOLD_AT = 8 * 2**20

RECORDS = "state.sqlite3"
_LOCK = "state.lock"


def damaged(path: Path | None, how: str) -> StateError:
    """Return the error for a file that cannot be read."""
    return StateError(f"{path} cannot be read ({how}); move it away to start again")


def locked(folder: Path) -> IO[bytes]:
    """Lock a state folder until the returned file is closed; StateError if another control plane uses it."""
    lock = (folder / _LOCK).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StateError(
            f"the state folder {folder} is in use by another local control plane; stop that one, or use another folder"
        ) from None
    return lock


def opened(path: Path) -> sqlite3.Connection:
    """Open the file of records, created or migrated if necessary; StateError if it cannot be used."""
    path.touch(mode=0o600)
    # It has the values of Secrets. SQLite gives the files beside it the same mode.
    path.chmod(0o600)
    for is_last in (False, True):
        try:
            return _connected(path)
        except sqlite3.DatabaseError as error:
            if not disk_space.is_of_disk(error):
                raise damaged(path, str(error)) from error
            if is_last:
                raise StateError(
                    f"the state folder {path.parent} cannot be used: {disk_space.reason(error)}; "
                    "make room there, then start again"
                ) from error
            # An earlier control plane reserved this space.
            disk_space.DiskReserve(path.parent).release()
    raise AssertionError("the loop returns or raises")


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        # Otherwise the log keeps its maximum length, and would appear long forever.
        connection.execute(f"PRAGMA journal_size_limit = {FOLD_AT // 2}")
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        _migrate(connection, path, found if tables else FORMAT)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path, found: int) -> None:
    if found > FORMAT:
        raise StateError(
            f"{path} was written by a newer modalflow (format {found}; this one knows {FORMAT}); "
            "upgrade modalflow, or give another state folder"
        )
    connection.execute("BEGIN IMMEDIATE")
    for step in range(found, FORMAT):
        if step not in MIGRATIONS:
            connection.execute("ROLLBACK")
            raise StateError(
                f"{path} was written by an older modalflow (format {found}), which this one cannot read; "
                "give another state folder"
            )
        MIGRATIONS[step](connection)
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")
