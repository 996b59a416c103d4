"""What Airflow sends to executors beside tasks: callbacks of missed deadlines, and tests of connections."""

from __future__ import annotations

from typing import Any

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import (
    ENDED,
    finish_run,
    in_database,
    log_on_volume,
    scheduler_log,
    start_run,
    where_it_ran,
)
from tests.airflows import needs_airflow
from tests.support import wait_until

pytestmark = [pytest.mark.timeout(240), pytest.mark.matrix]


@pytest.fixture(scope="module")
def late_run(stack: ModalStack) -> str:
    """A run that has missed two deadlines, each with its callback."""
    return start_run(stack, "late")


def callback_of(stack: ModalStack, run_id: str, name: str, dag_id: str = "late") -> dict[str, Any]:
    """The callback of that name once it has ended, as Airflow's database has it: its API does not show callbacks."""
    query = (
        "SELECT callback.* FROM callback JOIN deadline ON deadline.callback_id = callback.id"
        " JOIN dag_run ON dag_run.id = deadline.dagrun_id WHERE dag_run.run_id = :run_id AND dag_run.dag_id = :dag_id"
    )

    def ended() -> dict[str, Any] | None:
        rows = in_database(stack, query, run_id=run_id, dag_id=dag_id)
        found = [row for row in rows if str(row["data"]).find(f".{name}'") > 0]
        return found[0] if found and found[0]["state"] in ENDED else None

    callback = wait_until(ended, 90.0, f"the end of {name}", interval=0.3)
    assert callback is not None
    return callback


def callback_log(
    stack: ModalStack, run_id: str, callback: dict[str, Any], dag_id: str = "late"
) -> list[dict[str, Any]]:
    return log_on_volume(stack, f"executor_callbacks/{dag_id}/{run_id}/{callback['id']}")


# 3.2.2 hands executors one callback only of two that a run has missed; test_worker has one that succeeds.
@needs_airflow("3.3")
def test_a_callback_runs_in_a_container(stack: ModalStack, late_run: str) -> None:
    """A missed deadline's callback succeeds, with its arguments and the context that Airflow sends."""
    callback = callback_of(stack, late_run, "call_back")
    log = callback_log(stack, late_run, callback)
    assert (callback["state"], callback["output"]) == ("success", None), log
    container = where_it_ran(stack, log)
    assert f"good evening for late in {container}" in [line["event"] for line in log], log


@needs_airflow("3.2")
def test_a_callback_that_fails_says_why(stack: ModalStack, late_run: str) -> None:
    """Airflow has the reason, and the log has the traceback."""
    callback = callback_of(stack, late_run, "call_back_in_vain")
    log = callback_log(stack, late_run, callback)
    assert callback["state"] == "failed", log
    assert "nobody answers at the office" in callback["output"]
    assert where_it_ran(stack, log)
    assert any("nobody answers at the office" in str(line) and line["level"] == "error" for line in log), log


@needs_airflow("3.2")
def test_late_callbacks_do_not_concern_the_run(stack: ModalStack, late_run: str) -> None:
    """The run itself ends as its task does."""
    assert finish_run(stack, "late", late_run) == "success"


@pytest.fixture(scope="module")
def strange_run(stack: ModalStack) -> str:
    """A run whose callbacks and tasks use words that no database takes."""
    return start_run(stack, "strange")


@needs_airflow("3.3")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nul", "RuntimeError: bad field: A\\x00B"),
        ("surrogate", "RuntimeError: no such file: caf\\udce9.csv"),
        ("long", "RuntimeError: it begins here \\x1b[2Jééé"),
    ],
)
def test_a_callbacks_reason_is_stored_whatever_is_in_it(
    stack: ModalStack, strange_run: str, name: str, said: str
) -> None:
    """PostgreSQL refuses NUL and surrogates, MySQL what is long: the callback has failed, with a readable reason."""
    callback = callback_of(stack, strange_run, name, "strange")
    log = callback_log(stack, strange_run, callback, "strange")
    assert callback["state"] == "failed", log
    assert said in callback["output"]
    assert len(callback["output"]) <= 8000
    assert any(said in str(line["event"]) and line["level"] == "error" for line in log), log


@needs_airflow("3.3")
@pytest.mark.parametrize(
    ("task_id", "state", "said"),
    [
        ("prints", "success", ["surrogate \\udce9 in log", "in print"]),
        ("raises_nul", "failed", ["ValueError", "bad"]),
        ("raises_surrogate", "failed", ["ValueError", "bad caf\\udce9 value"]),
        ("returns_nul", "failed", ["Task failed with exception", "rejected by database"]),
        ("returns_surrogate", "failed", ["UnicodeEncodeError", "surrogates not allowed"]),
    ],
)
def test_tasks_with_such_words_end_and_say_why(
    stack: ModalStack, strange_run: str, task_id: str, state: str, said: list[str]
) -> None:
    """Each ends by itself, the others go on, and what it said is in its log."""
    assert finish_run(stack, "strange", strange_run) == "failed"
    instances = {each.task_id: each for each in stack.airflow.api.task_instances("strange", strange_run)}
    log = stack.airflow.api.log("strange", strange_run, instances[task_id])
    assert instances[task_id].state == state, "\n".join(log)
    assert [text for text in said if not any(text in line for line in log)] == [], "\n".join(log)
    assert any("Started on Modal" in line for line in log)


@needs_airflow("3.3")
def test_no_scheduler_ended_of_it(stack: ModalStack, strange_run: str) -> None:
    """It has logged no error of its own, and no database refused anything."""
    assert finish_run(stack, "strange", strange_run) == "failed"
    log = "\n".join(scheduler_log(stack))
    assert "cannot contain NUL" not in log
    assert "surrogates not allowed" not in log
    assert "Something unforeseen happened" not in log


def result_of_testing(stack: ModalStack, conn_id: str, **connection: str) -> dict[str, Any]:
    """Have Airflow test a connection on a worker, as its UI does; what its API says of it in the end."""
    path, body = "connections/enqueue-test", {"connection_id": conn_id, "conn_type": "fs", **connection}
    token = stack.airflow.api.request("POST", path, json=body).json()["token"]

    def ended() -> dict[str, Any] | None:
        headers = {"Airflow-Connection-Test-Token": token}
        answer: dict[str, Any] = stack.airflow.api.request("GET", path, headers=headers).json()
        return answer if answer["state"] in ENDED else None

    answer = wait_until(ended, 60.0, f"the end of the test of {conn_id}", interval=0.3)
    assert answer is not None
    return answer


def connection_test_log(stack: ModalStack, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The log of a connection test, once its end is on the Volume: Airflow has its result before it ends."""
    (row,) = in_database(stack, "SELECT id FROM connection_test_request WHERE token = :token", token=answer["token"])

    def ended() -> list[dict[str, Any]]:
        log = log_on_volume(stack, f"connectiontest/{row['id']}.log")
        return log if any(line["event"] == "Connection test finished" for line in log) else []

    return wait_until(ended, 30.0, "the end of the connection test's log", interval=0.3)


@needs_airflow("3.3")
def test_a_connection_is_tested_in_a_container(stack: ModalStack) -> None:
    """A folder that only a container has is found there, and Airflow's API says so."""
    answer = result_of_testing(stack, "volume", extra='{"path": "/opt/modalflow/logs"}')
    log = connection_test_log(stack, answer)
    assert (answer["state"], answer["result_message"]) == ("success", "Path /opt/modalflow/logs is existing."), log
    assert where_it_ran(stack, log)


@needs_airflow("3.3")
def test_a_connection_that_does_not_work_says_why(stack: ModalStack) -> None:
    """What the hook complained of is in Airflow's API."""
    answer = result_of_testing(stack, "nowhere", extra='{"path": "/no/such/folder"}')
    log = connection_test_log(stack, answer)
    assert (answer["state"], answer["result_message"]) == ("failed", "Path /no/such/folder does not exist."), log
    assert where_it_ran(stack, log)
