"""Writing to a disk that does not take everything: nothing is lost, nothing is half written, and it recovers."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modalflow.emulator.state import disk_space
from modalflow.emulator.state import journal as journals
from modalflow.emulator.state.disk_space import RESERVE, RESERVED, DiskReserve
from modalflow.emulator.state.journal import Journal, StateError


class Disk:
    """What the connections of a journal do: fails a statement as the disk would."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.fail_at = -1
        """The number of the statement that fails, counted from when it was set."""
        self.fails_always = False
        self.is_full_without_reserve: Path | None = None

    def arm(self, number: int, *, always: bool = False) -> None:
        self.seen.clear()
        self.fail_at, self.fails_always = number, always

    def ask(self, statement: str) -> None:
        self.seen.append(statement)
        number = len(self.seen) - 1
        if number == self.fail_at or (self.fails_always and number >= self.fail_at >= 0):
            raise full()
        if self.is_full_without_reserve is not None and self.is_full_without_reserve.exists():
            raise full()


def full() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk()

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            made.ask(sql)
            return super().execute(sql, *args)

        def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
            made.ask(sql)
            return super().executemany(sql, *args)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **how: connect(*args, **how, factory=Connection))
    monkeypatch.setattr(journals, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(journals, "PROBE_SECONDS", 0.0)
    yield made


def kept(folder: Path) -> list[tuple[str, Any, Any]]:
    """What a journal finds that begins with what is on disk."""
    journal = Journal(folder)
    found = list(journal.table("things", int).load())
    journal.close()
    return found


@pytest.mark.parametrize("number", range(5))
async def test_a_statement_that_fails_once_is_made_up_for_at_once(tmp_path: Path, disk: Disk, number: int) -> None:
    """Whichever statement of a transaction fails: all of it is on disk when whoever waits for it goes on."""
    journal = Journal(tmp_path)
    table = journal.table("things", int)
    for key, value in (("gone", 0), ("same", 1)):
        table.put("", key, value)
    table.put("all of it", "x", 3)
    await journal.settled()
    table.discard("", "gone")
    table.discard_all("all of it")
    table.put("", "same", 2)
    table.put("", "new", 4)
    disk.arm(number)
    await journal.settled()
    disk.arm(-1)
    assert journal.trouble == ""
    journal.close()
    assert kept(tmp_path) == [("", "same", 2), ("", "new", 4)]


@pytest.mark.parametrize("number", range(4))
async def test_a_disk_that_stays_full_refuses_and_recovers(tmp_path: Path, disk: Disk, number: int) -> None:
    """Whichever statement fails, and goes on to fail: the words name the place, what came meanwhile is not lost, and
    with room everything is written without anybody's doing."""
    journal = Journal(tmp_path)
    table = journal.table("things", int)
    table.put("", "before", 1)
    await journal.settled()
    table.discard("", "before")
    table.put("", "after", 2)
    disk.arm(number, always=True)
    with pytest.raises(StateError, match=f"No space left on device .database or disk is full., .*{tmp_path}"):
        await journal.settled()
    for size in (1, 10_000_000):
        assert "No space left on device" in journal.refusal(size)
    with pytest.raises(StateError):
        await journal.settled()
    table.put("", "meanwhile", 3)
    disk.arm(-1)
    async with asyncio.timeout(10):
        while journal.trouble or journal.is_short:
            await asyncio.sleep(0.01)
    await journal.settled()
    assert journal.refusal(1) == ""
    journal.close()
    assert kept(tmp_path) == [("", "after", 2), ("", "meanwhile", 3)]


async def test_the_reserve_takes_the_transaction_that_did_not_fit(tmp_path: Path, disk: Disk) -> None:
    """What changed when the disk became full is on disk all the same; then large requests are refused, small ones go
    on, and what containers print is not to be kept."""
    journal = Journal(tmp_path)
    table = journal.table("things", int)
    assert (tmp_path / RESERVED).stat().st_size == RESERVE
    disk.is_full_without_reserve = tmp_path / RESERVED
    table.put("", "a", 1)
    await journal.settled()
    assert not (tmp_path / RESERVED).exists()
    assert (journal.is_short, journal.trouble) == (True, "")
    disk.is_full_without_reserve = None
    async with asyncio.timeout(10):
        while journal.is_short:
            await asyncio.sleep(0.01)
    assert (tmp_path / RESERVED).exists()
    journal.close()
    assert kept(tmp_path) == [("", "a", 1)]


def test_the_last_changes_are_tried_at_the_end(tmp_path: Path, disk: Disk) -> None:
    """A journal that is closed while it cannot write says so; a new one finds what was there before."""
    journal = Journal(tmp_path)
    table = journal.table("things", int)
    table.put("", "a", 1)
    disk.arm(0, always=True)
    with pytest.raises(StateError, match="No space left"):
        table.put("", "b", 2)
    with pytest.raises(StateError, match="No space left"):
        journal.close()
    disk.arm(-1)
    assert kept(tmp_path) == [("", "a", 1)]


def test_the_reserve_lets_a_control_plane_start_on_a_full_disk(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier one set aside is there for the next one; without it the message says that there is no room."""
    journal = Journal(tmp_path)
    journal.table("things", int).put("", "a", 1)
    journal.close()
    disk.is_full_without_reserve = tmp_path / RESERVED
    monkeypatch.setattr(disk_space, "free", lambda _folder: RESERVE)
    assert kept(tmp_path) == [("", "a", 1)]
    disk.is_full_without_reserve = None
    disk.arm(0, always=True)
    with pytest.raises(StateError, match=f"{tmp_path} cannot be used: No space left on device .* make room there"):
        Journal(tmp_path)


def test_no_reserve_where_there_is_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small disk the room is for what is to be kept."""
    monkeypatch.setattr(disk_space, "free", lambda _folder: RESERVE)
    assert not DiskReserve(tmp_path).hold()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO])
def test_the_words_are_those_of_the_operating_system(number: int) -> None:
    """Whoever reads the refusal finds the error by its usual name, and where it is."""
    error = OSError(number, os.strerror(number))
    assert disk_space.unwritable(error)
    assert f"{os.strerror(number)}, in its state folder /some/where" in disk_space.error_text(
        Path("/some/where"), disk_space.reason(error)
    )


def test_other_errors_are_no_matter_of_the_disk() -> None:
    """A file that is missing is a fault to be found, not to be waited for."""
    assert not disk_space.unwritable(FileNotFoundError(errno.ENOENT, "No such file"))
    assert not disk_space.unwritable(PermissionError(errno.EACCES, "Permission denied"))
