"""The files of one function call's log, and how lines get into them.

A log is cut into parts of a few megabytes, because a commit publishes, and a reader downloads, whole files: what either
costs must not grow with the log. Used by the processes that write a log; knows nothing of Airflow, Modal or commits.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modalflow.support.text import STORED, clean, one_line

#: Bytes after which a log goes on in another file. No part but the last ever changes.
PART_SIZE = 4 << 20


def part(first: Path, number: int) -> Path:
    """The file of a part, the first being number 0. Sorted by name they are in their order."""
    return first.with_name(f"{first.name}.{number:04}") if number else first


def log_line(level: str, event: str, logger: str, **context: Any) -> bytes:
    """Return a structured line of now, as Airflow reads it; its texts are made safe to show."""
    timestamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    known = {name: one_line(value) if isinstance(value, str) else value for name, value in context.items()}
    entry = {"timestamp": timestamp, "level": level, "event": clean(event, STORED), "logger": logger, **known}
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


class PartWriter:
    """Adds whole lines to a log as a binary file does, and goes on in another part where one is full.

    Never raises for what a disk does: a log that cannot be written is no reason for what it tells of to fail. What was
    left out is told as soon as there is room again.
    """

    def __init__(self, first: Path, *, copy: Path | None = None, part_size: int = PART_SIZE) -> None:
        """``copy`` is a file that gets the same lines, all in one."""
        self._first = first
        self._part_size = part_size
        self._number = 0
        self._lost_lines = 0
        self._why_lost = ""
        self._in_a_line = False
        self._file = _open(first)
        self._size = os.fstat(self._file).st_size
        self._copy = None if copy is None else copy.open("ab", buffering=0)
        self.name = str(copy or first)
        """Airflow finds out by it which file is to be uploaded."""

    def write(self, lines: bytes) -> int:
        """Add whole lines."""
        if self._lost_lines:
            text = f"{self._lost_lines} lines of this log are missing here: {self._why_lost}"
            lines = log_line("warning", text, "modalflow.worker") + lines
        try:
            self._write_all((b"\n" if self._in_a_line else b"") + lines)
        except OSError as error:
            self._lost_lines += lines.count(b"\n") - bool(self._lost_lines)
            self._why_lost = error.strerror or str(error)
        else:
            self._lost_lines = 0
        if self._copy is not None:
            with suppress(OSError):
                self._copy.write(lines)
        return len(lines)

    def _write_all(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._part_size:
            self._next_part()
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:] if written else data)
        finally:
            self._size += written
            if written:
                self._in_a_line = data[written - 1] != 0x0A

    def _next_part(self) -> None:
        file = _open(part(self._first, self._number + 1))
        os.close(self._file)
        self._number += 1
        self._file, self._size, self._in_a_line = file, 0, False

    def flush(self) -> None:
        """Nothing is held back."""

    def fileno(self) -> int:
        return self._file

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._copy is not None:
            self._copy.close()


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o664)
