"""``make bench-burst``: many no-op tasks at once, cold, on a busy machine with one API server process.

Each variant has an Airflow, a control plane and containers of its own. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from benchmarks import machine
from modalflow.demo.modal_stack import MODAL_EXECUTOR, ModalStack

HERE = Path(__file__).parent
DAG_ID = "burst"
PATIENCE = 1200.0
POLL = 1.0

#: The scheduler hands over all of them at once.
ALL_AT_ONCE: Mapping[str, str] = {
    "AIRFLOW__CORE__PARALLELISM": "2000",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "2000",
    "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "2000",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "0",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
    "PYTHONPATH": str(HERE.parent),
}
#: As a user sets Airflow's own defaults, which then count above the worker's.
AIRFLOWS_DEFAULTS: Mapping[str, str] = {
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "5.0",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "5",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "90.0",
}
UNSPREAD = "benchmarks.unspread_executor.ModalExecutor"
#: Variant → (executor, further settings).
VARIANTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "Airflow's defaults": (UNSPREAD, AIRFLOWS_DEFAULTS),
    "patient": (UNSPREAD, {}),
    "patient and spread": (MODAL_EXECUTOR, {}),
}
ROWS = text(
    "SELECT state, queued_dttm, start_date, end_date FROM task_instance"
    " WHERE dag_id = :dag_id AND run_id = :run_id AND task_id = 'nothing'"
)
BUSY = "while True: pass"
#: A line of the API server's log for each request to start a task: microseconds, status.
_STARTS = re.compile(
    r"duration_us=(\d+) .*\bmethod=PATCH path=/execution/task-instances/[\w-]+/run\b.* status_code=(\d+)"
)


@dataclass(frozen=True)
class Run:
    """What became of one burst."""

    failed: int
    seconds: float
    """From the first task queued to the last one ended."""
    spread: float
    """From the first start to the last, as Airflow's API noted them."""
    waits: Sequence[float]
    """From queued to started, of each task that started."""
    answers: Sequence[float]
    """Seconds that the API server took for each request to start a task, those that the worker gave up included."""
    cpu: float
    """Processor seconds of the API server."""


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """Keep so many further processes busy."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(variant: str, tasks: int, loops: int, concurrency: int, containers: int) -> Run:
    """Run the burst once, in an Airflow of its own."""
    executor, settings = VARIANTS[variant]
    env = {**ALL_AT_ONCE, **settings, "AIRFLOW__CORE__EXECUTOR": executor}
    deploy = ("--concurrency", str(concurrency), "--max-containers", str(containers))
    with ModalStack(HERE / "burst_dags", env=env, deploy=deploy) as stack:
        airflow = stack.airflow
        airflow.wait_for_dag(DAG_ID)
        airflow.api.unpause(DAG_ID)
        server = airflow.programs["api-server"]
        processes = [server.pid, *machine.below(server.pid)]
        with busy(loops):
            cpu = machine.cpu_seconds(processes)
            run_id = airflow.api.trigger(DAG_ID, datetime(2026, 1, 2, tzinfo=UTC), {"tasks": tasks})
            rows = _ended(stack, run_id, tasks)
            cpu = machine.cpu_seconds(processes) - cpu
        requests = _STARTS.findall(server.log.read_text(errors="replace"))
    starts = [row["start_date"].timestamp() for row in rows if row["start_date"]]
    queued = min(row["queued_dttm"].timestamp() for row in rows)
    return Run(
        failed=sum(row["state"] != "success" for row in rows),
        seconds=max(row["end_date"].timestamp() for row in rows) - queued,
        spread=max(starts) - min(starts),
        waits=[(row["start_date"] - row["queued_dttm"]).total_seconds() for row in rows if row["start_date"]],
        answers=[int(microseconds) / 1e6 for microseconds, _ in requests],
        cpu=cpu,
    )


def _ended(stack: ModalStack, run_id: str, tasks: int) -> Sequence[Mapping[str, Any]]:
    """The task instances, once all have ended; read from the database, so that the API server has only their work."""
    engine = create_engine(stack.airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], poolclass=NullPool)
    deadline = time.monotonic() + PATIENCE
    while True:
        with engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(ROWS, {"dag_id": DAG_ID, "run_id": run_id}).mappings()]
        if len(rows) == tasks and all(row["state"] in ("success", "failed") for row in rows):
            return rows
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all of {tasks} tasks have ended after {PATIENCE:g} s")
        stack.check()
        time.sleep(POLL)


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    title: str
    figure: Callable[[Run], float]
    digits: int = 1


TABLE = (
    Row("tasks that failed", lambda run: run.failed, 0),
    Row("requests to start a task, for each that started", lambda run: len(run.answers) / len(run.waits), 2),
    Row("the API server's answer to one of them, median (s)", lambda run: statistics.median(run.answers)),
    Row("the same, the longest (s)", lambda run: max(run.answers)),
    Row("first task queued to last one ended (s)", lambda run: run.seconds),
    Row("first task started to last one started (s)", lambda run: run.spread),
    Row("a task queued to started, median (s)", lambda run: statistics.median(run.waits)),
    Row("processor seconds of the API server", lambda run: run.cpu),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200, help="Tasks of a burst.")
    parser.add_argument("--load", type=int, default=8, help="Processes that do nothing but use a processor.")
    parser.add_argument("--concurrency", type=int, default=10, help="Tasks that share a container.")
    parser.add_argument("--containers", type=int, default=20, help="Containers that may run at once.")
    parser.add_argument("--runs", type=int, default=1, help="How often each variant runs; the medians are shown.")
    parser.add_argument("--only", choices=list(VARIANTS), action="append", help="One variant alone; may be repeated.")
    arguments = parser.parse_args()
    variants = arguments.only or list(VARIANTS)
    found: dict[str, list[Run]] = {variant: [] for variant in variants}
    before = machine.load()
    for _ in range(arguments.runs):
        for variant in variants:
            done = run(variant, arguments.tasks, arguments.load, arguments.concurrency, arguments.containers)
            found[variant].append(done)
            for row in TABLE:
                sys.stderr.write(f"{variant}: {row.title}: {row.figure(done):.3g}\n")
    print(f"{machine.describe()}; load before {before:.1f}, after {machine.load():.1f}; {arguments.runs} runs")
    print(f"{arguments.tasks} tasks, {arguments.concurrency} in a container, {arguments.load} busy loops\n")
    print(table(found))


def table(found: Mapping[str, Sequence[Run]]) -> str:
    """The medians; in brackets the ratio to the first variant."""
    lines = [f"| | {' | '.join(found)} |", "|---|" + "---:|" * len(found)]
    for row in TABLE:
        values = [statistics.median(row.figure(run) for run in runs) for runs in found.values()]
        cells = [f"{values[0]:.{row.digits}f}"]
        for value in values[1:]:
            ratio = f" ({value / values[0]:.2f})" if values[0] else ""
            cells.append(f"{value:.{row.digits}f}{ratio}")
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
