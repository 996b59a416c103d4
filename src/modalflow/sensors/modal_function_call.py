"""The sensor that waits for the end of a function call on Modal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from modalflow.errors import ConfigError, FunctionCallError
from modalflow.function_calls.plain_result import MAX_RESULT_BYTES, plain
from modalflow.operators.call_link import ModalFunctionCallLink
from modalflow.triggers.modal_function_call import ModalFunctionCallTrigger

if TYPE_CHECKING:
    from modalflow.function_calls.outcome import Outcome


class ModalFunctionCallSensor(BaseSensorOperator):
    """Wait for the end of a function call that another task or program has spawned, and return its result as XCom.

    ``function_call_id`` is an id such as ``fc-…``, for example the XCom ``function_call_id`` of a
    ``ModalFunctionOperator``. A failed call fails the task. The sensor never cancels the call. With
    ``deferrable=False``, it asks every ``poke_interval`` seconds.
    """

    template_fields: Sequence[str] = ("function_call_id", "modal_conn_id")
    operator_extra_links = (ModalFunctionCallLink(),)
    ui_color = "#d9f2d9"

    def __init__(
        self,
        *,
        function_call_id: str,
        modal_conn_id: str | None = None,
        deferrable: bool = True,
        max_result_bytes: int = MAX_RESULT_BYTES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.function_call_id = function_call_id
        self.modal_conn_id = modal_conn_id
        self.deferrable = deferrable
        self.max_result_bytes = max_result_bytes

    def execute(self, context: Any) -> Any:
        """Wait for the call. Raises FunctionCallError if it failed, ConfigError for a text that is no id."""
        if not isinstance(self.function_call_id, str) or not self.function_call_id.startswith("fc-"):
            raise ConfigError(
                f"function_call_id of task {self.task_id!r}", self.function_call_id, "the id of a function call, fc-…"
            )
        if not self.deferrable:
            return super().execute(context)
        outcome = self._outcome()
        if not outcome.ended:
            self._defer(timedelta(seconds=self.timeout))
        return self._result(outcome)

    def poke(self, context: Any) -> PokeReturnValue:
        """Return whether the call has ended, with its result."""
        outcome = self._outcome()
        return PokeReturnValue(outcome.ended, self._result(outcome) if outcome.ended else None)

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> Any:
        """Read the outcome after the deferral. Raises FunctionCallError if the call failed."""
        outcome = self._outcome()
        if outcome.ended:
            return self._result(outcome)
        if event.get("problem"):
            raise FunctionCallError(
                f"The triggerer cannot wait for function call {self.function_call_id}: {event['problem']} Correct the "
                "credentials of the triggerer."
            )
        return self._defer(timedelta(seconds=max(0.0, event["returned"]["until"] - time.time())))

    def _defer(self, left: timedelta) -> None:
        self.defer(
            trigger=ModalFunctionCallTrigger(
                self.function_call_id,
                self.modal_conn_id,
                time.time(),
                cancel_on_kill=False,
                returned={"until": time.time() + left.total_seconds()},
            ),
            method_name="execute_complete",
            timeout=left,
        )

    def _outcome(self) -> Outcome:
        # Not when a DAG file is parsed: they import Modal's SDK.
        from modalflow.function_calls.connection import connected
        from modalflow.function_calls.function_calls import FunctionCalls

        return FunctionCalls(connected(self.modal_conn_id)).outcome(self.function_call_id)

    def _result(self, outcome: Outcome) -> Any:
        if outcome.failure and (outcome.is_readable or self.do_xcom_push):
            if outcome.traceback:
                self.log.error("Traceback of function call %s:\n%s", self.function_call_id, outcome.traceback)
            raise FunctionCallError(f"Function call {self.function_call_id} failed. {outcome.failure}")
        return plain(outcome.value, self.max_result_bytes) if self.do_xcom_push else None
