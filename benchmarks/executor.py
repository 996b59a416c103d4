"""``make bench-executor``: the executor's cost for the scheduler and Modal, beside the naive design.

Prints a table in Markdown. Every RPC takes 100 ms longer than it would, of containers' too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import executor_measures as measures
from benchmarks import machine
from benchmarks.executor_measures import Figures
from benchmarks.executor_rpcs import RpcsOfATask
from benchmarks.executor_stage import LATENCY, stage


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    figure: str
    title: str
    goal: str = ""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    submitted: int
    running: int
    fewer: int
    ends: int
    burst: int
    memory: int
    naive: int
    grown: int
    tasks: int


FULL = Sizes(1000, 10_000, 100, 250, 10_000, 2000, 50, 100_000, 24)
QUICK = Sizes(200, 500, 100, 60, 500, 300, 10, 0, 8)

ROWS = (
    Row("submitted", "all of {submitted} workloads submitted after the heartbeat (s)", "<= 2"),
    Row("cpu per submission", "processor time of a submission, all threads (ms)"),
    Row("handed over", "the heartbeat that hands them over (ms)"),
    Row("heartbeat p50", "heartbeat with {running} running, p50 (ms)"),
    Row("heartbeat p99", "the same, p99 (ms)", "<= 5"),
    Row("heartbeat cpu p99", "its processor time, p99 (ms)"),
    Row("RPCs per heartbeat", "RPCs per heartbeat with {running} running, half a task beginning and ending in each"),
    Row("RPCs per heartbeat without work", "the same without those of a beginning or an end"),
    Row("fewer: RPCs per heartbeat without work", "the same with {fewer} running", "as above"),
    Row("outcome after event p50", "outcome ready after its event was accepted, p50 (s)"),
    Row("outcome after event p95", "the same, p95 (s)", "<= 0.5"),
    Row("outcome after end p50", "outcome ready after the work ended, p50 (s)"),
    Row("outcome after end p95", "the same, p95 (s): the worker's three RPCs are in it"),
    Row("burst: heartbeats", "heartbeats that tell Airflow of {burst} outcomes known at once"),
    Row("burst: cpu of the longest", "processor time of the longest of them (ms)"),
    Row("burst: cpu of the median", "the same, median (ms)"),
    Row("memory", "Python objects of a running workload (KiB)", "<= 4"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Little of everything: less than a minute.")
    parser.add_argument("--only", default="", help="The part to measure: submission, running, burst, memory, ….")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    parts = [name for name in PARTS if arguments.only in name]
    before = machine.load()
    ours: Figures = {}
    theirs: Figures = {}
    with stage() as stood:
        for name in parts:
            if name == "naive":
                theirs = told(name, measures.naive(stood, sizes.naive))
            elif name == "fewer":
                fewer = measures.running(stood, sizes.fewer, sizes.ends)
                ours |= told(name, {f"fewer: {title}": figure for title, figure in fewer.items()})
            elif name in SIZED:
                ours |= told(name, getattr(measures, name)(stood, *(getattr(sizes, size) for size in SIZED[name])))
    print(f"{machine.describe()}; load before {before:.1f}, after {machine.load():.1f}; {LATENCY} for each RPC\n")
    if ours or theirs:
        print(table(sizes, ours, theirs), flush=True)
    if "rpcs" in parts:
        print("\n" + RpcsOfATask.counted(sizes.tasks).table(), flush=True)
    if "growth" in parts and sizes.grown:
        print("\n" + "\n".join(grown(sizes)), flush=True)


SIZED = {
    "submission": ("submitted",),
    "running": ("running", "ends"),
    "burst": ("burst",),
    "memory": ("memory",),
}
PARTS = ("submission", "fewer", "running", "burst", "memory", "naive", "rpcs", "growth")


def told(part: str, figures: Figures) -> Figures:
    """Report the progress beside the table."""
    for title, figure in figures.items():
        sys.stderr.write(f"{part}: {title}: {figure:.3g}\n")
    return figures


def table(sizes: Sizes, ours: Figures, theirs: Figures) -> str:
    """Return the rows with figures."""
    lines = [f"| | goal | ModalExecutor | naive, of {sizes.naive} workloads |", "|---|---|---:|---:|"]
    for row in ROWS:
        if row.figure in ours or row.figure in theirs:
            title = row.title.format(**{name: f"{value:,}" for name, value in vars(sizes).items()})
            lines.append(f"| {title} | {row.goal} | {_shown(ours, row.figure)} | {_shown(theirs, row.figure)} |")
    return "\n".join(lines)


def _shown(figures: Figures, name: str) -> str:
    if name not in figures:
        return ""
    figure = figures[name]
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.2g}"


def grown(sizes: Sizes) -> Iterator[str]:
    """100,000 workloads through one executor, without latency: at each tenth, its memory."""
    yield "| workloads so far | resident memory (MB) | Python objects |"
    yield "|---:|---:|---:|"
    with stage(None) as stood:
        for done, megabytes, objects in measures.growth(stood, sizes.grown):
            if done % (sizes.grown // 10) == 0:
                line = f"| {done:,} | {megabytes:.1f} | {objects:,} |"
                sys.stderr.write(line + "\n")
                yield line


if __name__ == "__main__":
    main()
