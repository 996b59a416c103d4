"""``make bench-cold-starts``: a cold start in gVisor, Modal's sandbox, with and without a memory snapshot.

Prints a table in Markdown. One local control plane has a function and the worker's default profile, each with and
without snapshots, and they take turns. Every call has a container of its own. The Execution API answers at once: no
Airflow runs beside the containers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import modal

import modalflow
from benchmarks import machine, snapshot_app
from benchmarks.sandbox_stage import SandboxStage, World, world
from modalflow.emulator.local import LocalModal
from modalflow.emulator.options import Options
from modalflow.names import Names

NAMES = Names("bench-cold-starts")

#: Seconds that an idle container is kept, the least that Modal allows.
SCALEDOWN = 2
PATIENCE = 300.0
STEP = 0.1

WITHOUT, WITH = "without", "with"
FUNCTION, TASK = "function that returns at once", "no-op task of Airflow"
TASKS = "four no-op tasks of Airflow at once, the last one"
#: What is called → the number of new containers.
KINDS = {FUNCTION: 1, TASK: 1, TASKS: 4}
#: Processor seconds without a snapshot.
GOALS = {TASK: "<= 4", TASKS: "<= 12"}
PROFILES = {WITHOUT: "default", WITH: "snapshot"}


@dataclass
class Figures:
    """The figures of one kind of call, in seconds."""

    starts: list[float] = field(default_factory=list)
    """From the call to the function's code, or to the task's request to run; to the last of several."""
    cpu: list[float] = field(default_factory=list)
    """Of all their containers, to the end of the calls."""


class Stage(SandboxStage):
    """A control plane with what is called, and the figures."""

    def __init__(self, local: LocalModal, world: World) -> None:
        profiles = [
            modalflow.Profile(PROFILES[WITHOUT], scaledown_window=SCALEDOWN, concurrency=1),
            modalflow.Profile(PROFILES[WITH], scaledown_window=SCALEDOWN, concurrency=1, memory_snapshot=True),
        ]
        super().__init__(local, world, NAMES, modalflow.Worker(profiles=profiles))
        snapshot_app.app.deploy(client=self.client)
        self.figures: dict[tuple[str, str], Figures] = defaultdict(Figures)

    def call(self, kind: str, how: str) -> None:
        """Make calls at once, each in a new container, and wait until those have ended."""
        used, began = self._cpu(), time.time()
        started = self._call_function(how) if kind == FUNCTION else self._run_tasks(how, KINDS[kind])
        figures = self.figures[kind, how]
        figures.starts.append(started - began)
        figures.cpu.append(self._cpu() - used)
        deadline = time.monotonic() + PATIENCE
        while self.containers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"a container of the {kind} {how} a snapshot does not end")
            time.sleep(STEP)

    def _call_function(self, how: str) -> float:
        tag = "begins" if how == WITHOUT else "begins_restored"
        function = modal.Function.from_name(snapshot_app.app.name or "", tag, client=self.client)
        return float(function.remote())

    def _run_tasks(self, how: str, number: int) -> float:
        submitted = [self.submit_task("nothing", PROFILES[how]) for _ in range(number)]
        for outcome in [each.call.get(timeout=PATIENCE) for each in submitted]:
            if outcome["state"] != "success":
                raise RuntimeError(f"the task failed {how} a snapshot: {outcome}")
        return max(self.world.api.started[each.ti_id] for each in submitted)

    def _cpu(self) -> float:
        return machine.cpu_seconds_with_ended(machine.below(self.local.pid))


@contextmanager
def a_stage(runsc: Path | None) -> Iterator[Stage]:
    """The stage, before any call: the first one with a snapshot takes it."""
    with world() as outside, LocalModal(Options(isolation="gvisor", runsc=runsc)) as local:
        yield Stage(local, outside)


def rows(figures: dict[tuple[str, str], Figures]) -> Iterator[str]:
    """Yield the lines of the table: medians, and the first call with a snapshot, which takes it."""
    yield "| | goal without | without | with a snapshot | ratio | the first, which takes it |"
    yield "|---|---|---:|---:|---:|---:|"
    for kind, number in KINDS.items():
        for figure, text in (
            ("starts", "called to started (s)"),
            ("cpu", f"processor seconds of the container{'s' if number > 1 else ''}"),
        ):
            without, (first, *later) = (getattr(figures[kind, how], figure) for how in (WITHOUT, WITH))
            before, after = statistics.median(without[1:]), statistics.median(later)
            # By then, the snapshot of the task's profile exists.
            taking = f"{first:.2f}" if number == 1 else ""
            goal = GOALS.get(kind, "") if figure == "cpu" else ""
            yield f"| {kind}: {text} | {goal} | {before:.2f} | {after:.2f} | {after / before:.2f} | {taking} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="Number of measured calls of each kind.")
    parser.add_argument("--runsc", type=Path, help="gVisor's program. Default: `runsc` on PATH.")
    arguments = parser.parse_args()
    before = machine.load()
    with a_stage(arguments.runsc) as stage:
        for number in range(arguments.runs + 1):
            sys.stderr.write(f"run {number} of {arguments.runs}\n")
            for kind in KINDS:
                for how in (WITHOUT, WITH):
                    stage.call(kind, how)
        print(f"{machine.describe()}; load before {before:.1f}, after {machine.load():.1f}; {arguments.runs} runs\n")
        print("\n".join(rows(stage.figures)))


if __name__ == "__main__":
    main()
