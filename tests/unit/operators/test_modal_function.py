"""The operator's calls around signals and failures, with a Modal in memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from modalflow.errors import CredentialsError
from modalflow.function_calls.function_reference import Spawned
from modalflow.function_calls.outcome import Outcome
from modalflow.operators import ModalFunctionOperator
from modalflow.operators.started_call import StartedCall


class Calls:
    """Function calls that end as the test likes."""

    def __init__(self, outcome: Outcome) -> None:
        self.cancelled: list[str] = []
        self.spawned = 0
        self.ended = outcome

    def cancel(self, function_call_id: str) -> None:
        self.cancelled.append(function_call_id)

    def wait(self, _: str) -> Outcome:
        return self.ended

    outcome = wait


class Store(dict[str, Any]):
    """Airflow's store for the state of a task."""

    set = dict.__setitem__

    def delete(self, key: str) -> None:
        self.pop(key, None)


def connected(operator: ModalFunctionOperator, calls: Calls, at_spawn: Callable[[], object] = lambda: None) -> None:
    """Connect an operator with calls."""

    def spawn(*_: Any) -> Spawned:
        at_spawn()
        calls.spawned += 1
        return Spawned(f"fc-{calls.spawned}", None)

    untyped: Any = operator
    untyped._connected = lambda: (None, calls)
    untyped._reference = lambda: SimpleNamespace(label="app/f", spawn=spawn)


def context(at_push: Callable[[], object] = lambda: None, state: Store | None = None) -> dict[str, Any]:
    pushed: dict[str, str] = {}

    def push(key: str, value: str) -> None:
        pushed[key] = value
        at_push()

    def pull(key: str, **_: Any) -> str | None:
        return pushed.get(key)

    ti = SimpleNamespace(try_number=1, task_id="t", map_index=-1, xcom_push=push, xcom_pull=pull)
    return {"ti": ti, "task_state_store": state}


def operator(**options: Any) -> ModalFunctionOperator:
    return ModalFunctionOperator(task_id="t", app_name="app", function_name="f", **options)


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_signal_during_the_spawn_ends_the_call(deferrable: bool) -> None:
    """Airflow calls ``on_kill`` once, before there is an id, and kills the process some seconds later."""
    task, calls = operator(deferrable=deferrable), Calls(Outcome(value=1))
    connected(task, calls, at_spawn=task.on_kill)
    with pytest.raises(TaskDeferred) if deferrable else nullcontext():
        task.execute(context())
    assert calls.cancelled == ["fc-1"]


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_signal_before_the_wait_ends_the_call(deferrable: bool) -> None:
    """Nothing else would: it has no trigger yet."""
    task, calls = operator(deferrable=deferrable), Calls(Outcome(value=1))
    connected(task, calls)
    with pytest.raises(TaskDeferred) if deferrable else nullcontext():
        task.execute(context(at_push=task.on_kill))
    assert calls.cancelled == ["fc-1"]


def test_a_signal_after_the_deferral_ends_no_call() -> None:
    """The process of a deferred task is ended, and the call goes on."""
    task, calls = operator(), Calls(Outcome(value=1))
    connected(task, calls)
    with pytest.raises(TaskDeferred):
        task.execute(context())
    task.on_kill()
    assert calls.cancelled == []


@pytest.mark.parametrize(("do_xcom_push", "spawned"), [(False, 0), (True, 1)])
def test_a_result_that_nobody_needs_is_a_success_of_an_earlier_try(do_xcom_push: bool, spawned: int) -> None:
    """Its call is not repeated because its result cannot be read, unless the task needs the result."""
    unreadable = Outcome(failure="Its result cannot be read.", is_readable=False)
    task, calls = operator(do_xcom_push=do_xcom_push), Calls(unreadable)
    connected(task, calls)
    state = Store(modalflow_function_call=StartedCall("fc-0", "app/f", 1.0).to_plain())
    with pytest.raises(TaskDeferred):
        task.execute(context(state=state))
    assert calls.spawned == spawned


def test_the_reason_of_a_failed_deferral_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the call cannot be cancelled, because the credentials are gone."""
    task, given = operator(), context()
    given["ti"].xcom_push(key="function_call_id", value="fc-1")

    def refused() -> Any:
        raise CredentialsError("no token")

    monkeypatch.setattr(task, "_connected", refused)
    with pytest.raises(Exception, match="Trigger timeout"):
        task.resume_execution("__fail__", {"error": "Trigger timeout"}, given)
