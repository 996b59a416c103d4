"""Another scheduler's work: taken over as it is, and submitted again where it never got to a container.

Nothing is handed back to Airflow that has a work id: Airflow would queue it under the next try number, which costs the
task one of its retries. Submitting it again under the same work id cannot run it twice, because of the claim.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from modalflow.errors import MalformedMessageError
from modalflow.executor.lifecycle.airflow_state import Answer, Enquiries, Question, Standing
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.decision import Action, Decision
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.mailbox import Adoption
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.log_dedup import Alike
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.workload_guard import alone
from modalflow.protocol.messages import State
from modalflow.reasons import Cause
from modalflow.support.described import describe

log = logger(__name__)

#: Look-ups of adopted work under way at once.
CONCURRENCY = 32


class Adopter:
    """Takes over work of schedulers that died. ``look`` asks Modal and the ledger about a call, and acts on it."""

    def __init__(self, tracker: Tracker, enquiries: Enquiries, look: Callable[[Call], Awaitable[None]]) -> None:
        self._tracker = tracker
        self._enquiries = enquiries
        self._look = look
        self._bound = asyncio.Semaphore(CONCURRENCY)
        self._failed = Alike(log)

    def adopt(self, adoptions: Sequence[Adoption]) -> None:
        """Track the work, and look at each of it once, soon; what is not looked at in time is swept like any other."""
        for adoption in adoptions:
            if self._tracker.calls.get(adoption.work_id) is not None:
                # Airflow took this very scheduler for dead.
                continue
            call = Call.adopted(adoption, time.time())
            self._tracker.calls.add(call)
            self._tracker.counts["adopted"] += 1
            if self._tracker.link.remote is not None:
                self._tracker.run(self._first_look(call))

    async def _first_look(self, call: Call) -> None:
        """Read the ledger alone: most of what is adopted runs, and Modal need not be asked about it."""
        with alone(self._tracker, call.work_id, "taking it over"):
            await self._read_ledger(call)

    async def _read_ledger(self, call: Call) -> None:
        async with self._bound:
            try:
                entry = await self._tracker.link.made().entry(call.work_id)
            except MalformedMessageError:
                entry = None
            except FAILURES as error:
                self._failed.warn(
                    type(error).__name__, "%s was adopted but not yet looked up: %s", call.label, describe(error)
                )
                return
            except Exception:
                log.exception("%s was adopted, and looking it up went wrong; the next sweep looks it up", call.label)
                return
            if call.settled:
                return
            if entry is None:
                await self._look(call)
            elif entry.state is State.RUNNING:
                self._tracker.found_running(call, entry)
            else:
                self._tracker.apply_found(call, Decision(Action.DELIVER), entry)

    def ask_airflow(self, call: Call, reason: str) -> None:
        """Nothing of the call can begin any more, or none is known: find out whether Airflow still wants the work."""
        if not self._enquiries.possible:
            self._tracker.fail(call, reason)
        elif call.phase is not Phase.UNPLACED and not call.is_deciding:
            call.checking()
            question = Question(call.key, call.origin, with_order=True)
            self._enquiries.ask(question, lambda answer: self._answered(call, reason, answer))

    def _answered(self, call: Call, reason: str, answer: Answer) -> None:
        if call.settled:
            return
        if answer.standing is Standing.GONE:
            self._tracker.over(call)
            return
        if call.phase is not Phase.CHECKING:
            # It has gone on meanwhile: a container has claimed it.
            return
        if answer.standing is Standing.RUNNING:
            self._runs_unseen(call, reason)
        elif answer.order is not None:
            log.warning("%s is submitted again: %s", call.label, reason)
            self._tracker.submit_adopted(call, answer.order)
        elif answer.standing is Standing.WAITING:
            self._tracker.fail(call, f"{reason} It could not be submitted again: {answer.problem}")
        elif call.submission is not None:
            # Nobody knows: the database was away, or this is no task. Its submissions are counted then.
            again = call.attempts < self._tracker.policy.submit_attempts
            action = Action.SUBMIT_AGAIN if again else Action.FAIL
            self._tracker.apply(call, Decision(action, reason, Cause.NO_OUTCOME))
        else:
            # The next sweep asks again.
            call.unanswered()

    def _runs_unseen(self, call: Call, reason: str) -> None:
        """Airflow has it as running, so it was claimed: perhaps since the ledger was read."""
        if call.function_call_id is None:
            # Only Airflow can be asked for its end. Its heartbeat timeout ends what does not run.
            call.unanswered()
        elif not call.running_unseen:
            call.airflow_runs_it()
        else:
            self._tracker.fail(call, f"It ran on Modal, and its outcome is no longer in the ledger: {reason}")
