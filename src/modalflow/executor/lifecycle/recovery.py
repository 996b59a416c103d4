"""Work that no container has begun, or could begin: submitted again if Airflow's database still has it as wanted.

Work with a work id never goes back to Airflow: Airflow would queue it under the next try number, at the cost of a
retry. A submission under the same work id cannot run it twice, because of the claim.
"""

from __future__ import annotations

import time

from modalflow.errors import MalformedMessageError
from modalflow.executor.connection import Connection
from modalflow.executor.lifecycle.airflow_state import AirflowState, StateAnswer, StateQueries, StateQuery
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.decision import Policy
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.loop_tasks import BoundedTasks
from modalflow.executor.mailbox import SubmitRequest
from modalflow.executor.modal_api.modal_api import FAILURES, ModalApi
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.metrics import Metrics
from modalflow.executor.reporting.task_log_notes import TaskLogNotes
from modalflow.executor.submission.intake import Intake
from modalflow.executor.submission.submitter import Submitter
from modalflow.protocol.messages import Entry
from modalflow.reasons import Cause
from modalflow.support.backoff import Backoff

log = logger(__name__)

#: Seconds before a start is first retried, doubling up to the longest; by then Airflow's own client has tried for some
#: ten seconds. There is no last retry: Airflow revokes what was queued for ``[scheduler] task_queued_timeout``.
PAUSE = 2.0
LONGEST_PAUSE = 60.0


class Recovery:
    """Submits calls again that have not begun."""

    def __init__(
        self,
        policy: Policy,
        connection: Connection,
        queries: StateQueries,
        outcomes: Outcomes,
        intake: Intake,
        submitter: Submitter,
        notes: TaskLogNotes,
        metrics: Metrics,
        tasks: BoundedTasks,
    ) -> None:
        self._policy = policy
        self._connection = connection
        self._queries = queries
        self._outcomes = outcomes
        self._intake = intake
        self._submitter = submitter
        self._notes = notes
        self._metrics = metrics
        self._tasks = tasks

    # Work that no container will begin any more.

    def ask_airflow(self, call: Call, reason: str) -> None:
        """Submit a call again if Airflow still wants it; fail it for this reason if Airflow cannot be asked."""
        if not self._queries.possible:
            self._outcomes.fail(call, reason)
        elif call.phase is not Phase.UNPLACED and not call.is_deciding:
            call.checking()
            query = StateQuery(call.key, call.origin, with_request=True)
            self._queries.ask(query, lambda answer: self._answered(call, reason, answer))

    def _answered(self, call: Call, reason: str, answer: StateAnswer) -> None:
        with self._outcomes.guarding(call.work_id, "dealing with Airflow's answer"):
            if not call.settled:
                self._submit_if_wanted(call, reason, answer)

    def _submit_if_wanted(self, call: Call, reason: str, answer: StateAnswer) -> None:
        if answer.state is AirflowState.GONE:
            self._outcomes.over(call)
        elif call.phase is not Phase.CHECKING:
            # A container has claimed it meanwhile.
            return
        elif answer.state is AirflowState.RUNNING:
            self._runs_unseen(call, reason)
        elif answer.request is not None:
            log.warning("%s is submitted again: %s", call.label, reason)
            self._intake.request_again(call, answer.request)
        elif answer.state is AirflowState.WAITING:
            self._outcomes.fail(call, f"{reason} It could not be submitted again: {answer.problem}")
        elif call.submission is None:
            # The next sweep asks again.
            call.unanswered()
        elif call.attempts < self._policy.submit_attempts:
            # The database did not answer, or this is no task: the limit on submissions applies.
            self._submitter.submit_again(call, reason)
        else:
            self._outcomes.fail(call, reason, Cause.NO_OUTCOME)

    def _runs_unseen(self, call: Call, reason: str) -> None:
        """Handle a call that is running in Airflow: it was claimed, perhaps since the ledger was read."""
        if call.function_call_id is None:
            # Only Airflow can notice its end: its heartbeat timeout ends what does not run.
            call.unanswered()
        elif not call.running_unseen:
            call.airflow_runs_it()
        else:
            self._outcomes.fail(call, f"It ran on Modal, and its outcome is no longer in the ledger: {reason}")

    # Work that a container had and could not begin, because Airflow's API did not answer.

    def start_again(self, call: Call, entry: Entry) -> None:
        """Start a call again that Airflow's API was not there to start; settle it as failed if it has begun after all.

        Otherwise an API server's restart or outage of some minutes would cost each starting task a retry. Airflow's
        database shows whether the task has begun: an answer may have been lost on its way.
        """
        if not self._queries.possible:
            self._outcomes.ended(call, entry)
        elif not call.is_deciding:
            call.checking()
            query = StateQuery(call.key, call.origin, with_request=call.submission is None)
            self._queries.ask(query, lambda answer: self._start_answered(call, entry, answer))

    def _start_answered(self, call: Call, entry: Entry, answer: StateAnswer) -> None:
        with self._outcomes.guarding(call.work_id, "dealing with Airflow's answer"):
            if not call.settled:
                self._start_if_wanted(call, entry, answer)

    def _start_if_wanted(self, call: Call, entry: Entry, answer: StateAnswer) -> None:
        if answer.state is AirflowState.GONE:
            self._outcomes.over(call)
        elif call.phase is not Phase.CHECKING:
            # It has gone on meanwhile. If this entry still counts, the next look-up finds it.
            return
        elif answer.state is AirflowState.WAITING and (call.submission is not None or answer.request is not None):
            self._retire(call, entry, answer.request)
        else:
            self._outcomes.ended(call, entry)

    def _retire(self, call: Call, entry: Entry, request: SubmitRequest | None) -> None:
        pause = Backoff(PAUSE, LONGEST_PAUSE).after(call.start_retries + 1)
        call.start_again(entry, time.monotonic() + pause)
        self._metrics.counts["resubmitted"] += 1
        text = f"{entry.reason} It is submitted again in {pause:g} s, which costs it no retry."
        log.warning("%s: %s", call.label, text)
        self._notes.add(call.log_path, text, "error")
        self._free_claim_later(call, entry, request, pause)

    def free_claim(self, call: Call, entry: Entry) -> None:
        """Remove the claim of a call that was recalled with this entry, and submit the call again as soon as it may.

        Not at once: a container may have fetched the input just before it was cancelled, and must find the claim.
        """
        self._free_claim_later(call, entry, None, PAUSE)

    def _free_claim_later(self, call: Call, entry: Entry, request: SubmitRequest | None, pause: float) -> None:
        self._tasks.later(pause, lambda: self._tasks.spawn(self._free_claim(call, entry, request, pause)))

    async def _free_claim(self, call: Call, entry: Entry, request: SubmitRequest | None, pause: float) -> None:
        with self._outcomes.guarding(call.work_id, "starting it again"):
            if call.phase is Phase.RETRYING:
                await self._submit_unclaimed(call, entry, request, pause)

    async def _submit_unclaimed(self, call: Call, entry: Entry, request: SubmitRequest | None, pause: float) -> None:
        """Remove the retired claim and submit the call again, unless another claim has taken its place.

        If Airflow took a live scheduler for dead, two executors have the same work: the other one may have submitted it
        again by now, and a container may run it. Its claim is read before anything is removed, and if it arrives in
        between, it is written back for as long as that takes.
        """
        api = self._connection.get()
        try:
            found = await _readable(api, entry.work_id)
            if not _is_other(found, entry):
                found = await api.take_entry(entry.work_id)
        except FAILURES as error:
            log.warning("The claim of %s is still in the ledger (%s)", call.label, error)
            self._free_claim_later(call, entry, request, pause)
            return
        if found is not None and _is_other(found, entry):
            if call.phase is Phase.RETRYING:
                call.claimed_elsewhere(found, time.monotonic())
            await self._put_back(found)
        elif call.phase is not Phase.RETRYING:
            return
        elif request is not None:
            self._intake.request_again(call, request)
        else:
            call.claim_removed()
            self._submitter.put(call)

    async def _put_back(self, entry: Entry) -> None:
        """Write the claim of a container that has the work into the ledger, unless it is there."""
        try:
            await self._connection.get().claim(entry)
        except FAILURES as error:
            log.warning("The claim of %s is not in the ledger again yet (%s)", entry.label, error)
            self._tasks.later(Backoff(PAUSE, LONGEST_PAUSE).after(1), lambda: self._tasks.spawn(self._put_back(entry)))


def _is_other(found: Entry | None, retired: Entry) -> bool:
    return found is not None and found.function_call_id != retired.function_call_id


async def _readable(api: ModalApi, work_id: str) -> Entry | None:
    try:
        return await api.entry(work_id)
    except MalformedMessageError:
        return None
