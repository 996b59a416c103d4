"""Outcomes from workers: one long poll for all running work, so its cost grows with the events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from modalflow.executor.connection import Connection
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.loggers import logger
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds of one long poll, just below the 50 s after which the SDK polls again.
WAIT = 45.0
#: The most events of one answer.
BATCH = 500
#: Seconds before Modal is asked again after an error, doubling up to the second number.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: Seconds between two checks of whose work has been adopted.
OTHERS_INTERVAL = 1.0


class EventListener:
    """Hands every event to the tracker. A lost event does no harm: the sweep finds its outcome."""

    def __init__(
        self, partition: str, calls: Calls, connection: Connection, tracker: Tracker, outcomes: Outcomes
    ) -> None:
        self._partition = partition
        self._calls = calls
        self._connection = connection
        self._tracker = tracker
        self._outcomes = outcomes

    async def run(self) -> None:
        """Listen to this executor's own partition until cancelled."""
        await self._listen(self._partition)

    async def run_for_others(self) -> None:
        """Listen to the partitions of dead schedulers while work of theirs that was adopted is in flight."""
        listening: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                wanted = {call.partition for call in self._calls if call.partition}
                for partition in wanted - set(listening):
                    listening[partition] = asyncio.create_task(self._listen(partition))
                for partition in set(listening) - wanted:
                    await _end([listening.pop(partition)])
                await asyncio.sleep(OTHERS_INTERVAL)
        finally:
            await _end(listening.values())

    async def _listen(self, partition: str) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                for entry in await self._connection.get().next_events(partition, BATCH, WAIT):
                    with self._outcomes.guarding(entry.work_id, "dealing with its event"):
                        self._tracker.on_event(entry, partition)
                backoff.reset()
                continue
            except FAILURES as error:
                log.warning("No events from Modal (%s); asking again", describe(error))
            except Exception:
                log.exception("Listening for events failed; asking again")
            await asyncio.sleep(backoff.next())


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
