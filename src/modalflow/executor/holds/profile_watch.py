"""The loop of paused profiles: it reads which are paused, and acts on changes.

A round costs one RPC. If a profile is paused, submitted calls of it without a container are recalled, which costs a
reading of the ledger and a few RPCs for each such call, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from modalflow.executor.connection import Connection
from modalflow.executor.holds.admission import Admission
from modalflow.executor.holds.held_tasks import HeldTasks
from modalflow.executor.holds.ledger_reading import LedgerReading
from modalflow.executor.holds.profile_gate import ProfileGate
from modalflow.executor.holds.recall import Recall
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.loggers import logger
from modalflow.protocol import profile_holds
from modalflow.protocol.profile_holds import ProfileHold
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds for which the first submission waits for the first reading.
FIRST_READING = 30.0


class ProfileWatch:
    """Keeps the gate's paused profiles up to date."""

    def __init__(
        self,
        calls: Calls,
        connection: Connection,
        gate: ProfileGate,
        admission: Admission,
        held_tasks: HeldTasks,
        ledger: LedgerReading,
        recall: Recall,
    ) -> None:
        self._calls = calls
        self._connection = connection
        self._gate = gate
        self._admission = admission
        self._held_tasks = held_tasks
        self._ledger = ledger
        self._recall = recall
        self._known = asyncio.Event()
        self._problem = ""
        """The last reported reason why the record, or a part of it, does not count."""

    async def known(self) -> None:
        """Wait until the paused profiles were read once, for some seconds at most."""
        try:
            async with asyncio.timeout(FIRST_READING):
                await self._known.wait()
        except TimeoutError:
            log.warning("The paused profiles could not be read; submissions begin, and end once they are read")

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self.round()
            except FAILURES as error:
                self._report(f"The paused profiles could not be read, so the last known ones count ({describe(error)})")
            except Exception:
                log.exception("Checking the paused profiles failed; the next check goes on")
            await asyncio.sleep(profile_holds.INTERVAL)

    async def round(self) -> None:
        """Read the paused profiles, and act on them. Raises FAILURES; then the last known ones count."""
        # Held calls also end while Modal does not answer.
        self._held_tasks.release(changed=False)
        found = await self._connection.get().profile_holds()
        changed = found.by_profile != self._gate.holds
        before, self._gate.holds = self._gate.holds, found.by_profile
        self._known.set()
        self._log(before, found.by_profile)
        if changed:
            self._held_tasks.release(changed=True)
        try:
            await self._recall_what_has_not_begun()
        except FAILURES as error:
            self._report(f"What runs in paused profiles could not be read; the next check tries again ({describe(error)})")
        else:
            self._report(found.warning)

    def _report(self, problem: str) -> None:
        """Log a problem once for as long as it lasts."""
        if problem and problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem

    def _log(self, before: Mapping[str, ProfileHold], now: Mapping[str, ProfileHold]) -> None:
        for name, hold in now.items():
            if before.get(name) != hold:
                sentence = hold.sentence
                log.info("%s. Its tasks wait; what runs goes on", f"{sentence[:1].upper()}{sentence[1:]}")
        held = self._admission.by_profile()
        for name in before.keys() - now.keys():
            log.info("Profile %s is resumed; waiting tasks: %s", name, held.get(name, 0))

    async def _recall_what_has_not_begun(self) -> None:
        if not self._recallable():
            return
        not_begun = {*(await self._ledger.read()).not_begun}
        for call in self._recallable():
            verdict = self._gate.verdict(call)
            if verdict is not None and call.work_id in not_begun:
                self._recall.recall(call, verdict.reason)

    def _recallable(self) -> list[Call]:
        """Return the submitted calls of paused profiles without a known container. Adopted ones have no submission,
        and go on."""
        if not self._gate.holds:
            return []
        return [call for call in self._calls.in_phase(Phase.WAITING) if self._gate.verdict(call) is not None]
