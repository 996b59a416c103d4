"""Tasks that call Functions of other Modal apps: the operator, its decorator, the sensor and their trigger."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modal
import pytest

from modalflow.emulator.local import LocalModal
from modalflow.operators import ModalFunctionOperator, modal_function_task
from modalflow.sensors import ModalFunctionCallSensor
from modalflow.triggers import ModalFunctionCallTrigger
from modalflow.triggers.call_poller import MOST_HELD
from tests.airflows import AIRFLOW
from tests.integration.one_task import OneTask, PlayedAirflow, Try, played_airflow
from tests.support import wait_until

APP = "called"
#: Seconds for an answer of a cold container on a busy machine.
PATIENCE = 60.0
needs_state_of_tasks = pytest.mark.skipif(AIRFLOW < (3, 3), reason="Airflow keeps a state of tasks from 3.3 on")


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModal]:
    """A control plane with the app of another team."""
    with LocalModal() as running:
        file = Path(__file__).parent / "called" / "called_app.py"
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
        module.app.deploy(name=APP)
        yield running


@pytest.fixture
def airflow(local: LocalModal, monkeypatch: pytest.MonkeyPatch) -> PlayedAirflow:
    """Airflow, as the task runner of this process sees it."""
    return played_airflow(monkeypatch)


@pytest.fixture
def gate(local: LocalModal) -> Iterator[modal.Dict]:
    """A Dict that opens the gate of a call."""
    name = f"gate-{uuid.uuid4().hex[:8]}"
    opened = modal.Dict.from_name(name, create_if_missing=True).hydrate()
    yield opened
    modal.Dict.objects.delete(name, allow_missing=True)


def calling(airflow: PlayedAirflow, function: str, *args: Any, **options: Any) -> OneTask:
    """A task that calls a Function of the app with these arguments."""
    return OneTask(
        airflow,
        lambda: ModalFunctionOperator(
            **{
                "task_id": "call",
                "app_name": APP,
                "function_name": function,
                "function_args": args,
                "retries": 2,
                **options,
            }
        ),
    )


async def event_of(trigger: ModalFunctionCallTrigger) -> Any:
    """The payload of a trigger's event."""
    async with asyncio.timeout(PATIENCE):
        (event,) = [event async for event in trigger.run()]
    return event.payload


def ended(task: OneTask, deferred: Try, try_number: int = 1) -> Try:
    """The end of a try that was deferred, after its trigger's event."""
    assert deferred.state == "deferred", deferred.error
    event = asyncio.run(event_of(deferred.trigger))
    return task.run(try_number, deferred, json.loads(json.dumps(event)))


def status(function_call_id: str) -> BaseException | None:
    """The exception with which a call has ended; None if it returned."""
    try:
        modal.FunctionCall.from_id(function_call_id).get(timeout=0)
    except (modal.exception.Error, TimeoutError, ValueError) as error:
        return error
    return None


def is_cancelled(function_call_id: str) -> bool:
    return isinstance(status(function_call_id), modal.exception.RemoteError)


def log_of(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return caplog.text + captured.out + captured.err


def test_result_is_the_xcom(airflow: PlayedAirflow) -> None:
    """The task is deferred until the call has ended; its result is the task's, as JSON types."""
    task = calling(airflow, "add", "{{ 2 }}", function_kwargs={"b": 3}, function_args=[4])
    deferred = task.run()
    assert airflow.xcoms["function_call_id"].startswith("fc-")
    done = ended(task, deferred)
    assert done.state == "success", done.error
    assert airflow.xcoms["return_value"] == {"sum": 7, "pair": [4, 3]}
    assert airflow.state == {}


def test_arguments_are_templates(airflow: PlayedAirflow) -> None:
    """Arguments can have Jinja in them, at any depth."""
    task = calling(airflow, "echo", {"try": "{{ ti.try_number }}", "run": ["{{ run_id }}"]})
    done = ended(task, task.run())
    assert airflow.xcoms["return_value"] == {"try": "1", "run": ["run"]}, done.error


def test_method_of_a_class(airflow: PlayedAirflow) -> None:
    """``Class.method`` is called on an instance with the class's parameters."""
    task = calling(airflow, "Greeter.greet", "you", class_parameters={"greeting": "Good day"})
    ended(task, task.run())
    assert airflow.xcoms["return_value"] == "Good day, you"


def test_worker_waits_without_deferral(airflow: PlayedAirflow) -> None:
    """With ``deferrable=False``, no triggerer is needed."""
    done = calling(airflow, "add", 1, deferrable=False).run()
    assert done.state == "success", done.error
    assert airflow.xcoms["return_value"] == {"sum": 1, "pair": [1, 0]}


def test_decorated_function_returns_the_arguments(airflow: PlayedAirflow) -> None:
    """``@task.modal_function`` calls the deployed Function with a dict of keyword arguments, or with a tuple."""

    def returning(returned: Any) -> OneTask:
        def make() -> Any:
            @modal_function_task(app_name=APP, function_name="add")
            def prepare(a: int, run_id: Any = None) -> dict[str, Any]:
                # For other decorators, this annotation means several XComs.
                found: dict[str, Any] = returned(a, run_id)
                return found

            return prepare(5).operator  # type: ignore[attr-defined]

        return OneTask(airflow, make)

    task = returning(lambda a, run_id: {"a": a, "b": len(run_id)})
    ended(task, task.run())
    assert airflow.xcoms["return_value"] == {"sum": 8, "pair": [5, 3]}
    assert "sum" not in airflow.xcoms
    task = returning(lambda a, _: (a, 1))
    ended(task, task.run())
    assert airflow.xcoms["return_value"] == {"sum": 6, "pair": [5, 1]}
    refused = returning(lambda a, _: [a]).run()
    assert "expected the arguments of the call: a dict" in str(refused.error)


def test_failing_function_fails_the_task_with_its_traceback(
    airflow: PlayedAirflow, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The reason names the exception, and the log has the traceback in the container. The next try spawns anew."""
    task = calling(airflow, "fail", "not today")
    done = ended(task, task.run())
    assert done.state == "up_for_retry"
    first = airflow.xcoms["function_call_id"]
    assert str(done.error) == (
        f"Function call {first} of called/fail failed. The Function raised ValueError: not today."
    )
    assert "called_app.py" in log_of(caplog, capsys)
    assert task.run(2).state == "deferred"
    assert airflow.xcoms["function_call_id"] != first


@pytest.mark.parametrize(
    ("function_name", "args", "reason"),
    [
        (
            "unusable",
            ("date",),
            r"Its result cannot be read \(.* refers to datetime.*Return plain data from the Function",
        ),
        ("unusable", ("key",), r"a key of the result is of type int\. Return plain data"),
        ("unusable", ("bytes",), r"the result\['a'\]\[0\] is of type bytes"),
        ("unusable", ("nan",), "the result is nan, which JSON lacks"),
        ("unusable", ("long",), "102 bytes as JSON, more than max_result_bytes=50. Write it to a Volume"),
        ("overtime", (), r"It took longer than its Function's timeout .*Raise `timeout=`"),
    ],
)
def test_unusable_result_is_an_error_with_advice(
    airflow: PlayedAirflow, function_name: str, args: tuple[Any, ...], reason: str
) -> None:
    """A result that cannot be an XCom, and a call without one, fail the task with the fix."""
    done = calling(airflow, function_name, *args, max_result_bytes=50, deferrable=False).run()
    assert re.search(reason, str(done.error)), done.error
    assert "return_value" not in airflow.xcoms


def test_result_is_not_needed(airflow: PlayedAirflow) -> None:
    """With ``do_xcom_push=False``, a result of any type is success."""
    done = calling(airflow, "unusable", "date", do_xcom_push=False, deferrable=False).run()
    assert done.state == "success", done.error


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"app_name": "calle"}, "Modal has no app 'calle'.*Deploy it with `modal deploy`"),
        ({"function_name": "ad"}, r"no 'ad'.*did you mean 'add'\? known: Greeter, add"),
        ({"function_name": "Greeter.great"}, r"no 'Greeter.great'"),
        ({"function_name": "Greter.greet"}, r"no 'Greter.greet'"),
        ({"function_name": "count", "function_args": [1]}, "no generator and no web endpoint"),
        ({"function_args": "abc"}, r"function_args of task 'call' is 'abc'; expected a list or tuple"),
        ({"function_kwargs": [1]}, r"function_kwargs of task 'call' is \[1\]; expected a dict"),
        ({"class_parameters": {"a": 1}}, "expected none, or Class.method as function_name"),
        ({"function_name": " "}, "function_name of task 'call' is ' '; expected the name"),
        ({"function_args": [threading.Lock()]}, "expected values that can be pickled"),
    ],
)
def test_wrong_call_is_an_error_with_the_fix(airflow: PlayedAirflow, options: dict[str, Any], reason: str) -> None:
    """Unknown names, and arguments of a wrong form, are refused with what is there or expected."""
    done = calling(airflow, "add", **options).run()
    assert re.search(reason, str(done.error)), done.error


@needs_state_of_tasks
def test_call_of_a_dead_worker_is_not_spawned_twice(airflow: PlayedAirflow, gate: modal.Dict) -> None:
    """If a worker dies after the spawn, the next try waits for the same call."""
    task = calling(airflow, "gated", gate.name)
    # Its deferral never reached Airflow.
    task.run()
    first = airflow.xcoms["function_call_id"]
    second = task.run(2)
    assert airflow.xcoms["function_call_id"] == first
    gate["open"] = "once"
    assert ended(task, second, 2).state == "success"
    assert airflow.xcoms["return_value"] == "once"
    assert airflow.state == {}


@needs_state_of_tasks
def test_call_that_was_cancelled_meanwhile_is_replaced(airflow: PlayedAirflow, gate: modal.Dict) -> None:
    """A cleared task may find the call of its last try just before it is cancelled: then it spawns its own."""
    task = calling(airflow, "gated", gate.name)
    task.run()
    first = airflow.xcoms["function_call_id"]
    second = task.run(2)
    modal.FunctionCall.from_id(first).cancel()
    third = ended(task, second, 2)
    assert third.state == "deferred", third.error
    assert airflow.xcoms["function_call_id"] != first
    gate["open"] = "anew"
    assert ended(task, third, 2).state == "success"


def test_execution_timeout_cancels_the_call(airflow: PlayedAirflow, gate: modal.Dict) -> None:
    """``execution_timeout`` counts from the spawn, also in the triggerer; then the call is cancelled."""
    task = calling(airflow, "gated", gate.name, execution_timeout=timedelta(minutes=5))
    deferred = task.run()
    assert timedelta(minutes=4) < deferred.message.trigger_timeout <= timedelta(minutes=5)
    # This is how Airflow's scheduler ends a deferral that took too long.
    done = task.run(next_method="__fail__", next_kwargs={"error": "Trigger timeout"})
    assert done.state == "up_for_retry"
    wait_until(lambda: is_cancelled(airflow.xcoms["function_call_id"]), PATIENCE)
    assert airflow.state == {}


def test_killed_worker_cancels_the_call(airflow: PlayedAirflow) -> None:
    """While the worker waits, Airflow's SIGTERM for a task that a user ended cancels the call."""

    def kill() -> None:
        wait_until(lambda: "function_call_id" in airflow.xcoms, PATIENCE)
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=kill, name="killer")
    killer.start()
    done = calling(airflow, "sleep", 300, deferrable=False).run()
    killer.join()
    assert "cancelled" in str(done.error)
    assert is_cancelled(airflow.xcoms["function_call_id"])


def test_result_arrives_after_a_restart_of_the_triggerer(airflow: PlayedAirflow, gate: modal.Dict) -> None:
    """A triggerer that stops leaves the call alone, and another one waits for it by its id."""
    task = calling(airflow, "gated", gate.name)
    deferred = task.run()

    async def stopped() -> None:
        trigger = deferred.trigger
        waiting = asyncio.create_task(event_of(trigger))
        await asyncio.sleep(0.5)
        waiting.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            # Airflow tells an action of a user from its own stop by these words.
            await waiting
        await trigger.cleanup()

    asyncio.run(stopped())
    assert isinstance(status(airflow.xcoms["function_call_id"]), TimeoutError)
    gate["open"] = "later"
    assert ended(task, deferred).state == "success"
    assert airflow.xcoms["return_value"] == "later"


def running(local: LocalModal) -> Any:
    """A call in a container. Before it is in one, its cancellation takes longer."""
    call = modal.Function.from_name(APP, "sleep").spawn(300)
    wait_until(lambda: any(each.inputs for each in local.faults.containers()), PATIENCE)
    return call


@pytest.mark.parametrize("cancels", [True, False])
def test_action_of_a_user_ends_the_call_in_the_triggerer(local: LocalModal, cancels: bool) -> None:
    """From Airflow 3.3 on, the triggerer tells the trigger; the sensor's trigger ends no call of another task."""
    call = running(local)
    trigger = ModalFunctionCallTrigger(call.object_id, cancel_on_kill=cancels)
    asyncio.run(trigger.on_kill())
    if cancels:
        wait_until(lambda: is_cancelled(call.object_id), PATIENCE)
    else:
        assert isinstance(status(call.object_id), TimeoutError)
        call.cancel()


@pytest.mark.parametrize("state", ["deferred", "failed", None])
def test_older_airflow_is_asked_whether_a_user_acted(
    airflow: PlayedAirflow, local: LocalModal, monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    """Before Airflow 3.3, a trigger that ends asks for the state of its task: still deferred is a restart."""
    monkeypatch.setattr("modalflow.triggers.modal_function_call.notifies_of_kill", lambda _: False)
    call = running(local)
    trigger = ModalFunctionCallTrigger(call.object_id)
    trigger.task_instance = SimpleNamespace(dag_id="calls", task_id="call", run_id="run", map_index=-1)  # type: ignore[assignment]
    airflow.states = {"run": {"call": state}} if state else {}
    asyncio.run(trigger.cleanup())
    if state == "deferred":
        assert isinstance(status(call.object_id), TimeoutError)
        call.cancel()
    else:
        wait_until(lambda: is_cancelled(call.object_id), PATIENCE)


def sensing(airflow: PlayedAirflow, function_call_id: str, **options: Any) -> OneTask:
    """A task that waits for a call."""
    return OneTask(
        airflow,
        lambda: ModalFunctionCallSensor(task_id="sense", function_call_id=function_call_id, retries=2, **options),
    )


@pytest.mark.parametrize("deferrable", [True, False])
def test_sensor_waits_for_a_call_of_another_program(airflow: PlayedAirflow, gate: modal.Dict, deferrable: bool) -> None:
    """The sensor's result is that of the call."""
    call = modal.Function.from_name(APP, "gated").spawn(gate.name)
    task = sensing(airflow, call.object_id, deferrable=deferrable, poke_interval=0.1)
    if deferrable:
        deferred = task.run()
        gate["open"] = "seen"
        done = ended(task, deferred)
    else:
        gate["open"] = "seen"
        done = task.run()
    assert done.state == "success", done.error
    assert airflow.xcoms["return_value"] == "seen"


def test_sensor_fails_with_the_call(airflow: PlayedAirflow) -> None:
    """A call that failed, is unknown, or a text that is no id, fails the task with the reason."""
    call = modal.Function.from_name(APP, "fail").spawn("not today")
    wait_until(lambda: not isinstance(status(call.object_id), TimeoutError), PATIENCE)
    assert "ValueError: not today" in str(sensing(airflow, call.object_id).run().error)
    assert "the id or the workspace of the credentials is wrong" in str(
        sensing(airflow, "fc-01ABCDEFGHJKMNPQRSTVWXYZ00").run().error
    )
    assert "expected the id of a function call" in str(sensing(airflow, "call").run().error)


def test_a_thousand_calls_cost_few_rpcs(local: LocalModal) -> None:
    """1,000 triggers of one triggerer ask once for each call in their first seconds, and end with the calls."""
    function = modal.Function.from_name(APP, "line")
    blocker = function.spawn(300)

    async def spawn() -> list[Any]:
        return [each for _ in range(20) for each in await asyncio.gather(*(function.spawn.aio(0) for _ in range(50)))]

    calls = asyncio.run(spawn())
    fault = local.faults.add("FunctionGetOutputs:delay=0s,p=0")

    def asked() -> int:
        return next(each.seen for each in local.faults.list() if each.id == fault.id)

    async def wait_for_all() -> int:
        made = ModalFunctionCallTrigger(calls[0].object_id).serialize()[1]
        triggers = [ModalFunctionCallTrigger(**{**made, "function_call_id": each.object_id}) for each in calls]
        waiting = [asyncio.create_task(event_of(trigger)) for trigger in triggers]
        while asked() < len(calls) or any(each.done() for each in waiting):
            await asyncio.sleep(0.2)
        await asyncio.sleep(2)
        early = asked()
        blocker.cancel()
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return early

    assert asyncio.run(wait_for_all()) <= 1.1 * len(calls) + MOST_HELD
    local.faults.clear([fault.id])


def test_credentials_are_those_of_the_connection(
    airflow: PlayedAirflow, local: LocalModal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``modal_conn_id``, worker and triggerer use its token, and the deferral has only its id."""
    login, password = local.env["MODAL_TOKEN_ID"], local.env["MODAL_TOKEN_SECRET"]
    connection = {"conn_type": "modal", "login": login, "password": password, "extra": {"environment": "main"}}
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", json.dumps(connection))
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-of-nobody")
    task = calling(airflow, "add", 1, modal_conn_id="team")
    deferred = task.run()
    assert deferred.state == "deferred", deferred.error
    assert password not in repr(deferred.message) + repr(airflow.state)
    assert ended(task, deferred).state == "success"
    unknown = calling(airflow, "add", 1, modal_conn_id="nowhere").run()
    assert "nowhere" in str(unknown.error)


def test_dag_file_is_cheap_to_parse() -> None:
    """Operators and sensors import Modal's SDK when they run, not in each parse of a DAG file."""
    parse = "import sys, modalflow.operators, modalflow.sensors; sys.exit('modal' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", parse], check=False, timeout=PATIENCE).returncode == 0
