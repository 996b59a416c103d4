"""``make bench-worker``: the cost of a task on Modal's worker, beside LocalExecutor in the same Airflow.

Prints a table in Markdown. Both executors have the same scheduler, API server, database and settings, and take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks import machine
from benchmarks.worker_stage import CAPS, SLOTS, Run, stage

KINDS = ("modal", "local")
LOADED, ROW, ASLEEP = LOADS = ("flat", "row", "sleep")
Runs = Mapping[str, Run]


@dataclass(frozen=True)
class Row:
    """A row of the table: a figure of the runs of one executor."""

    title: str
    goal: str
    load: str
    figure: Callable[[Run], float]
    digits: int = 2


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
    Row("12 no-op tasks in a row: queued to started, p50 (ms)", "<= 40", ROW, queued_to_start(0.5), 0),
    Row("the same: p95 (ms)", "", ROW, queued_to_start(0.95), 0),
    Row("the same: slot taken to slot free, median (s)", "<= 0.35", ROW, overhead, 3),
    Row("the same: from queued to the next one queued (s)", "", ROW, lambda run: 1 / rate(run), 3),
    Row(_CPU, "", ROW, lambda run: run.cpu / len(run.tasks), 3),
    Row(_TAIL, "", ROW, tail, 1),
    Row(_WAITED, "", ROW, waited, 1),
    Row("60 tasks that sleep a second: tasks a second", ">= 6.5", ASLEEP, rate),
    Row(_TAIL, "<= 2", ASLEEP, tail, 1),
    Row(_WAITED, "", ASLEEP, waited, 1),
    Row(f"the same: memory (PSS) by {SLOTS} running tasks, each (MB)", "", ASLEEP, lambda run: run.memory / SLOTS, 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1, help="How often everything is measured; the medians are shown.")
    parser.add_argument("--only", choices=KINDS, help="One executor alone.")
    parser.add_argument("--load", choices=LOADS, help="One workload alone.")
    arguments = parser.parse_args()
    kinds = [kind for kind in KINDS if arguments.only in (None, kind)]
    loads = [load for load in LOADS if arguments.load in (None, load)]
    before = machine.load()
    found: dict[str, list[Runs]] = {kind: [] for kind in kinds}
    with stage() as stood:
        for kind in kinds:
            stood.run("warm", kind)
        for _ in range(arguments.runs):
            for kind in kinds:
                found[kind].append({load: stood.run(load, kind) for load in loads})
                for row in (row for row in ROWS if row.load in loads):
                    sys.stderr.write(f"{kind}: {row.title}: {row.figure(found[kind][-1][row.load]):.3g}\n")
    print(f"{machine.describe()}; load before {before:.1f}, after {machine.load():.1f}; {arguments.runs} runs\n")
    print(table(found, loads))
    print(
        "\n"
        + ", ".join(
            f"`{name.removeprefix('AIRFLOW__').replace('__', '.').lower()}` {value}" for name, value in CAPS.items()
        )
    )


def table(found: Mapping[str, list[Runs]], loads: list[str]) -> str:
    """Return the medians, and the ratio of the two executors."""
    titles = {"modal": "ModalExecutor", "local": "LocalExecutor"}
    both = len(found) == len(KINDS)
    lines = [f"| | goal | {' | '.join(titles[kind] for kind in found)} |" + (" ratio |" if both else "")]
    lines.append("|---|---|" + "---:|" * (len(found) + both))
    for row in ROWS:
        if row.load in loads:
            values = [statistics.median(row.figure(runs[row.load]) for runs in found[kind]) for kind in found]
            cells = [f"{value:.{row.digits}f}" for value in values]
            if both:
                cells.append(f"{values[0] / values[1]:.2f}" if values[1] else "")
            lines.append(f"| {row.title} | {row.goal} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
