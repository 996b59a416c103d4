"""The last check before a submission: a call is admitted, held until its budget has money, or refused."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from modalflow.config.budgets import BudgetAction
from modalflow.executor.budgets.gate import BudgetGate, Verdict
from modalflow.executor.budgets.running_costs import RunningCosts
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.reporting.metrics import Metrics
from modalflow.reasons import Cause, explain


@dataclass(frozen=True, slots=True)
class Held:
    """A held call."""

    call: Call
    verdict: Verdict
    since: float
    """By the monotonic clock."""


class Admission:
    """Admits calls, and keeps held ones."""

    def __init__(self, gate: BudgetGate, costs: RunningCosts, outcomes: Outcomes, metrics: Metrics) -> None:
        self._gate = gate
        self._costs = costs
        self._outcomes = outcomes
        self._metrics = metrics
        self._held: dict[str, Held] = {}
        """By work id."""

    def __len__(self) -> int:
        """Return how many calls are held."""
        return len(self._held)

    def admits(self, call: Call) -> bool:
        """Return whether a call may be submitted now. Otherwise it is held, or has failed."""
        verdict = self._gate.verdict(call)
        if verdict is None:
            if self._gate.budgets:
                self._costs.not_begun([call.work_id], time.time())
            return True
        if verdict.action is BudgetAction.HOLD:
            self._held[call.work_id] = Held(call, verdict, time.monotonic())
            return False
        self._metrics.counts["refused_by_budget"] += 1
        self._outcomes.fail(call, explain(Cause.OVER_BUDGET, detail=verdict.reason), Cause.OVER_BUDGET)
        return False

    def holds(self, call: Call) -> bool:
        """Return whether a call is held."""
        return call.work_id in self._held

    def reason(self, call: Call) -> str:
        """Return why a call is held; empty if it is not."""
        if call.work_id not in self._held:
            return ""
        verdict = self._gate.verdict(call) or self._held[call.work_id].verdict
        return verdict.reason

    def short_reason(self, call: Call) -> str:
        """Return in a few words why a call is held; empty if it is not."""
        if call.work_id not in self._held:
            return ""
        balance = self._held[call.work_id].verdict.balance
        return f"held by the budget of {balance.budget.label(balance.subject)}"

    def freed(self) -> list[Held]:
        """Return the calls without a hold now, and forget them. The reasons of the others are renewed."""
        freed = []
        for work_id, held in list(self._held.items()):
            verdict = self._gate.verdict(held.call) if held.call.phase is Phase.QUEUED else None
            if verdict is not None and verdict.action is BudgetAction.HOLD:
                self._held[work_id] = dataclasses.replace(held, verdict=verdict)
            else:
                del self._held[work_id]
                freed.append(held)
        return freed

    def ended(self) -> list[Held]:
        """Return the calls that ended or began during their hold, and forget them: they need no slot on top."""
        ended = [held for held in self._held.values() if held.call.phase is not Phase.QUEUED]
        for held in ended:
            del self._held[held.call.work_id]
        return ended

    @property
    def waits_for_a_check(self) -> bool:
        """Whether a call is held only until the spent dollars are known."""
        return any(held.verdict.passes for held in self._held.values())

    def clear(self) -> None:
        """Forget the held calls: they are submitted anew."""
        self._held.clear()

    @property
    def held(self) -> list[Held]:
        """The held calls."""
        return list(self._held.values())
