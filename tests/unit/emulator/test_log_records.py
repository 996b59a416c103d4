"""What was printed, after the end of a control plane."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from modal_proto import api_pb2

from modalflow.emulator.logs import app_log
from modalflow.emulator.logs.app_log import AppLog
from modalflow.emulator.logs.log_records import LogRecords
from modalflow.emulator.state.journal import Journal

OUT, ERR = api_pb2.FILE_DESCRIPTOR_STDOUT, api_pb2.FILE_DESCRIPTOR_STDERR


def rows(journal: Journal) -> int:
    return len(list(journal.read("log_entries")))


async def test_entries_are_as_they_were(tmp_path: Path) -> None:
    """Text, time, number and whose they are; what is printed afterwards has later numbers."""
    journal = Journal(tmp_path)
    log = AppLog("ap-1", LogRecords(journal))
    for turn in range(3):
        for line in range(3):
            log.add(f"{turn}.{line}\n", ERR if line == 1 else OUT, container_id="ta-1", input_id=f"in-{turn}")
        await journal.settled()
    AppLog("ap-2", LogRecords(journal)).add("of another app\n", OUT)
    before = log.after(0)
    assert len(before) == 9
    assert rows(journal) == 3, "a record for what one turn of the loop brings"
    journal.close()

    journal = Journal(tmp_path)
    again = AppLog("ap-1", LogRecords(journal))
    assert again.after(0) == before
    again.add("later\n", OUT)
    assert [entry.number for entry in again.after(8)] == [9, 10]
    journal.close()
    assert len(AppLog("ap-1", LogRecords(Journal(tmp_path))).after(0)) == 10


@pytest.mark.parametrize("limit", ["KEPT_ENTRIES", "KEPT_SIZE", "age"])
async def test_the_oldest_go(tmp_path: Path, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much or too old is forgotten, on disk as well: the folder does not grow for ever."""
    journal = Journal(tmp_path)
    log = AppLog("ap-1", LogRecords(journal))
    if limit != "age":
        monkeypatch.setattr(app_log, limit, 10)
    for number in range(30):
        log.add(f"{number % 10}", OUT)
        await journal.settled()
    if limit == "age":
        log.forget(log.after(0)[20].timestamp_ns)
        await journal.settled()
    assert [entry.number for entry in log.after(0)] == list(range(21, 31))
    assert rows(journal) == 10
    journal.close()
    again = AppLog("ap-1", LogRecords(Journal(tmp_path)))
    assert again.after(0) == log.after(0)


async def test_a_forgotten_app_leaves_nothing(tmp_path: Path) -> None:
    """With its app the whole log goes, what is not on disk yet included."""
    journal = Journal(tmp_path)
    records = LogRecords(journal)
    log = AppLog("ap-1", records)
    log.add("a\n", OUT)
    await journal.settled()
    log.add("b\n", OUT)
    records.forget("ap-1")
    await journal.settled()
    assert rows(journal) == 0
    log.forget(time.time_ns())
