"""``make bench-relay-burst``: many real tasks at once over one relay, from containers without a network; or directly.

No-op tasks, tasks with heartbeats, and tasks that read the same large XCom. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from benchmarks import machine
from benchmarks.burst import ALL_AT_ONCE
from benchmarks.relay_heartbeats import Memory
from modalflow.demo.modal_stack import ModalStack
from modalflow.emulator.options import Options

HERE = Path(__file__).parent
PATIENCE, POLL = 1200.0, 1.0
#: Seconds between two heartbeats of a task: Airflow's default.
INTERVAL = 5.0
#: Seconds without a sign of a task after which it counts as late here. Airflow ends a task after 300 s.
LATE = 3 * INTERVAL
#: A line of the API server's log: when, task instance, what.
_SIGNS = re.compile(r"^(\S+) .*\bpath=/execution/task-instances/([\w-]{36})/(run|heartbeat|state)\b.*status_code=2")
ROWS = text(
    "SELECT state, queued_dttm, end_date FROM task_instance"
    " WHERE dag_id = :dag_id AND run_id = :run_id AND task_id = :task_id"
)


@dataclass(frozen=True)
class Burst:
    """Tasks of one DAG run."""

    name: str
    dag_id: str
    task_id: str
    conf: Mapping[str, float]


@dataclass(frozen=True)
class Found:
    """What came of it."""

    failed: int
    seconds: float
    """From the first task queued to the last one ended."""
    heartbeats: int
    late: int
    longest: float
    """Seconds between two signs of a task at the API server, at most."""
    memory: Sequence[float]
    """Megabytes of the relay: before, at most, and a while after."""
    cpu: float
    """Processor seconds of the relay."""


#: Way → settings of [modal_executor], and the network of containers.
WAYS: Mapping[str, tuple[Mapping[str, str], str]] = {
    "queues": ({"RELAY_TRANSPORT": "queues"}, "none"),
    "tunnel": ({"RELAY_TRANSPORT": "tunnel"}, "none"),
    "direct": ({"EXECUTION_API": "direct"}, "host"),
}


def relay_of(stack: ModalStack) -> int:
    """Return the process id of the scheduler's relay."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        for pid in machine.below(stack.airflow.programs["scheduler"].pid):
            if b"modalflow.cli\0relay" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        time.sleep(POLL)
    raise TimeoutError("the scheduler has started no relay")


def run(stack: ModalStack, burst: Burst, tasks: int, day: int, relay: int) -> Found:
    """Run one burst, and return its figures. ``relay`` is a process id, 0 without a relay."""
    airflow = stack.airflow
    log = airflow.programs["api-server"].log
    before, start = log.stat().st_size, machine.memory(relay)
    cpu = machine.cpu_seconds([relay])
    with Memory(relay) as memory:
        when = datetime(2026, 1, day, tzinfo=UTC)
        run_id = airflow.api.trigger(burst.dag_id, when, {"tasks": tasks, **burst.conf})
        rows = _ended(stack, burst, run_id, tasks)
    cpu = machine.cpu_seconds([relay]) - cpu
    time.sleep(INTERVAL)
    with log.open(errors="replace") as lines:
        lines.seek(before)
        heartbeats, gaps = _signs(lines.read())
    return Found(
        failed=sum(row["state"] != "success" for row in rows),
        seconds=max(row["end_date"] for row in rows).timestamp() - min(row["queued_dttm"] for row in rows).timestamp(),
        heartbeats=heartbeats,
        late=sum(gap > LATE for gap in gaps),
        longest=max(gaps, default=0.0),
        memory=[start, max(memory.samples, default=start), machine.memory(relay)],
        cpu=cpu,
    )


def _signs(log: str) -> tuple[int, list[float]]:
    """Return the number of heartbeats, and the seconds between two signs of each task."""
    heartbeats, signs = 0, defaultdict[str, list[float]](list)
    for line in log.splitlines():
        if (found := _SIGNS.search(line)) is not None:
            signs[found[2]].append(datetime.fromisoformat(found[1]).timestamp())
            heartbeats += found[3] == "heartbeat"
    return heartbeats, [after - before for each in signs.values() for before, after in pairwise(each)]


def _ended(stack: ModalStack, burst: Burst, run_id: str, tasks: int) -> Sequence[Mapping[str, Any]]:
    """Return the task instances, once all have ended; from the database, so that the API server has only their work."""
    engine = create_engine(stack.airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], poolclass=NullPool)
    wanted = {"dag_id": burst.dag_id, "run_id": run_id, "task_id": burst.task_id}
    deadline = time.monotonic() + PATIENCE
    while True:
        with engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(ROWS, wanted).mappings()]
        if len(rows) == tasks and all(row["state"] in ("success", "failed", "upstream_failed") for row in rows):
            return rows
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all of {tasks} tasks have ended after {PATIENCE:g} s")
        stack.check()
        time.sleep(POLL)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200, help="tasks of a burst")
    parser.add_argument("--readers", type=int, default=100, help="tasks that read the large XCom")
    parser.add_argument("--seconds", type=float, default=30.0, help="time of a task with heartbeats")
    parser.add_argument("--megabytes", type=int, default=5, help="size of the large XCom")
    parser.add_argument("--concurrency", type=int, default=10, help="tasks that share a container")
    parser.add_argument("--containers", type=int, default=20, help="containers that may run at once")
    parser.add_argument("--way", choices=list(WAYS), default="queues")
    given = parser.parse_args()
    bursts = (
        (Burst("no-op", "waits", "wait", {"seconds": 0}), given.tasks),
        (Burst(f"{given.seconds:g} s each", "waits", "wait", {"seconds": given.seconds}), given.tasks),
        (Burst(f"read {given.megabytes} MB", "reads", "read", {"bytes": given.megabytes * 10**6}), given.readers),
    )
    settings, network = WAYS[given.way]
    env = {**ALL_AT_ONCE, **{f"AIRFLOW__MODAL_EXECUTOR__{name}": value for name, value in settings.items()}}
    deploy = ("--concurrency", str(given.concurrency), "--max-containers", str(given.containers))
    print(f"{machine.describe()}; load before {machine.load():.1f}; way: {given.way}\n")
    print(
        "| tasks | failed | first queued to last ended (s) | heartbeats | late | longest silence of a task (s) |",
        end="",
    )
    print(" MB before | at most | after | processor seconds of the relay |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    with ModalStack(HERE / "relay_dags", env=env, modal=Options(network=network), deploy=deploy) as stack:
        relay = 0 if given.way == "direct" else relay_of(stack)
        for day, (burst, tasks) in enumerate(bursts, 2):
            if not tasks:
                continue
            stack.airflow.wait_for_dag(burst.dag_id)
            stack.airflow.api.unpause(burst.dag_id)
            found = run(stack, burst, tasks, day, relay)
            memory = " | ".join(f"{each:.0f}" for each in found.memory)
            print(
                f"| {tasks}, {burst.name} | {found.failed} | {found.seconds:.0f} | {found.heartbeats} | {found.late} "
                f"| {found.longest:.1f} | {memory} | {found.cpu:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
