"""The list of mounts of a process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modalflow.emulator.processes import mountinfo
from modalflow.emulator.processes.mountinfo import Mounted


def test_names_of_any_bytes_are_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks, letters of other scripts and bytes that are no text are in a path as the file system has them."""
    line = b"36 35 98:0 /a\\040b /donn\xc3\xa9es/\xff\\134 rw master:1 shared:2 - overlay vo-1 rw,errors=continue\n"
    monkeypatch.setattr(Path, "read_bytes", lambda _path: line)
    point = os.fsdecode("/données/".encode() + b"\xff\\")
    assert mountinfo.mounts() == [Mounted("36", "98:0", "/a b", point, "overlay", "vo-1")]


def test_the_mounts_of_this_process_are_listed() -> None:
    """/proc is one of them."""
    assert ("/proc", "proc") in {(mounted.point, mounted.kind) for mounted in mountinfo.mounts()}
