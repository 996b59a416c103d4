"""``python -m tests.chaos.soak --tasks 2000 --seed 7``: many real tasks, and faults at random all the while.

At the end every task is in the state it would have without faults, or failed with a reason; none is lost, none was
executed twice. Exit code 1 where that does not hold.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Final

from tests.chaos.faults import FAULTS
from tests.chaos.invariants import leftovers, problems_of_run, reasons_of_run
from tests.chaos.stack import SOAK_DAGS, Chaos, chaos_on
from tests.chaos.tally import Visit
from tests.support import wait_until

#: What is left out: it makes Airflow lose what nobody could keep, or stops everything for too long to be useful.
LEFT_OUT: Final = frozenset({"clock_ahead", "ledger_removed", "app_stopped", "postgres_restarted"})
#: Seconds between the end of a fault and the next one.
PAUSE: Final = (2.0, 10.0)
#: What a machine of few cores bears at once, for each of two schedulers.
ENV: Final = {
    "AIRFLOW__CORE__PARALLELISM": "24",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "64",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
}
#: Seconds for one task, at the least that a machine must do.
SECONDS_A_TASK: Final = 2.0
QUIET: Final = 90.0
#: And for Airflow's processes to be back after a fault, on a machine that has other things to do.
WELL: Final = 600.0
_NAMES: Final = re.compile(r"\b(ta|fc|im|ap|in)-\w+|[0-9a-f]{8}-[0-9a-f-]{27}|\d+(\.\d+)?")


class Soak:
    """The tasks, the faults, and what came of them."""

    def __init__(self, chaos: Chaos, tasks: int, seed: int) -> None:
        self.chaos = chaos
        self.random = Random(seed)
        self.wanted = tasks
        self.runs: list[tuple[str, str]] = []
        self.faults: Counter[str] = Counter()
        self.problems: list[str] = []
        self.began = time.monotonic()

    def carry_out(self) -> None:
        """Start everything, do harm until all has ended, and look."""
        planned = 0
        names = list(SOAK_DAGS)
        while planned < self.wanted:
            dag_id = names[len(self.runs) % len(names)]
            self.runs.append((dag_id, self.chaos.trigger(dag_id, f"soak-{len(self.runs)}")))
            planned += SOAK_DAGS[dag_id]
        self.wanted = planned
        self.say(f"{planned} tasks in {len(self.runs)} DAG runs")
        deadline = time.monotonic() + 300.0 + SECONDS_A_TASK * planned
        while self.left() and time.monotonic() < deadline:
            self.harm()
            until = time.monotonic() + self.random.uniform(*PAUSE)
            while time.monotonic() < until and self.left():
                time.sleep(0.5)
        self.took = time.monotonic() - self.began
        quiet = time.monotonic() + QUIET
        while (left := leftovers(self.chaos)) and time.monotonic() < quiet:
            time.sleep(1.0)
        self.problems += left

    def harm(self) -> None:
        """One fault, from its begin to its end."""
        name = self.random.choice(sorted(set(FAULTS) - LEFT_OUT))
        fault = FAULTS[name]
        self.faults[name] += 1
        self.say(f"{self.progress()}  {name}: {fault.about}")
        try:
            fault.begin(self.chaos, self.random)
            until = time.monotonic() + fault.lasts
            wait_until(lambda: time.monotonic() > until, fault.lasts + 1, "the fault to have lasted")
        finally:
            fault.end(self.chaos, self.random)
        wait_until(self._well, WELL, "Airflow to be well again", 0.5)

    def _well(self) -> bool:
        self.chaos.start_what_ended()
        return self.chaos.all_well()

    def left(self) -> int:
        """How many DAG runs have not ended."""
        [row] = self.chaos.query(
            "select count(*) as left from dag_run where dag_id like 'soak%' and state not in ('success', 'failed')"
        )
        return int(row["left"])

    def states(self) -> Counter[str]:
        """How many task instances are in each state."""
        rows = self.chaos.query(
            "select state, count(*) as number from task_instance where dag_id like 'soak%' group by state"
        )
        return Counter({str(row["state"] or "none"): row["number"] for row in rows})

    def progress(self) -> str:
        """How far all is."""
        return ", ".join(f"{number} {state}" for state, number in sorted(self.states().items()))

    def say(self, what: str) -> None:
        """A line with the time."""
        print(f"{time.monotonic() - self.began:6.0f} s  {what}", flush=True)

    def report(self) -> None:
        """The table at the end; fills ``problems``."""
        by_run: dict[tuple[str, str], list[Visit]] = {run: [] for run in self.runs}
        for visit in self.chaos.tally.visits():
            by_run.setdefault((visit.dag_id, visit.run_id), []).append(visit)
        reasons: Counter[str] = Counter()
        executed: Counter[object] = Counter(visit.what for seen in by_run.values() for visit in seen)
        for dag_id, run_id in self.runs:
            found = problems_of_run(self.chaos, dag_id, run_id, by_run[dag_id, run_id], may_lose=True, often=True)
            self.problems += [f"{dag_id} {run_id}: {problem}" for problem in found]
            for reason in reasons_of_run(self.chaos, dag_id, run_id):
                reasons[_NAMES.sub("…", reason.partition(": ")[2])[:140]] += 1
        tries = self.chaos.query(
            "select try_number, count(*) as number from task_instance where dag_id like 'soak%' group by 1 order by 1"
        )
        total = sum(self.states().values())
        print(f"\n{total} tasks in {self.took:.0f} s: {total / self.took:.1f} tasks/s")
        print("states:", self.progress())
        print("tries: ", ", ".join(f"{row['number']} in try {row['try_number']}" for row in tries))
        print("faults:", ", ".join(f"{name} {times}" for name, times in sorted(self.faults.items())))
        print("reasons why tries were ended from outside:")
        for reason, times in reasons.most_common():
            print(f"  {times:5d}  {reason}")
        doubled = sum(times - 1 for times in executed.values())
        lost = sum(number for state, number in self.states().items() if state not in ("success", "failed"))
        print(f"executions {sum(executed.values())}, doubled {doubled}, lost {lost + max(0, self.wanted - total)}")
        if total != self.wanted:
            self.problems.append(f"{total} task instances; expected {self.wanted}")
        for problem in self.problems:
            print(f"PROBLEM  {problem}")


def main() -> None:
    parser = argparse.ArgumentParser("tests.chaos.soak", description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        Path(folder).chmod(0o755)
        with chaos_on(Path(folder), env=ENV, fault_seed=given.seed) as chaos:
            soak = Soak(chaos, given.tasks, given.seed)
            soak.carry_out()
            soak.report()
    sys.exit(1 if soak.problems else 0)


if __name__ == "__main__":
    main()
