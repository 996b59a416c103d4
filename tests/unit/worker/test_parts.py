"""A log in parts, on a real file system."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from modalflow.worker.logs.parts import PartWriter, log_line
from modalflow.worker.logs.segments import Segment


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
    segment = Segment(tmp_path, "log", "fc-1")
    segment.open("Started")
    writer = PartWriter(segment.path, part_size=1000)
    for number in range(100):
        writer.write(log_line("info", f"line {number}", "task"))
    writer.close()
    segment.error("it was killed")
    segment.footer("it cost nothing", dollars=0)
    files = sorted(segment.path.parent.iterdir())
    told = [json.loads(line)["event"] for path in files for line in path.read_text().splitlines()]
    assert told == ["Started", *(f"line {number}" for number in range(100)), "it was killed", "it cost nothing"]
    assert segment.size() == sum(path.stat().st_size for path in files) and len(files) > 5


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
