"""How many RPCs one task is, from the spawn to the forgotten entry: counted by the control plane, with real workers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow.models.taskinstancekey import TaskInstanceKey

from benchmarks.executor_stage import beat_until, stage
from modalflow.names import Names
from modalflow.worker.deploy.deployment import deploy

PATIENCE = 300.0
NAMES = Names("bench-worker")


@dataclass(frozen=True)
class RpcsOfATask:
    """RPCs by origin, for this many tasks."""

    tasks: int
    counts: Mapping[str, int]

    @classmethod
    def counted(cls, tasks: int) -> RpcsOfATask:
        """Run this many commands, four to a container, in existing containers, and count."""
        with stage(None, app_name=NAMES.app) as stood:
            deploy(NAMES, bundles={})
            executor = stood.executor()
            try:
                _run(executor, tasks, "warm")
                _settle(executor)
                stood.count_from_now()
                _run(executor, tasks, "counted")
                _settle(executor)
                return cls(tasks, stood.counts())
            finally:
                executor.terminate()

    def table(self) -> str:
        lines = [f"| RPC | by | per task, of {self.tasks} |", "|---|---|---:|"]
        for name, number in sorted(self.counts.items(), key=lambda item: -item[1]):
            who, _, rpc = name.partition(" ")
            if number:
                lines.append(f"| {rpc} | {who} | {number / self.tasks:.2g} |")
        return "\n".join(lines)


def _settle(executor: Any) -> None:
    """Wait until delivered work has been forgotten."""
    beat_until(executor, lambda: not executor._delivered, PATIENCE, 0.05)
    beat_until(executor, lambda: not len(executor._engine.wiring.removals), PATIENCE, 0.2)


def _run(executor: Any, number: int, name: str) -> None:
    for n in range(number):
        executor.execute_async(TaskInstanceKey("bench", name, f"{n}-{time.time()}", 1, -1), ["sleep", "0.5"])
    beat_until(executor, lambda: not executor.running, PATIENCE, 0.05)
