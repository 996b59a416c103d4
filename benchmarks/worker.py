"""``make bench-worker``: the cost of a task on Modal's worker, beside LocalExecutor in the same Airflow.

Prints a table in Markdown. Both executors have the same scheduler, API server, database and settings, and take turns.
With ``--isolation gvisor``, a third column has the worker in gVisor, with an Airflow of its own: each of the two rests
while the other one runs. Ratios are to LocalExecutor, which always runs outside.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.worker_stage import CAPS, SLOTS, Run, Stage, stage
from modalflow.emulator.options import Options

MODAL, LOCAL, GVISOR = KINDS = ("modal", "local", "gvisor")
LOADED, ROW, APART, BASH, ASLEEP = LOADS = ("flat", "row", "apart", "bash", "sleep")
Runs = Mapping[str, Run]


@dataclass(frozen=True)
class Row:
    """A row of the table: a figure of the runs of one executor."""

    title: str
    goal: str
    load: str
    figure: Callable[[Run], float]
    digits: int = 2
    in_gvisor: str = ""
    """The goal there."""


def rate(run: Run) -> float:
    return len(run.tasks) / (max(t.ended for t in run.tasks) - min(t.queued for t in run.tasks))


def queued_to_start(percentile: float) -> Callable[[Run], float]:
    def figure(run: Run) -> float:
        waits = sorted(1000 * (t.started - t.queued) for t in run.tasks)
        return waits[min(len(waits) - 1, int(percentile * len(waits)))]

    return figure


def tail(run: Run) -> float:
    slots = [task.slot for task in run.tasks if task.slot]
    return 100 * sum(s.freed - s.exited for s in slots) / sum(s.freed - s.taken for s in slots)


def waited(run: Run) -> float:
    slots = [task.slot for task in run.tasks if task.slot]
    return 100 * sum(s.returned - s.exited for s in slots) / sum(s.freed - s.taken for s in slots)


def overhead(run: Run) -> float:
    return statistics.median(task.slot.freed - task.slot.taken for task in run.tasks if task.slot)


_TAIL = "the same: share of slot time from the end of the task's process to the free slot (%)"
_WAITED = "of that, its supervisor noticing the end and telling Airflow's API (%)"
_CPU = "the same: processor seconds a task, of the processes that run tasks"

ROWS = (
    Row("200 no-op mapped tasks: tasks a second", ">= 10", LOADED, rate),
    Row(_CPU, "<= 0.12", LOADED, lambda run: run.cpu / len(run.tasks), 3),
    Row("the same, of the whole machine", "", LOADED, lambda run: run.cpu_of_all / len(run.tasks), 3),
    Row("the same: slot taken to slot free, median (s)", "", LOADED, overhead, 3),
    Row(_TAIL, "<= 2", LOADED, tail, 1),
    Row(_WAITED, "", LOADED, waited, 1),
    Row("12 no-op tasks in a row: queued to started, p50 (ms)", "<= 40", ROW, queued_to_start(0.5), 0, "<= 150"),
    Row("the same: p95 (ms)", "", ROW, queued_to_start(0.95), 0),
    Row("the same: slot taken to slot free, median (s)", "<= 0.35", ROW, overhead, 3, "<= 0.45"),
    Row("the same: from queued to the next one queued (s)", "", ROW, lambda run: 1 / rate(run), 3),
    Row(_CPU, "", ROW, lambda run: run.cpu / len(run.tasks), 3, "<= 0.25"),
    Row(_TAIL, "", ROW, tail, 1),
    Row(_WAITED, "", ROW, waited, 1),
    Row("12 no-op tasks two seconds apart: queued to started, p50 (ms)", "", APART, queued_to_start(0.5), 0, "<= 150"),
    Row("the same: slot taken to slot free, median (s)", "", APART, overhead, 3, "<= 0.45"),
    Row("12 BashOperators `true` in a row: slot, median (s)", "", BASH, overhead, 3, "<= 2 x local"),
    Row(_CPU, "", BASH, lambda run: run.cpu / len(run.tasks), 3, "<= 2 x local"),
    Row("60 tasks that sleep a second: tasks a second", ">= 6.5", ASLEEP, rate),
    Row(_TAIL, "<= 2", ASLEEP, tail, 1),
    Row(_WAITED, "", ASLEEP, waited, 1),
    Row(f"the same: memory (PSS) by {SLOTS} running tasks, each (MB)", "", ASLEEP, lambda run: run.memory / SLOTS, 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1, help="How often everything is measured; the medians are shown.")
    parser.add_argument("--only", choices=KINDS, action="append", help="One executor alone; repeatable.")
    parser.add_argument("--load", choices=LOADS, action="append", help="One workload alone; repeatable.")
    parser.add_argument("--isolation", choices=(GVISOR,), help="The worker in gVisor too.")
    parser.add_argument("--runsc", type=Path, help="gVisor's program. Default: `runsc` on PATH.")
    arguments = parser.parse_args()
    kinds = [kind for kind in KINDS if kind in (arguments.only or KINDS) and (kind != GVISOR or arguments.isolation)]
    loads = [load for load in LOADS if load in (arguments.load or LOADS)]
    before = machine.load()
    found: dict[str, list[Runs]] = {kind: [] for kind in kinds}
    with stages(kinds, arguments.runsc) as stood:
        for _ in range(arguments.runs):
            for kind in kinds:
                found[kind].append(measured(stood, kind, loads))
    print(f"{machine.describe()}; load before {before:.1f}, after {machine.load():.1f}; {arguments.runs} runs\n")
    print(table(found, loads))
    print(
        "\n"
        + ", ".join(
            f"`{name.removeprefix('AIRFLOW__').replace('__', '.').lower()}` {value}" for name, value in CAPS.items()
        )
    )


@contextmanager
def stages(kinds: Sequence[str], runsc: Path | None) -> Iterator[Mapping[str, Stage]]:
    """The stage of each kind: one for both executors on Linux, and one in gVisor."""
    with ExitStack() as entered:
        stood: dict[str, Stage] = {}
        if set(kinds) != {GVISOR}:
            outside = entered.enter_context(stage())
            stood.update(dict.fromkeys((MODAL, LOCAL), outside))
        if GVISOR in kinds:
            stood[GVISOR] = entered.enter_context(stage(Options(isolation=GVISOR, runsc=runsc)))
        yield stood


def measured(stood: Mapping[str, Stage], kind: str, loads: Sequence[str]) -> Runs:
    """Run each workload on an executor, in a warm container, while the other Airflow rests."""
    executor = LOCAL if kind == LOCAL else MODAL
    with ExitStack() as entered:
        for other in {id(each): each for each in stood.values() if each is not stood[kind]}.values():
            entered.enter_context(other.at_rest())
        stood[kind].run("warm", executor)
        runs = {load: stood[kind].run(load, executor) for load in loads}
    for row in (row for row in ROWS if row.load in loads):
        sys.stderr.write(f"{kind}: {row.title}: {row.figure(runs[row.load]):.3g}\n")
    return runs


def table(found: Mapping[str, list[Runs]], loads: Sequence[str]) -> str:
    """Return the medians, and the ratios to LocalExecutor."""
    titles = {MODAL: "ModalExecutor", LOCAL: "LocalExecutor", GVISOR: "ModalExecutor in gVisor"}
    compared = [kind for kind in found if kind != LOCAL] if LOCAL in found else []
    heads = ["", "goal", *(["in gVisor"] if GVISOR in found else []), *(titles[kind] for kind in found)]
    heads += [f"ratio {titles[kind]}" if len(compared) > 1 else "ratio" for kind in compared]
    numbers = len(found) + len(compared)
    lines = [_line(heads), "|" + "---|" * (len(heads) - numbers) + "---:|" * numbers]
    for row in (row for row in ROWS if row.load in loads):
        values = {kind: statistics.median(row.figure(runs[row.load]) for runs in found[kind]) for kind in found}
        cells = [row.title, row.goal, *([row.in_gvisor] if GVISOR in found else [])]
        cells += [f"{value:.{row.digits}f}" for value in values.values()]
        cells += [f"{values[kind] / values[LOCAL]:.2f}" if values[LOCAL] else "" for kind in compared]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
