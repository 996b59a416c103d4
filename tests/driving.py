"""Driving an executor in tests as a scheduler does: heartbeats, and what they tell."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import modal
from airflow.models.taskinstancekey import TaskInstanceKey
from modal import exception

from modalflow.executor.modal_executor import ModalExecutor
from modalflow.executor.workloads import log_path_of_key
from modalflow.names import stored_log_path

T = TypeVar("T")

#: Seconds for one command, the start of a container on the live service included.
PATIENCE = 40.0


def new_key(task_id: str) -> TaskInstanceKey:
    """A task instance key that no other test uses."""
    return TaskInstanceKey("driven", task_id, uuid.uuid4().hex, 1, -1)


@dataclass
class Driver:
    """A started executor and the events that it has told."""

    executor: ModalExecutor
    events: dict[Any, list[tuple[Any, Any]]] = field(default_factory=dict)
    task_events: list[tuple[str, str, str]] = field(default_factory=list)
    """What was put into Airflow's event log: (run id, event, text)."""

    @classmethod
    def started(cls) -> Driver:
        """With an executor that is started, of the configuration in the environment."""
        executor = ModalExecutor(parallelism=8)
        executor.start()
        # As under a scheduler, of whom another one may adopt. Not before the start: there is no database of Airflow's.
        executor.job_id = 1
        return cls(executor)

    @property
    def scope(self) -> dict[str, Any]:
        """The executor's own client: the SDK's default one outlives the control plane it was made for."""
        return self.executor._control_plane().scope()

    @property
    def ledger(self) -> Any:
        return modal.Dict.from_name(self.executor.settings.names.ledger, **self.scope)

    @property
    def volume(self) -> Any:
        return modal.Volume.from_name(self.executor.settings.names.logs, **self.scope)

    def submit(
        self, name: str | TaskInstanceKey, command: Any, *, queue: str | None = None, **config: Any
    ) -> TaskInstanceKey:
        key = new_key(name) if isinstance(name, str) else name
        self.executor.execute_async(key, command, queue, {"modal": config} if config else None)
        return key

    def run(self, name: str, command: Any, **config: Any) -> tuple[TaskInstanceKey, tuple[Any, Any]]:
        """Run a command to its end; return its key and its (state, info)."""
        key = self.submit(name, command, **config)
        return key, self.outcome(key)

    def outcome(self, key: TaskInstanceKey) -> tuple[Any, Any]:
        """The (state, info) with which a key left the executor."""
        self.until(lambda: key not in self.executor.running)
        return self.events[key][-1]

    def until(self, condition: Callable[[], T], patience: float = PATIENCE) -> T:
        """Heartbeat until a condition holds; return what it returned."""
        deadline = time.monotonic() + patience
        while not (value := condition()):
            assert time.monotonic() < deadline, self.executor._engine and self.executor._engine.describe()
            self.beat()
            # A scheduler's pause is longer. Most conditions ask the control plane, and the answer costs it as much.
            time.sleep(0.1)
        return value

    def beat(self) -> None:
        self.executor.heartbeat()
        buffer = self.executor.get_event_buffer()
        for key in list(buffer):
            # Taken out, as a scheduler does: what stays in it was dropped.
            self.events.setdefault(key, []).append(buffer.pop(key))
        while self.executor._task_event_logs:
            log = self.executor._task_event_logs.popleft()
            self.task_events.append((str(log.run_id), str(log.event), str(log.extra)))

    def told(self, key: TaskInstanceKey, *parts: str) -> str:
        """Wait until a key has failed; check that its reason has these parts wherever a user may look: in the
        executor's event, in Airflow's event log and in the task's log. Return the reason."""
        state, info = self.outcome(key)
        assert state == "failed", (state, info)
        for part in parts:
            assert part in info, info
        told = [text for run_id, event, text in self.task_events if (run_id, event) == (key.run_id, "modal executor")]
        assert told == [info]
        self.log_has(key, json.dumps(info, ensure_ascii=False)[1:-1])
        return str(info)

    def event_texts(self, key: TaskInstanceKey, event: str) -> list[str]:
        """What Airflow's event log says of a key under one name."""
        return [text for run_id, name, text in self.task_events if (run_id, name) == (key.run_id, event)]

    def stored_id(self, key: TaskInstanceKey) -> str:
        """What Airflow has stored as the external executor id, once the workload has a function call."""
        return str(self.until(lambda: next((info for _, info in self.events.get(key, ()) if "/" in str(info)), None)))

    def log(self, key: TaskInstanceKey) -> str:
        """The log on the Volume."""
        files = sorted(self.volume.listdir(stored_log_path(log_path_of_key(key))), key=lambda file: file.path)
        return b"".join(chunk for file in files for chunk in self.volume.read_file(file.path)).decode()

    def log_has(self, key: TaskInstanceKey, text: str) -> str:
        """Wait for a text in the log; return the log."""

        def found() -> str:
            try:
                log = self.log(key)
            except (FileNotFoundError, exception.NotFoundError):
                return ""
            return log if text in log else ""

        return self.until(found)
