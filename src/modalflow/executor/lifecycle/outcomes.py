"""How calls end, and how that is reported to Airflow and the user: in updates, task logs and metrics."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager

from modalflow.executor.budgets.running_costs import RunningCosts
from modalflow.executor.lifecycle.airflow_state import AirflowState, Loss, StateAnswer, StateQueries, StateQuery
from modalflow.executor.lifecycle.call import Call
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.claims import Claims
from modalflow.executor.losses.infrastructure_retries import InfrastructureRetries
from modalflow.executor.mailbox import Outbox, Update, UpdateKind, WorkloadKey
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.metrics import OUTCOME_LATENCY, SUBMIT_LATENCY, Metrics
from modalflow.executor.reporting.task_log_notes import TaskLogNotes
from modalflow.executor.workloads import label_of
from modalflow.protocol.messages import Entry, Kind, State
from modalflow.reasons import EXPLANATIONS, Cause, Reason, cause_of, explain
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds until Airflow should have acted on a failure. The wait doubles each time.
FIRST_CHECK = 5.0
#: After waiting for this long in vain, Airflow's own heartbeat timeout is left to end the task.
LAST_CHECK = 80.0

#: Seconds between two attempts to queue a lost task again, and their number. Then the loss is reported as a failure.
LOCKED_PAUSE = 1.0
LOCKED_ATTEMPTS = 20


def internal_failure(error: Exception, doing: str) -> Reason:
    """Return the reason for work that failed because of a fault in the executor. ``doing`` completes "while …"."""
    detail = (
        f"the executor failed while {doing} ({describe(error)}). This is a fault of modalflow: please "
        "report it with the traceback in the scheduler's log"
    )
    return explain(Cause.OTHER, detail=detail)


class FailureReports:
    """Reports failures so that they count: not if Airflow has gone on, and again if Airflow did not act on it.

    Airflow takes a FAILED for whatever its task instance does now, and drops an event whose row is locked just then. So
    Airflow's database is asked before a FAILED is reported, and again some seconds later. If the task has no fault, the
    first question also queues it again.
    """

    def __init__(
        self,
        outbox: Outbox,
        claims: Claims,
        queries: StateQueries,
        limits: InfrastructureRetries,
        notes: TaskLogNotes,
        metrics: Metrics,
    ) -> None:
        self._outbox = outbox
        self._claims = claims
        self._queries = queries
        self._limits = limits
        self._notes = notes
        self._metrics = metrics

    def report(self, update: Update, call: Call, cause: Cause) -> None:
        """Report that a task failed, if Airflow still waits for it under this work id."""
        if EXPLANATIONS[cause].lost_to:
            loss = Loss(cause, self._limits, awaits_id=not call.submitted_elsewhere)
            self._queue_again(update, loss, call.log_path, LOCKED_ATTEMPTS)
        else:
            self._queries.ask(StateQuery(update.key, update.origin), lambda answer: self._report(update, answer))

    def _queue_again(self, update: Update, loss: Loss, log_path: str, attempts: int, after: float = 0.0) -> None:
        query = StateQuery(update.key, update.origin, loss=loss)

        def answered(answer: StateAnswer) -> None:
            if answer.state is AirflowState.LOCKED and attempts > 1:
                self._queue_again(update, loss, log_path, attempts - 1, LOCKED_PAUSE)
            elif answer.queued_again:
                self._queued_again(update, loss, log_path, answer.queued_again)
            else:
                self._report(self._explained(update, log_path, answer.problem), answer)

        self._queries.ask(query, answered, after)

    def _queued_again(self, update: Update, loss: Loss, log_path: str, line: str) -> None:
        log.warning("%s: %s", label_of(update.key), line)
        self._metrics.counts[f"run_again.{loss.cause.value}"] += 1
        self._notes.add(log_path, line, "warning")
        # Modal may start its input once more: it must find the outcome until then.
        self._claims.hold(update.work_id)
        self._check_later(update, FIRST_CHECK)
        self._outbox.withdraw_start(update.origin)
        self._outbox.add(dataclasses.replace(update, kind=UpdateKind.OVER))

    def _explained(self, update: Update, log_path: str, problem: str) -> Update:
        if not problem:
            return update
        self._notes.add(log_path, problem, "error")
        return dataclasses.replace(update, reason=f"{update.reason or ''} {problem}".strip())

    def _report(self, update: Update, answer: StateAnswer) -> None:
        if answer.state is AirflowState.GONE:
            log.info(
                "Airflow has gone on from %s, so its failure is not reported: %s", label_of(update.key), update.reason
            )
            self._outbox.add(dataclasses.replace(update, kind=UpdateKind.OVER))
            return
        if answer.state is not AirflowState.UNKNOWN:
            self._claims.hold(update.work_id)
            self._check_later(update, FIRST_CHECK)
        self._outbox.add(update)

    def _check_later(self, update: Update, after: float) -> None:
        query = StateQuery(update.key, update.origin)
        self._queries.ask(query, lambda answer: self._check(update, answer, after), after)

    def _check(self, update: Update, answer: StateAnswer, waited: float) -> None:
        if answer.state is AirflowState.GONE:
            self._claims.release(update.work_id, remove=True)
            return
        if answer.state is not AirflowState.UNKNOWN:
            log.warning("Airflow did not act on the failure of %s; it is reported again", label_of(update.key))
            self._outbox.add(dataclasses.replace(update, repeated=True))
        if waited < LAST_CHECK:
            self._check_later(update, waited * 2)
        else:
            log.warning("Airflow does not act on the failure of %s; its heartbeat timeout will", label_of(update.key))
            # The entry stays, so an adopting scheduler finds the outcome.
            self._claims.release(update.work_id, remove=False)


class Outcomes:
    """Settles calls, and reports what happens to them."""

    def __init__(
        self,
        calls: Calls,
        claims: Claims,
        outbox: Outbox,
        failures: FailureReports,
        notes: TaskLogNotes,
        metrics: Metrics,
        costs: RunningCosts,
    ) -> None:
        self._calls = calls
        self._claims = claims
        self._outbox = outbox
        self._failures = failures
        self._notes = notes
        self._metrics = metrics
        self._costs = costs

    def started(self, call: Call) -> None:
        """Report that Modal has accepted a call."""
        self._metrics.time(SUBMIT_LATENCY, time.time() - call.accepted_at)
        if call.settled:
            self._claims.cancel(call)
        else:
            self._report(UpdateKind.STARTED, call)

    def waits(self, call: Call, reason: str) -> None:
        """Report to the user why a call waits."""
        call.wait_reported()
        self._notes.add(call.log_path, reason, "info")
        self._outbox.add(self._update(UpdateKind.WAITING, call, reason))

    def over_budget(self, call: Call, text: str) -> None:
        """Report at a call, for its user and in Airflow's event log, that a budget is used up."""
        self._notes.add(call.log_path, text, "warning")
        self._outbox.add(self._update(UpdateKind.OVER_BUDGET, call, text))

    def ended(self, call: Call, entry: Entry) -> None:
        """Settle a call with the outcome that the ledger has."""
        failed = entry.state is State.FAILED
        cause = cause_of(entry.cause)
        self.settle(call, entry.function_call_id, entry)
        if entry.finished_at is not None:
            self._metrics.time(OUTCOME_LATENCY, time.time() - entry.finished_at)
        if failed and entry.cause:
            self._count_lost(cause)
        self._report(UpdateKind.FAILED if failed else UpdateKind.SUCCESS, call, entry.reason, entry, cause)

    def fail(self, call: Call, reason: str, cause: Cause = Cause.OTHER) -> None:
        """Settle a call as failed for this reason, and keep it from beginning."""
        if call.settled:
            return
        self._count_lost(cause)
        if (call.submitted_elsewhere or call.function_call_id is not None) and not call.may_start_again:
            # Whatever Modal reported, a container that still gets it must find the claim taken.
            self._claims.keep(call.work_id)
        self.settle(call)
        self._claims.bar(call, reason)
        self._notes.add(call.log_path, reason, "error")
        self._report(UpdateKind.FAILED, call, reason, cause=cause)

    def over(self, call: Call) -> None:
        """Settle a call that Airflow no longer waits for: report no outcome, and keep it from beginning."""
        log.info("%s: Airflow no longer waits for it", call.label)
        self.settle(call)
        self._claims.keep(call.work_id)
        self._claims.cancel(call)
        self._claims.bar(call, "Airflow no longer waited for it")
        self._report(UpdateKind.OVER, call)

    def revoke(self, key: WorkloadKey, detail: str) -> None:
        """Settle the call of a key that Airflow has given up, begun or not; nothing is reported to Airflow."""
        call = self._calls.of_key(key)
        if call is not None:
            reason = explain(Cause.REVOKED, detail=detail, call=call.function_call_id or "")
            log.info("%s: %s", call.label, reason)
            self.settle(call)
            self._notes.add(call.log_path, reason, "error")
            self._claims.cancel(call)
            self._claims.bar(call, reason)

    def settle(self, call: Call, function_call_id: str = "", entry: Entry | None = None) -> None:
        """Settle a call without a report; ``entry`` is its outcome in the ledger, if there is one."""
        self._count_cost(call, entry)
        call.settle(function_call_id)
        if call.may_start_again:
            self._claims.keep(call.work_id)
        self._calls.discard(call)

    @contextmanager
    def guarding(self, work_id: str, doing: str) -> Iterator[None]:
        """Fail the call of a work id if the code within raises, so that one workload's error stops no other.

        ``doing`` completes "while …".
        """
        try:
            yield
        except Exception as error:  # The boundary of a workload.
            log.exception("An unexpected error occurred while %s (%s)", doing, work_id)
            self._fail_after(work_id, internal_failure(error, doing))

    def _fail_after(self, work_id: str, reason: Reason) -> None:
        call = self._calls.get(work_id)
        if call is None or call.settled:
            return
        try:
            self.fail(call, reason)
        except Exception:  # The last resort: Airflow must learn that it ended.
            log.exception("%s could not be failed in order", call.label)
            if not call.settled:
                self._count_cost(call, None)
                call.settle()
            self._calls.discard(call)
            self._outbox.add(self._update(UpdateKind.FAILED, call, str(reason)))

    def _count_cost(self, call: Call, entry: Entry | None) -> None:
        try:
            self._costs.ended(call, entry, time.time())
        except Exception:  # Its record on the Volume has the cost; its end must be reported.
            log.exception("The cost of %s could not be counted", call.label)

    def _count_lost(self, cause: Cause) -> None:
        self._metrics.counts[f"lost.{cause.value}"] += 1

    def _report(
        self,
        kind: UpdateKind,
        call: Call,
        reason: str | None = None,
        entry: Entry | None = None,
        cause: Cause = Cause.OTHER,
    ) -> None:
        self._metrics.counts[kind.name.lower()] += 1
        update = self._update(kind, call, reason, entry)
        if kind is UpdateKind.FAILED and call.kind is Kind.WORKLOAD:
            self._failures.report(update, call, cause)
        else:
            self._outbox.add(update)

    @staticmethod
    def _update(kind: UpdateKind, call: Call, reason: str | None = None, entry: Entry | None = None) -> Update:
        return Update(kind, call.key, call.origin, call.work_id, call.function_call_id, reason, entry)
