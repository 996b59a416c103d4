"""Outcomes as workers tell them: one long poll for all that runs, so its cost grows with what happens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.workload_guard import alone
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds of one long poll, just below the 50 s after which the SDK polls again by itself.
WAIT = 45.0
AT_ONCE = 500
#: Seconds before Modal is asked again after an error, doubling up to the second number.
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
#: Seconds between two looks at whose work has been adopted.
OTHERS_EVERY = 1.0


async def listen_to_others(tracker: Tracker) -> None:
    """Listen to the partitions of dead schedulers as long as work of theirs that was adopted is in flight."""
    listening: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            wanted = tracker.others_partitions()
            for partition in wanted - set(listening):
                listening[partition] = asyncio.create_task(listen(tracker, partition))
            for partition in set(listening) - wanted:
                await _end([listening.pop(partition)])
            await asyncio.sleep(OTHERS_EVERY)
    finally:
        await _end(listening.values())


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def listen(tracker: Tracker, partition: str | None = None) -> None:
    """Hand over every event of a partition, the tracker's own if none is named, until cancelled.

    A lost event is no harm: the sweep finds its outcome.
    """
    partition = partition or tracker.partition
    backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
    while True:
        try:
            for entry in await tracker.link.made().next_events(partition, AT_ONCE, WAIT):
                with alone(tracker, entry.work_id, "taking the event of its end"):
                    tracker.told(entry, partition)
            backoff.reset()
            continue
        except FAILURES as error:
            log.warning("No events from Modal (%s); asking again", describe(error))
        except Exception:
            log.exception("Listening for events went wrong; asking again")
        await asyncio.sleep(backoff.next())
