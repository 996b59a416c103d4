"""The log of one app: its entries, and the filter that a request asks for.

Owns how long and how many entries are kept in memory. Their records are LogRecords' matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import dropwhile, islice
from typing import TypeAlias

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.logs.log_lines import Unfinished, joined
from modalflow.emulator.logs.log_records import LogEntry, LogRecords
from modalflow.emulator.rpc.wire import optional
from modalflow.emulator.state.broadcast import Broadcast
from modalflow.emulator.state.journal import Journal

#: The most entries of an app, and characters in them; the oldest are forgotten first.
KEPT_ENTRIES = 200_000
KEPT_SIZE = 64 * 2**20

LogsRequest: TypeAlias = api_pb2.AppGetLogsRequest | api_pb2.AppFetchLogsRequest | api_pb2.AppCountLogsRequest


@dataclass(frozen=True)
class LogFilter:
    """The entries that a request asks for; an empty field matches any."""

    function_id: str = ""
    parametrized_function_id: str = ""
    function_call_id: str = ""
    container_id: str = ""
    input_id: str = ""
    source: int = 0
    text: str = ""

    @classmethod
    def of(cls, request: LogsRequest) -> LogFilter:
        if optional(request, "sandbox_id"):
            raise GRPCError(Status.UNIMPLEMENTED, "The local control plane does not have Sandboxes")
        return cls(
            function_id=request.function_id,
            parametrized_function_id=optional(request, "parametrized_function_id") or "",
            function_call_id=request.function_call_id,
            container_id=request.task_id,
            input_id=optional(request, "input_id") or "",
            source=optional(request, "source") or optional(request, "file_descriptor") or 0,
            text=optional(request, "search_text") or "",
        )

    def match(self, entry: LogEntry) -> bool:
        return (
            self.function_id in ("", entry.function_id, entry.root_function_id)
            and self.parametrized_function_id in ("", entry.function_id)
            and self.function_call_id in ("", entry.function_call_id)
            and self.container_id in ("", entry.container_id)
            and self.input_id in ("", entry.input_id)
            and self.source in (0, entry.source)
            and self.text in entry.data
        )


class AppLog:
    """The entries of one app, oldest first, with those of earlier control planes."""

    def __init__(self, app_id: str, records: LogRecords) -> None:
        self._app_id = app_id
        self._records = records
        self._unfinished = Unfinished()
        self._entries = deque(map(self._unfinished.marked, self._records.load(app_id)))
        self._size = sum(len(entry.data) for entry in self._entries)
        self._next = self._entries[-1].number + 1 if self._entries else 1
        self.grown = Broadcast()

    @classmethod
    def of_entries(cls, entries: Iterable[LogEntry]) -> AppLog:
        """Return the log of a build: it is complete, and kept with its image."""
        log = cls("", LogRecords(Journal()))
        log._entries.extend(map(Unfinished().marked, entries))
        return log

    def add(
        self,
        data: str,
        source: int,
        *,
        container_id: str = "",
        function_id: str = "",
        root_function_id: str = "",
        function_call_id: str = "",
        input_id: str = "",
    ) -> None:
        entry = LogEntry(
            self._next,
            clock.now_ns(),
            data,
            source,
            container_id,
            function_id,
            root_function_id,
            function_call_id,
            input_id,
        )
        self._entries.append(self._unfinished.marked(entry))
        self._size += len(data)
        self._next += 1
        self._records.add(self._app_id, entry)
        if len(self._entries) > KEPT_ENTRIES or self._size > KEPT_SIZE:
            self.forget(0)
        self.grown.notify()

    def forget(self, before_ns: int) -> None:
        """Forget the entries that are older, and the oldest ones above the limits."""
        entries = self._entries
        while len(entries) > 1 and (
            len(entries) > KEPT_ENTRIES or self._size > KEPT_SIZE or entries[0].timestamp_ns < before_ns
        ):
            self._size -= len(entries.popleft().data)
        if entries:
            # The line that it continued is gone.
            entries[0] = replace(entries[0], continues=False)
            self._records.forget_before(self._app_id, entries[0].number)

    def after(self, number: int) -> list[LogEntry]:
        newer: list[LogEntry] = []
        for entry in reversed(self._entries):
            if entry.number <= number:
                break
            newer.append(entry)
        newer.reverse()
        return newer

    def before(self, number: int, count: int) -> list[LogEntry]:
        """Return the last ``count`` entries up to that number, oldest first."""
        older = dropwhile(lambda entry: entry.number > number, reversed(self._entries))
        return list(islice(older, count))[::-1]

    def between(self, since_ns: int, until_ns: int, filter_: LogFilter) -> Iterator[LogEntry]:
        """Yield the matching lines with since <= time of their first piece < until, newest first."""
        for entry in joined(reversed(self._entries)):
            if entry.timestamp_ns < since_ns:
                return
            if entry.timestamp_ns < until_ns and filter_.match(entry):
                yield entry
