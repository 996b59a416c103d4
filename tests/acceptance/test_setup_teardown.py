"""Setup and teardown tasks, when what is between them is lost with its container."""

from __future__ import annotations

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, start_run
from tests.acceptance.evidence import instance_of, log_of, not_on_modal, said, starts_in, states_of
from tests.support import wait_until

pytestmark = pytest.mark.timeout(240)


def test_what_was_set_up_is_taken_down_after_its_user_was_lost(stack: ModalStack) -> None:
    """The teardown runs once, in another container than the one that was killed, and the run still counts as failed."""
    run_id = start_run(stack, "tidy", gate="tidy")

    def camping() -> str:
        states = states_of(stack, "tidy", run_id)
        if states["camp"] != "running" or not said(log_of(stack, "tidy", run_id, "camp"), "waiting at tidy"):
            return ""
        return instance_of(stack, "tidy", run_id, "camp").hostname

    killed = wait_until(camping, 90.0, "the task at its gate", interval=0.2)
    stack.local.faults.now("kill", container=killed)
    assert finish_run(stack, "tidy", run_id) == "failed"
    assert states_of(stack, "tidy", run_id) == {"put_up": "success", "camp": "failed", "take_down": "success"}
    log = log_of(stack, "tidy", run_id, "take_down")
    assert said(log, "the tent is down") == 1, "\n".join(log)
    (start,) = starts_in(log)
    assert start.container != killed
    assert stack.airflow.api.xcom("tidy", run_id, "take_down") == start.container
    # The input of the killed container went on to another one, which is the one that Modal tells of.
    assert not_on_modal(stack, "tidy", run_id, but=["camp"]) == []
