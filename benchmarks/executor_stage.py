"""The stage for the executor's figures: a control plane with latency, the app on it, executors, and workloads."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import modal

from modalflow import control_plane
from modalflow.emulator.local import LocalModal

#: Of every RPC, of containers' too.
LATENCY = "100ms"

#: The counted RPCs, by origin.
COUNTED = (
    "FunctionMap",
    "FunctionPutInputs",
    "FunctionGetOutputs",
    "FunctionGetInputs",
    "FunctionPutOutputs",
    "FunctionBindParams",
    "DictUpdate",
    "DictGet",
    "DictPop",
    "QueuePut",
    "QueueGet",
    "BlobCreate",
    "Volume*",
    "ContainerHeartbeat",
)


@dataclass
class Stage:
    """A running control plane with the app deployed."""

    local: LocalModal
    client: Any
    _rules: dict[str, str] = field(default_factory=dict)

    def executor(self) -> Any:
        """Yield a started ModalExecutor."""
        from modalflow.executor.modal_executor import ModalExecutor

        executor = ModalExecutor(parallelism=1_000_000)
        executor.start()
        return executor

    def function(self, name: str) -> Any:
        found = modal.Function.from_name("bench-executor", name, client=self.client)
        found.hydrate()
        return found

    def count_from_now(self) -> None:
        """Begin to count RPCs."""
        self.counts()
        for who in ("clients", "containers"):
            for rpc in COUNTED:
                self._rules[self.local.faults.add(f"{rpc}:delay=0ms,for={who}").id] = f"{who} {rpc}"

    def counts(self) -> dict[str, int]:
        """Return the RPCs since the last ``count_from_now``, by origin, and end its count."""
        if not self._rules:
            return {}
        said = self.local.faults.clear(list(self._rules))
        counts = {self._rules[rule.id]: rule.seen for rule in said if rule.id in self._rules}
        self._rules = {}
        return counts


class Stamped(deque[Any]):
    """Updates, and when each of them came, by work id and kind."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[tuple[str, str], float] = {}

    def append(self, update: Any) -> None:
        self.at[update.work_id, update.kind.name] = time.time()
        super().append(update)


@contextlib.contextmanager
def stage(latency: str | None = LATENCY, app_name: str = "bench-executor") -> Iterator[Stage]:
    """Yield a control plane, and an environment for executors. Both end with the block."""
    faults = (f"*:delay={latency},for=containers",) if latency else ()
    with (
        tempfile.TemporaryDirectory(prefix="bench-executor-") as home,
        LocalModal(latency=latency, faults=faults) as local,
    ):
        os.environ.update(environment(local, Path(home)) | {"AIRFLOW__MODAL_EXECUTOR__APP_NAME": app_name})
        client: Any = modal.Client.from_credentials(local.address.token_id, local.address.token_secret)
        # A new object: an app remembers the files of the previous control plane.
        sys.modules.pop("benchmarks.executor_app", None)
        module = importlib.import_module("benchmarks.executor_app")
        module.app.deploy(name=module.NAMES.app, client=client)
        made = Stage(local, client)
        control_plane._known.clear()
        # From now on, the only container of the submissions is busy, and the players' container exists.
        made.function("run-default").spawn({})
        made.function("play").remote([], "nobody", 0.0)
        yield made


def environment(local: LocalModal, home: Path) -> dict[str, str]:
    """Return the environment variables of a separate Airflow for this control plane."""
    return local.env | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:8080/execution/",
        "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
    }


def workload(task_id: str) -> Any:
    """Return a real workload of Airflow's, with a token of Airflow's length."""
    from airflow.executors.workloads import ExecuteTask

    ti = {
        "id": str(uuid.uuid4()),
        "dag_version_id": str(uuid.uuid4()),
        "task_id": task_id,
        "dag_id": "bench",
        "run_id": "scheduled__2026-01-01T00:00:00+00:00",
        "try_number": 1,
        "map_index": -1,
        "pool_slots": 1,
        "queue": "default",
        "priority_weight": 1,
        "external_executor_id": str(uuid.uuid4()),
        "context_carrier": {"traceparent": f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"},
    }
    return ExecuteTask.model_validate(
        {
            "ti": ti,
            "dag_rel_path": "bench/dag.py",
            "bundle_info": {"name": "dags", "version": None},
            "log_path": f"dag_id=bench/run_id=scheduled__2026-01-01T00:00:00+00:00/task_id={task_id}/attempt=1.log",
            "token": uuid.uuid4().hex * 18,
        }
    )


def queue(executor: Any, number: int, name: str) -> list[str]:
    """Queue so many workloads as the scheduler does; return their work ids."""
    workloads = [workload(f"{name}-{n}") for n in range(number)]
    for each in workloads:
        executor.queue_workload(each, MagicMock())
    return [each.ti.external_executor_id for each in workloads]


def beat(executor: Any) -> float:
    """Run one heartbeat and the scheduler's following work. Return the heartbeat's seconds."""
    began = time.perf_counter()
    executor.heartbeat()
    took = time.perf_counter() - began
    executor.get_event_buffer().clear()
    executor._task_event_logs.clear()
    return took


def beat_until(executor: Any, condition: Callable[[], Any], patience: float, pause: float = 0.1) -> None:
    """Heartbeat, as an idle scheduler does but more often, until a condition holds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience:g} s in vain; {executor._engine.describe().partition(chr(10))[0]}")
        beat(executor)
        time.sleep(pause)
