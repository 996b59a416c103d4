"""Tokens that the API server does not accept: another task's, and those of a scheduler with another secret."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jwt
import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, in_database, scheduler_log, start_run, the_task
from tests.command_line import CommandLine
from tests.support import wait_until

pytestmark = [pytest.mark.timeout(300), pytest.mark.matrix]

SECRET = "AIRFLOW__API_AUTH__JWT_SECRET"
OTHER = "another-secret-0123456789abcdef-0123456789abcdef-0123456789abcdef"


def token_of(stack: ModalStack, ti_id: str, secret: str = "") -> str:
    """A token as the scheduler signs it for a task instance."""
    now = time.time()
    claims = {"sub": ti_id, "aud": "urn:airflow.apache.org:task", "iat": now, "nbf": now - 10, "exp": now + 600}
    return jwt.encode({"scope": "execution", **claims}, secret or stack.airflow.env[SECRET], "HS512")


def test_a_task_s_token_opens_no_other_task_s_path(stack: ModalStack) -> None:
    """Over the relay as without it: the API server refuses it, and accepts it for its own task instance alone."""
    run_id = start_run(stack, "hello")
    assert finish_run(stack, "hello", run_id) == "success"
    query = "select id from task_instance where dag_id = 'hello' and run_id = :run"
    (other,) = in_database(stack, query, run=run_id)
    token, now = token_of(stack, str(other["id"])), "2026-01-01T00:00:00Z"
    beat, ended = {"hostname": "h", "pid": 1}, {"state": "failed", "end_date": now}
    started = {"state": "running", "hostname": "h", "unixname": "u", "pid": 1, "start_date": now}
    requests = [
        ("PUT", f"task-instances/{other['id']}/heartbeat", token, beat),
        ("PUT", "task-instances/{me}/heartbeat", token, beat),
        ("PATCH", "task-instances/{me}/state", token, ended),
        ("PATCH", "task-instances/{me}/run", token, started),
        ("PUT", "task-instances/{me}/rtif", token, {}),
        ("PATCH", "task-instances/{me}/state", "", ended),
        # Signed with another secret.
        ("PATCH", f"task-instances/{other['id']}/state", token_of(stack, str(other["id"]), OTHER), ended),
    ]
    run_id = start_run(stack, "trespass", requests=requests)
    # Its own state is its own report.
    assert finish_run(stack, "trespass", run_id) == "success"
    log = "\n".join(stack.airflow.api.log("trespass", run_id, the_task(stack, "trespass", run_id)))
    (found,) = re.findall(r"statuses (\[.*?\])", log)
    of_its_own, *others = json.loads(found)
    # Accepted, but the task does not run any more.
    assert of_its_own in (404, 409, 410), log
    assert set(others) <= {401, 403} and len(others) == 6, log


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
