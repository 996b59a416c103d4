"""Outcomes as workers tell them: one long poll for all that runs, so its cost grows with what happens."""

from __future__ import annotations

import asyncio
import logging

from modalflow.executor.remote import FAILURES
from modalflow.executor.track import Tracker

log = logging.getLogger(__name__)

#: Seconds of one long poll, just below the 50 s after which the SDK polls again by itself.
WAIT = 45.0
AT_ONCE = 500
LONGEST_DELAY = 30.0


async def listen(tracker: Tracker) -> None:
    """Hand over every event of the tracker's partition until cancelled.

    A lost event is no harm: the sweep finds its outcome.
    """
    delay = 0.0
    while True:
        try:
            for entry in await tracker.link.made().next_events(tracker.partition, AT_ONCE, WAIT):
                tracker.told(entry)
            delay = 0.0
            continue
        except FAILURES as error:
            log.warning("No events from Modal (%s: %s); asking again", type(error).__name__, error)
        except Exception:
            log.exception("Listening for events went wrong; asking again")
        delay = min(max(delay * 2, 0.5), LONGEST_DELAY)
        await asyncio.sleep(delay)
