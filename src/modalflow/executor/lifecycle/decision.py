"""What to do about a silent call, decided from the ledger's entry and Modal's word on its function call. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from modalflow.executor.lifecycle.call import Call
from modalflow.protocol.messages import Entry, Kind, State
from modalflow.reasons import Cause, explain


@dataclass(frozen=True)
class Verdict:
    """Modal's own word on a function call."""

    ended: bool
    reason: str = ""
    """How it ended, in Modal's words; empty where it has not, where it returned in order, and where there are none."""
    cause: Cause = Cause.NO_OUTCOME


PENDING = Verdict(ended=False)
RETURNED = Verdict(ended=True)


class Action(Enum):
    """What the engine does next about a call."""

    WAIT = auto()
    DELIVER = auto()
    """The ledger has the outcome."""
    SUBMIT_AGAIN = auto()
    """No container has begun it: same work id, so that a late start of the first call finds the claim taken."""
    RUN_AGAIN = auto()
    """It had begun, and its policy is to be run again: under a new work id."""
    FAIL = auto()
    ASK_AIRFLOW = auto()
    """Another scheduler ordered it, and no container has begun it: whether it is still wanted, and what the order was,
    Airflow's database knows."""
    TIME_OUT = auto()
    """It ran for too long: cancel it, then treat it as lost."""


@dataclass(frozen=True)
class Decision:
    """An action and, where something went wrong, why."""

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
    """Whether Airflow's database can be asked how it stands to a work id."""


def decide(call: Call, entry: Entry | None, verdict: Verdict, policy: Policy, wall_clock: float) -> Decision:
    """Decide about a call from what the ledger and Modal say of it.

    The ledger must have been read after the verdict was given: a worker writes its entry before its call returns.

    =============  ==========  =====================================
    ledger         Modal       decision
    =============  ==========  =====================================
    terminal       any         deliver
    running        pending     wait, or time out
    running        ended       lost after its claim
    nothing        pending     wait (no container has begun it)
    nothing        ended       lost before its claim
    nothing        not asked   adopted without a function call id: ask Airflow
    =============  ==========  =====================================
    """
    if entry is not None and entry.state is not State.RUNNING:
        return Decision(Action.DELIVER)
    function_call = call.function_call_id or ""
    if entry is not None:
        ran = wall_clock - entry.started_at
        where = {"container": entry.container_id, "call": entry.function_call_id or function_call}
        if ran > policy.task_timeout:
            said = f"it ran for {ran:.0f} s, task_timeout = {policy.task_timeout:g} s"
            return Decision(Action.TIME_OUT, explain(Cause.TASK_TIMEOUT, said=said, **where), Cause.TASK_TIMEOUT)
        if not verdict.ended:
            return Decision(Action.WAIT)
        return lost_after_claim(call, explain(verdict.cause, said=verdict.reason, **where), policy, verdict.cause)
    if not call.has_request and call.function_call_id is None:
        why = "Not started on Modal: its scheduler died before it had noted a function call."
        return Decision(Action.ASK_AIRFLOW, why)
    if not verdict.ended:
        return Decision(Action.WAIT)
    return lost_before_claim(call, verdict.cause, verdict.reason, policy)


def lost_before_claim(call: Call, cause: Cause, said: str, policy: Policy, *, advice: str | None = None) -> Decision:
    """Nothing ran, so submitting again is safe and costs the task no retry."""
    again = call.has_request and call.attempts < (call.max_attempts or policy.submit_attempts)
    times = f" in {call.attempts} submissions" if call.attempts > 1 and not again else ""
    # Whose result Modal no longer keeps may well have run, long ago.
    before = "" if cause is Cause.OUTPUT_EXPIRED else f"Not started on Modal{times}"
    reason = explain(cause, said=said, call=call.function_call_id or "", before=before, advice=advice)
    # A function call that returned had an entry: another executor that has the same work (Airflow took one's scheduler
    # for dead) has made use of it, and Airflow knows the outcome.
    used = cause is Cause.NO_OUTCOME and call.kind is Kind.WORKLOAD and policy.has_database
    if not call.has_request or used:
        return Decision(Action.ASK_AIRFLOW, reason, cause)
    return Decision(Action.SUBMIT_AGAIN if again else Action.FAIL, reason, cause)


def lost_after_claim(call: Call, reason: str, policy: Policy, cause: Cause = Cause.OTHER) -> Decision:
    """It may have had effects: a workload of Airflow's follows the task's retries, a raw command the setting."""
    if call.kind is Kind.COMMAND and policy.retry_commands and call.submission is not None:
        return Decision(Action.RUN_AGAIN, reason, cause)
    return Decision(Action.FAIL, reason, cause)
