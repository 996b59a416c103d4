"""Driving an executor in tests as a scheduler does: heartbeats, and what they tell."""

from __future__ import annotations

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

T = TypeVar("T")

#: Seconds for one command, the start of a container on the live service included.
PATIENCE = 120.0


def new_key(task_id: str) -> TaskInstanceKey:
    """A task instance key that no other test uses."""
    return TaskInstanceKey("driven", task_id, uuid.uuid4().hex, 1, -1)


@dataclass
class Driver:
    """A started executor and the events that it has told."""

    executor: ModalExecutor
    events: dict[Any, list[tuple[Any, Any]]] = field(default_factory=dict)

    @classmethod
    def started(cls) -> Driver:
        """With an executor that is started, of the configuration in the environment."""
        executor = ModalExecutor(parallelism=8)
        executor.start()
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

    def submit(self, name: str, command: Any, **config: Any) -> TaskInstanceKey:
        key = new_key(name)
        self.executor.execute_async(key, command, executor_config={"modal": config} if config else None)
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
            time.sleep(0.03)  # a scheduler's idle pause
        return value

    def beat(self) -> None:
        self.executor.heartbeat()
        for key, event in self.executor.get_event_buffer().items():
            self.events.setdefault(key, []).append(event)

    def stored_id(self, key: TaskInstanceKey) -> str:
        """What Airflow has stored as the external executor id, once the workload has a function call."""
        return str(self.until(lambda: next((info for _, info in self.events.get(key, ()) if "/" in str(info)), None)))

    def log(self, key: TaskInstanceKey) -> str:
        """The log on the Volume."""
        files = sorted(self.volume.listdir(log_path_of_key(key)), key=lambda file: file.path)
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
