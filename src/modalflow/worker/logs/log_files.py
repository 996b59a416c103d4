"""The log files of one function call, and how lines are added to them.

A log is cut into files of a few megabytes. A commit uploads and a reader downloads whole files, and neither cost may
grow with the log. A failing disk or Volume never raises here: a log that cannot be written must not fail a workload.
Knows nothing of Airflow, Modal or commits.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modalflow.errors import MalformedMessageError
from modalflow.logs.log_format import log_line
from modalflow.names import log_file, log_part, stored_log_path

log = logging.getLogger(__name__)

_LOGGER = "modalflow.worker"

#: Bytes after which a log continues in another file. Only the last file of a log ever changes.
PART_SIZE = 4 << 20


class CallLog:
    """The log of one function call, as the container's main process writes it: a first line, and lines at the end."""

    def __init__(self, root: Path, log_path: str, function_call_id: str) -> None:
        if not log_path.strip("/."):
            raise MalformedMessageError(f"A submission's log_path is {log_path!r}; expected a folder below the Volume")
        self.path = root / stored_log_path(log_path) / log_file(datetime.now(UTC), function_call_id)
        """The first file. The process that executes the work adds others when one is full."""
        self._number = 0
        self._size_before = 0

    def open(self, event: str, **context: Any) -> None:
        """Create the file with its first line, which describes where the work runs."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._add("info", event, context)

    def info(self, event: str) -> None:
        """Add a line of level info."""
        self._try_to_add("info", event, {})

    def warning(self, event: str) -> None:
        """Add a line of level warning."""
        self._try_to_add("warning", event, {})

    def error(self, event: str) -> None:
        """Add a last line of level error, whatever state the log is in; create the file if there is none."""
        self._try_to_add("error", event, {})

    def footer(self, event: str, **context: Any) -> None:
        """Add a last line about the whole call. Call it after the work has ended."""
        self._try_to_add("info", event, context)

    def size(self) -> int:
        """Return the bytes of all files together."""
        self._newest()
        return self._size_before + _size(self._part())

    def _newest(self) -> Path:
        while _part(self.path, self._number + 1).exists():
            self._size_before += _size(self._part())
            self._number += 1
        return self._part()

    def _part(self) -> Path:
        return _part(self.path, self._number)

    def _try_to_add(self, level: str, event: str, context: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._add(level, event, context)
        except OSError as error:
            log.warning("The line %r could not be added to %s: %s", event, self.path, error)

    def _add(self, level: str, event: str, context: dict[str, Any]) -> None:
        line = log_line(level, event, _LOGGER, **context)
        with self._newest().open("a+b") as file:
            if not _ends_with_newline(file.fileno()):
                line = b"\n" + line
            # One write: otherwise lines of a process that still writes could get into this one.
            os.write(file.fileno(), line)


class PartWriter:
    """A writer of whole lines, with the methods of a binary file, that continues in another part when one is full.

    Never raises for what a disk does. When there is room again, it reports how many lines are missing.
    """

    def __init__(self, first: Path, *, copy: Path | None = None, part_size: int = PART_SIZE) -> None:
        """``copy`` is a single file that gets the same lines."""
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
        """Airflow reads here which file to upload."""
        self.first_write_at = 0.0
        """When lines were first added, in seconds since the epoch; 0 before."""

    def write(self, lines: bytes) -> int:
        """Add whole lines."""
        self.first_write_at = self.first_write_at or time.time()
        if self._lost_lines:
            text = f"{self._lost_lines} lines of this log are missing here: {self._why_lost}"
            lines = log_line("warning", text, _LOGGER) + lines
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
        file = _open(_part(self._first, self._number + 1))
        os.close(self._file)
        self._number += 1
        self._file, self._size, self._in_a_line = file, 0, False

    def flush(self) -> None:
        """Do nothing: no line is held back."""

    def fileno(self) -> int:
        return self._file

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._copy is not None:
            self._copy.close()


def _part(first: Path, number: int) -> Path:
    return first.with_name(log_part(first.name, number))


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o664)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _ends_with_newline(file: int) -> bool:
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"
