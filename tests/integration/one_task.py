"""One task under Airflow's real task runner, try by try, with the rest of Airflow played in this process.

The runner sends its messages to a ``PlayedAirflow``: XComs, the state of the task, and how the try ended.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from airflow.sdk import DAG
from airflow.sdk.api.datamodels import _generated as wire
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import comms, task_runner
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class PlayedAirflow:
    """What a task of one DAG run has stored in Airflow."""

    xcoms: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    messages: list[Any] = field(default_factory=list)
    states: dict[str, dict[str, str]] = field(default_factory=dict)

    def send(self, msg: Any, **_: Any) -> Any:
        """Answer a message of the task runner as the supervisor does."""
        self.messages.append(msg)
        match type(msg).__name__:
            case "SetXCom":
                self.xcoms[msg.key] = msg.value
            case "GetXCom":
                return comms.XComResult(key=msg.key, value=self.xcoms.get(msg.key))
            case "DeleteXCom":
                self.xcoms.pop(msg.key, None)
            case "GetTaskStates":
                return comms.TaskStatesResult(task_states=self.states)
            case "SetTaskStateStore":
                self.state[msg.key] = msg.value
            case "DeleteTaskStateStore":
                self.state.pop(msg.key, None)
            case "GetTaskStateStore":
                if msg.key in self.state:
                    return comms.TaskStateStoreResult(value=self.state[msg.key])
                return comms.ErrorResponse(error=ErrorType.TASK_STORE_NOT_FOUND)
        return None


@dataclass
class Try:
    """How one run of the task process ended."""

    state: str
    message: Any
    error: BaseException | None
    task: Any

    @property
    def trigger(self) -> Any:
        """The trigger, made as the triggerer makes it."""
        module, _, name = self.message.classpath.rpartition(".")
        made = getattr(__import__(module, fromlist=[name]), name)
        return made(**_plain(self.message.trigger_kwargs))


class OneTask:
    """A task instance and its tries."""

    def __init__(self, airflow: PlayedAirflow, make: Any) -> None:
        self.airflow, self._make = airflow, make

    def run(self, try_number: int = 1, deferred: Try | None = None, event: Any = None, **next_: Any) -> Try:
        """Run the task process of a try: from its beginning, or after a deferral with a trigger's event."""
        context: dict[str, Any] = {"max_tries": 3, "should_retry": True, "dag_run": _dag_run()}
        if deferred is not None and event is not None:
            kwargs = {**_plain(deferred.message.next_kwargs), "event": event}
            next_ = {"next_method": deferred.message.next_method, "next_kwargs": kwargs}
        if not next_:
            context["xcom_keys_to_clear"] = list(self.airflow.xcoms)
        server = wire.TIRunContext(**context, **_encoded(next_))
        with DAG("calls", schedule=None):
            task = self._make()
        instance = RuntimeTaskInstance.model_construct(
            id=uuid4(),
            task=task,
            task_id=task.task_id,
            dag_id="calls",
            run_id="run",
            try_number=try_number,
            map_index=-1,
            max_tries=3,
            dag_version_id=UUID(int=1),
            start_date=MOMENT,
            _ti_context_from_server=server,
        )
        instance._ti_context_from_server = server
        before = signal.getsignal(signal.SIGTERM)
        try:
            log = structlog.get_logger("task")
            ended = instance.get_template_context()
            state, message, error = task_runner.run(instance, ended, log)
            task_runner.finalize(instance, state, ended, log, error)
        finally:
            signal.signal(signal.SIGTERM, before)
        return Try(str(getattr(state, "value", state)), message, error, instance.task)


def played_airflow(monkeypatch: pytest.MonkeyPatch) -> PlayedAirflow:
    """Return the Airflow of the task runner in this process, for the rest of the test."""
    airflow = PlayedAirflow()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", airflow, raising=False)
    return airflow


def _dag_run() -> wire.DagRun:
    values: dict[str, Any] = {
        "dag_id": "calls",
        "run_id": "run",
        "logical_date": MOMENT,
        "data_interval_start": MOMENT,
        "data_interval_end": MOMENT,
        "run_after": MOMENT,
        "start_date": MOMENT,
        "end_date": None,
        "run_type": "manual",
        "state": "running",
        "consumed_asset_events": [],
        "partition_key": None,
    }
    return wire.DagRun(**{name: value for name, value in values.items() if name in wire.DagRun.model_fields})


def _plain(value: Any) -> dict[str, Any]:
    """Return the keyword arguments in a message, in the form of any Airflow."""
    if isinstance(value, Mapping) and "__var" in value:
        from airflow.serialization.serialized_objects import BaseSerialization

        return dict(BaseSerialization.deserialize(value))
    return dict(value or {})


def _encoded(next_: dict[str, Any]) -> dict[str, Any]:
    if not next_ or hasattr(comms, "TaskStateStoreResult"):
        return next_
    from airflow.serialization.serialized_objects import BaseSerialization

    return {**next_, "next_kwargs": BaseSerialization.serialize(next_["next_kwargs"])}
