"""The usage records on the logs Volume, read little by little: each pass reads what is new, up to a limit.

A pass lists the days once, and the folders of today and yesterday; it then reads only files that have grown. So its
cost grows with the containers that have worked since the previous pass, not with the tasks. Blocks: call it in a thread
of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from modal import exception

from modalflow.cost.usage import Record
from modalflow.errors import MalformedMessageError
from modalflow.names import USAGE_FOLDER

#: Days to read, the newest first.
DAYS = 30

#: Files and bytes of one pass. Reading a record takes 25 µs of the processor that the scheduler also uses.
FILES, BYTES = 64, 2 << 20

#: Bytes of a file that is read. A worker's has 64 KiB, and had at most a day's records before modalflow 0.5. A task can
#: write to the Volume, and this process must not read what it likes.
LARGEST_FILE = 64 << 20

#: Seconds between two files, for the other threads of this process.
_BREATH = 0.002

_MISSING = (exception.NotFoundError, FileNotFoundError)


@dataclass
class _Progress:
    """How far a file is read."""

    size: int = 0
    """Its size when it was read."""
    consumed: int = 0
    """The bytes of its complete lines."""


class UsageFiles:
    """Reads the usage records of one worker app."""

    def __init__(self, today: Callable[[], date] = lambda: datetime.now(UTC).date(), days: int = DAYS) -> None:
        """``days`` is how many days before today are read."""
        self._today = today
        self._number = days
        self._files: dict[str, dict[str, _Progress]] = {}
        self._complete: set[str] = set()
        self._lock = threading.Lock()

    def read(self, volume: Any, keep: Callable[[list[Record]], object]) -> bool:
        """Pass on the records that no earlier pass has passed on; return whether there are more to read at once.

        ``keep`` is called with the records of each file, those of the newest days first. Raises the SDK's
        errors, and TimeoutError while another thread reads; the next call then goes on.
        """
        if not self._lock.acquire(blocking=False):
            # Otherwise the caller would take the records for read.
            raise TimeoutError("an earlier reading is still under way")
        try:
            return self._read(volume, keep)
        finally:
            self._lock.release()

    def _read(self, volume: Any, keep: Callable[[list[Record]], object]) -> bool:
        left, room = FILES, BYTES
        for day in self._days(volume):
            known = self._files.setdefault(day, {})
            changed = [each for each in _listed(volume, day) if known.get(each.path, _Progress()).size != each.size]
            for entry in sorted(changed, key=lambda each: -each.mtime):
                if left <= 0 or room <= 0:
                    return True
                progress = known.setdefault(entry.path, _Progress())
                content = _content(volume, entry.path)
                keep(list(_records(content, progress)))
                left, room = left - 1, room - len(content)
                time.sleep(_BREATH)
            if day < str(self._today() - timedelta(days=1)):
                # No container writes there any more.
                self._complete.add(day)
                del self._files[day]
        return False

    def _days(self, volume: Any) -> list[str]:
        try:
            found = [str(entry.path).rpartition("/")[2] for entry in volume.listdir(USAGE_FOLDER)]
        except _MISSING:
            return []
        first = self._today() - timedelta(days=self._number)
        days = [day for day in found if (_date(day) or date.min) >= first]
        self._complete.intersection_update(days)
        return sorted(set(days) - self._complete, reverse=True)


def _listed(volume: Any, day: str) -> list[Any]:
    try:
        entries = volume.listdir(f"{USAGE_FOLDER}/{day}")
        return [entry for entry in entries if entry.type.name == "FILE" and entry.size <= LARGEST_FILE]
    except _MISSING:
        return []


def _content(volume: Any, path: str) -> bytes:
    try:
        return b"".join(volume.read_file(path))
    except _MISSING:
        # Another process has just removed old records.
        return b""


def _date(name: str) -> date | None:
    try:
        return date.fromisoformat(name)
    except ValueError:
        return None


def _records(content: bytes, progress: _Progress) -> Iterator[Record]:
    """Return the records of the new complete lines, and note the progress."""
    end = content.rfind(b"\n") + 1
    lines = content[progress.consumed : end].decode("utf-8", "replace").splitlines()
    progress.size, progress.consumed = len(content), max(end, progress.consumed)
    for line in lines:
        try:
            yield Record.from_line(line)
        except MalformedMessageError:
            # From another program, or from a container that was killed during the write.
            continue
