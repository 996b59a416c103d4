"""The stage of the worker's figures: one Airflow with two executors, a control plane, and a timer of supervisors."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count, zip_longest
from pathlib import Path
from typing import Any

import modal
from modal._utils.async_utils import synchronizer
from modal_proto import api_pb2
from sqlalchemy import Connection, create_engine, text

from benchmarks import STOPWATCH_PORT, machine
from modalflow.config.variables import set_variables
from modalflow.demo.modal_stack import MODAL_EXECUTOR, ModalStack
from modalflow.emulator.options import Options

HERE = Path(__file__).parent
SLOTS = 8
POLL = 0.2
PATIENCE = 600.0

#: Settings of both executors. Each has its 8 slots and its own queue before them, as LocalExecutor always has: the
#: scheduler hands over more than the slots can take.
CAPS: Mapping[str, str] = {
    "AIRFLOW__CORE__PARALLELISM": "64",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "1000",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "64",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.05",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "600",
}
EXECUTORS = f"benchmarks.timed_local_executor.TimedLocalExecutor,modal:{MODAL_EXECUTOR}"
ROWS = text(
    "SELECT id, queued_dttm, start_date, end_date, state, external_executor_id FROM task_instance"
    " WHERE dag_id = :dag_id AND run_id = :run_id AND task_id NOT LIKE 'pause%'"
)
STATE = text("SELECT state FROM dag_run WHERE dag_id = :dag_id AND run_id = :run_id")


@dataclass(frozen=True)
class Slot:
    """The times of a task's slot, in seconds since the epoch."""

    taken: float
    """By a worker process of LocalExecutor's, by an input in a container."""
    exited: float
    """The task's process was gone."""
    returned: float
    """Its supervisor had noticed the end and reported it to Airflow's API."""
    freed: float


@dataclass(frozen=True)
class Task:
    """One ended task instance, with its times in seconds since the epoch."""

    queued: float
    started: float
    ended: float
    """As reported by the task to Airflow."""
    slot: Slot | None
    """None if Airflow did not store its function call, because the row was locked."""


@dataclass(frozen=True)
class Run:
    """One DAG run, and its cost."""

    tasks: Sequence[Task]
    cpu: float
    """Processor seconds of the executor's processes for tasks."""
    cpu_of_all: float
    """Processor seconds of the machine."""
    memory: float
    """Proportional set size of the executor's processes for tasks, in MB, in the middle of it."""


class Stopwatch:
    """Receives the reports of supervisors, by the task instance's id."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.heard: dict[str, dict[str, float]] = {}
        self._thread = threading.Thread(target=self._hear, daemon=True)
        self._thread.start()

    def _hear(self) -> None:
        while (data := self._socket.recv(4096)) != b"stop":
            said = json.loads(data)
            self.heard[said.pop("ti")] = said

    def close(self) -> None:
        with self._socket:
            self._socket.sendto(b"stop", self._socket.getsockname())
            self._thread.join()


@dataclass
class Stage:
    """A running Airflow with both executors, and its database."""

    stack: ModalStack
    stopwatch: Stopwatch
    connection: Connection
    client: Any
    _days: Iterator[int] = field(default_factory=count)

    def run(self, load: str, kind: str) -> Run:
        """Run a workload on one of the executors."""
        dag_id = f"{load}_{kind}"
        api = self.stack.airflow.api
        self.stack.airflow.wait_for_dag(dag_id)
        api.unpause(dag_id)
        cpu, cpu_of_all = self._cpu(kind), machine.cpu_seconds_of_all()
        run_id = api.trigger(dag_id, datetime(2026, 1, 2, tzinfo=UTC) + timedelta(days=next(self._days)))
        memory = self._wait(dag_id, run_id, kind)
        cpu, cpu_of_all = self._cpu(kind) - cpu, machine.cpu_seconds_of_all() - cpu_of_all
        return Run(self._tasks(dag_id, run_id, kind), cpu, cpu_of_all, memory)

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """Stop Airflow's processes for the time of a ``with`` block: an idle scheduler needs much of a core."""
        roots = [program.pid for program in self.stack.airflow.programs.values()]
        stopped = [pid for root in roots for pid in (root, *machine.below(root))]
        _signal(stopped, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(stopped, signal.SIGCONT)

    def _wait(self, dag_id: str, run_id: str, kind: str) -> float:
        deadline = time.monotonic() + PATIENCE
        measure_at = time.monotonic() + 4.0
        memory = 0.0
        while (state := self._query(STATE, dag_id, run_id)[0]["state"]) not in ("success", "failed"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{dag_id} {run_id} was {state} after {PATIENCE:g} s")
            if not memory and dag_id.startswith("sleep") and time.monotonic() > measure_at:
                memory = sum(machine.memory(pid) for pid in self._processes(kind))
            time.sleep(POLL)
        if state != "success":
            raise RuntimeError(f"{dag_id} {run_id} has failed")
        # The last supervisor may still be at it: its slot is not free, and its processor time not counted.
        while any(str(row["id"]) not in self.stopwatch.heard for row in self._query(ROWS, dag_id, run_id)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not every supervisor of {dag_id} was heard of")
            time.sleep(POLL)
        time.sleep(0.3)
        return memory

    def _query(self, query: Any, dag_id: str, run_id: str) -> list[Mapping[str, Any]]:
        found = self.connection.execute(query, {"dag_id": dag_id, "run_id": run_id}).mappings().all()
        self.connection.rollback()
        return [dict(row) for row in found]

    def _tasks(self, dag_id: str, run_id: str, kind: str) -> list[Task]:
        rows = self._query(ROWS, dag_id, run_id)
        calls = [str(row["external_executor_id"]).partition("/")[0] for row in rows] if kind == "modal" else []
        inputs = times_of_inputs(self.client, [call for call in calls if call.startswith("fc-")])
        tasks = []
        for row, call in zip_longest(rows, calls):
            heard = self.stopwatch.heard[str(row["id"])]
            found = inputs.get(call) if call else (heard["began"], heard["returned"])
            slot = Slot(found[0], heard["exited"], heard["returned"], found[1]) if found else None
            queued, started, ended = (row[name].timestamp() for name in ("queued_dttm", "start_date", "end_date"))
            tasks.append(Task(queued, started, ended, slot))
        return sorted(tasks, key=lambda task: task.queued)

    def _processes(self, kind: str) -> list[int]:
        """Return the task processes of an executor: a container's, or LocalExecutor's forked workers."""
        if kind == "local":
            return machine.below(self.stack.airflow.programs["scheduler"].pid)
        return machine.below(self.stack.local.pid)[1:]

    def _cpu(self, kind: str) -> float:
        return machine.cpu_seconds_with_ended(self._processes(kind))


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for pid in processes:
        # A process may have ended since it was listed.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def times_of_inputs(client: Any, calls: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the times of each call's input and output at Modal."""

    async def ask() -> dict[str, tuple[float, float]]:
        stub: Any = getattr(client, "_stub", None) or getattr(client, "stub")  # noqa: B009
        found = {}
        for call in calls:
            request = api_pb2.FunctionGetOutputsRequest(function_call_id=call, max_values=1, timeout=5)
            for output in (await stub.FunctionGetOutputs(request)).outputs:
                found[call] = output.input_started_at, output.output_created_at
        return found

    # Connections belong to the SDK's own event loop.
    found: dict[str, tuple[float, float]] = synchronizer.create_blocking(ask)()
    return found


@contextlib.contextmanager
def stage(modal_options: Options | None = None) -> Iterator[Stage]:
    """Both executors, ready to run, on a control plane with these options."""
    with contextlib.ExitStack() as entered:
        stopwatch = Stopwatch()
        entered.callback(stopwatch.close)
        own = {"PYTHONPATH": str(HERE.parent), STOPWATCH_PORT: str(stopwatch.port)}
        in_worker = {**own, "MODALFLOW_PRELOAD": '["benchmarks.stopwatch"]'}
        env = {
            **CAPS,
            **own,
            "AIRFLOW__CORE__EXECUTOR": EXECUTORS,
            "AIRFLOW__MODAL_EXECUTOR__WORKER_ENV": json.dumps(in_worker),
        }
        options = ("--concurrency", str(SLOTS), "--max-containers", "1")
        stack = entered.enter_context(ModalStack(HERE / "dags", env=env, modal=modal_options, deploy=options))
        engine = create_engine(stack.airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
        entered.callback(engine.dispose)
        connection = entered.enter_context(engine.connect())
        with set_variables(stack.local.env):
            client = modal.Client.from_credentials(
                stack.local.env["MODAL_TOKEN_ID"], stack.local.env["MODAL_TOKEN_SECRET"]
            )
        made = Stage(stack, stopwatch, connection, client)
        yield made
