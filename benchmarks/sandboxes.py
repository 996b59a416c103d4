"""``make bench-sandboxes``: what the worker costs in gVisor, Modal's sandbox, beside Linux.

Prints a table in Markdown. Two local control planes run the same deployed worker, and take turns with each workload.
The Execution API answers at once: no Airflow runs beside the containers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine
from benchmarks.sandbox_stage import SandboxStage, World, world
from benchmarks.worker_stage import times_of_inputs
from modalflow.emulator.local import LocalModal
from modalflow.emulator.options import Options
from modalflow.names import Names

NAMES = Names("bench-sandboxes")

#: Seconds between two workloads: a zygote that has nothing to do prepares the next one.
PAUSE = 1.5
PATIENCE = 180.0

COMMAND, NOTHING, BASH = "command", "nothing", "bash"
TITLES = {COMMAND: "raw command `true`", NOTHING: "no-op task", BASH: "BashOperator `true`"}


@dataclass
class Figures:
    """The figures of one workload in one sandbox, in seconds."""

    slots: list[float] = field(default_factory=list)
    """From the input to its output."""
    starts: list[float] = field(default_factory=list)
    """From the call to the task's request to run."""
    cpu: list[float] = field(default_factory=list)
    """Of the container, from the call to the next one."""


class Sandbox(SandboxStage):
    """A control plane with the deployed worker, one container, and the figures of its workloads."""

    def __init__(self, local: LocalModal, world: World) -> None:
        super().__init__(local, world, NAMES)
        self.figures: dict[str, Figures] = defaultdict(Figures)

    def run(self, kind: str) -> None:
        """Run one workload, and wait until the container is idle."""
        used, began = machine.cpu_seconds_with_ended(self.containers()), time.time()
        submitted = self.submit_command("true") if kind == COMMAND else self.submit_task(kind)
        outcome = submitted.call.get(timeout=PATIENCE)
        if outcome["state"] != "success" or outcome["final_state"] not in (None, "success"):
            raise RuntimeError(f"{TITLES[kind]}: {outcome}")
        [(taken, freed)] = times_of_inputs(self.client, [submitted.call.object_id]).values()
        time.sleep(PAUSE)
        figures = self.figures[kind]
        figures.slots.append(freed - taken)
        figures.cpu.append(machine.cpu_seconds_with_ended(self.containers()) - used)
        if submitted.ti_id in self.world.api.started:
            figures.starts.append(self.world.api.started[submitted.ti_id] - began)


@contextmanager
def sandboxes(runsc: Path | None) -> Iterator[Mapping[str, Sandbox]]:
    """Both sandboxes, each with a container that has run one of each workload."""
    with ExitStack() as stack:
        outside = stack.enter_context(world())
        found = {}
        for name, options in (("Linux", Options()), ("gVisor", Options(isolation="gvisor", runsc=runsc))):
            local = stack.enter_context(LocalModal(options))
            found[name] = Sandbox(local, outside)
            for kind in TITLES:
                found[name].run(kind)
            found[name].figures.clear()
        yield found


def rows(found: Mapping[str, Sandbox]) -> Iterator[str]:
    """Yield the lines of the table: medians."""
    yield "| | Linux | gVisor | ratio |"
    yield "|---|---:|---:|---:|"
    for kind, title in TITLES.items():
        for figure, text in (
            ("starts", "called to started (s)"),
            ("slots", "slot taken to slot free (s)"),
            ("cpu", "processor seconds of the container"),
        ):
            values = [getattr(sandbox.figures[kind], figure) for sandbox in found.values()]
            if all(values):
                linux, gvisor = (statistics.median(each) for each in values)
                yield f"| {title}: {text} | {linux:.3f} | {gvisor:.3f} | {gvisor / linux:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="How often each workload runs in each sandbox.")
    parser.add_argument("--runsc", type=Path, help="gVisor's program. Default: `runsc` on PATH.")
    arguments = parser.parse_args()
    before = machine.load()
    with sandboxes(arguments.runsc) as found:
        for number in range(arguments.runs):
            sys.stderr.write(f"run {number + 1}\n")
            for kind in TITLES:
                for sandbox in found.values():
                    sandbox.run(kind)
        print(f"{machine.describe()}; load before {before:.1f}, after {machine.load():.1f}; {arguments.runs} runs\n")
        print("\n".join(rows(found)))


if __name__ == "__main__":
    main()
