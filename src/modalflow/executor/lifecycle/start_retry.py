"""Work that a container had and could not begin, because Airflow's API did not answer: begun anew, at no retry's cost.

An API server that is restarted, or away for some minutes, would else use up the retries of everything that starts
meanwhile. Airflow's database says whether the task has begun after all: an answer may have been lost on its way.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from modalflow.executor.lifecycle.airflow_state import Answer, Enquiries, Question, Standing
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.loggers import logger
from modalflow.protocol.messages import Entry
from modalflow.support.backoff import Backoff

log = logger(__name__)

#: Seconds before the first time, doubling up to the last; Airflow's own client has tried for some ten seconds by then.
#: There is no last time: Airflow takes back what was queued for ``[scheduler] task_queued_timeout``.
PAUSE = 2.0
LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Unbegun:
    """Submits such work again, under the same work id, once its claim is out of the ledger."""

    tracker: Tracker
    enquiries: Enquiries
    pause: float = PAUSE

    def take(self, call: Call, entry: Entry) -> None:
        """Find out how Airflow stands to the work; deliver the failure where there is nobody to ask."""
        if not self.enquiries.possible:
            self.tracker.deliver(call, entry)
        elif not call.is_deciding:
            call.checking()
            question = Question(call.key, call.origin, with_order=call.submission is None)
            self.enquiries.ask(question, lambda answer: self._answered(call, entry, answer))

    def _answered(self, call: Call, entry: Entry, answer: Answer) -> None:
        if call.settled:
            return
        if answer.standing is Standing.GONE:
            self.tracker.over(call)
        elif call.phase is not Phase.CHECKING:
            # It has gone on meanwhile. If this entry still counts, the next look-up finds it.
            return
        elif answer.standing is Standing.WAITING and (call.submission is not None or answer.order is not None):
            self.tracker.run(self._again(call, entry, answer))
        else:
            self.tracker.deliver(call, entry)

    async def _again(self, call: Call, entry: Entry, answer: Answer) -> None:
        pause = Backoff(self.pause, LONGEST_PAUSE).after(call.start_retries + 1)
        call.start_again(entry, time.monotonic() + pause)
        self.tracker.counts["resubmitted"] += 1
        text = f"{entry.reason} It is submitted again in {pause:g} s, without using a retry."
        log.warning("%s: %s", call.label, text)
        self.tracker.add_reason(call.log_path, text)
        await asyncio.sleep(pause)
        if not await self._claim_is_gone(call, entry, pause) or call.settled:
            return
        if answer.order is not None:
            self.tracker.submit_adopted(call, answer.order)
            return
        call.claim_removed()
        self.tracker.submit(call)

    async def _claim_is_gone(self, call: Call, entry: Entry, pause: float) -> bool:
        """Remove the claim; False where another one has taken its place, which stays.

        Two executors have the same work where Airflow took the one's scheduler for dead: the other may have submitted
        it again by now, and a container may be at it.
        """
        remote = self.tracker.link.made()
        while not call.settled:
            try:
                taken = await remote.take_entry(entry.work_id)
                if taken is None or taken.function_call_id == entry.function_call_id:
                    return True
                await remote.claim(taken)
            except FAILURES as error:
                log.warning("The claim of %s is still in the ledger (%s)", call.label, error)
                await asyncio.sleep(pause)
            else:
                call.claimed_elsewhere(taken, time.monotonic())
                return False
        return False
