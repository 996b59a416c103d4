"""Lines that the executor adds to the logs of workloads: why they wait, and why they ended.

Owns a bounded queue of lines and one loop that uploads many of them at once: ten thousand tasks that fail together must
not be ten thousand uploads. Lines that come before the first connection wait for it.
"""

from __future__ import annotations

import asyncio
from collections import deque

from modalflow.executor.connection import Connection
from modalflow.executor.modal_api.blocking import in_daemon_thread
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.loggers import logger
from modalflow.logs.log_volume import Line
from modalflow.support.described import describe

log = logger(__name__)

#: Lines of one upload, and lines that wait. If there are more, the oldest are dropped; the scheduler's log has them.
BATCH = 200
KEPT = 10_000
#: Seconds in which lines that come together become one upload, between two attempts, and that an upload may take.
GATHER = 0.05
PAUSE = 5.0
UPLOAD_TIMEOUT = 60.0
#: How often an upload is tried while Modal answers with an error of its own.
ATTEMPTS = 3


class TaskLogNotes:
    """Lines on their way to the logs Volume."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: deque[Line] = deque(maxlen=KEPT)
        self._added = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, log_path: str, text: str, level: str) -> None:
        """Add a line to a log, soon."""
        self._append(Line.now(log_path, text, level))

    def add_file(self, path: str, content: bytes) -> None:
        """Write a small file to the logs Volume, soon, over one of the same path."""
        self._append(Line("", path, content))

    def _append(self, line: Line) -> None:
        self._waiting.append(line)
        self._idle.clear()
        self._added.set()

    async def run(self) -> None:
        """Upload until cancelled."""
        attempts = 0
        while True:
            if not self._waiting:
                self._idle.set()
                self._added.clear()
                await self._added.wait()
            await asyncio.sleep(GATHER)
            api = self._connection.api
            if api is None:
                await asyncio.sleep(PAUSE / 5)
                continue
            lines = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                async with asyncio.timeout(UPLOAD_TIMEOUT):
                    await in_daemon_thread(lambda lines=lines, logs=api.logs: logs.add_lines(lines))  # type: ignore[misc]
                attempts = 0
            except FAILURES as error:
                attempts += 1
                api.on_failure(error)
                log.warning("%s lines could not be added to logs yet (%s)", len(lines), describe(error))
                if attempts < ATTEMPTS or api.is_transient(error):
                    self._waiting.extendleft(reversed(lines[: KEPT - len(self._waiting)]))
                    await asyncio.sleep(PAUSE)

    async def written(self, seconds: float) -> None:
        """Wait until all lines are uploaded, but no longer than that."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%s lines were not added to logs", len(self._waiting))
