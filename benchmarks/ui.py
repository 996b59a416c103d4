"""What answers of the UI's API take with much work: python -m benchmarks.ui [--rows 10000] [--requests 20].

Airflow's real API server in this process, on SQLite, with an auth manager of two users. Nothing is read from Modal: the
state of work is there, as after a read. Processor time hardly depends on other load on the machine; it includes that of
the client, which decompresses each answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modalflow.names import TaskTry
from modalflow.operations.inventory import Inventory
from modalflow.protocol.messages import Entry, State
from modalflow.protocol.snapshot import InFlight, Snapshot
from tests.unit.ui.server import API, ApiServer, api_server

PATHS = ("work", "work?sort=-since", "work?state=running&limit=200", "work?q=task-77", "overview")
USERS = {"root": "ADMIN", "ada": "USER"}


@dataclass(frozen=True)
class Figure:
    """What one kind of request has taken, in milliseconds; the size of an answer as JSON, in KiB."""

    user: str
    path: str
    median: float
    slowest: float
    processor: float
    kib: float

    def __str__(self) -> str:
        times = f"{self.median:.0f} | {self.slowest:.0f} | {self.processor:.0f}"
        return f"| {self.user} | `{self.path}` | {times} | {self.kib:.0f} |"


def inventory(rows: int) -> Inventory:
    """Return work of two DAGs, a third of it running, a third waiting."""
    now = time.time()
    calls = [_call(number, now) for number in range(rows)]
    entries = [
        Entry(call.work_id, State.RUNNING, call.function_call_id, f"ta-{call.work_id}", "o", call.label, task=call.task)
        for call in calls[1::3]
    ]
    return Inventory(now, [Snapshot("p", "host", 7, published_at=now + 1e6, calls=calls)], entries)


def _call(number: int, now: float) -> InFlight:
    task = TaskTry("losses" if number % 2 else "secret", f"task-{number}", "manual__2026-11-29T10:00:00+00:00")
    state, reason = ("submitted", "") if number % 3 else ("waiting", "profile default is paused by ada")
    work_id, call_id = f"0199-{number:032x}", f"fc-01{number:024x}"
    return InFlight(work_id, task.label, state, now - number, call_id, "default", 1, task, reason)


async def measured(server: ApiServer, requests: int) -> list[Figure]:
    """Return the figures of all kinds of requests, one after the other."""
    found = []
    for user, role in USERS.items():
        async with server.client(user, role) as client:
            for path in PATHS:
                times, processor = [], []
                for _ in range(requests):
                    began, used = time.perf_counter(), time.process_time()
                    answer = await client.get(f"{API}/{path}", headers={"accept-encoding": "gzip"})
                    times.append((time.perf_counter() - began) * 1000)
                    processor.append((time.process_time() - used) * 1000)
                    answer.raise_for_status()
                median = statistics.median(times)
                size = len(answer.content) / 1024
                found.append(Figure(user, path, median, max(times), statistics.median(processor), size))
    return found


def figures(rows: int, requests: int) -> tuple[float, Sequence[Figure]]:
    """Return the seconds in which a read is prepared for answers, and the figures of the requests."""
    with tempfile.TemporaryDirectory() as folder, api_server(Path(folder)) as server:
        state = inventory(rows)
        began = time.process_time()
        server.show(state)
        prepared = time.process_time() - began
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            # Airflow logs each request there.
            return prepared, asyncio.run(measured(server, requests))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ui", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=20)
    asked = parser.parse_args()
    prepared, found = figures(asked.rows, asked.requests)
    print(
        f"{asked.rows:,} rows; load {os.getloadavg()[0]:.1f}; a read is prepared in {prepared:.2f} s of processor time"
    )
    print("\n| user | request | median (ms) | slowest (ms) | processor time (ms) | JSON (KiB) |")
    print("|---|---|---:|---:|---:|---:|")
    for figure in found:
        print(figure)


if __name__ == "__main__":
    main()
