"""Transactions of the journal, one at a time, with a reserve for a full disk.

Owns the reserve and the knowledge of whether the disk takes what is written. Which records changed, and when they are
written, is journal.py's.
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
    """What has changes to write."""

    def write(self, connection: sqlite3.Connection) -> None:
        """Write them, within a transaction; they stay pending until the caller clears them."""


class Transactions:
    """Writes to one file of records."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path
        self._reserve = disk_space.DiskReserve(path.parent)
        self._reserve.hold()
        self.trouble = ""
        """Why the last transaction failed, empty if it did not."""
        self.is_short = False
        """Whether the disk was full, and there is no room for a reserve yet."""

    def write(self, changed: Collection[Writes]) -> None:
        """Write all of it or nothing; StateError if the disk does not take it."""
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
        """Return why a change of about that many bytes cannot be kept, empty if it probably can."""
        if self.trouble:
            return self.trouble
        if size <= disk_space.SMALL:
            return disk_space.short_of(self._path.parent, 0) if self.is_short else ""
        return disk_space.short_of(self._path.parent, disk_space.COPIES * size)

    def recover(self) -> None:
        """Set the reserve aside again, if there is room for it."""
        if self.is_short and not self.trouble and self._reserve.hold():
            log.warning("there is room again where %s is", self._path)
            self.is_short = False

    def make_way(self, size: int) -> None:
        """Give the reserve to something small that must be written in a file, if not even that much is free."""
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
            # SQLite undoes some failed transactions itself.
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
        """Make room in the write-ahead log. It is not cut, so that no other program can take its room."""
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
        # What changed stays to be written: with room on the disk again, the next attempt takes it along.
        if not self.trouble:
            log.error("the state cannot be written to %s: %s; it is tried again", self._path, disk_space.reason(error))
        self.trouble = disk_space.words(self._path.parent, disk_space.reason(error))
        return StateError(self.trouble)
