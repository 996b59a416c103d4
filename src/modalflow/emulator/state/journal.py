"""The journal: records in SQLite, written before the answer to a request is sent.

Owns the records and the order of writing. Services hold their objects in memory and report changes: ``put`` and
``discard`` write nothing until the end of the event loop's turn, when all its changes become one transaction.
``settled`` waits for this transaction. The dispatcher awaits it before each answer, so that a kill cannot undo an
acknowledged change.

A full or unwritable disk does not stop the control plane. ``refusal`` gives the reason before a change is made. Earlier
changes, and those that end or free something, stay in memory until they can be written; ``trouble`` has the reason.

The write-ahead log protects a transaction if this process dies at any instruction. It is not synchronised to the disk
each time: after a power failure the file is intact, but the last changes may be missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import cbor2

from modalflow.emulator.state import disk_space
from modalflow.emulator.state.disk_space import StateError as StateError
from modalflow.emulator.state.journal_file import FOLD_AT, RECORDS, damaged, locked, opened
from modalflow.emulator.state.transactions import Transactions

log = logging.getLogger(__name__)

#: The length at which writers wait for the fold: under continuous load the log would never be truncated.
FOLD_FIRMLY_AT = 8 * FOLD_AT

#: The length at which it is folded if less than ``LITTLE`` is free, because folding needs space as well.
FOLD_EARLY_AT = 2**18
LITTLE = 64 * 2**20

#: Seconds between two attempts to write after a failure, and the minimum between two attempts caused by callers.
RETRY_SECONDS = 1.0
PROBE_SECONDS = 0.1

#: Seconds between two checks of its length. Under continuous load the file keeps its length, and without this pause
#: checkpoints would run continuously.
FOLD_EVERY = 1.0

T = TypeVar("T")


class _Gone:
    """The marker for a discarded record."""


_GONE = _Gone()


class Table(Generic[T]):
    """The records of one kind, each with an owner and a key. ``encode`` converts a value for CBOR.

    Values are encoded at the end of the event loop's turn, so later changes in the same turn are included.
    """

    def __init__(self, journal: Journal, kind: str, encode: Callable[[T], Any]) -> None:
        self._journal, self.kind, self._encode = journal, kind, encode
        self._changed: dict[tuple[str, str | bytes], T | _Gone] = {}
        self._cleared: set[str] = set()

    def put(self, owner: str, key: str | bytes, value: T) -> None:
        if self._journal.is_durable:
            self._changed[owner, key] = value
            self._journal.changed(self)

    def discard(self, owner: str, key: str | bytes) -> None:
        if self._journal.is_durable:
            self._changed[owner, key] = _GONE
            self._journal.changed(self)

    def discard_all(self, owner: str) -> None:
        """Discard every record of an owner."""
        if self._journal.is_durable:
            for where in [where for where in self._changed if where[0] == owner]:
                del self._changed[where]
            self._cleared.add(owner)
            self._journal.changed(self)

    def load(self, owned_by: str | None = None) -> Iterator[tuple[str, Any, Any]]:
        """Yield (owner, key, encoded value) of every record, in the order of their first ``put``.

        With ``owned_by``, read the records of this owner only, through an index.
        """
        for owner, key, body in self._journal.read(self.kind, owned_by):
            try:
                decoded = cbor2.loads(body)
            except cbor2.CBORDecodeError as error:
                raise self._journal.damaged(f"a record of {self.kind} is not CBOR: {error}") from error
            yield owner, key, decoded

    def write(self, connection: sqlite3.Connection) -> None:
        """Write the changes. Called by the journal inside its transaction."""
        if self._cleared:
            connection.executemany(f"DELETE FROM {self.kind} WHERE owner = ?", [(owner,) for owner in self._cleared])
        if gone := [where for where, value in self._changed.items() if isinstance(value, _Gone)]:
            connection.executemany(f"DELETE FROM {self.kind} WHERE owner = ? AND key = ?", gone)
        connection.executemany(
            f"INSERT INTO {self.kind} (owner, key, body) VALUES (?, ?, ?) "
            "ON CONFLICT (owner, key) DO UPDATE SET body = excluded.body",
            [
                (*where, body)
                for where, value in self._changed.items()
                if not isinstance(value, _Gone) and (body := self._body(where, value)) is not None
            ],
        )

    def _body(self, where: tuple[str, str | bytes], value: T) -> bytes | None:
        """Return the record as CBOR; None if it cannot be encoded, so that the others are still written."""
        try:
            for name in where:
                if isinstance(name, str):
                    name.encode()
            return cbor2.dumps(self._encode(value))
        except Exception:
            # A boundary: otherwise all records of this turn and of later ones would be lost.
            log.exception("the record %r of %s cannot be written: it is lost with this process", where, self.kind)
            return None

    def written(self) -> None:
        """Forget the changes, which are on disk."""
        self._changed, self._cleared = {}, set()


class Journal:
    """The records of one control plane; without a folder, nothing is stored."""

    def __init__(self, folder: Path | None = None, *, place: Path | None = None) -> None:
        """Use ``place`` in error texts if there is no folder for records."""
        self._place = folder or place or Path()
        self._path = None if folder is None else folder / RECORDS
        self._connection: sqlite3.Connection | None = None
        self._lock: IO[bytes] | None = None
        self._dirty: dict[Table[Any], None] = {}
        self._flushed: asyncio.Future[None] | None = None
        self._checkpoint: threading.Thread | None = None
        self._transactions: Transactions | None = None
        self._tried_at = 0.0
        self._fold_checked_at = time.monotonic()
        self._retry: asyncio.TimerHandle | None = None
        self.is_new = False
        """Whether this journal created its file."""
        if folder is not None:
            self._lock = locked(folder)
            self.is_new = not (folder / RECORDS).exists()
            self._connection = opened(folder / RECORDS)
            self._transactions = Transactions(self._connection, folder / RECORDS)

    @property
    def trouble(self) -> str:
        """Return why changes are not on disk; empty if they are."""
        return "" if self._transactions is None else self._transactions.trouble

    @property
    def is_short(self) -> bool:
        """Return whether the disk was full recently, so that only necessary records should be written."""
        return self._transactions is not None and self._transactions.is_short

    @property
    def is_durable(self) -> bool:
        return self._path is not None

    def table(self, kind: str, encode: Callable[[T], Any]) -> Table[T]:
        """Return the table of this kind, e.g. ``dict_entries``; create it if necessary."""
        if not kind.isidentifier():
            raise ValueError(f"{kind!r} is not a name for a table")
        if self._connection is not None:
            self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS {kind} (owner TEXT, key BLOB, body BLOB, UNIQUE (owner, key))"
            )
        return Table(self, kind, encode)

    def read(self, kind: str, owned_by: str | None = None) -> Iterator[tuple[str, Any, bytes]]:
        """Yield (owner, key, body) of every record of this kind and owner; StateError if the file is damaged."""
        if self._connection is None:
            return
        try:
            where, owners = ("", ()) if owned_by is None else ("WHERE owner = ?", (owned_by,))
            yield from self._connection.execute(f"SELECT owner, key, body FROM {kind} {where} ORDER BY rowid", owners)
        except sqlite3.DatabaseError as error:
            raise self.damaged(str(error)) from error

    def kinds(self) -> list[str]:
        """Return the kinds of all records."""
        if self._connection is None:
            return []
        return [name for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]

    def damaged(self, how: str) -> StateError:
        return damaged(self._path, how)

    def changed(self, table: Table[Any]) -> None:
        """Schedule writing a table at the end of the event loop's turn, or write now if there is no loop."""
        if not self._dirty:
            try:
                asyncio.get_running_loop().call_soon(self._flush)
            except RuntimeError:
                self._dirty[table] = None
                self.flush()
                return
        self._dirty[table] = None

    async def settled(self) -> None:
        """Wait until all changes so far are on disk; StateError if they cannot be written now."""
        if not self._dirty:
            return
        if self.trouble:
            # It is retried in the background; callers do not wait.
            raise StateError(self.trouble)
        if self._flushed is None:
            self._flushed = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(self._flush)
        await asyncio.shield(self._flushed)

    def refusal(self, size: int) -> str:
        """Return why a change of about ``size`` bytes cannot be stored now; empty if it probably can."""
        if self._transactions is None:
            return ""
        now = time.monotonic()
        if (self.trouble or self.is_short) and now - self._tried_at >= PROBE_SECONDS:
            self._tried_at = now
            self._write_or_wait()
        return self._transactions.refusal(size)

    def make_room(self, size: int) -> None:
        """Free ``size`` bytes for a necessary write, if the reserve is sufficient."""
        if self._transactions is not None:
            self._transactions.make_room(size)
            if self.is_short:
                self._retry_later()

    def error_text(self, error: OSError) -> str:
        """Return the error text for a caller whose data could not be stored in a file."""
        return disk_space.error_text(self._place, disk_space.reason(error))

    def flush(self) -> None:
        """Write the changes now; StateError if that is impossible."""
        if self._transactions is None or not self._dirty:
            return
        self._transactions.write(self._dirty)
        for table in self._dirty:
            table.written()
        self._dirty.clear()

    def _write_or_wait(self) -> None:
        """Try to recover from a full disk."""
        with contextlib.suppress(StateError):
            self.flush()
        if self._transactions is not None:
            self._transactions.recover()

    def close(self) -> None:
        """Write the remaining changes and close the file."""
        if self._connection is None:
            return
        if self._retry is not None:
            self._retry.cancel()
        try:
            self.flush()
        finally:
            if self._checkpoint is not None:
                self._checkpoint.join()
            self._connection.close()
            self._connection = None
            if self._lock is not None:
                self._lock.close()

    def _flush(self) -> None:
        waiting, self._flushed = self._flushed, None
        try:
            self.flush()
        except Exception as error:
            # The boundary of a callback: the waiting callers must get every error.
            if not isinstance(error, StateError):
                log.exception("the journal was not written")
            if waiting is not None and not waiting.done():
                waiting.set_exception(error if isinstance(error, StateError) else StateError(repr(error)))
                # The waiters may have been cancelled; then the error is in the log only.
                waiting.exception()
            self._retry_later()
            return
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        if self.is_short:
            self._retry_later()
        self._fold()

    def _retry_later(self) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        if self._connection is None:
            return
        self._write_or_wait()
        if self.trouble or self.is_short:
            self._retry_later()

    def _fold(self) -> None:
        """Fold a long write-ahead log into the main file in a thread, because this waits for the disk."""
        now = time.monotonic()
        if self._path is None or now - self._fold_checked_at < FOLD_EVERY:
            return
        self._fold_checked_at = now
        if self._checkpoint is not None and self._checkpoint.is_alive():
            return
        try:
            size = self._path.with_name(f"{RECORDS}-wal").stat().st_size
        except OSError:
            return
        if size < FOLD_AT and (size < FOLD_EARLY_AT or disk_space.free(self._path.parent) >= LITTLE):
            return
        # PASSIVE does not block writers. RESTART, which does, then has only their latest writes to copy.
        modes = ("PASSIVE", "RESTART") if size >= FOLD_FIRMLY_AT else ("PASSIVE",)
        self._checkpoint = threading.Thread(
            target=_fold, args=(self._path, modes), name="state-checkpoint", daemon=True
        )
        self._checkpoint.start()


def _fold(path: Path, modes: tuple[str, ...]) -> None:
    connection = sqlite3.connect(path)
    try:
        for mode in modes:
            connection.execute(f"PRAGMA wal_checkpoint({mode})")
    except sqlite3.Error:
        log.exception("the write-ahead log of %s could not be folded into it", path)
    finally:
        connection.close()
