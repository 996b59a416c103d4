"""``make bench-sandboxes``: what the worker costs in gVisor, Modal's sandbox, beside Linux.

Prints a table in Markdown. Two local control planes run the same deployed worker, and take turns with each workload.
The Execution API answers at once: no Airflow runs beside the containers. Tasks have a HOME without files: a shell
that gets the socket of Airflow's supervisor as its input reads ``~/.bashrc``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modal

from benchmarks import machine
from benchmarks.worker_stage import times_of_inputs
from modalflow import control_plane
from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.emulator.local import LocalModal
from modalflow.emulator.options import Options
from modalflow.names import DEFAULT_PROFILE, Names
from modalflow.protocol.messages import Kind, Submission
from modalflow.worker.deploy.deployment import deploy
from modalflow.worker.environment import BUNDLE_LIST
from tests.integration.stub_execution_api import StubExecutionApi, stub_execution_api, task_workload

NAMES = Names("bench-sandboxes")
DAGS = Path(__file__).parent / "sandbox_dags"

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


class Sandbox:
    """A control plane with the deployed worker, one container, and the figures of its workloads."""

    def __init__(self, local: LocalModal, api: StubExecutionApi, home: str) -> None:
        os.environ.update(local.env)
        control_plane._known.clear()
        deploy(NAMES, bundles={"bench": DAGS})
        self._local, self._api, self._home = local, api, home
        self._client = control_plane.connect().client
        self._function: Any = modal.Function.from_name(NAMES.app, NAMES.function(DEFAULT_PROFILE), client=self._client)
        self.figures: dict[str, Figures] = defaultdict(Figures)

    def run(self, kind: str) -> None:
        """Run one workload, and wait until the container is idle."""
        used, began = self._cpu(), time.time()
        id, submission = self._submission(kind)
        call = self._function.spawn(submission.to_wire())
        outcome = call.get(timeout=PATIENCE)
        if outcome["state"] != "success" or outcome["final_state"] not in (None, "success"):
            raise RuntimeError(f"{TITLES[kind]}: {outcome}")
        [(taken, freed)] = times_of_inputs(self._client, [call.object_id]).values()
        time.sleep(PAUSE)
        figures = self.figures[kind]
        figures.slots.append(freed - taken)
        figures.cpu.append(self._cpu() - used)
        if id in self._api.started:
            figures.starts.append(self._api.started[id] - began)

    def _cpu(self) -> float:
        return machine.cpu_seconds_with_ended(machine.below(self._local.pid)[1:])

    def _submission(self, kind: str) -> tuple[str, Submission]:
        id, work_id = "", uuid.uuid4().hex
        values: dict[str, Any] = {"kind": Kind.COMMAND, "command": ("true",)}
        if kind != COMMAND:
            bundles = [{"name": "bench", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(DAGS)}}]
            env = {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": self._api.url, BUNDLE_LIST: json.dumps(bundles)}
            env["HOME"] = self._home
            workload = task_workload(kind, bundle="bench", dag_file="d.py")
            id = json.loads(workload)["ti"]["id"]
            values = {"kind": Kind.WORKLOAD, "workload": workload, "env": env}
        return id, Submission(work_id=work_id, log_path=f"logs/{work_id}", partition=work_id, label=work_id, **values)


@contextmanager
def sandboxes(runsc: Path | None) -> Iterator[Mapping[str, Sandbox]]:
    """Both sandboxes, each with a container that has run one of each workload."""
    with ExitStack() as stack:
        api = stack.enter_context(stub_execution_api())
        home = stack.enter_context(tempfile.TemporaryDirectory())
        found = {}
        for name, options in (("Linux", Options()), ("gVisor", Options(isolation="gvisor", runsc=runsc))):
            local = stack.enter_context(LocalModal(options))
            found[name] = Sandbox(local, api, home)
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
