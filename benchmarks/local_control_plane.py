"""``make bench``: how fast the local control plane is, with its fork server and with a new process per container.

Prints a table in Markdown. Each figure is the median of several runs. The two variants take turns, so other load hits
both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from dataclasses import dataclass
from typing import Any

import modal
from modal_proto import api_pb2

from benchmarks import machine
from benchmarks.measures import Bench, ready
from modalflow.emulator.local import LocalModal


@dataclass(frozen=True)
class Measure:
    """A row of the table."""

    title: str
    unit: str
    goal: str
    method: str
    once: bool = False
    """Taken of one control plane of each variant only: it takes long and always comes out the same."""


MEASURES = (
    Measure("control plane ready after its start", "s", "<= 0.5", "ready"),
    Measure("cold: spawn to body", "ms", "<= 60", "cold_start"),
    Measure("cold, with an empty Volume", "ms", "", "cold_start_with_empty_volume"),
    Measure(
        "cold, with a Volume of 5,000 files and 200 MB", "ms", "as empty", "cold_start_with_large_volume", once=True
    ),
    Measure("warm: spawn to result, p50", "ms", "<= 8", "warm_call"),
    Measure("warm: spawn to result, p95", "ms", "", "warm_call_p95"),
    Measure("20 cold starts at once, last body", "s", "<= 0.5", "cold_starts_at_once"),
    Measure("spawns of one client, 100 at a time", "/s", ">= 1,000", "spawns_per_second"),
    Measure("map of 10,000 no-op inputs, 50 at once in each of 4 containers", "/s", ">= 500", "mapped_per_second"),
    Measure("the same: processor time of an input, all processes", "ms", "<= 4", "cpu_of_mapped"),
    Measure("the same, of the control plane", "ms", "<= 1", "cpu_of_mapped_in_control_plane"),
    Measure("memory of an idle container (PSS)", "MB", "<= 20", "memory_per_container"),
    Measure("memory of control plane and template (PSS)", "MB", "", "memory_of_the_rest"),
    Measure("idle CPU, one container", "% of a core", "about 0", "idle_cpu", once=True),
)
VARIANTS: dict[str, dict[str, Any]] = {"fork server": {}, "process per container": {"fork_server": False}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="Control planes started of each variant.")
    parser.add_argument("--only", default="", help="Part of the method's name of the measures to take.")
    parser.add_argument("--no-queue", action="store_true", help="Leave out the 100,000 queued inputs.")
    arguments = parser.parse_args()
    measures = [m for m in MEASURES if arguments.only in m.method]
    figures: dict[tuple[str, str], list[float]] = {}
    before = machine.load()
    for run in range(arguments.runs):
        for variant, options in VARIANTS.items():
            for measure, figure in taken([m for m in measures if run == 0 or not m.once], options):
                figures.setdefault((measure.method, variant), []).append(figure)
                say(f"{variant}: {measure.title}: {figure:.3g} {measure.unit}")
    print(f"{machine.describe()}; load before {before:.1f}, after {machine.load():.1f}; {arguments.runs} runs\n")
    print(table(measures, figures), flush=True)
    if not arguments.no_queue and "queueing".startswith(arguments.only):
        print()
        for title, figure in queued().items():
            print(f"- {title}: {figure:,.3g}" if figure < 1000 else f"- {title}: {figure:,.0f}")


def taken(measures: list[Measure], options: dict[str, Any]) -> list[tuple[Measure, float]]:
    """Take the measures of one control plane."""
    found: list[tuple[Measure, float]] = []
    for measure in measures:
        if measure.method == "ready":
            found += [(measure, ready(**options))]
    if rest := [m for m in measures if m.method != "ready"]:
        with LocalModal(max_containers=100, **options) as local:
            bench = connected(local)
            for measure in rest:
                found += [(measure, getattr(bench, measure.method)())]
    return found


def queued() -> dict[str, float]:
    with LocalModal() as local:
        return connected(local).queueing()


def connected(local: LocalModal) -> Bench:
    os.environ.update(local.env)
    credentials = (local.address.token_id, local.address.token_secret)
    client: Any = modal.Client(local.url, api_pb2.CLIENT_TYPE_CLIENT, credentials)
    bench = Bench(local, client.__enter__())
    bench.deploy()
    return bench


def table(measures: list[Measure], figures: dict[tuple[str, str], list[float]]) -> str:
    lines = [f"| | goal | {' | '.join(VARIANTS)} | ratio |", "|---|---|" + "---:|" * (len(VARIANTS) + 1)]
    for measure in measures:
        values = [statistics.median(figures[measure.method, variant]) for variant in VARIANTS]
        ratio = f"{values[1] / values[0]:.2g}" if values[0] else ""
        shown = " | ".join(f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in values)
        lines.append(f"| {measure.title} ({measure.unit}) | {measure.goal} | {shown} | {ratio} |")
    return "\n".join(lines)


def say(text: str) -> None:
    """Report the progress beside the table."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
