"""The operator that calls a Function of another Modal app.

Cheap to import, for DAG processors: functions import Modal's SDK at their use.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.sdk import BaseOperator

from modalflow.errors import ConfigError, FunctionCallError
from modalflow.function_calls.cost_estimate import estimate
from modalflow.function_calls.plain_result import MAX_RESULT_BYTES, plain
from modalflow.names import dashboard_url
from modalflow.operators.call_link import ModalFunctionCallLink
from modalflow.operators.started_call import CallRecord, StartedCall
from modalflow.support.described import describe
from modalflow.triggers.modal_function_call import ModalFunctionCallTrigger

if TYPE_CHECKING:
    from modalflow.control_plane import ControlPlane
    from modalflow.function_calls.function_calls import FunctionCalls
    from modalflow.function_calls.function_reference import FunctionReference
    from modalflow.function_calls.outcome import Outcome


class ModalFunctionOperator(BaseOperator):
    """Call a deployed Modal Function, wait for its end in the triggerer, and return its result as XCom.

    The Function can be of any app, and the task can run under any executor. ``function_name`` is a Function's name or
    ``Class.method``, with ``class_parameters`` for the class. Without ``modal_conn_id``, the credentials are Modal's
    own; ``environment_name`` is the Modal environment of the app. The result must be JSON types of at most
    ``max_result_bytes``. With ``deferrable=False``, the worker waits. If a worker dies with a call of its own, the next
    try waits for that call, from Airflow 3.3 on and with ``reattach``. A user's action on the task, and
    ``execution_timeout``, cancel the call.
    """

    template_fields: Sequence[str] = (
        "app_name",
        "function_name",
        "function_args",
        "function_kwargs",
        "class_parameters",
        "environment_name",
        "modal_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "function_args": "py",
        "function_kwargs": "py",
        "class_parameters": "py",
    }
    operator_extra_links = (ModalFunctionCallLink(),)
    ui_color = "#d9f2d9"

    def __init__(
        self,
        *,
        app_name: str,
        function_name: str,
        function_args: Sequence[Any] = (),
        function_kwargs: Mapping[str, Any] | None = None,
        class_parameters: Mapping[str, Any] | None = None,
        environment_name: str | None = None,
        modal_conn_id: str | None = None,
        deferrable: bool = True,
        reattach: bool = True,
        max_result_bytes: int = MAX_RESULT_BYTES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.app_name = app_name
        self.function_name = function_name
        self.function_args = function_args
        self.function_kwargs = function_kwargs
        self.class_parameters = class_parameters
        self.environment_name = environment_name
        self.modal_conn_id = modal_conn_id
        self.deferrable = deferrable
        self.reattach = reattach
        self.max_result_bytes = max_result_bytes
        self.function_call_id: str | None = None
        self._killable: FunctionCalls | None = None
        self._is_killed = False

    def execute(self, context: Any) -> Any:
        """Spawn the call, or find that of an earlier try; then wait for it or defer. Raises ModalflowError."""
        return self._start(context)

    def _start(self, context: Any) -> Any:
        reference = self._reference()
        args, kwargs = self._arguments(context)
        control_plane, calls = self._connected()
        record = CallRecord(context)
        call = self._call_of_earlier_try(record, calls, self._label(reference))
        if call is None:
            spawned = reference.spawn(control_plane, args, kwargs)
            call = StartedCall(
                spawned.function_call_id,
                self._label(reference),
                time.time(),
                spawned.size,
                int(context["ti"].try_number),
            )
            self.function_call_id, self._killable = call.function_call_id, calls
            if self._is_killed:
                # During the spawn, there was no id yet.
                self._cancel()
            self._record(call, record, calls)
        return self._wait(context, call, calls)

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> Any:
        """Read the outcome after the deferral. Raises FunctionCallError if the call failed."""
        started = StartedCall.from_plain(event["returned"])
        self.function_call_id = started.function_call_id
        outcome = self._connected()[1].outcome(started.function_call_id)
        if not outcome.ended and event.get("problem"):
            raise FunctionCallError(
                f"The triggerer cannot wait for function call {started.function_call_id}: {event['problem']} The call "
                "goes on; correct the credentials of the triggerer."
            )
        return self._finish(context, started, outcome) if outcome.ended else self._defer(started)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Go on after a deferral. If it took longer than ``execution_timeout``, or the trigger failed, cancel."""
        if next_method == "execute_complete":
            return super().resume_execution(next_method, next_kwargs, context)
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        finally:
            self._cancel_last(context)

    def on_kill(self) -> None:
        """End the call until the triggerer has it. Airflow calls this from a signal handler, and the task goes on."""
        self._is_killed = True
        self._cancel()

    def _cancel(self) -> None:
        calls, function_call_id = self._killable, self.function_call_id
        if calls is None or function_call_id is None:
            return
        self._killable = None
        self.log.info("Cancelling function call %s.", function_call_id)
        try:
            calls.cancel(function_call_id)
        except Exception as error:  # noqa: BLE001  The task ends in any case.
            self.log.warning("Function call %s was not cancelled: %s", function_call_id, describe(error))

    def _connected(self) -> tuple[ControlPlane, FunctionCalls]:
        from modalflow.function_calls.connection import connected
        from modalflow.function_calls.function_calls import FunctionCalls

        control_plane = connected(self.modal_conn_id, self.environment_name)
        return control_plane, FunctionCalls(control_plane)

    def _reference(self) -> FunctionReference:
        from modalflow.function_calls.function_reference import FunctionReference

        for name in ("app_name", "function_name"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ConfigError(f"{name} of task {self.task_id!r}", value, "the name of a deployed app or Function")
        parameters = _mapping(self.class_parameters, f"class_parameters of task {self.task_id!r}")
        if parameters and "." not in self.function_name:
            raise ConfigError(
                f"class_parameters of task {self.task_id!r}", parameters, "none, or Class.method as function_name"
            )
        return FunctionReference(self.app_name, self.function_name, parameters)

    def _arguments(self, context: Any) -> tuple[list[Any], dict[str, Any]]:
        where, args = f"function_args of task {self.task_id!r}", self.function_args
        if isinstance(args, str | bytes | Mapping) or not isinstance(args, Sequence):
            raise ConfigError(where, args, "a list or tuple of arguments; for one argument, [value]")
        kwargs = _mapping(self.function_kwargs, f"function_kwargs of task {self.task_id!r}")
        return [_own(each) for each in args], {name: _own(each) for name, each in kwargs.items()}

    def _label(self, reference: FunctionReference) -> str:
        return f"{reference.label}@{self.environment_name}" if self.environment_name else reference.label

    def _call_of_earlier_try(self, record: CallRecord, calls: FunctionCalls, label: str) -> StartedCall | None:
        earlier = record.unseen() if self.reattach else None
        if earlier is None or earlier.label != label:
            return None
        outcome = calls.outcome(earlier.function_call_id)
        if self._has_failed(outcome):
            self.log.info(
                "Try %d died with function call %s, which has failed since: %s Spawning another one.",
                earlier.try_number,
                earlier.function_call_id,
                outcome.failure,
            )
            return None
        self.log.info(
            "Try %d died with function call %s. Waiting for it, instead of spawning another one.",
            earlier.try_number,
            earlier.function_call_id,
        )
        record.write(earlier)
        return earlier

    def _record(self, call: StartedCall, record: CallRecord, calls: FunctionCalls) -> None:
        from modalflow.control_plane import is_emulated

        try:
            record.write(call)
        except Exception:
            # Without a record, no one would ever cancel it.
            calls.cancel(call.function_call_id)
            raise
        where = "on a local control plane" if is_emulated() else dashboard_url(call.function_call_id)
        self.log.info("Called %s as function call %s, %s", call.label, call.function_call_id, where)

    def _wait(self, context: Any, call: StartedCall, calls: FunctionCalls) -> Any:
        self.function_call_id = call.function_call_id
        if self.deferrable:
            # From the deferral on, a signal is no action of a user: the call is the trigger's.
            self._killable = None
            self._defer(call)
        self._killable = calls
        outcome = calls.wait(call.function_call_id)
        self._killable = None
        return self._finish(context, call, outcome)

    def _defer(self, call: StartedCall) -> NoReturn:
        left = None
        if self.execution_timeout is not None:
            left = max(timedelta(), self.execution_timeout - timedelta(seconds=time.time() - call.spawned_at))
        self.defer(
            trigger=ModalFunctionCallTrigger(
                call.function_call_id, self.modal_conn_id, call.spawned_at, returned=call.to_plain()
            ),
            method_name="execute_complete",
            timeout=left,
        )
        raise AssertionError("defer() raises")

    def _finish(self, context: Any, call: StartedCall, outcome: Outcome) -> Any:
        CallRecord(context).forget()
        if line := estimate(call.size, time.time() - call.spawned_at):
            self.log.info("%s", line)
        if self._has_failed(outcome):
            if outcome.traceback:
                self.log.error("Traceback of function call %s:\n%s", call.function_call_id, outcome.traceback)
            if call.try_number != int(context["ti"].try_number):
                # This try has waited for the call of one that died or was cleared. It has a call of its own to spend.
                self.log.info("%s That was the call of try %d. Spawning another one.", outcome.failure, call.try_number)
                return self._start(context)
            raise FunctionCallError(f"Function call {call.function_call_id} of {call.label} failed. {outcome.failure}")
        return plain(outcome.value, self.max_result_bytes) if self.do_xcom_push else None

    def _has_failed(self, outcome: Outcome) -> bool:
        """Return whether a call failed, for this task: without an XCom, any result is good."""
        return bool(outcome.failure) and (outcome.is_readable or self.do_xcom_push)

    def _cancel_last(self, context: Any) -> None:
        record = CallRecord(context)
        if not (function_call_id := record.last_id()):
            return
        self.function_call_id = function_call_id
        try:
            self._killable = self._connected()[1]
        except Exception as error:  # noqa: BLE001  The task fails for another reason, which must stay visible.
            self.log.warning("Function call %s was not cancelled: %s", function_call_id, describe(error))
            return
        self._cancel()
        record.forget()


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(where, value, "a dict whose keys are names")
    return dict(value)


def _own(value: Any) -> Any:
    """Return a value without Airflow's lazy sequences of mapped results, which a container cannot read."""
    if isinstance(value, Mapping):
        return {key: _own(each) for key, each in value.items()} if type(value) is dict else value
    if isinstance(value, Sequence) and type(value).__module__.startswith("airflow."):
        return [_own(each) for each in value]
    return value
