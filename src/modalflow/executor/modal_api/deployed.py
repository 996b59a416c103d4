"""Keeping up with what is deployed: `modalflow deploy` says it on the logs Volume, and nobody tells a scheduler.

Looks at the record now and then while work is submitted, and at once where a task wants a profile that is not known.
Runs on the engine's loop.
"""

from __future__ import annotations

import asyncio

from modalflow import __version__
from modalflow.errors import IncompatibleWorkerError, MalformedMessageError
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.loggers import logger
from modalflow.protocol.messages import Deployment
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds between two looks while orders come in.
INTERVAL = 30.0
#: Seconds between two tries where Modal does not answer.
PAUSE = 5.0
#: Seconds between two looks for unknown profiles, however many tasks want such.
BREATH = 0.5


def warn_of_another_version(deployment: Deployment | None) -> None:
    """Log that containers import another version of modalflow than this executor, if they do."""
    if deployment is not None and deployment.version != __version__:
        log.warning(
            "The deployed worker is modalflow %s, this executor is modalflow %s. They are compatible. To use one "
            "version, deploy the worker of this one: `modalflow deploy`.",
            deployment.version,
            __version__,
        )


class Deployed:
    """Tells the tracker what is deployed."""

    def __init__(self, tracker: Tracker, interval: float = INTERVAL, pause: float = PAUSE) -> None:
        self._tracker = tracker
        self._interval = interval
        self._pause = pause
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
            while waiting := self._tracker.unplaced():
                while not await self._look():
                    # Nobody is turned away because Modal does not answer.
                    await asyncio.sleep(self._pause)
                # What came meanwhile may want what was deployed meanwhile.
                self._tracker.place_unplaced(waiting)
                await asyncio.sleep(BREATH)
        finally:
            self._looking = False

    async def _look(self) -> bool:
        """Read the record; False where that did not work."""
        link = self._tracker.link
        try:
            found = await link.made().record()
        except (IncompatibleWorkerError, MalformedMessageError) as error:
            # Neither passes until someone deploys: what asks for an unknown profile is turned away.
            log.error("Work continues with the previous deployment, as far as possible: %s", error)
            found = None
        except FAILURES as error:
            log.warning("The record of the deployment cannot be read (%s)", describe(error))
            return False
        if found is None or found == link.deployment:
            return True
        log.info("modalflow %s is deployed now, with profiles %s", found.version, ", ".join(found.profiles))
        link.deployment = found
        link.made().forget_handles()
        return True
