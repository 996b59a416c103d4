"""What survives the end of a control plane, however it ends: records in a SQLite file, written before the answer.

Owns the file, its format and the order of writing. What a record means is its service's, which holds everything in
memory and tells the journal what changed: ``put`` and ``discard`` cost nothing on disk until the end of the event
loop's turn, when all that changed in it becomes one transaction. ``settled`` waits for that transaction; the
dispatcher awaits it before it answers, so that nothing is acknowledged that a kill could undo.

A disk that is full, or cannot be written to, ends nothing. ``refusal`` says so before something is changed. What was
changed before it was noticed, and what ends or frees something, stays in memory and is written as soon as that is
possible; ``trouble`` says why it is not.

The write-ahead log makes a transaction safe from the end of this process at any instruction. It is not synchronised to
the disk each time: after a power cut the file is whole, but the last moments may be missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import cbor2

from modalflow.emulator.state import disk_space
from modalflow.emulator.state.disk_space import StateError as StateError
from modalflow.emulator.state.transactions import Transactions

log = logging.getLogger(__name__)

#: The version of what the records look like. A change that an older file cannot be read with needs a migration.
FORMAT = 1

#: From the format that it starts at to the step that leads to the next one.
MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {}

#: Bytes of the write-ahead log from which on it is folded into the main file.
FOLD_AT = 8 * 2**20

#: Bytes from which on writers are made to wait for that: under a load that never pauses the log would not start anew.
FOLD_FIRMLY_AT = 8 * FOLD_AT

#: Bytes of it from which on it is folded where less than ``LITTLE`` is free: folding takes room, too.
FOLD_EARLY_AT = 2**18
LITTLE = 64 * 2**20

#: Seconds between two attempts to write what could not be written, and at least between two that a caller causes.
RETRY_SECONDS = 1.0
PROBE_SECONDS = 0.1

#: Seconds between two checks of its length. The file keeps its length until it starts anew, which a load that never
#: pauses does not let it: without a pause between them one checkpoint would follow the other.
FOLD_EVERY = 1.0

RECORDS = "state.sqlite3"
_LOCK = "state.lock"

T = TypeVar("T")


class _Gone:
    """Stands for a record that was discarded."""


_GONE = _Gone()


class Table(Generic[T]):
    """The records of one kind, each under an owner and a key. ``encode`` makes of a value what CBOR can hold.

    The value is encoded when the turn of the event loop ends: what is put and then changed in the same turn, without
    an ``await`` between, is written as it became.
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
        """Yield (owner, key, what ``encode`` returned) of every record, in the order in which they were first put.

        ``owned_by`` is the one owner to read of, quickly whatever else there is.
        """
        for owner, key, body in self._journal.read(self.kind, owned_by):
            try:
                decoded = cbor2.loads(body)
            except cbor2.CBORDecodeError as error:
                raise self._journal.damaged(f"a record of {self.kind} is not CBOR: {error}") from error
            yield owner, key, decoded

    def write(self, connection: sqlite3.Connection) -> None:
        """Write what changed; for the journal, within its transaction."""
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
        """Return the record as CBOR; None for one that cannot be encoded, which must not keep others from the disk."""
        try:
            for name in where:
                if isinstance(name, str):
                    name.encode()
            return cbor2.dumps(self._encode(value))
        except Exception:
            # A boundary: any record of the same turn would be lost as well, and each turn after it.
            log.exception("the record %r of %s cannot be written: it is lost with this process", where, self.kind)
            return None

    def written(self) -> None:
        """What changed is on disk."""
        self._changed, self._cleared = {}, set()


class Journal:
    """The records of one control plane; without a folder, none: then everything costs nothing and nothing is kept."""

    def __init__(self, folder: Path | None = None, *, place: Path | None = None) -> None:
        """``place`` is where the control plane keeps its files if there are no records."""
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
        """Whether there was no file of records before this one."""
        if folder is not None:
            self._lock = _locked(folder)
            self.is_new = not (folder / RECORDS).exists()
            self._connection = _opened(folder / RECORDS)
            self._transactions = Transactions(self._connection, folder / RECORDS)

    @property
    def trouble(self) -> str:
        """Why what changed is not on disk; empty while it is."""
        return "" if self._transactions is None else self._transactions.trouble

    @property
    def is_short(self) -> bool:
        """Whether the disk was full lately: then only what must be kept is to be written."""
        return self._transactions is not None and self._transactions.is_short

    @property
    def is_durable(self) -> bool:
        return self._path is not None

    def table(self, kind: str, encode: Callable[[T], Any]) -> Table[T]:
        """Return the table of that kind, e.g. ``dict_entries``, made if the file has none."""
        if not kind.isidentifier():
            raise ValueError(f"{kind!r} is not a name for a table")
        if self._connection is not None:
            self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS {kind} (owner TEXT, key BLOB, body BLOB, UNIQUE (owner, key))"
            )
        return Table(self, kind, encode)

    def read(self, kind: str, owned_by: str | None = None) -> Iterator[tuple[str, Any, bytes]]:
        """Yield (owner, key, body) of every record of that kind and owner; StateError where the file is damaged."""
        if self._connection is None:
            return
        try:
            where, owners = ("", ()) if owned_by is None else ("WHERE owner = ?", (owned_by,))
            yield from self._connection.execute(f"SELECT owner, key, body FROM {kind} {where} ORDER BY rowid", owners)
        except sqlite3.DatabaseError as error:
            raise self.damaged(str(error)) from error

    def kinds(self) -> list[str]:
        """Return the kinds of records that there are."""
        if self._connection is None:
            return []
        return [name for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]

    def damaged(self, how: str) -> StateError:
        return _damaged(self._path, how)

    def changed(self, table: Table[Any]) -> None:
        """The table has something to write: it is written when the event loop's turn ends, without one at once."""
        if not self._dirty:
            try:
                asyncio.get_running_loop().call_soon(self._flush)
            except RuntimeError:
                self._dirty[table] = None
                self.flush()
                return
        self._dirty[table] = None

    async def settled(self) -> None:
        """Wait until all that changed so far is on disk; StateError if it cannot be written now."""
        if not self._dirty:
            return
        if self.trouble:
            # It is being retried, and nobody has to wait for that.
            raise StateError(self.trouble)
        if self._flushed is None:
            self._flushed = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(self._flush)
        await asyncio.shield(self._flushed)

    def refusal(self, size: int) -> str:
        """Return why a change of about that many bytes cannot be kept now, empty if it probably can."""
        if self._transactions is None:
            return ""
        now = time.monotonic()
        if (self.trouble or self.is_short) and now - self._tried_at >= PROBE_SECONDS:
            self._tried_at = now
            self._write_or_wait()
        return self._transactions.refusal(size)

    def make_way(self, size: int) -> None:
        """Have room for that many bytes of something that must be written, if that takes no more than the reserve."""
        if self._transactions is not None:
            self._transactions.make_way(size)
            if self.is_short:
                self._retry_later()

    def words(self, error: OSError) -> str:
        """Return the words for a caller whose data could not be kept in a file."""
        return disk_space.words(self._place, disk_space.reason(error))

    def flush(self) -> None:
        """Write what changed, now; StateError if that is impossible."""
        if self._transactions is None or not self._dirty:
            return
        self._transactions.write(self._dirty)
        for table in self._dirty:
            table.written()
        self._dirty.clear()

    def _write_or_wait(self) -> None:
        """Try to get back to normal."""
        with contextlib.suppress(StateError):
            self.flush()
        if self._transactions is not None:
            self._transactions.recover()

    def close(self) -> None:
        """Write what is left and let go of the file."""
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
            # The boundary of a callback: the waiting callers must get the error, whatever it is.
            if not isinstance(error, StateError):
                log.exception("the journal was not written")
            if waiting is not None and not waiting.done():
                waiting.set_exception(error if isinstance(error, StateError) else StateError(repr(error)))
                # Its waiters may have gone away meanwhile: then the log alone has it.
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
        """Fold a long write-ahead log into the main file, beside the event loop: this waits for the disk."""
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
        # PASSIVE lets writers go on meanwhile. Only what they wrote since is left for the one that makes them wait.
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


def _damaged(path: Path | None, how: str) -> StateError:
    return StateError(f"{path} cannot be read ({how}); move it away to begin anew")


def _locked(folder: Path) -> IO[bytes]:
    lock = (folder / _LOCK).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StateError(
            f"the state folder {folder} is in use by another local control plane; stop that one, or give another folder"
        ) from None
    return lock


def _opened(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)
    # Values of Secrets stand in it. SQLite gives the files beside it the same mode.
    path.chmod(0o600)
    for is_last in (False, True):
        try:
            return _connected(path)
        except sqlite3.DatabaseError as error:
            if not disk_space.is_of_disk(error):
                raise _damaged(path, str(error)) from error
            if is_last:
                raise StateError(
                    f"the state folder {path.parent} cannot be used: {disk_space.reason(error)}; "
                    "make room there, then start again"
                ) from error
            # What an earlier control plane set aside for this.
            disk_space.DiskReserve(path.parent).release()
    raise AssertionError("the loop returns or raises")


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        # Else the log keeps the length it once had, and would look long for ever.
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
