"""Transactions of the journal, one at a time, with a reserve for a full disk.

Owns the reserve and the state of the disk. The set of changed records, and the time of writing, belong to journal.py.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from modalflow.emulator.state import disk_space
from modalflow.emulator.state.disk_space import StateError

log = logging.getLogger(__name__)


class Writes(Protocol):
    """The interface of changes to be written."""

    def write(self, connection: sqlite3.Connection) -> None:
        """Write the changes, within a transaction; they stay pending until the caller clears them."""


class Transactions:
    """The writer of one file of records."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path
        self._reserve = disk_space.DiskReserve(path.parent)
        self._reserve.hold()
        self.trouble = ""
        """The reason for the failure of the last transaction, empty if it succeeded."""
        self.is_short = False
        """Whether the disk was full, and there is no space for a reserve yet."""

    def write(self, changed: Collection[Writes]) -> None:
        """Write all changes or none; StateError if the disk is unwritable."""
        failed: Exception | None = None
        for remedy in (None, self._folded, self._released):
            if remedy is not None and not remedy():
                continue
            try:
                self._write(changed)
            except sqlite3.Error as error:
                self._note_shortage(error)
                failed = error
            else:
                break
        else:
            assert failed is not None
            raise self._failed(failed) from failed
        if self.trouble:
            log.warning("%s accepts writes again", self._path)
            self.trouble = ""

    def refusal(self, size: int) -> str:
        """Return the reason if a change of about this size cannot be kept, empty if it probably can."""
        if self.trouble:
            return self.trouble
        if size <= disk_space.SMALL:
            return disk_space.short_of(self._path.parent, 0) if self.is_short else ""
        return disk_space.short_of(self._path.parent, disk_space.COPIES * size)

    def recover(self) -> None:
        """Make the reserve again, if there is space for it."""
        if self.is_short and not self.trouble and self._reserve.hold():
            log.warning("there is free space again at %s", self._path)
            self.is_short = False

    def make_room(self, size: int) -> None:
        """Release the reserve for a small but important write to a file, if even less is free."""
        if self._reserve.is_held and disk_space.free(self._path.parent) < size:
            self._reserve.release()
            self.is_short = True

    def _write(self, changed: Collection[Writes]) -> None:
        try:
            self._connection.execute("BEGIN")
            for each in changed:
                each.write(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite rolls back some failed transactions itself.
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise

    def _note_shortage(self, error: sqlite3.Error) -> None:
        if not self.is_short and disk_space.is_full(error):
            log.error(
                "%s: %s. Until there is room again, large requests are refused and containers' output is not kept",
                self._path,
                disk_space.reason(error),
            )
            self.is_short = True

    def _folded(self) -> bool:
        """Free space in the write-ahead log. It is not truncated, so that no other program can use its space."""
        try:
            (busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        except sqlite3.Error:
            return False
        return not busy

    def _released(self) -> bool:
        if not self._reserve.is_held:
            return False
        self._reserve.release()
        self._folded()
        return True

    def _failed(self, error: Exception) -> StateError:
        # The changes stay pending: with free space on the disk, the next attempt includes them.
        if not self.trouble:
            log.error(
                "the state cannot be written to %s: %s; another attempt follows", self._path, disk_space.reason(error)
            )
        self.trouble = disk_space.error_text(self._path.parent, disk_space.reason(error))
        return StateError(self.trouble)
