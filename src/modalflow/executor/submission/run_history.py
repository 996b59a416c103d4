"""The history of runs for tasks with "auto", read from the logs Volume.

The reader is shared with the budgets, which read all the time. Without budgets, records are read only while such tasks
come: three passes a minute at most, for any number of tasks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from modalflow.cost.history import History, Run
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.modal_api.usage_reader import UsageReader
from modalflow.executor.reporting.log_dedup import DedupLogger
from modalflow.executor.reporting.loggers import logger
from modalflow.names import TaskTry
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds between two passes, and between two of which the first had more to read.
INTERVAL = 20.0
PAUSE = 2.0
#: Seconds for which the history counts as recent after a pass. After an idle time, a task waits for a new pass.
FRESH = 2 * INTERVAL
#: Seconds that a task waits for it at most, and after a pass that failed, seconds without such a wait.
PATIENCE = 20.0
RETRY = 30.0


class RunHistory:
    """The last runs of the tasks of one worker app."""

    def __init__(self, reader: UsageReader) -> None:
        self._reader = reader
        self._history = History()
        reader.subscribe(self._history.add)
        self._wanted = asyncio.Event()
        self._passed = asyncio.Event()
        self._fresh_until = 0.0

    def runs(self, task: TaskTry | None) -> Sequence[Run]:
        """Return the last runs of a task and its mapped siblings, oldest first; none without a task."""
        return self._history.runs(task.dag_id, task.task_id) if task is not None else ()

    def want(self) -> bool:
        """Ask for another pass; return whether the last one is recent."""
        self._wanted.set()
        return time.monotonic() < max(self._fresh_until, self._reader.complete_at + FRESH)

    async def recent(self) -> None:
        """Wait until it is recent, but no longer than ``PATIENCE``."""
        deadline = time.monotonic() + PATIENCE
        while not self.want() and (left := deadline - time.monotonic()) > 0:
            self._passed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._passed.wait()
            except TimeoutError:
                return

    async def pass_if_due(self) -> bool:
        """Read the next records, unless all were just read; return whether there are more. Raises FAILURES."""
        return time.monotonic() - self._reader.complete_at >= INTERVAL and await self._reader.read()

    async def run(self) -> None:
        """Read until cancelled, as long as someone wants it."""
        failures = DedupLogger(log)
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            more = False
            try:
                more = await self.pass_if_due()
                self._fresh_until = time.monotonic() + FRESH
            except FAILURES as error:
                failures.warn(type(error).__name__, "The usage of earlier runs could not be read (%s)", describe(error))
                self._fresh_until = time.monotonic() + RETRY
            self._passed.set()
            if more:
                self._wanted.set()
            await asyncio.sleep(PAUSE if more else INTERVAL)
