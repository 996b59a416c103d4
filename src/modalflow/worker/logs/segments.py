"""The log of one function call, as the container's main process sees it: a first line, what ran, and how it ended.

A Volume that fails is borne: a log that cannot be written is never the reason for a workload to fail.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modalflow.errors import MalformedMessageError
from modalflow.names import stored_log_path
from modalflow.worker.logs.parts import log_line, part

log = logging.getLogger(__name__)

_LOGGER = "modalflow.worker"


class Segment:
    """The part of a log that one function call writes, in files of its own, of structured lines."""

    def __init__(self, root: Path, log_path: str, function_call_id: str) -> None:
        if not log_path.strip("/."):
            raise MalformedMessageError(f"A submission's log_path is {log_path!r}; expected a folder below the Volume")
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self.path = root / stored_log_path(log_path) / f"{started}-{function_call_id}.log"
        """The first of its files. What runs begins others where one is full."""
        self._number = 0
        self._size_before = 0

    def open(self, event: str, **context: Any) -> None:
        """Create the file, with a first line that tells where this is running."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._add("info", event, context)

    def warning(self, event: str) -> None:
        """Add a line of level warning."""
        self._try_to_add("warning", event, {})

    def error(self, event: str) -> None:
        """End with a line of level error, whatever state the log was left in; make the file if there is none."""
        self._try_to_add("error", event, {})

    def footer(self, event: str, **context: Any) -> None:
        """End with a line that tells something about the whole of it. To be called when what ran has ended."""
        self._try_to_add("info", event, context)

    def size(self) -> int:
        """Bytes in all."""
        self._newest()
        return self._size_before + _size(self._part())

    def _newest(self) -> Path:
        while part(self.path, self._number + 1).exists():
            self._size_before += _size(self._part())
            self._number += 1
        return self._part()

    def _part(self) -> Path:
        return part(self.path, self._number)

    def _try_to_add(self, level: str, event: str, context: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._add(level, event, context)
        except OSError as error:
            log.warning("%s cannot be ended with %r: %s", self.path, event, error)

    def _add(self, level: str, event: str, context: dict[str, Any]) -> None:
        line = log_line(level, event, _LOGGER, **context)
        with self._newest().open("a+b") as file:
            if not _ends_with_newline(file.fileno()):
                line = b"\n" + line
            # One write, so that lines of a process that still writes do not get into this one.
            os.write(file.fileno(), line)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _ends_with_newline(file: int) -> bool:
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"
