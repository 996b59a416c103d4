"""The last check before a submission: a call is admitted, held until its gate opens, or refused."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from modalflow.executor.budgets.running_costs import RunningCosts
from modalflow.executor.holds.verdict import Gate, Verdict
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

    def __init__(self, gates: Sequence[Gate], costs: RunningCosts, outcomes: Outcomes, metrics: Metrics) -> None:
        """The first gate with a verdict on a call decides."""
        self._gates = gates
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
        verdict = self._verdict(call)
        if verdict is None:
            self._costs.not_begun([call.work_id], time.time())
            return True
        if not verdict.refuses:
            self._held[call.work_id] = Held(call, verdict, time.monotonic())
            return False
        self._metrics.counts["refused_by_budget"] += 1
        self._outcomes.fail(call, explain(Cause.OVER_BUDGET, detail=verdict.reason), Cause.OVER_BUDGET)
        return False

    def _verdict(self, call: Call) -> Verdict | None:
        return next((verdict for gate in self._gates if (verdict := gate.verdict(call)) is not None), None)

    def holds(self, call: Call) -> bool:
        """Return whether a call is held."""
        return call.work_id in self._held

    def reason(self, call: Call) -> str:
        """Return why a call is held; empty if it is not."""
        if call.work_id not in self._held:
            return ""
        verdict = self._verdict(call) or self._held[call.work_id].verdict
        return verdict.reason

    def short_reason(self, call: Call) -> str:
        """Return in a few words why a call is held; empty if it is not."""
        if call.work_id not in self._held:
            return ""
        return self._held[call.work_id].verdict.short_reason

    def freed(self) -> list[Held]:
        """Return the calls without a hold now, the oldest first, and forget them. The reasons of the others are
        renewed."""
        freed = []
        for work_id, held in list(self._held.items()):
            verdict = self._verdict(held.call) if held.call.phase is Phase.QUEUED else None
            if verdict is not None and not verdict.refuses:
                self._held[work_id] = dataclasses.replace(held, verdict=verdict)
            else:
                del self._held[work_id]
                freed.append(held)
        # Some were held before, and then again.
        return sorted(freed, key=lambda held: held.call.accepted_at)

    def ended(self) -> list[Held]:
        """Return the calls that ended or began during their hold, and forget them: they need no slot on top."""
        ended = [held for held in self._held.values() if held.call.phase is not Phase.QUEUED]
        for held in ended:
            del self._held[held.call.work_id]
        return ended

    @property
    def waits_for_a_check(self) -> bool:
        """Whether a call is held for a reason that may be gone within seconds."""
        return any(held.verdict.passes for held in self._held.values())

    def by_profile(self) -> dict[str, int]:
        """Return how many calls each paused profile holds."""
        return dict(Counter(held.verdict.paused_profile for held in self.held if held.verdict.paused_profile))

    def clear(self) -> None:
        """Forget the held calls: they are submitted anew."""
        self._held.clear()

    @property
    def held(self) -> list[Held]:
        """The held calls."""
        return list(self._held.values())
