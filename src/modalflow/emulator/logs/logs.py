"""The output of containers: kept per app; found by function, call, container, time and text; streamed as it comes.

Owns the RPCs about logs, and the log of each app. The launcher reads the pipes of containers, and knows which call a
line belongs to.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from functools import partial

from google.protobuf.timestamp_pb2 import Timestamp
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.apps.app import App
from modalflow.emulator.apps.apps import Apps
from modalflow.emulator.containers.container import State
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.functions.function import Function
from modalflow.emulator.images.image_store import ImageStore
from modalflow.emulator.logs.app_log import AppLog, LogFilter
from modalflow.emulator.logs.log_lines import Terminal, ended, merged
from modalflow.emulator.logs.log_messages import NANOSECONDS, batches
from modalflow.emulator.logs.log_records import LogEntry, LogRecords
from modalflow.emulator.rpc.idempotency import READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message, seconds
from modalflow.emulator.state.journal import Journal

#: Seconds for which entries are kept: between the 1 day of Modal's Starter plan and the 30 days of its Team plan.
KEPT_SECONDS = 7 * 24 * 3600

#: The number of earlier entries that a resumed stream searches for the beginnings of unfinished lines.
LOOK_BACK = 1_000

#: The most buckets of one AppCountLogs: one for each minute of Modal's longest retention (30 days). Inferred.
MOST_BUCKETS = 50_000


class Logs(Service):
    """The RPCs about logs."""

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
        """Forget expired entries. Logs that were not read since the start are trimmed when they are read."""
        for log in self._by_app.values():
            log.forget(clock.now_ns() - KEPT_SECONDS * NANOSECONDS)

    def note(self, function: Function, text: str) -> None:
        """Write a note of the control plane into the log of a function."""
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
            "an unfinished line is sent after half a second with a carriage return, and again with its continuation. A "
            "reader of one function call gets the text as it was printed."
        ),
    )
    async def AppGetLogs(
        self, request: api_pb2.AppGetLogsRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.TaskLogsBatch]:
        """Stream what comes after ``last_entry_id`` for ``timeout`` seconds, or until the app or the container is over.

        A request that names a container and no app ends with the container, as ``modal container logs --follow`` does.
        A reader of one function call gets the text as it was printed; all others get it as a terminal needs it.
        """
        app = self._find_app(request)
        log, wanted = self.of(app), LogFilter.of(request)
        last = _entry_number(request.last_entry_id)
        terminal: Terminal | None = None
        if not wanted.function_call_id:
            terminal = Terminal(filter(wanted.match, log.before(last, LOOK_BACK)) if last else ())
        deadline = time.monotonic() + seconds(request.timeout)

        while True:
            # Before the entries: a container that is being stopped prints its last lines before its app is over.
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
            # A stopped app may print nothing more: check for its end every second.
            await log.grown.until(partial(log.after, last), min(remaining, 1.0))

    def _find_app(self, request: api_pb2.AppGetLogsRequest) -> App:
        if request.app_id:
            return self._apps.get(request.app_id)
        if (container := self._containers.find(request.task_id)) is not None:
            return container.function.app
        for app in self._apps:
            if any(e.container_id == request.task_id for e in self.of(app).after(0)):
                return app
        raise GRPCError(Status.NOT_FOUND, "AppGetLogs needs an app, or a container that has printed something")

    def _has_ended(self, container_id: str) -> bool:
        container = self._containers.find(container_id)
        return container is None or container.state is State.ENDED

    def _fetched(self, app_id: str) -> AppLog:
        entries = self._images.build_log(app_id)
        return self.of(self._apps.get(app_id)) if entries is None else AppLog.of_entries(entries)

    @rpc(
        repeat=READ,
        inferred=(
            "a line that came in pieces is one entry, with the time of its beginning. Entries are kept for seven days, "
            "between the 1 day and the 30 days of Modal's plans, and in a limited number."
        ),
    )
    async def AppFetchLogs(self, request: api_pb2.AppFetchLogsRequest, caller: Caller) -> api_pb2.AppFetchLogsResponse:
        """Return the newest ``limit`` entries of the time range, oldest first."""
        log = self._fetched(request.app_id)
        found: list[LogEntry] = []
        for entry in log.between(*_range(request), LogFilter.of(request)):
            if request.limit and len(found) >= request.limit:
                break
            found.append(entry)
        oldest_first: Iterable[LogEntry] = reversed(found)
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
                f"that time range has more than {MOST_BUCKETS} buckets of {width} s; expected wider ones",
            )
        counts: dict[int, list[int]] = {
            start: [0, 0, 0]
            for start in range(since_ns // NANOSECONDS // width * width, -(-until_ns // NANOSECONDS), width)
        }
        for entry in log.between(since_ns, until_ns, LogFilter.of(request)):
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


def _entry_number(entry_id: str) -> int:
    number = entry_id.partition("-")[0]
    return int(number) if number.isascii() and number.isdecimal() else 0


def _range(request: api_pb2.AppFetchLogsRequest | api_pb2.AppCountLogsRequest) -> tuple[int, int]:
    try:
        until = request.until.ToNanoseconds() if request.HasField("until") else 0
        return request.since.ToNanoseconds(), until or clock.now_ns() + NANOSECONDS
    except ValueError as error:
        raise GRPCError(Status.INVALID_ARGUMENT, f"since and until must be times: {error}") from error
