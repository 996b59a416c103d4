"""The records of logs: the entries of one turn of the event loop are one record.

Owns their form. They are read one app at a time, on demand, so that the start of a control plane does not wait.
Output that came before a result is on disk with that result, in the same transaction; nothing waits for output alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from modalflow.emulator.state.journal import Journal


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line, or a piece of one: its beginning, or the last output of an input."""

    number: int
    timestamp_ns: int
    data: str
    source: int
    """FILE_DESCRIPTOR_STDOUT, _STDERR, or _INFO for notes of the control plane."""
    container_id: str
    function_id: str
    root_function_id: str
    function_call_id: str
    input_id: str
    continues: bool = False
    """Whether it continues the line of the previous entry from the same place; not stored, see log_lines.py."""


@dataclass(eq=False)
class _Batch:
    entries: list[LogEntry]
    is_written: bool = False


class LogRecords:
    """Records the entries of all apps in a journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._table = journal.table("log_entries", _encode)
        self._batches: dict[str, _Batch] = {}
        self._last_numbers: dict[str, deque[tuple[bytes, int]]] = {}
        """Of each app: (key, number of the last entry) of its records, oldest first."""

    def add(self, app_id: str, entry: LogEntry) -> None:
        if not self._journal.is_durable or self._journal.is_short:
            # On a full disk, the remaining room is for the state of calls.
            return
        batch = self._batches.get(app_id)
        if batch is not None and not batch.is_written:
            batch.entries.append(entry)
            records = self._last_numbers[app_id]
            records[-1] = records[-1][0], entry.number
            return
        self._batches[app_id] = batch = _Batch([entry])
        key = entry.number.to_bytes(8)
        self._last_numbers.setdefault(app_id, deque()).append((key, entry.number))
        self._table.put(app_id, key, batch)

    def load(self, app_id: str) -> list[LogEntry]:
        """Return the recorded entries of an app, oldest first."""
        entries: list[LogEntry] = []
        records = self._last_numbers.setdefault(app_id, deque())
        for _, key, body in self._table.load(app_id):
            batch = [LogEntry(*line, *about) for about, group in body for line in group]
            entries += batch
            records.append((key, batch[-1].number))
        return entries

    def forget_before(self, app_id: str, number: int) -> None:
        """Forget the records that hold only entries before that one."""
        records = self._last_numbers.get(app_id)
        while records and records[0][1] < number:
            self._table.discard(app_id, records.popleft()[0])

    def forget(self, app_id: str) -> None:
        self._batches.pop(app_id, None)
        self._last_numbers.pop(app_id, None)
        self._table.discard_all(app_id)


_ABOUT = attrgetter("source", "container_id", "function_id", "root_function_id", "function_call_id", "input_id")


def _encode(batch: _Batch) -> list[Any]:
    # It may be on disk from now on: later entries go into another batch.
    batch.is_written = True
    # Grouped, because the origin of a line is longer than most lines, and mostly the same for a while.
    return [
        (about, [(e.number, e.timestamp_ns, e.data) for e in group]) for about, group in groupby(batch.entries, _ABOUT)
    ]
