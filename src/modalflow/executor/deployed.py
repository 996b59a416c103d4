"""Keeping up with what is deployed: `modalflow deploy` says it on the logs Volume, and nobody tells a scheduler.

Looks at the record now and then while work is submitted, and at once where a task wants a profile that is not known.
Runs on the engine's loop.
"""

from __future__ import annotations

import asyncio
import logging
import time

from modalflow.executor.remote import FAILURES
from modalflow.executor.track import Tracker

log = logging.getLogger(__name__)

#: Seconds between two looks while orders come in.
INTERVAL = 30.0
#: Seconds for which a look is fresh enough to turn a task away by it.
FRESH = 2.0


class Deployed:
    """Tells the tracker what is deployed."""

    def __init__(self, tracker: Tracker, interval: float = INTERVAL) -> None:
        self._tracker = tracker
        self._interval = interval
        self._looked_at = -FRESH
        self._looking = False
        self._taken = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            taken = self._tracker.counts["taken"]
            if taken != self._taken:
                self._taken = taken
                await self._look()

    def ask(self) -> None:
        """Look at once, for the orders whose profile is not known; then place them, or turn them away."""
        if not self._looking:
            self._looking = True
            self._tracker.run(self._look_for_profiles())

    async def _look_for_profiles(self) -> None:
        try:
            if time.monotonic() - self._looked_at >= FRESH:
                await self._look()
        finally:
            self._looking = False
        self._tracker.place_unplaced()

    async def _look(self) -> None:
        link = self._tracker.link
        try:
            found = await link.made().record()
        except FAILURES as error:
            log.warning("What is deployed could not be read (%s: %s)", type(error).__name__, error)
            return
        self._looked_at = time.monotonic()
        if found is None or found == link.deployment:
            return
        log.info("modalflow %s is deployed now, with profiles %s", found.version, ", ".join(found.profiles))
        link.deployment = found
        link.made().forget_handles()
