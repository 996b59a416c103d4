"""A scheduler whose tokens the API server does not accept: the task's log and the doctor say what to compare."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, scheduler_log, start_run, the_task
from tests.command_line import CommandLine
from tests.support import wait_until

pytestmark = [pytest.mark.timeout(300), pytest.mark.matrix]

SECRET = "AIRFLOW__API_AUTH__JWT_SECRET"
OTHER = "another-secret-0123456789abcdef-0123456789abcdef-0123456789abcdef"


def restart_the_scheduler(stack: ModalStack, env: Mapping[str, str]) -> None:
    """End it in order, and start it in another environment."""
    scheduler = stack.airflow.programs["scheduler"]
    os.kill(scheduler.pid, signal.SIGTERM)
    wait_until(lambda: scheduler.exit_code() is not None, 60.0, "the scheduler's end")
    scheduler.env = env
    scheduler.start()
    wait_until(lambda: not stack.airflow.api.unhealthy(), 60.0, "the next scheduler")


@pytest.fixture(scope="module")
def strange_secret(stack: ModalStack) -> Iterator[None]:
    """A scheduler that signs tokens with another secret than the API server's, until the end of this module."""
    before = stack.airflow.programs["scheduler"].env
    restart_the_scheduler(stack, {**before, SECRET: OTHER})
    try:
        yield
    finally:
        restart_the_scheduler(stack, before)


def doctor(modalflow: CommandLine, **variables: str) -> dict[str, dict[str, Any]]:
    """What `modalflow doctor` finds beside the stack's Airflow, by name."""
    done = modalflow.run("doctor", "--json", env=variables)
    assert OTHER not in done.stdout + done.stderr and "eyJ" not in done.stdout + done.stderr
    return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


@pytest.mark.usefixtures("strange_secret")
def test_a_scheduler_with_another_secret_is_found(stack: ModalStack, modalflow: CommandLine) -> None:
    """The task's log names the settings and the API server, and the doctor finds it from either side."""
    run_id = start_run(stack, "hello")
    assert finish_run(stack, "hello", run_id) == "failed"
    log = "\n".join(stack.airflow.api.log("hello", run_id, the_task(stack, "hello", run_id)))
    for words in ("does not accept the token", "[api_auth] jwt_secret", stack.airflow.execution_api_url):
        assert words in log, log
    assert OTHER not in log + "\n".join(scheduler_log(stack))
    # With the API server's environment its own token is accepted, and the scheduler's settings are not.
    found = doctor(modalflow)
    assert found["task token"]["status"] == found["task token in the container"]["status"] == "ok", found
    assert found["executor's settings"]["status"] == "fail"
    assert "[api_auth] jwt_secret" in found["executor's settings"]["detail"]
    # With the scheduler's environment it is the other way round.
    found = doctor(modalflow, **{SECRET: OTHER})
    assert found["task token"]["status"] == found["task token in the container"]["status"] == "fail", found
    assert f"the variable {SECRET}" in found["task token"]["detail"]
    assert found["executor's settings"]["status"] == "ok"
