"""Records that survive the end of a control plane."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from modalflow.emulator.state import journal as journals
from modalflow.emulator.state import journal_file
from modalflow.emulator.state.journal import Journal, StateError, Table


async def test_what_is_settled_is_there_for_the_next_one(tmp_path: Path) -> None:
    """A record that was put and settled is read by whoever opens the folder next, even without a close."""
    first = Journal(tmp_path)
    table: Table[int] = first.table("things", lambda value: {"n": value})
    table.put("owner", "a", 1)
    table.put("owner", b"b", 2)
    table.put("other", "a", 3)
    await first.settled()
    rows = sqlite3.connect(tmp_path / "state.sqlite3").execute("SELECT count(*) FROM things").fetchone()
    assert rows == (3,)
    first.close()

    second = Journal(tmp_path)
    assert list(second.table("things", str).load()) == [
        ("owner", "a", {"n": 1}),
        ("owner", b"b", {"n": 2}),
        ("other", "a", {"n": 3}),
    ]
    second.close()


async def test_the_last_word_of_a_turn_counts(tmp_path: Path) -> None:
    """Put, discarded, cleared and put again within one turn of the loop: what stands at its end is kept."""
    journal = Journal(tmp_path)
    table = journal.table("things", int)
    table.put("gone", "a", 1)
    table.put("kept", "a", 1)
    await journal.settled()
    table.put("gone", "b", 1)
    table.discard_all("gone")
    table.put("gone", "c", 2)
    table.discard("kept", "a")
    table.put("kept", "a", 2)
    table.put("kept", "b", 3)
    table.discard("kept", "b")
    await journal.settled()
    assert list(table.load()) == [("kept", "a", 2), ("gone", "c", 2)]
    journal.close()


@pytest.mark.parametrize(
    ("owner", "key", "value"), [("o", "k", object()), ("o", "k", "caf\udce9"), ("o", "\udce9", 1), ("\udce9", "k", 1)]
)
async def test_a_record_that_cannot_be_written_keeps_no_other_from_the_disk(
    owner: str, key: str, value: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither those of the same turn, nor those of the turns after it; the log names the record."""
    journal = Journal(tmp_path)
    table: Table[object] = journal.table("things", lambda given: given)
    table.put("o", "before", 1)
    table.put(owner, key, value)
    await journal.settled()
    table.put("o", "after", 2)
    await journal.settled()
    assert list(table.load()) == [("o", "before", 1), ("o", "after", 2)]
    assert "of things cannot be written" in caplog.text
    journal.close()


@pytest.mark.parametrize(("every", "folded"), [(0.0, range(2, 201)), (3600.0, range(1))])
async def test_a_long_log_is_folded_now_and_then(
    every: float, folded: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write-ahead log that is too long is folded into the main file, and not once more at each turn of the loop."""
    checkpoints: list[Path] = []
    monkeypatch.setattr(journals, "_fold", lambda path, _modes: checkpoints.append(path))
    monkeypatch.setattr(journals, "FOLD_AT", 1)
    monkeypatch.setattr(journals, "FOLD_EVERY", every)
    journal = Journal(tmp_path)
    table = journal.table("things", int)
    for number in range(100):
        table.put("", "a", number)
        await journal.settled()
    journal.close()
    assert len(checkpoints) in folded


async def test_what_nobody_waits_for_is_written_too(tmp_path: Path) -> None:
    """A change by a timer, which no answer waits for, is written at the end of the loop's turn."""
    journal = Journal(tmp_path)
    table = journal.table("things", int)
    table.put("", "a", 1)
    for _ in range(3):
        await asyncio.sleep(0)
    assert list(table.load()) == [("", "a", 1)]
    journal.close()


async def test_a_journal_without_a_folder_keeps_nothing() -> None:
    """An ephemeral control plane writes nothing and waits for nothing."""
    journal = Journal()
    table = journal.table("things", int)
    table.put("", "a", 1)
    await journal.settled()
    assert list(table.load()) == []
    journal.close()


def test_a_folder_has_one_control_plane(tmp_path: Path) -> None:
    """A second control plane on the same folder is refused while the first one lives, and told what to do."""
    first = Journal(tmp_path)
    with pytest.raises(StateError, match="in use by another local control plane; stop that one"):
        Journal(tmp_path)
    first.close()
    Journal(tmp_path).close()


def test_the_format_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A file that a newer modalflow wrote is left as it is."""
    journal = Journal(tmp_path)
    journal.table("things", int)
    journal.close()
    with sqlite3.connect(tmp_path / "state.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(StateError, match=r"newer modalflow \(format 999; this one knows 1\); upgrade"):
        Journal(tmp_path)


def test_the_format_of_an_older_version_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step from an older format to this one is taken, in one transaction, and taken once."""
    journal = Journal(tmp_path)
    journal.table("things", int).put("", "a", 1)
    journal.close()
    monkeypatch.setattr(journal_file, "FORMAT", 2)
    monkeypatch.setattr(journal_file, "MIGRATIONS", {1: lambda c: c.execute("UPDATE things SET owner = 'moved'")})
    for _ in range(2):
        journal = Journal(tmp_path)
        assert list(journal.table("things", int).load()) == [("moved", "a", 1)]
        journal.close()


def test_an_older_format_without_a_way_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no migration the message says so, and nothing is touched."""
    journal = Journal(tmp_path)
    journal.table("things", int)
    journal.close()
    monkeypatch.setattr(journal_file, "FORMAT", 2)
    with pytest.raises(StateError, match=r"older modalflow \(format 1\).*give another state folder"):
        Journal(tmp_path)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """Damage is told with the file's name and the way out."""
    (tmp_path / "state.sqlite3").write_bytes(b"no database, but long enough to be taken for one" * 100)
    with pytest.raises(StateError, match=r"state\.sqlite3 cannot be read .*move it away"):
        Journal(tmp_path)


async def test_what_could_not_be_written_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written fails whoever waits for it, and is written as soon as that is possible."""
    monkeypatch.setattr(journals, "RETRY_SECONDS", 0.01)
    journal = Journal(tmp_path)
    table = journal.table("things", int)
    blocker = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    blocker.execute("PRAGMA journal_mode = WAL")
    assert journal._connection is not None
    journal._connection.execute("PRAGMA busy_timeout = 0")
    blocker.execute("BEGIN IMMEDIATE")
    table.put("", "a", 1)
    with pytest.raises(StateError, match=rf"cannot keep this: database is locked, in its state folder {tmp_path}"):
        await journal.settled()
    assert journal.refusal(1) == journal.trouble
    blocker.execute("ROLLBACK")
    blocker.close()
    async with asyncio.timeout(10):
        while journal.trouble:
            await asyncio.sleep(0.01)
    table.put("", "b", 2)
    await journal.settled()
    assert list(table.load()) == [("", "a", 1), ("", "b", 2)]
    journal.close()
