"""What containers print: kept per app, found by function, call, container, time and text, and streamed as it comes.

Owns the entries; how they outlive the control plane is log_records.py's. Reading a container's pipes, and knowing which
call a line belongs to, is processes.py's and containers.py's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import dropwhile, islice
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.apps.app import App
from modalflow.emulator.apps.apps import Apps
from modalflow.emulator.containers.container import State
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.functions.definitions import Function
from modalflow.emulator.images.image_store import ImageStore
from modalflow.emulator.logs.log_lines import Terminal, Unfinished, ended, joined, merged
from modalflow.emulator.logs.log_records import Entry, LogRecords
from modalflow.emulator.rpc.idempotency import READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message, optional
from modalflow.emulator.state.broadcast import Broadcast
from modalflow.emulator.state.journal import Journal

#: Entries kept per app, and characters in them; the oldest go first.
KEPT_ENTRIES = 200_000
KEPT_SIZE = 64 * 2**20

#: Seconds for which entries are kept: between the day of Modal's Starter plan and the thirty of its Team plan.
KEPT_SECONDS = 7 * 24 * 3600

#: Entries in one message of a stream or a fetch, and characters after which it gets no further ones.
BATCH = 500
BATCH_SIZE = 2**20

#: Entries before those that a stream goes on with among which the beginnings of unfinished lines are looked for.
LOOK_BACK = 1_000

#: Buckets that one AppCountLogs is answered with: one each minute of Modal's longest retention (30 days). Inferred.
MOST_BUCKETS = 50_000

NANOSECONDS = 1_000_000_000


LogsRequest: TypeAlias = api_pb2.AppGetLogsRequest | api_pb2.AppFetchLogsRequest | api_pb2.AppCountLogsRequest


@dataclass(frozen=True)
class Wanted:
    """Which entries a request asks for; an empty field is any."""

    function_id: str = ""
    parametrized_function_id: str = ""
    function_call_id: str = ""
    container_id: str = ""
    input_id: str = ""
    source: int = 0
    text: str = ""

    @classmethod
    def of(cls, request: LogsRequest) -> Wanted:
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

    def match(self, entry: Entry) -> bool:
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
    """One app's entries, oldest first: those of earlier control planes before those of this one."""

    def __init__(self, app_id: str = "", records: LogRecords | None = None) -> None:
        self._app_id = app_id
        self._records = records or LogRecords(Journal())
        self._unfinished = Unfinished()
        self._entries = deque(map(self._unfinished.marked, self._records.load(app_id)))
        self._size = sum(len(entry.data) for entry in self._entries)
        self._next = self._entries[-1].number + 1 if self._entries else 1
        self.grown = Broadcast()

    @classmethod
    def of_entries(cls, entries: Iterable[Entry]) -> AppLog:
        """A log that is complete and kept elsewhere."""
        log = cls()
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
        entry = Entry(
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
        """Forget what is older than that, and the oldest of what is too much."""
        entries = self._entries
        while len(entries) > 1 and (
            len(entries) > KEPT_ENTRIES or self._size > KEPT_SIZE or entries[0].timestamp_ns < before_ns
        ):
            self._size -= len(entries.popleft().data)
        if entries:
            # What it continued is gone.
            entries[0] = replace(entries[0], continues=False)
            self._records.forget_before(self._app_id, entries[0].number)

    def after(self, number: int) -> list[Entry]:
        newer: list[Entry] = []
        for entry in reversed(self._entries):
            if entry.number <= number:
                break
            newer.append(entry)
        newer.reverse()
        return newer

    def before(self, number: int, count: int) -> list[Entry]:
        """Return that many entries up to that number, oldest first."""
        older = dropwhile(lambda entry: entry.number > number, reversed(self._entries))
        return list(islice(older, count))[::-1]

    def between(self, since_ns: int, until_ns: int, wanted: Wanted) -> Iterator[Entry]:
        """Yield the wanted lines with since <= time of their first piece < until, newest first."""
        for entry in joined(reversed(self._entries)):
            if entry.timestamp_ns < since_ns:
                return
            if entry.timestamp_ns < until_ns and wanted.match(entry):
                yield entry


class Logs(Service):
    """Answers the RPCs about logs."""

    def __init__(self, apps: Apps, images: ImageStore, containers: Containers, journal: Journal) -> None:
        self._apps, self._images, self._containers = apps, images, containers
        self._records = LogRecords(journal)
        self._by_app: dict[str, AppLog] = {}

    def of(self, app: App) -> AppLog:
        log = self._by_app.get(app.app_id)
        if log is None:
            log = self._by_app[app.app_id] = AppLog(app.app_id, self._records)
        return log

    def forget_old(self) -> None:
        """Forget entries older than they are kept; of an app that nobody asked about, when somebody does."""
        for log in self._by_app.values():
            log.forget(clock.now_ns() - KEPT_SECONDS * NANOSECONDS)

    def note(self, function: Function, text: str) -> None:
        """Write a line of the control plane's own into the log of a function."""
        self.of(function.app).add(
            f"{text}\n",
            api_pb2.FILE_DESCRIPTOR_INFO,
            function_id=function.object_id,
            root_function_id=function.root.object_id,
        )

    def forget_app(self, app: App) -> None:
        """Forget the log of an app that no caller can ask about any more."""
        self._by_app.pop(app.app_id, None)
        self._records.forget(app.app_id)

    @rpc(
        repeat=READ,
        inferred=(
            "an unfinished line is sent after half a second, ends with a carriage return and is sent again with "
            "what follows it, except to a reader of one function call, who gets the text as it was printed."
        ),
    )
    async def AppGetLogs(
        self, request: api_pb2.AppGetLogsRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.TaskLogsBatch]:
        """Stream what comes after ``last_entry_id`` for ``timeout`` seconds, or until the app or the container is over.

        The container, where the request names one and no app: ``modal container logs --follow`` ends with it. Who
        follows one function call gets what it printed as it was printed, all others get it as a terminal needs it.
        """
        app = self._find_app(request)
        log, wanted = self.of(app), Wanted.of(request)
        last = _entry_number(request.last_entry_id)
        terminal: Terminal | None = None
        if not wanted.function_call_id:
            terminal = Terminal(filter(wanted.match, log.before(last, LOOK_BACK)) if last else ())
        deadline = time.monotonic() + request.timeout

        while True:
            # Read before the entries: lines of a container that is being stopped come before its app is over.
            over = app.is_over or (not request.app_id and self._has_ended(request.task_id))
            entries = log.after(last)
            found = merged(filter(wanted.match, entries))
            for batch in batches(found if terminal is None else terminal.shown(found)):
                yield batch
            if entries:
                last = entries[-1].number
            remaining = deadline - time.monotonic()
            if terminal is not None and (over or remaining <= 0):
                for batch in batches(terminal.left()):
                    yield batch
            if over:
                yield message(api_pb2.TaskLogsBatch, app_done=True, entry_id=f"{last}-0")
                return
            if remaining <= 0:
                return
            # What has stopped may print nothing more, so a second is the longest that its end goes unnoticed.
            await log.grown.until(partial(log.after, last), min(remaining, 1.0))

    def _find_app(self, request: api_pb2.AppGetLogsRequest) -> App:
        if request.app_id:
            return self._apps.get(request.app_id)
        if (container := self._containers.find(request.task_id)) is not None:
            return container.function.app
        for app in self._apps:
            if any(e.container_id == request.task_id for e in self.of(app).after(0)):
                return app
        raise GRPCError(Status.NOT_FOUND, "AppGetLogs needs an app, or a container that printed something")

    def _has_ended(self, container_id: str) -> bool:
        container = self._containers.find(container_id)
        return container is None or container.state is State.ENDED

    def _fetched(self, app_id: str) -> AppLog:
        entries = self._images.build_log(app_id)
        return self.of(self._apps.get(app_id)) if entries is None else AppLog.of_entries(entries)

    @rpc(
        repeat=READ,
        inferred=(
            "a line that came in pieces is one entry, with the time of its beginning; how long entries are kept: "
            "between the day and the thirty days of Modal's plans, and no more than a bounded number."
        ),
    )
    async def AppFetchLogs(self, request: api_pb2.AppFetchLogsRequest, caller: Caller) -> api_pb2.AppFetchLogsResponse:
        """Return the newest ``limit`` entries of the time range, oldest first."""
        log = self._fetched(request.app_id)
        found: list[Entry] = []
        for entry in log.between(*_range(request), Wanted.of(request)):
            if request.limit and len(found) >= request.limit:
                break
            found.append(entry)
        oldest_first: Iterable[Entry] = reversed(found)
        if not request.function_call_id:
            oldest_first = ended(oldest_first)
        return api_pb2.AppFetchLogsResponse(batches=batches(oldest_first))

    @rpc(repeat=READ)
    async def AppCountLogs(self, request: api_pb2.AppCountLogsRequest, caller: Caller) -> api_pb2.AppCountLogsResponse:
        log = self._fetched(request.app_id)
        width = max(request.bucket_secs, 1)
        since_ns, until_ns = _range(request)
        if (until_ns - since_ns) // NANOSECONDS // width > MOST_BUCKETS:
            raise GRPCError(
                Status.INVALID_ARGUMENT,
                f"Buckets of {width} s make more than {MOST_BUCKETS} of that time range; expected wider ones",
            )
        counts: dict[int, list[int]] = {
            start: [0, 0, 0]
            for start in range(since_ns // NANOSECONDS // width * width, -(-until_ns // NANOSECONDS), width)
        }
        for entry in log.between(since_ns, until_ns, Wanted.of(request)):
            bucket = counts[entry.timestamp_ns // NANOSECONDS // width * width]
            bucket[_COLUMN.get(entry.source, 2)] += 1
        return api_pb2.AppCountLogsResponse(
            app_id=request.app_id,
            buckets=[
                message(
                    api_pb2.AppCountLogsResponse.LogBucket,
                    bucket_start_at=Timestamp(seconds=start),
                    stdout_logs=stdout,
                    stderr_logs=stderr,
                    system_logs=system,
                )
                for start, (stdout, stderr, system) in counts.items()
            ],
        )


_COLUMN: dict[int, int] = {api_pb2.FILE_DESCRIPTOR_STDOUT: 0, api_pb2.FILE_DESCRIPTOR_STDERR: 1}


def batches(entries: Iterable[Entry]) -> Iterator[api_pb2.TaskLogsBatch]:
    """Group entries as Modal sends them: neighbours of one container in one batch, in order."""
    batch: api_pb2.TaskLogsBatch | None = None
    size = 0
    for entry in entries:
        is_full = batch is not None and (len(batch.items) >= BATCH or size >= BATCH_SIZE)
        if batch is None or batch.task_id != entry.container_id or is_full:
            size = 0
            if batch is not None:
                yield batch
            batch = message(
                api_pb2.TaskLogsBatch,
                task_id=entry.container_id,
                function_id=entry.function_id,
                root_function_id=entry.root_function_id,
                input_id=entry.input_id,
            )
        size += len(entry.data)
        batch.entry_id = f"{entry.number}-0"
        batch.items.append(item(entry))
    if batch is not None:
        yield batch


def item(entry: Entry) -> api_pb2.TaskLogs:
    """Return an entry as Modal sends it."""
    return message(
        api_pb2.TaskLogs,
        data=entry.data,
        timestamp=entry.timestamp_ns / NANOSECONDS,
        timestamp_ns=entry.timestamp_ns,
        file_descriptor=entry.source,
        function_call_id=entry.function_call_id,
        input_id=entry.input_id,
    )


def _entry_number(entry_id: str) -> int:
    number = entry_id.partition("-")[0]
    return int(number) if number.isascii() and number.isdecimal() else 0


def _range(request: api_pb2.AppFetchLogsRequest | api_pb2.AppCountLogsRequest) -> tuple[int, int]:
    try:
        until = request.until.ToNanoseconds() if request.HasField("until") else 0
        return request.since.ToNanoseconds(), until or clock.now_ns() + NANOSECONDS
    except ValueError as error:
        raise GRPCError(Status.INVALID_ARGUMENT, f"since and until must be times: {error}") from error
