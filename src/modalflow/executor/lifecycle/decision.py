"""What to do about a silent call, decided from the ledger's entry and Modal's status of its function call. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from modalflow.config.settings import Settings
from modalflow.executor.lifecycle.call import Call
from modalflow.executor.modal_api.call_status import CallStatus
from modalflow.protocol.messages import Entry, Kind, State
from modalflow.reasons import Cause, explain


class Action(Enum):
    """What the engine does next about a call."""

    WAIT = auto()
    DELIVER = auto()
    """Report the outcome that the ledger has."""
    SUBMIT_AGAIN = auto()
    """Submit it under the same work id: no container has begun it. If one begins it late, it finds the claim taken."""
    RUN_AGAIN = auto()
    """Run it under a new work id: it had begun, and its policy permits that."""
    FAIL = auto()
    ASK_AIRFLOW = auto()
    """Ask Airflow's database whether it is still wanted: another scheduler submitted it, and no container began it.
    The database also has what is needed to submit it again."""
    TIME_OUT = auto()
    """Cancel it, because it ran for too long, then treat it as lost."""


@dataclass(frozen=True)
class Decision:
    """An action and, if something went wrong, why."""

    action: Action
    reason: str = ""
    cause: Cause = Cause.OTHER


@dataclass(frozen=True)
class Policy:
    """What the settings say about work that is in trouble."""

    task_timeout: float
    submit_attempts: int
    retry_commands: bool
    has_database: bool = False
    """Whether Airflow's database can be asked about a work id."""

    @classmethod
    def of(cls, settings: Settings, *, has_database: bool) -> Policy:
        """Return the policy that the settings ask for."""
        return cls(
            task_timeout=settings.task_timeout,
            submit_attempts=settings.submit_attempts,
            retry_commands=settings.lost_command_policy == "retry",
            has_database=has_database,
        )


def decide(call: Call, entry: Entry | None, status: CallStatus, policy: Policy, wall_clock: float) -> Decision:
    """Decide about a call from its ledger entry and the status of its function call.

    Read the status first and the ledger second: a worker writes its entry before its call returns.

    =============  ==========  ===============================================
    ledger         Modal       decision
    =============  ==========  ===============================================
    terminal       any         deliver
    running        pending     wait, or time out
    running        ended       lost after its claim
    nothing        pending     wait (no container has begun it)
    nothing        ended       lost before its claim
    nothing        not asked   adopted without a function call id: ask Airflow
    =============  ==========  ===============================================
    """
    if entry is not None and entry.state is not State.RUNNING:
        return Decision(Action.DELIVER)
    function_call = call.function_call_id or ""
    if entry is not None:
        ran = wall_clock - entry.started_at
        where = {"container": entry.container_id, "call": entry.function_call_id or function_call}
        if ran > policy.task_timeout:
            detail = f"it ran for {ran:.0f} s, task_timeout = {policy.task_timeout:g} s"
            return Decision(Action.TIME_OUT, explain(Cause.TASK_TIMEOUT, detail=detail, **where), Cause.TASK_TIMEOUT)
        if not status.ended:
            return Decision(Action.WAIT)
        return lost_after_claim(call, explain(status.cause, detail=status.reason, **where), policy, status.cause)
    if not call.has_request and call.function_call_id is None:
        why = "Not started on Modal: its scheduler died before it had stored a function call id."
        return Decision(Action.ASK_AIRFLOW, why)
    if not status.ended:
        return Decision(Action.WAIT)
    return lost_before_claim(call, status.cause, status.reason, policy)


def lost_before_claim(
    call: Call, cause: Cause, detail: str, policy: Policy, *, advice: str | None = None, final: bool = False
) -> Decision:
    """Decide about work that did not run. Unless that is ``final``, it can be submitted again, without a retry."""
    again = not final and call.has_request and call.attempts < (call.max_attempts or policy.submit_attempts)
    times = f" in {call.attempts} submissions" if call.attempts > 1 and not again else ""
    # If Modal no longer keeps the result, the work may have run, long ago.
    before = "" if cause is Cause.OUTPUT_EXPIRED else f"Not started on Modal{times}"
    reason = explain(cause, detail=detail, call=call.function_call_id or "", before=before, advice=advice)
    # A function call that returned had an entry. If Airflow took a live scheduler for dead, two executors have the same
    # work: the other one has delivered and removed the entry, so Airflow knows the outcome.
    delivered = cause is Cause.NO_OUTCOME and call.kind is Kind.WORKLOAD and policy.has_database
    if not call.has_request or delivered:
        return Decision(Action.ASK_AIRFLOW, reason, cause)
    return Decision(Action.SUBMIT_AGAIN if again else Action.FAIL, reason, cause)


def lost_after_claim(call: Call, reason: str, policy: Policy, cause: Cause = Cause.OTHER) -> Decision:
    """Decide about work that may have had effects: the task's retries apply, or the setting for raw commands."""
    if call.kind is Kind.COMMAND and policy.retry_commands and call.submission is not None:
        return Decision(Action.RUN_AGAIN, reason, cause)
    return Decision(Action.FAIL, reason, cause)
