"""The function call of a task, and its durable record for the rest of the try and for the next one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The key of a task instance's XCom with the id of its last function call.
XCOM_KEY = "function_call_id"
#: The key in Airflow's store for the state of a task.
_STATE_KEY = "modalflow_function_call"


@dataclass(frozen=True)
class StartedCall:
    """A function call that a try waits for."""

    function_call_id: str
    label: str
    """The names of its Function, and its environment."""
    spawned_at: float
    """Seconds since the epoch."""
    size: Mapping[str, Any] | None = None
    try_number: int = 0
    """The try that spawned it."""

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> StartedCall:
        """Read ``to_plain`` of this version or another one. Raises TypeError for anything else."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in plain.items() if name in names})


class CallRecord:
    """The record of a task instance's function call, while no try has seen its end.

    Airflow keeps a state of tasks from 3.3 on, and it outlives a try. On older versions only the XCom is there, which
    Airflow removes before the next try.
    """

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._task_instance: Any = context["ti"]
        self._state: Any = context.get("task_state_store")

    def write(self, call: StartedCall) -> None:
        """Store a call. After this, the next try finds it."""
        if self._state is not None:
            self._state.set(_STATE_KEY, call.to_plain())
        self._task_instance.xcom_push(key=XCOM_KEY, value=call.function_call_id)

    def unseen(self) -> StartedCall | None:
        """Return the call of an earlier try that died before it saw the end of the call; None if there is none."""
        stored = None if self._state is None else self._state.get(_STATE_KEY)
        try:
            return StartedCall.from_plain(stored) if isinstance(stored, Mapping) else None
        except TypeError:
            return None

    def forget(self) -> None:
        """Remove the call: its end was seen, and the next try spawns another one."""
        if self._state is not None:
            self._state.delete(_STATE_KEY)

    def last_id(self) -> str:
        """Return the id of this try's call from its XCom; empty if there is none."""
        task_instance = self._task_instance
        found = task_instance.xcom_pull(
            task_ids=task_instance.task_id, key=XCOM_KEY, map_indexes=task_instance.map_index
        )
        return str(found or "")
