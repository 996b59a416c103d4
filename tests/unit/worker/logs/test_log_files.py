"""A log in parts, on a real file system."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from modalflow.errors import MalformedMessageError
from modalflow.logs.log_format import log_line
from modalflow.worker.logs.log_files import CallLog, PartWriter


def test_a_log_goes_on_in_another_file_where_one_is_full(tmp_path: Path) -> None:
    """No part is longer than its limit, none is cut within a line, and by name they are in their order."""
    writer = PartWriter(tmp_path / "a.log", part_size=100)
    lines = [f"line {n}\n".encode() for n in range(200)]
    for line in lines:
        writer.write(line)
    writer.close()
    parts = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    assert b"".join(parts) == b"".join(lines)
    assert all(len(text) <= 100 and text.endswith(b"\n") for text in parts) and len(parts) > 10


def test_a_line_longer_than_a_part_is_in_one_piece(tmp_path: Path) -> None:
    """What is too long for any part has one of its own."""
    writer = PartWriter(tmp_path / "a.log", part_size=100)
    for line in (b"short\n", b"x" * 1000 + b"\n", b"short\n"):
        writer.write(line)
    writer.close()
    assert [len(path.read_bytes()) for path in sorted(tmp_path.iterdir())] == [6, 1001, 6]


def test_the_end_of_a_segment_is_in_its_last_part(tmp_path: Path) -> None:
    """Reason and footer come after all that was written, and its size counts every part."""
    call_log = CallLog(tmp_path, "log", "fc-1")
    call_log.open("Started")
    writer = PartWriter(call_log.path, part_size=1000)
    for number in range(100):
        writer.write(log_line("info", f"line {number}", "task"))
    writer.close()
    call_log.error("it was killed")
    call_log.footer("it cost nothing", dollars=0)
    files = sorted(call_log.path.parent.iterdir())
    told = [json.loads(line)["event"] for path in files for line in path.read_text().splitlines()]
    assert told == ["Started", *(f"line {number}" for number in range(100)), "it was killed", "it cost nothing"]
    assert call_log.size() == sum(path.stat().st_size for path in files) and len(files) > 5


def test_a_full_disk_costs_lines_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing never raises; when there is room again the log tells how much is missing where."""
    writer = PartWriter(tmp_path / "a.log")
    writer.write(b'"before"\n')

    def write(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        for _ in range(3):
            writer.write(b'"lost"\n')
    writer.write(b'"after"\n')
    writer.close()
    before, missing, after = map(json.loads, (tmp_path / "a.log").read_text().splitlines())
    assert (before, after) == ("before", "after")
    assert missing["event"] == "3 lines of this log are missing here: No space left on device"


def test_each_function_call_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Two calls of one log are two files, and the older sorts first."""
    first, second = CallLog(tmp_path, "dag/run", "fc-b"), CallLog(tmp_path, "dag/run", "fc-a")
    first.open("Started", container_id="ta-1")
    second.open("Started")
    assert sorted(path.name for path in (tmp_path / "dag/run").iterdir()) == [first.path.name, second.path.name]
    assert json.loads(first.path.read_text())["container_id"] == "ta-1"


@pytest.mark.parametrize("log_path", ["", "/", ".", ".."])
def test_a_log_has_a_folder(tmp_path: Path, log_path: str) -> None:
    """Refuse a log path that names no folder."""
    with pytest.raises(MalformedMessageError, match="log_path"):
        CallLog(tmp_path, log_path, "fc-1")


@pytest.mark.parametrize("log_path", ["/absolute", "../up", "a/../../up", f"run_id={'r' * 250}/task_id={'任务' * 45}"])
def test_a_log_stays_on_the_volume(tmp_path: Path, log_path: str) -> None:
    """Whatever the ids of a task are, its log is a file below the Volume, under a name that a file can have."""
    call_log = CallLog(tmp_path, log_path, "fc-1")
    call_log.open("Started")
    assert call_log.path.is_file() and call_log.path.resolve().is_relative_to(tmp_path)


@pytest.mark.parametrize("left", [b"", b"whole line\n", b"half a li", b"\xff\xfe"])
def test_the_reason_is_a_line_of_its_own(tmp_path: Path, left: bytes) -> None:
    """Whatever a killed process left at the end of the file, the reason can be read as JSON."""
    call_log = CallLog(tmp_path, "log", "fc-1")
    call_log.path.parent.mkdir()
    call_log.path.write_bytes(left)
    call_log.error("it was killed")
    last = call_log.path.read_bytes().splitlines()[-1]
    assert (json.loads(last)["level"], json.loads(last)["event"]) == ("error", "it was killed")
    assert call_log.path.read_bytes().startswith(left)
