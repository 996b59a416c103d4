"""Usage records read little by little, from a Volume in memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest
from modal import exception

from modalflow.cost.usage import Record
from modalflow.logs import usage_files
from modalflow.logs.usage_files import DAYS, FILES, UsageFiles
from tests.unit.logs.volume_in_memory import Volume

TODAY = date(2026, 11, 29)


@pytest.fixture
def volume() -> Volume:
    return Volume()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> UsageFiles:
    monkeypatch.setattr(usage_files, "_BREATH", 0)
    return UsageFiles(lambda: TODAY)


def line(call: str) -> bytes:
    return Record(call, "ta-1", 1.0, "d", "t", "r").to_line().encode()


def read(files: UsageFiles, volume: Volume) -> tuple[list[Record], bool]:
    found: list[Record] = []
    more = files.read(volume, found.extend)
    return found, more


def calls_of(found: tuple[list[Record], bool]) -> list[str]:
    return [record.function_call_id for record in found[0]]


def test_each_record_is_returned_once(volume: Volume, files: UsageFiles) -> None:
    """A file that has grown is read again, and only its new lines count. A line that is not complete waits."""
    assert read(files, volume) == ([], False)
    volume.append("2026-11-29/ta-1-0001.jsonl", line("fc-1") + b"not a record\n" + line("fc-2")[:20])
    assert calls_of(read(files, volume)) == ["fc-1"]
    assert read(files, volume) == ([], False)
    volume.append("2026-11-29/ta-1-0001.jsonl", line("fc-2")[20:] + line("fc-3"))
    assert calls_of(read(files, volume)) == ["fc-2", "fc-3"]


def test_a_pass_without_news_lists_only_the_newest_days(volume: Volume, files: UsageFiles) -> None:
    """Two folders and the list of days: no container writes into the others any more."""
    for day in ("2026-11-29", "2026-11-28", "2026-11-27", "2026-11-01"):
        volume.append(f"{day}/ta-1-0001.jsonl", line(day))
    assert calls_of(read(files, volume)) == ["2026-11-29", "2026-11-28", "2026-11-27", "2026-11-01"]
    volume.calls.clear()
    assert read(files, volume) == ([], False)
    folders = ["modalflow-usage", "modalflow-usage/2026-11-29", "modalflow-usage/2026-11-28"]
    assert volume.calls == folders


def test_a_pass_has_a_limit(volume: Volume, files: UsageFiles) -> None:
    """The newest files come first; the next pass goes on, and none is lost."""
    for number in range(2 * FILES + 1):
        volume.append(f"2026-11-{29 - number % 2}/ta-{number}-0001.jsonl", line(f"fc-{number}"))
    passes = [read(files, volume) for _ in range(4)]
    assert [(len(records), more) for records, more in passes] == [(FILES, True), (FILES, True), (1, False), (0, False)]
    assert passes[0][0][0].function_call_id == f"fc-{2 * FILES}"
    assert len({call for found in passes for call in calls_of(found)}) == 2 * FILES + 1


def test_a_pass_that_fails_goes_on_later(volume: Volume, files: UsageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before the failure is kept, once."""
    for number in range(3):
        volume.append(f"2026-11-29/ta-{number}-0001.jsonl", line(f"fc-{number}"))
    found: list[Record] = []

    def broken(path: str) -> Iterator[bytes]:
        if "ta-1" in path:
            raise exception.ConnectionError("gone")
        return original(path)

    original = volume.read_file
    with monkeypatch.context() as patched:
        patched.setattr(volume, "read_file", broken)
        with pytest.raises(exception.ConnectionError):
            files.read(volume, found.extend)
    assert not files.read(volume, found.extend)
    assert [record.function_call_id for record in found] == ["fc-2", "fc-1", "fc-0"]


def test_only_one_thread_reads(volume: Volume, files: UsageFiles) -> None:
    """A pass that its caller gave up may still be under way; another one meanwhile is an error, not an end."""
    volume.append("2026-11-29/ta-1-0001.jsonl", line("fc-1"))

    def again(_: object) -> None:
        with pytest.raises(TimeoutError, match="under way"):
            read(files, volume)

    assert files.read(volume, again) is False
    assert read(files, volume) == ([], False)


def test_a_huge_file_is_not_read(volume: Volume, files: UsageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task can write one, and the scheduler's process would have all of it in memory."""
    monkeypatch.setattr(usage_files, "LARGEST_FILE", 10_000)
    volume.append(f"{TODAY}/ta-0001.jsonl", line("a"))
    volume.append(f"{TODAY}/ta-0002.jsonl", line("b") * 1000)
    assert calls_of(read(files, volume)) == ["a"]


def test_old_days_and_other_folders_are_not_read(volume: Volume, files: UsageFiles) -> None:
    """Nobody's size follows from a run long ago."""
    volume.append("2026-10-01/ta-1-0001.jsonl", line("fc-old"))
    volume.append("notes/ta-1-0001.jsonl", line("fc-other"))
    assert read(files, volume) == ([], False)
    assert volume.calls == ["modalflow-usage"]
    assert DAYS == 30
