"""A scheduler whose tokens the API server does not accept: the task's log and the doctor say what to compare."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, scheduler_log, start_run, the_task
from tests.support import wait_until

pytestmark = [pytest.mark.timeout(300), pytest.mark.matrix]

SECRET = "AIRFLOW__API_AUTH__JWT_SECRET"
OTHER = "another-secret-0123456789abcdef-0123456789abcdef-0123456789abcdef"


def restart_the_scheduler(stack: ModalStack, **variables: str) -> None:
    """End it in order, and start it with other variables."""
    scheduler = stack.airflow.programs["scheduler"]
    os.kill(scheduler.pid, signal.SIGTERM)
    wait_until(lambda: scheduler.exit_code() is not None, 60.0, "the scheduler's end")
    scheduler.env = {**scheduler.env, **variables}
    scheduler.start()
    wait_until(lambda: not stack.airflow.api.unhealthy(), 60.0, "the next scheduler")


def doctor(stack: ModalStack, **variables: str) -> dict[str, dict[str, Any]]:
    """What `modalflow doctor` finds beside the stack's Airflow, by name."""
    command = [sys.executable, "-m", "modalflow.cli", "doctor", "--json"]
    env = os.environ | stack.airflow.env | variables
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=110)
    assert OTHER not in done.stdout + done.stderr and "eyJ" not in done.stdout + done.stderr
    return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_a_scheduler_with_another_secret_is_found(own_stack: ModalStack) -> None:
    """The task's log names the settings and the API server, and the doctor finds it from either side."""
    stack = own_stack
    restart_the_scheduler(stack, **{SECRET: OTHER})
    run_id = start_run(stack, "hello")
    assert finish_run(stack, "hello", run_id) == "failed"
    log = "\n".join(stack.airflow.api.log("hello", run_id, the_task(stack, "hello", run_id)))
    for words in ("does not accept the token", "[api_auth] jwt_secret", stack.airflow.execution_api_url):
        assert words in log, log
    assert OTHER not in log + "\n".join(scheduler_log(stack))
    # With the API server's environment its own token is accepted, and the scheduler's settings are not.
    found = doctor(stack)
    assert found["task token"]["status"] == found["task token in the container"]["status"] == "ok", found
    assert found["executor's settings"]["status"] == "fail"
    assert "[api_auth] jwt_secret" in found["executor's settings"]["detail"]
    # With the scheduler's environment it is the other way round.
    found = doctor(stack, **{SECRET: OTHER})
    assert found["task token"]["status"] == found["task token in the container"]["status"] == "fail", found
    assert f"the variable {SECRET}" in found["task token"]["detail"]
    assert found["executor's settings"]["status"] == "ok"
