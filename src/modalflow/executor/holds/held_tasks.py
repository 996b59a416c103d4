"""Care for held tasks: Airflow must not give them up as stuck in the queue, nor their tokens expire.

Airflow fails a task after some times of ``[scheduler] task_queued_timeout`` in the queue, and its token is valid for as
long. So its time in the queue begins again and again, and a released task gets another token.
"""

from __future__ import annotations

import asyncio
import time

from modalflow.executor.holds.admission import Admission, Held
from modalflow.executor.lifecycle.airflow_state import StateQueries, StateQuery
from modalflow.executor.lifecycle.call import Phase
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.lifecycle.recovery import Recovery
from modalflow.executor.submission.submitter import Submitter
from modalflow.protocol.messages import Kind

#: The largest used part of the timeout, for a time in the queue and for a token.
_PART = 0.25
_LONGEST = 150.0


class HeldTasks:
    """Keeps held tasks alive in Airflow, and releases them."""

    def __init__(
        self,
        queued_timeout: float,
        admission: Admission,
        queries: StateQueries,
        recovery: Recovery,
        submitter: Submitter,
        outcomes: Outcomes,
    ) -> None:
        """``queued_timeout`` is ``[scheduler] task_queued_timeout`` in seconds."""
        self._interval = min(_LONGEST, queued_timeout * _PART)
        self._admission = admission
        self._queries = queries
        self._recovery = recovery
        self._submitter = submitter
        self._outcomes = outcomes

    async def run(self) -> None:
        """Renew the times of held tasks until cancelled."""
        while True:
            await asyncio.sleep(self._interval / 2)
            await self.renew()

    async def renew(self) -> None:
        """Renew the times of tasks after a long hold."""
        old = [StateQuery(held.call.key, held.call.origin) for held in self._admission.held if self._is_old(held)]
        if old:
            await self._queries.renew_queued(old)

    def release(self, *, changed: bool) -> None:
        """Submit the calls whose hold is over, and forget those that ended. ``changed``: whether a gate may answer
        otherwise than before."""
        released = self._admission.ended()
        if changed:
            released += self._admission.freed()
        for held in released:
            with self._outcomes.guarding(held.call.work_id, "releasing it after a hold"):
                self._release(held)

    def _release(self, held: Held) -> None:
        """Submit a call after its hold; if its token may expire soon, with another one. Ignore one that has ended."""
        is_queued = held.call.phase is Phase.QUEUED
        if is_queued and held.call.kind is Kind.WORKLOAD and self._queries.possible and self._is_old(held):
            self._recovery.ask_airflow(held.call, f"{held.verdict.over}.")
        else:
            self._submitter.put(held.call)

    def _is_old(self, held: Held) -> bool:
        """Return whether a call was accepted or held long ago."""
        waited = max(time.monotonic() - held.since, time.time() - held.call.accepted_at)
        return waited > self._interval
