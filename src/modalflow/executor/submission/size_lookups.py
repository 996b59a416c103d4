"""What the size of a try depends on, for the intake: looked up only for tasks that grow or size themselves.

The first try of a task that grows costs nothing. A later one costs one RPC, and a task that sizes itself none: the
history of runs is read once for all tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.loop_tasks import BoundedTasks
from modalflow.executor.reporting.log_dedup import DedupLogger
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.submission.run_history import RunHistory
from modalflow.executor.submission.shortages import Shortages
from modalflow.executor.submission.sizing import Known, Terms
from modalflow.names import TaskTry
from modalflow.protocol.shortage import NO_SHORTAGE, Shortage
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds between two attempts to read what earlier tries ran out of. While Modal does not answer, no task can be
#: submitted anyway.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0


class SizeLookups:
    """Look-ups for the sizes of tasks."""

    def __init__(self, history: RunHistory, shortages: Shortages, tasks: BoundedTasks) -> None:
        self._history = history
        self._shortages = shortages
        self._tasks = tasks
        self._looking_up: set[str] = set()
        self._found: dict[str, Shortage] = {}
        self._failures = DedupLogger(log)

    def restart(self) -> None:
        """Forget look-ups of a thread that has ended."""
        self._looking_up.clear()

    def is_looking_up(self, call: Call) -> bool:
        """Return whether something is being looked up for a call."""
        return call.work_id in self._looking_up

    def known(self, call: Call, terms: Terms, then: Callable[[], None]) -> Known | None:
        """Return what is known for the size of an UNPLACED call. If something must be looked up, return None.

        ``then`` is called after the look-up, if the call is still UNPLACED.
        """
        request = call.request
        assert request is not None, "what is UNPLACED has a request"
        if self.is_looking_up(call):
            return None
        task = request.draft.task_try
        is_recent = not terms.needs_history or task is None or self._history.want()
        is_first = not terms.grows or task is None or task.try_number <= 1
        if call.work_id not in self._found and not (is_recent and is_first):
            self._looking_up.add(call.work_id)
            self._tasks.spawn(self._look_up(call, task, wait=not is_recent, read=not is_first, then=then))
            return None
        runs = self._history.runs(task) if terms.needs_history else ()
        return Known(runs, self._found.pop(call.work_id, NO_SHORTAGE))

    async def _look_up(
        self, call: Call, task: TaskTry | None, *, wait: bool, read: bool, then: Callable[[], None]
    ) -> None:
        try:
            if wait:
                await self._history.recent()
            shortage = await self._read(call, task) if read and task is not None else NO_SHORTAGE
        finally:
            self._looking_up.discard(call.work_id)
        if call.phase is Phase.UNPLACED:
            self._found[call.work_id] = shortage
            then()
        if call.phase is not Phase.UNPLACED:
            self._found.pop(call.work_id, None)

    async def _read(self, call: Call, task: TaskTry) -> Shortage:
        pauses = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while call.phase is Phase.UNPLACED:
            try:
                return await self._shortages.of(task)
            except Exception as error:  # noqa: BLE001  The SDK raises more than its own errors if a connection breaks.
                kind = type(error).__name__
                self._failures.warn(kind, "What %s ran out of is not known yet (%s)", call.label, describe(error))
            await asyncio.sleep(pauses.next())
        return NO_SHORTAGE
