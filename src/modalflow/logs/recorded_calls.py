"""The ended function calls of one task instance or one DAG run, with their timelines and samples; and the samples of
running ones. Only reads.

Reads only usage files written within the time of the run: the name of a file has the time of its first record, and its
entry on the Volume the time of the last one. Blocks: call it in a thread of its own.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from modal import exception

from modalflow.cost.recorded_call import RecordedCall
from modalflow.cost.samples import Samples
from modalflow.cost.usage import KILLED, Record, settled
from modalflow.errors import MalformedMessageError
from modalflow.names import SAMPLES_FOLDER, USAGE_FOLDER, running_samples, usage_file_begun
from modalflow.support.text import one_line

#: Seconds by which clocks may differ, and by which a record may be written after the end of its run.
SLACK = 300.0

#: The most days and files of one question: of more files, those written last. A busy container has about one file for
#: 100 calls.
DAYS, FILES = 62, 4_000

#: Bytes of one file, and of one line. A task can write to the Volume, and a page must not read what it likes.
_LARGEST_FILE, _LONGEST_LINE = 4 << 20, 64 << 10

#: Bytes of files that are kept for the next question.
KEPT = 32 << 20

#: Files read at the same time, and read before the first of them is searched.
_READERS, _AHEAD = 8, 32

#: Containers with running calls of one question. A task instance has one, or two for a moment.
MOST_RUNNING = 4

#: Seconds of a call below which it has no samples.
_UNSAMPLED = 1.0

_MISSING = (exception.NotFoundError, FileNotFoundError)

#: In each line with the record of a killed container: all of them together decide on the time of each.
_MARKS = [f'"outcome":{json.dumps(outcome)}'.encode() for outcome in KILLED]


@dataclass(frozen=True)
class _File:
    """A file of usage records, as listed."""

    day: str
    name: str
    size: int
    written_at: float
    """When it last changed, in seconds since the epoch; 0 if unknown."""

    @property
    def path(self) -> str:
        return f"{USAGE_FOLDER}/{self.day}/{self.name}"

    @property
    def samples_path(self) -> str:
        return f"{USAGE_FOLDER}/{self.day}/{SAMPLES_FOLDER}/{self.name}"


class RecordedCalls:
    """Reads the ended calls of one worker app, and keeps the files for the next question, within limits."""

    def __init__(self, kept: int = KEPT) -> None:
        """``kept`` is how many bytes of files are kept."""
        self._contents = _Contents(kept)

    def of_run(self, volume: Any, dag_id: str, run_id: str, began_at: float, ended_at: float) -> list[RecordedCall]:
        """Return the calls of a DAG run, the earliest first, without samples.

        ``began_at`` and ``ended_at`` are the run's times in seconds since the epoch; the present for a run that has not
        ended. Raises the SDK's errors.
        """
        wanted = one_line(dag_id), one_line(run_id)
        return [
            call
            for _, call in self._calls(volume, run_id, began_at, ended_at)
            if (call.record.dag_id, call.record.run_id) == wanted
        ]

    def of_instance(
        self,
        volume: Any,
        dag_id: str,
        task_id: str,
        run_id: str,
        map_index: int,
        began_at: float,
        ended_at: float,
    ) -> list[RecordedCall]:
        """Return the calls of all tries of a task instance, the earliest first, with their samples.

        ``began_at`` is when its first try was queued, and ``ended_at`` when its last try ended: in seconds since the
        epoch, the present for a try that has not ended. Raises the SDK's errors.
        """
        wanted = one_line(dag_id), one_line(task_id), one_line(run_id), map_index
        found = [
            (file, call)
            for file, call in self._calls(volume, run_id, began_at, ended_at)
            if _instance(call.record) == wanted
        ]
        samples = self._samples(volume, found)
        return [replace(call, samples=samples.get(_key(call.record))) for _, call in found]

    def running_samples(self, volume: Any, containers: Sequence[tuple[str, float]]) -> dict[tuple[str, str], Samples]:
        """Return the samples of running calls by the ids of call and container, as far as they are published.

        ``containers`` are ids with the times of their starts. One file is read for each. Raises the SDK's errors.
        """
        found = {}
        for container_id, started_at in containers[:MOST_RUNNING]:
            try:
                path = running_samples(container_id, started_at)
            except ValueError:
                continue
            for line in _content(volume, path).decode("utf-8", "replace").splitlines():
                try:
                    samples = Samples.from_line(line)
                except MalformedMessageError:
                    continue
                # Another container's line is no one's.
                if samples.container_id == container_id:
                    found[samples.function_call_id, container_id] = samples
        return found

    def _calls(
        self, volume: Any, run_id: str, began_at: float, ended_at: float
    ) -> Iterator[tuple[_File, RecordedCall]]:
        """Yield the calls of a run, perhaps with some of others, the earliest first, each with its file."""
        marks = [f'"run_id":{json.dumps(run_id)}'.encode(), *_MARKS]
        files = list(_files(volume, began_at - SLACK, ended_at + SLACK))
        found: dict[tuple[str, str], tuple[_File, RecordedCall]] = {}
        records = []
        for file, content in zip(files, self._read(volume, [(file.path, file.size) for file in files]), strict=True):
            for line in _lines(content, marks):
                try:
                    call = RecordedCall.from_line(line)
                except MalformedMessageError:
                    # From another program, or from a container that was killed during the write.
                    continue
                records.append(call.record)
                if not call.record.is_of_killed or _key(call.record) not in found:
                    found[_key(call.record)] = file, call
        for record in sorted(settled(records), key=lambda each: each.taken_at):
            file, call = found[_key(record)]
            yield file, replace(call, record=record)

    def _samples(self, volume: Any, calls: Iterable[tuple[_File, RecordedCall]]) -> dict[tuple[str, str], Samples]:
        keys = {_key(call.record) for _, call in calls}
        files = {file for file, call in calls if call.record.running >= _UNSAMPLED}
        found = {}
        # A file of records grows with each of its samples.
        for content in self._read(volume, [(file.samples_path, file.size) for file in files]):
            for line in _lines(content, [json.dumps(call_id).encode() for call_id, _ in keys]):
                try:
                    samples = Samples.from_line(line)
                except MalformedMessageError:
                    continue
                found[samples.function_call_id, samples.container_id] = samples
        return found

    def _read(self, volume: Any, files: Sequence[tuple[str, int]]) -> Iterator[bytes]:
        """Yield the content of each file, given its path and its size."""
        with ThreadPoolExecutor(_READERS, thread_name_prefix="modalflow-calls") as pool:
            # Not all at once: the pool reads on without waiting for its reader, and keeps what it has read.
            for begin in range(0, len(files), _AHEAD):
                yield from pool.map(
                    lambda file: self._contents.get(file[0], file[1], lambda: _content(volume, file[0])),
                    files[begin : begin + _AHEAD],
                )


class _Contents:
    """Contents of files, the last used ones, up to a number of bytes. Any thread may use it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[str, tuple[int, bytes]] = {}
        self._size = 0
        self._lock = threading.Lock()

    def get(self, path: str, version: int, read: Callable[[], bytes]) -> bytes:
        """Return the content of a version of a file, and ``read`` it if it is not kept."""
        with self._lock:
            if (found := self._kept.pop(path, None)) is not None and found[0] == version:
                self._kept[path] = found
                return found[1]
            self._size -= len(found[1]) if found is not None else 0
        content = read()
        with self._lock:
            if (other := self._kept.pop(path, None)) is not None:
                self._size -= len(other[1])
            self._kept[path] = version, content
            self._size += len(content)
            while self._size > self._most:
                self._size -= len(self._kept.pop(next(iter(self._kept)))[1])
        return content


def _key(record: Record) -> tuple[str, str]:
    return record.function_call_id, record.container_id


def _instance(record: Record) -> tuple[str, str, str, int]:
    return record.dag_id, record.task_id, record.run_id, record.map_index


def _files(volume: Any, first: float, last: float) -> list[_File]:
    """Return the files that may have records written within this time."""
    found = []
    for day in _days(first, last):
        try:
            entries = volume.listdir(f"{USAGE_FOLDER}/{day}")
        except _MISSING:
            continue
        for entry in entries:
            file = _File(str(day), str(entry.path).rpartition("/")[2], int(entry.size), float(entry.mtime))
            if entry.type.name == "FILE" and file.size <= _LARGEST_FILE and _is_within(file, first, last):
                found.append(file)
    found.sort(key=lambda file: -file.written_at)
    return found[:FILES]


def _is_within(file: _File, first: float, last: float) -> bool:
    begun = usage_file_begun(file.day, file.name)
    return not (0 < file.written_at < first) and not (begun is not None and begun.timestamp() > last)


def _days(first: float, last: float) -> list[date]:
    """Return the days in UTC of this time, at most the last ``DAYS`` of them."""
    begin, end = (datetime.fromtimestamp(at, UTC).date() for at in (first, max(first, last)))
    days = min((end - begin).days + 1, DAYS)
    return [end - timedelta(days=number) for number in reversed(range(days))]


def _lines(content: bytes, marks: Sequence[bytes]) -> Iterator[str]:
    """Yield the lines with one of these marks: to search is much cheaper than to parse."""
    for line in content.split(b"\n"):
        if len(line) <= _LONGEST_LINE and any(mark in line for mark in marks):
            yield line.decode("utf-8", "replace")


def _content(volume: Any, path: str) -> bytes:
    """Return a file; nothing of one that is too large. The listed size of a file of samples is not known."""
    parts, size = [], 0
    try:
        for part in volume.read_file(path):
            parts.append(part)
            size += len(part)
            if size > _LARGEST_FILE:
                return b""
        return b"".join(parts)
    except _MISSING:
        # Another process has just removed old records, or there are no samples.
        return b""
