"""One fault, injected once, while a DAG run stands at each of several moments.

Brings runs to their moments, injects, lets everybody go on, waits for all ends. What must hold then is checked
elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

from modalflow.emulator.faults.fault_control import Fault as Rule
from modalflow.names import Names
from modalflow.protocol.messages import Entry, State
from tests.chaos.faults import FAULTS
from tests.chaos.invariants import leftovers
from tests.chaos.matrix import seed_of
from tests.chaos.stack import PATIENCE, TASKS, Chaos
from tests.support import wait_until

#: The DAGs that a cell may run, by moment; its seed chooses.
CHOICES: Final = {
    "before": ("chaos_pair", "chaos_mapped", "chaos_phases"),
    "waiting": ("chaos_pair_gpu", "chaos_mapped_gpu", "chaos_phases_gpu"),
    "claiming": ("chaos_pair", "chaos_phases"),
    "running": ("chaos_pair", "chaos_mapped"),
    "deferring": ("chaos_phases", "chaos_phases_once"),
    "ending": ("chaos_pair", "chaos_mapped"),
    "delivering": ("chaos_pair", "chaos_mapped"),
}
EVENTS: Final = f"queue/{Names().events}"
FIRST_PHASES: Final = ("execute", "poke-0")

#: Seconds for all runs of a row to end after the fault has.
END: Final = 240.0
#: And for what they used to be given back.
QUIET: Final = 40.0


@dataclass
class Run:
    """The DAG run of one cell."""

    cell: str
    moment: str
    dag_id: str
    run_id: str = ""
    reached: bool = False
    """Whether it stood at its moment when the fault was injected."""

    @property
    def tasks(self) -> int:
        return TASKS[self.dag_id.removesuffix("_gpu")]


@dataclass
class Row:
    """Carries out one row of the matrix, for some of its moments."""

    chaos: Chaos
    fault: str
    moments: Sequence[str]
    runs: dict[str, Run] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    is_done: bool = False
    left: list[str] = field(default_factory=list)
    """What is still there after everything has ended."""

    def __post_init__(self) -> None:
        self.random = Random(seed_of(self.fault))
        for moment in self.moments:
            cell = f"{self.fault}-{moment}"
            self.runs[moment] = Run(cell, moment, Random(seed_of(cell)).choice(CHOICES[moment]))
        self._began = time.monotonic()

    def carry_out(self) -> None:
        """Everything, from the first trigger to the last end."""
        try:
            self._inject_and_go_on()
        finally:
            # Where something went wrong as well: the next row needs the GPU, and nobody may wait for ever.
            self._let_go()
        self._wait_for_ends()
        self._wait_for_quiet()
        self.is_done = True

    def _inject_and_go_on(self) -> None:
        chaos, fault = self.chaos, FAULTS[self.fault]
        rules: list[Rule] = []
        try:
            self._bring_to_gates()
            rules += self._bring_to_claim()
            chaos.stop_schedulers()
            rules += self._bring_to_end()
            rules += self._bring_to_deferral()
            self._trigger("before")
            self._look()
            self._step(f"injecting: {fault.about}")
            fault.begin(chaos, self.random)
        finally:
            chaos.continue_schedulers()
        try:
            self._clear(rules)
            if fault.held:
                held = time.monotonic() + fault.held
                wait_until(lambda: time.monotonic() > held, fault.held + 1, "who is held to have been")
            self._let_go()
            if fault.lasts:
                until = time.monotonic() + fault.lasts
                wait_until(lambda: time.monotonic() > until, fault.lasts + 1, "the fault to have lasted")
        finally:
            fault.end(chaos, self.random)
        self._step("the fault is over")

    def _let_go(self) -> None:
        for run in self.runs.values():
            self.chaos.tally.open(run.cell)
        self.chaos.release_gpu()

    # moments

    def _bring_to_gates(self) -> None:
        """Those that wait at a gate, and the one that waits for a GPU."""
        if "waiting" in self.runs:
            self.chaos.occupy_gpu()
        at_gates = [self.runs[m] for m in ("running", "deferring", "ending", "delivering") if m in self.runs]
        for run in at_gates:
            self.chaos.tally.close(run.cell, *FIRST_PHASES)
            self._trigger(run.moment)
        self._trigger("waiting")
        for run in at_gates:
            self._wait(partial(self._arrived, run), f"{run.cell} at its gate")
        waiting = self.runs.get("waiting")
        if waiting is not None:
            self._wait(lambda: len(self._calls(waiting)) == waiting.tasks, f"{waiting.cell} submitted")

    def _bring_to_claim(self) -> list[Rule]:
        run = self.runs.get("claiming")
        if run is None:
            return []
        self.chaos.tally.close(run.cell, *FIRST_PHASES)
        rule = self._rule(f"DictUpdate:lost-reply=held,count={run.tasks},for=containers")
        self._trigger("claiming")
        self._wait(lambda: len(self._entries(run)) == run.tasks, f"{run.cell} claimed")
        return [rule]

    def _bring_to_end(self) -> list[Rule]:
        rules = []
        told = self.runs.get("delivering")
        if told is not None:
            rule = self._rule(f"{EVENTS}:delay-put=1ms")
            self.chaos.tally.open(told.cell)
            self._wait(lambda: self._seen(rule) >= told.tasks, f"{told.cell} to have sent its events")
            self._clear([rule])
        run = self.runs.get("ending")
        if run is not None:
            rules.append(self._rule(f"{EVENTS}:delay-put=4s"))
            self.chaos.tally.open(run.cell)
            self._wait(lambda: self._ended(run), f"{run.cell} to be ended in the ledger")
        return rules

    def _bring_to_deferral(self) -> list[Rule]:
        run = self.runs.get("deferring")
        if run is None:
            return []
        rule = self._rule("DictUpdate:delay=4s,for=containers")
        self.chaos.tally.open(run.cell)
        self._wait(lambda: self._deferred(run), f"{run.cell} to be deferred")
        return [rule]

    # how far a run is

    def _arrived(self, run: Run) -> bool:
        return len({visit.what for visit in self.chaos.tally.visits(run.cell)}) >= run.tasks

    def _calls(self, run: Run) -> list[str]:
        instances = self.chaos.instances(run.dag_id, run.run_id)
        found = (str(instance["external_executor_id"]) for instance in instances)
        return [each for each in found if each.startswith("fc-")]

    def _entries(self, run: Run) -> list[Entry]:
        instances = self.chaos.instances(run.dag_id, run.run_id)
        found = (self.chaos.entry(instance["external_executor_id"]) for instance in instances)
        return [entry for entry in found if entry is not None]

    def _ended(self, run: Run) -> bool:
        return sum(entry.state is not State.RUNNING for entry in self._entries(run)) == run.tasks

    def _deferred(self, run: Run) -> bool:
        # The trigger, or the time, may have passed already: the scheduler that would go on is stopped.
        states = [instance["state"] for instance in self.chaos.instances(run.dag_id, run.run_id)]
        return all(state in ("deferred", "up_for_reschedule", "scheduled") for state in states)

    def _look(self) -> None:
        """Note which runs stand at their moment: on a slow machine one may have gone on by itself."""
        for run in self.runs.values():
            visits = bool(self.chaos.tally.visits(run.cell))
            at_gate = run.moment in ("running", "deferring", "ending", "delivering")
            run.reached = visits == at_gate
            self._step(f"{run.cell} ({run.dag_id}): {'at its moment' if run.reached else 'MOMENT MISSED'}")

    # small things

    def _trigger(self, moment: str) -> None:
        if (run := self.runs.get(moment)) is not None:
            run.run_id = self.chaos.trigger(run.dag_id, run.cell)

    def _rule(self, spec: str) -> Rule:
        return self.chaos.stack.local.faults.add(spec)

    def _seen(self, rule: Rule) -> int:
        return next(each.seen for each in self.chaos.stack.local.faults.list() if each.id == rule.id)

    def _clear(self, rules: Sequence[Rule]) -> None:
        known = {each.id for each in self.chaos.stack.local.faults.list()}
        self.chaos.stack.local.faults.clear([rule.id for rule in rules if rule.id in known])

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        wait_until(condition, PATIENCE, what, interval=0.1)
        self._step(what)

    def _wait_for_ends(self) -> None:
        def ended() -> bool:
            rows = self.chaos.query(
                "select state from dag_run where run_id = any(:runs) and dag_id like 'chaos%'",
                runs=[run.run_id for run in self.runs.values()],
            )
            return all(row["state"] in ("success", "failed") for row in rows)

        deadline = time.monotonic() + END
        while not ended() and time.monotonic() < deadline:
            time.sleep(0.25)
        # Who has not ended fails its own cell, and says where it stands.
        self._step("all runs have ended" if ended() else "SOME RUNS HAVE NOT ENDED")

    def _wait_for_quiet(self) -> None:
        """The last outcomes are delivered and forgotten a moment after the runs have ended."""
        deadline = time.monotonic() + QUIET
        while (left := leftovers(self.chaos)) and time.monotonic() < deadline:
            time.sleep(0.5)
        self.left = left
        self._step("nothing is left" if not left else f"LEFT: {left}")

    def _step(self, what: str) -> None:
        self.steps.append(f"{time.monotonic() - self._began:6.1f} s  {what}")
