"""What is decided about a silent call, for every combination of what the ledger and Modal say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.decision import Action, Policy, decide
from modalflow.executor.modal_api.call_status import PENDING, RETURNED, CallStatus
from modalflow.protocol.messages import Entry, Kind, State, Submission
from modalflow.reasons import Cause

NOW = 1_000.0
POLICY = Policy(task_timeout=100.0, submit_attempts=3, retry_commands=False)
RETRY = replace(POLICY, retry_commands=True)
ASKED = replace(POLICY, has_database=True)
CRASHED = CallStatus(True, "container ta-1 was killed")
LOST = replace(CRASHED, cause=Cause.CONTAINER_LOST)
RUNNING = Entry("work", State.RUNNING, "fc-1", "ta-1", "owner", started_at=NOW - 10)


def call(kind: Kind = Kind.WORKLOAD, attempts: int = 1, adopted: bool = False) -> Call:
    submission = None if adopted else Submission("work", kind, "log", "partition", "label")
    phase = Phase.ADOPTED if adopted else Phase.WAITING
    return Call("key", "work", "log", "label", kind, 0.0, 0.0, phase, submission=submission, attempts=attempts)


@pytest.mark.parametrize(
    ("about", "entry", "status", "policy", "action"),
    [
        (call(), replace(RUNNING, state=State.SUCCESS), PENDING, POLICY, Action.DELIVER),
        (call(), replace(RUNNING, state=State.FAILED), CRASHED, POLICY, Action.DELIVER),
        (call(), RUNNING, PENDING, POLICY, Action.WAIT),
        (call(), replace(RUNNING, started_at=NOW - 101), PENDING, POLICY, Action.TIME_OUT),
        (call(), RUNNING, CRASHED, POLICY, Action.FAIL),
        (call(), RUNNING, CRASHED, RETRY, Action.FAIL),
        (call(Kind.COMMAND), RUNNING, CRASHED, POLICY, Action.FAIL),
        (call(Kind.COMMAND), RUNNING, CRASHED, RETRY, Action.RUN_AGAIN),
        (call(), None, PENDING, POLICY, Action.WAIT),
        (call(), None, CRASHED, POLICY, Action.SUBMIT_AGAIN),
        (call(), None, RETURNED, POLICY, Action.SUBMIT_AGAIN),
        (call(), None, RETURNED, ASKED, Action.ASK_AIRFLOW),
        (call(Kind.COMMAND), None, RETURNED, ASKED, Action.SUBMIT_AGAIN),
        (call(), None, LOST, ASKED, Action.SUBMIT_AGAIN),
        (call(attempts=3), None, CRASHED, POLICY, Action.FAIL),
        (call(adopted=True), None, CRASHED, POLICY, Action.ASK_AIRFLOW),
        (call(adopted=True), None, PENDING, POLICY, Action.ASK_AIRFLOW),
        (replace(call(adopted=True), function_call_id="fc-1"), None, PENDING, POLICY, Action.WAIT),
        (replace(call(adopted=True), function_call_id="fc-1"), None, CRASHED, POLICY, Action.ASK_AIRFLOW),
    ],
)
def test_decision(about: Call, entry: Entry | None, status: CallStatus, policy: Policy, action: Action) -> None:
    """Before the claim: submitted again; after it: failed, or as the policy says. A terminal entry always counts.
    What returned and left nothing, Airflow is asked about where it can be: another executor has had the outcome."""
    assert decide(about, entry, status, policy, NOW).action is action


def test_reason_tells_where_it_ran_and_what_modal_said() -> None:
    """The reason that a user reads has both halves of the story."""
    reason = decide(call(), RUNNING, CRASHED, POLICY, NOW).reason
    assert "ta-1" in reason
    assert "was killed" in reason
