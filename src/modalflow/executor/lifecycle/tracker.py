"""What becomes of calls once they are on Modal: events and decisions, carried out.

Runs on the engine's loop alone. Decides nothing about silent calls: ``decision.decide`` does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid

from modalflow.executor.connection import Connection
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.claims import Claims
from modalflow.executor.lifecycle.decision import Action, Decision, Policy, lost_after_claim
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.lifecycle.recovery import Recovery
from modalflow.executor.loop_tasks import BoundedTasks
from modalflow.executor.modal_api.call_status import PENDING
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.task_log_notes import TaskLogNotes
from modalflow.executor.submission.shortages import Shortages
from modalflow.executor.submission.submitter import Submitter
from modalflow.protocol.messages import Entry, Kind, State
from modalflow.reasons import Cause, Reason, explain
from modalflow.support.described import describe

log = logger(__name__)

#: Modal may know more about these ends than the worker: it sees all of them as a cancellation.
EXPLAINED = (Cause.CANCELLED.value, Cause.CONTAINER_STOPPED.value)
#: Causes that only Modal reports.
_REPORTED_BY_MODAL = (Cause.FUNCTION_TIMEOUT, Cause.APP_STOPPED, Cause.OUT_OF_MEMORY, Cause.MODAL_FAILURE)
#: Seconds that the end of a cancelled call waits for its status on Modal, and between two questions.
EXPLANATION_WAIT = 3.0
EXPLANATION_POLL = 0.3


class Tracker:
    """Acts on events, on entries of the ledger and on decisions."""

    def __init__(
        self,
        partition: str,
        policy: Policy,
        calls: Calls,
        connection: Connection,
        claims: Claims,
        outcomes: Outcomes,
        recovery: Recovery,
        submitter: Submitter,
        notes: TaskLogNotes,
        tasks: BoundedTasks,
        shortages: Shortages,
    ) -> None:
        self._partition = partition
        self._policy = policy
        self._calls = calls
        self._connection = connection
        self._claims = claims
        self._outcomes = outcomes
        self._recovery = recovery
        self._submitter = submitter
        self._notes = notes
        self._tasks = tasks
        self._shortages = shortages

    def on_event(self, entry: Entry, partition: str) -> None:
        """Act on an event that came on a partition: the ledger has this entry, or had it."""
        call = self._calls.get(entry.work_id)
        if call is None:
            # On another executor's partition, a third one may have adopted the work, and finds the entry in the ledger.
            if partition == self._partition:
                self._claims.forget([entry.work_id])
            return
        call.touch(time.monotonic())
        if entry.state is not State.RUNNING:
            self._end(call, entry)

    def found(self, call: Call, decision: Decision, entry: Entry | None) -> None:
        """Carry out a decision that was made with this entry of the ledger."""
        if decision.action is Action.DELIVER and entry is not None:
            self._end(call, entry)
            return
        if entry is not None:
            self._claimed(call, entry)
        if not call.is_deciding:
            self.apply(call, decision)

    def apply(self, call: Call, decision: Decision) -> None:
        """Carry out a decision other than to deliver."""
        if decision.action is Action.SUBMIT_AGAIN:
            self._submitter.submit_again(call, decision.reason)
        elif decision.action is Action.RUN_AGAIN:
            self._run_again(call, decision.reason)
        elif decision.action is Action.TIME_OUT:
            self._claims.cancel(call)
            self.apply(call, lost_after_claim(call, decision.reason, self._policy, decision.cause))
        elif decision.action is Action.ASK_AIRFLOW:
            self._recovery.ask_airflow(call, decision.reason)
        elif decision.action is Action.FAIL:
            self._outcomes.fail(call, decision.reason, decision.cause)

    def deliver(self, call: Call, entry: Entry) -> None:
        """Report the outcome that the ledger has, or run the work again if its policy says so."""
        if call.settled:
            return
        by_hand = entry.cause == Cause.BY_HAND.value
        if by_hand:
            self._notes.add(call.log_path, entry.reason or "It was ended by hand", "error")
        lost = entry.state is State.FAILED and entry.return_code is None and not by_hand
        if lost and call.kind is Kind.COMMAND:
            decision = lost_after_claim(call, entry.reason or "it was lost", self._policy)
            if decision.action is Action.RUN_AGAIN:
                self._run_again(call, decision.reason)
                return
        self._outcomes.ended(call, entry)

    def _claimed(self, call: Call, entry: Entry) -> None:
        """Note the container that has the call, and where its end will be reported."""
        now = time.monotonic()
        due_at = now + entry.started_at + self._policy.task_timeout - time.time()
        call.claimed(entry, now, due_at, entry.partition if entry.partition != self._partition else "")

    def _end(self, call: Call, entry: Entry) -> None:
        if entry.function_call_id == call.retired_call_id and call.retired_call_id:
            return
        if call.settled or (entry.cause != Cause.API_UNREACHABLE.value and entry.cause not in EXPLAINED):
            self.deliver(call, entry)
        elif entry.cause == Cause.API_UNREACHABLE.value:
            self._recovery.start_again(call, entry)
        elif call.phase not in (Phase.EXPLAINING, Phase.RETRYING):
            call.explaining(entry)
            self._tasks.spawn(self._explain(call, entry))

    def _run_again(self, call: Call, reason: str) -> None:
        log.warning("%s runs again: %s", call.label, reason)
        self._outcomes.settle(call)
        again = call.successor(str(uuid.uuid4()), time.monotonic(), time.time())
        self._calls.add(again)
        policy = "It runs again because of [modal_executor] lost_command_policy."
        self._notes.add(call.log_path, f"{reason} {policy}", "error")
        self._claims.forget([call.work_id])
        self._submitter.put(again)

    async def _explain(self, call: Call, entry: Entry) -> None:
        """Deliver the end of a cancelled call with the cause that Modal reports, such as a timeout or a stopped app.

        The worker sees the same of all of them, and reports its end before Modal does.
        """
        with self._outcomes.guarding(call.work_id, "asking Modal about its end"):
            reason = await self._reason_of_end(call, entry)
            if reason is not None:
                entry = dataclasses.replace(entry, reason=reason, cause=reason.cause.value)
                if reason.cause is not Cause.BY_HAND:
                    self._notes.add(call.log_path, reason, "error")
                await self._shortages.note(call, reason.cause, entry)
            self.deliver(call, entry)

    async def _reason_of_end(self, call: Call, entry: Entry) -> Reason | None:
        """Ask Modal for the origin of an end; return None if it knows no more than the worker's report."""
        where = {"container": entry.container_id, "call": entry.function_call_id}
        deadline = time.monotonic() + EXPLANATION_WAIT
        status = PENDING
        try:
            api = self._connection.get()
            if entry.cause == Cause.CANCELLED and (by := await api.cancelled_by(call.work_id)):
                return explain(Cause.BY_HAND, detail=by, **where)
            while not status.ended and time.monotonic() < deadline:
                status = await api.call_status(entry.function_call_id)
                if not status.ended:
                    await asyncio.sleep(EXPLANATION_POLL)
        except FAILURES as error:
            log.warning("Modal did not report the end of %s (%s)", call.label, describe(error))
        except Exception:  # Its outcome is known, and is delivered without Modal's reason.
            log.exception("Asking Modal about the end of %s failed", call.label)
        has_words = status.reason and status.cause.value == entry.cause == Cause.CANCELLED.value
        if status.ended and (status.cause in _REPORTED_BY_MODAL or has_words):
            return explain(status.cause, detail=status.reason, **where)
        return None
