"""Tasks that call Functions of another Modal app: with a real scheduler and triggerer, in containers without tokens."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import modal
import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, start_run, the_task
from tests.acceptance.evidence import log_of, said, states_of
from tests.sdk import client_of
from tests.support import wait_until

pytestmark = pytest.mark.timeout(240)

APP = Path(__file__).parents[1] / "integration" / "called" / "called_app.py"


@pytest.fixture(scope="module")
def client(stack: ModalStack) -> Iterator[modal.Client]:
    """A client of the stack's control plane, with the app of another team on it."""
    spec = importlib.util.spec_from_file_location(APP.stem, APP)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[APP.stem] = module
    spec.loader.exec_module(module)
    with client_of(stack.local.url, stack.local.env) as connected:
        module.app.deploy(name="called", client=connected)
        yield connected


def test_result_of_a_call_reaches_the_next_task(stack: ModalStack, client: modal.Client) -> None:
    """Both tasks are deferred, the triggerer waits, and the results are XComs."""
    run_id = start_run(stack, "calls")
    ended = finish_run(stack, "calls", run_id)
    logs = {task: log_of(stack, "calls", run_id, task) for task in ("first", "second")}
    assert ended == "success", "\n".join([str(states_of(stack, "calls", run_id)), *logs["first"], *logs["second"]])
    assert stack.airflow.api.xcom("calls", run_id, "first") == {"sum": 5, "pair": [2, 3]}
    assert stack.airflow.api.xcom("calls", run_id, "second") == "Good day, number 5"
    log = logs["first"]
    assert said(log, "Pausing task as DEFERRED") == 1, "\n".join(log)
    assert said(log, "Called called/add as function call fc-") == 1, "\n".join(log)
    assert said(log, "Estimated cost: $") == 1, "\n".join(log)


def test_action_of_a_user_cancels_the_call(stack: ModalStack, client: modal.Client) -> None:
    """A deferred task that a user marks as failed leaves no call behind."""
    run_id = start_run(stack, "held_calls")
    wait_until(lambda: the_task(stack, "held_calls", run_id).state == "deferred", 120.0, "the deferral", interval=0.3)
    call_id = str(stack.airflow.api.xcom("held_calls", run_id, "hold", "function_call_id"))
    call = modal.FunctionCall.from_id(call_id, client=client)
    with pytest.raises(TimeoutError):
        call.get(timeout=0)
    path = f"dags/held_calls/dagRuns/{run_id}/taskInstances/hold"

    def heartbeat() -> str:
        job = stack.airflow.api.request("GET", path).json()["triggerer_job"]
        return str(job["latest_heartbeat"]) if job else ""

    # A triggerer is only notified of an action on a trigger that it has begun: in the turn in which it takes it.
    taken = wait_until(heartbeat, 60.0, "a triggerer", interval=0.3)
    wait_until(lambda: heartbeat() > taken, 60.0, "the triggerer's next turn", interval=0.3)
    stack.airflow.api.request("PATCH", path, json={"new_state": "failed"})

    def is_cancelled() -> bool:
        try:
            call.get(timeout=0)
        except modal.exception.RemoteError:
            return True
        except TimeoutError:
            return False
        return False

    wait_until(is_cancelled, 60.0, "the cancellation", interval=0.3)
