"""``make bench-relay-tasks``: what the relay adds to a no-op task, on both transports, beside direct HTTP.

Each way has an Airflow, a control plane and a container of its own. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import modal
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from benchmarks import machine
from benchmarks.worker_stage import times_of_inputs
from modalflow.config.variables import set_variables
from modalflow.demo.modal_stack import ModalStack
from modalflow.emulator.options import Options

HERE = Path(__file__).parent
DAG_ID, PATIENCE, POLL = "row", 240.0, 0.5
SETTINGS: Mapping[str, str] = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.05",
    "PYTHONPATH": str(HERE.parent),
}
#: Way → settings of [modal_executor].
WAYS: Mapping[str, Mapping[str, str]] = {
    "direct": {"EXECUTION_API": "direct"},
    "queues": {"EXECUTION_API": "relay", "RELAY_TRANSPORT": "queues"},
    "tunnel": {"EXECUTION_API": "relay", "RELAY_TRANSPORT": "tunnel"},
}
ROWS = text(
    "SELECT state, queued_dttm, start_date, end_date, external_executor_id FROM task_instance"
    " WHERE dag_id = :dag_id AND run_id = :run_id ORDER BY queued_dttm"
)
#: A line of the API server's log for each request.
_REQUESTS = re.compile(r"method=(\w+) path=/execution/(\S+)")
_IDS = re.compile(r"[0-9a-f-]{36}")


@dataclass(frozen=True)
class Run:
    """One DAG run: seconds of its tasks, except the first one, which had a cold container."""

    slots: Sequence[float]
    """From a task's input to its output."""
    steps: Sequence[float]
    """From a task in the queue to the next one there."""
    requests: Mapping[str, int]


def run(way: str, latency: str) -> Run:
    """Run the tasks twice in a new Airflow; return the second run."""
    env = {**SETTINGS, **{f"AIRFLOW__MODAL_EXECUTOR__{name}": value for name, value in WAYS[way].items()}}
    options = Options(latency=latency, faults=(f"*:delay={latency},for=containers",)) if latency else Options()
    with ModalStack(HERE / "relay_dags", env=env, modal=options, deploy=("--max-containers", "1")) as stack:
        airflow = stack.airflow
        airflow.wait_for_dag(DAG_ID)
        airflow.api.unpause(DAG_ID)
        log = airflow.programs["api-server"].log
        _ended(stack, airflow.api.trigger(DAG_ID, datetime(2026, 1, 2, tzinfo=UTC)))
        before = len(log.read_text(errors="replace"))
        rows = _ended(stack, airflow.api.trigger(DAG_ID, datetime(2026, 1, 3, tzinfo=UTC)))
        requests = _REQUESTS.findall(log.read_text(errors="replace")[before:])
        with set_variables(stack.local.env):
            variables = stack.local.env
            client: Any = modal.Client.from_credentials(variables["MODAL_TOKEN_ID"], variables["MODAL_TOKEN_SECRET"])
        calls = [str(row["external_executor_id"]).partition("/")[0] for row in rows]
        inputs = times_of_inputs(client, [call for call in calls if call.startswith("fc-")])
    queued = [row["queued_dttm"].timestamp() for row in rows]
    return Run(
        slots=[ended - began for began, ended in inputs.values()],
        steps=[after - before for before, after in pairwise(queued)],
        requests=Counter(f"{method} {_IDS.sub('ID', path)}" for method, path in requests),
    )


def _ended(stack: ModalStack, run_id: str) -> Sequence[Mapping[str, Any]]:
    """Return the task instances, once all have succeeded."""
    engine = create_engine(stack.airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], poolclass=NullPool)
    deadline = time.monotonic() + PATIENCE
    while True:
        with engine.connect() as connection:
            rows = connection.execute(ROWS, {"dag_id": DAG_ID, "run_id": run_id}).mappings().all()
        if rows and all(row["state"] == "success" for row in rows):
            return [dict(row) for row in rows]
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all tasks of {run_id} have succeeded: {Counter(row['state'] for row in rows)}")
        time.sleep(POLL)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", default="60ms", help="the delay of each RPC; empty for none")
    parser.add_argument("--ways", default=",".join(WAYS), help="the ways, separated by commas")
    given = parser.parse_args()
    print(f"{machine.describe()}; RPCs take {given.latency or '0 ms'}; load before {machine.load():.1f}\n")
    print("| way | slot taken to slot free, p50 (s) | added | p95 (s) | queued to next queued, p50 (s) | requests |")
    print("|---|---:|---:|---:|---:|---:|")
    direct, found = None, Counter[str]()
    for way in given.ways.split(","):
        measured = run(way, given.latency)
        slots = sorted(measured.slots)
        median = statistics.median(slots)
        direct = median if way == "direct" else direct
        added = "-" if direct is None or way == "direct" else f"{median - direct:.3f}"
        p95 = slots[min(len(slots) - 1, round(0.95 * len(slots)))]
        each = sum(measured.requests.values()) / max(len(measured.steps) + 1, 1)
        step = statistics.median(measured.steps)
        print(f"| {way} | {median:.3f} | {added} | {p95:.3f} | {step:.3f} | {each:.1f} |", flush=True)
        found = Counter(measured.requests)
    print("\nRequests of the last row:\n")
    for what, number in found.most_common(12):
        print(f"    {number:4} {what}")


if __name__ == "__main__":
    main()
