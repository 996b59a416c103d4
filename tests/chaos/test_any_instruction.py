"""A scheduler killed with -9 at any line of the executor's code loses no task, and lets none run twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from random import Random

import pytest

from tests.chaos.doomed import VARIABLE
from tests.chaos.invariants import leftovers, problems_of_run, story
from tests.chaos.matrix import seed_of
from tests.chaos.row import END, QUIET
from tests.chaos.stack import PATIENCE, SCHEDULERS, Chaos
from tests.support import wait_until

pytestmark = pytest.mark.timeout(1800)

#: How often a scheduler dies: in `make chaos`, and in `make test`.
DEATHS = 60 if os.environ.get("CHAOS") == "all" else 3
#: Lines of the executor's code that a scheduler lives, at the most: some more than there are between the first
#: workload's arrival and the removal of its entry.
LONGEST = 4000
DAGS = ("chaos_pair", "chaos_mapped", "chaos_phases")


def test_a_scheduler_dies_at_any_line(chaos: Chaos) -> None:
    """While DAG runs go on, both schedulers are killed again and again, each at a line drawn by lot, the early ones as
    likely as the late ones. Every task succeeds, and each of its phases is executed exactly once."""
    random = Random(seed_of("any instruction"))
    dooms = Path(chaos.stack.airflow.env[VARIABLE])
    lines = sorted((int(LONGEST ** random.random()) for _ in range(DEATHS)), key=lambda _: random.random())
    for number, after in enumerate(lines):
        (dooms / f"{number:04}.doom").write_text(str(after))
    # Whoever starts takes one, so that these two are doomed from now on.
    for name in SCHEDULERS:
        chaos.restart(name, signal.SIGKILL)
    runs: list[tuple[str, str, str]] = []

    def all_have_died() -> bool:
        chaos.start_what_ended()
        if not unfinished(chaos, runs):
            cell = f"any-instruction-{len(runs)}"
            dag_id = random.choice(DAGS)
            runs.append((cell, dag_id, chaos.trigger(dag_id, cell)))
        return deaths(chaos) >= DEATHS

    wait_until(all_have_died, PATIENCE + 20.0 * DEATHS, "every doom to have come", interval=0.5)
    wait_until(lambda: not unfinished(chaos, runs), END, "the end of all runs", interval=0.5)
    problems = []
    for cell, dag_id, run_id in runs:
        visits = chaos.tally.visits(cell)
        found = problems_of_run(chaos, dag_id, run_id, visits, may_lose=False)
        problems += [*found, story(chaos, dag_id, run_id, visits)] if found else []
    wait_until(lambda: not leftovers(chaos), QUIET, "nothing to be left", interval=1.0)
    assert not problems, "\n".join([f"{len(runs)} runs; dead at {lines}", *problems])


def deaths(chaos: Chaos) -> int:
    """How often a scheduler has died at its line."""
    logs = (chaos.stack.airflow.programs[name].log.read_text(errors="replace") for name in SCHEDULERS)
    return sum(log.count("doomed at ") for log in logs)


def unfinished(chaos: Chaos, runs: list[tuple[str, str, str]]) -> list[str]:
    """The DAG runs that have not ended."""
    states = {
        row["run_id"]: row["state"]
        for row in chaos.query("select run_id, state from dag_run where conf::text like '%any-instruction%'")
    }
    return [run_id for _, _, run_id in runs if states.get(run_id) not in ("success", "failed")]
