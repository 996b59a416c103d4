"""The check of calls against budgets before their submission. No I/O and no clock.

Owns the last balances. ``BudgetWatch`` renews them every second or two, so an answer here costs a look-up per budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from modalflow.budgets.spending import Balance
from modalflow.config.budgets import EACH, Budget, BudgetAction, Scope
from modalflow.cost.rates import money
from modalflow.executor.budgets.running_costs import RunningCosts
from modalflow.executor.holds.verdict import Verdict, is_limited
from modalflow.executor.lifecycle.call import Call


class BudgetGate:
    """Answers for each call whether it may be submitted."""

    def __init__(self, budgets: Sequence[Budget], costs: RunningCosts) -> None:
        self._budgets = budgets
        self._costs = costs
        self._balances: Mapping[tuple[Budget, str], Balance] = {}
        self._periods: Mapping[str, str] = {}
        self.unknown = "the records of the costs so far are not read yet" if budgets else ""
        """Why the spend is not known; empty if it is."""

    @property
    def budgets(self) -> Sequence[Budget]:
        return self._budgets

    def update(self, balances: Sequence[Balance], next_periods: Mapping[str, str]) -> None:
        """Use these balances from now on. ``next_periods`` has when the next day and month begin, for users."""
        self._balances = {(each.budget, each.subject): each for each in balances}
        self._periods = next_periods
        self.unknown = ""

    def verdict(self, call: Call) -> Verdict | None:
        """Return the verdict on a call; None if it may be submitted. Refusals go before holds."""
        if not self._budgets or not is_limited(call):
            return None
        return min(self._verdicts(call), key=lambda each: (each.passes, not each.refuses), default=None)

    def _verdicts(self, call: Call) -> Iterator[Verdict]:
        """Yield the verdict of each budget that holds or refuses a call."""
        spender = self._costs.spender(call)
        for budget in self._budgets:
            subject = budget.subject(spender)
            if subject is None or budget.action is BudgetAction.WARN:
                continue
            balance = self._balances.get((budget, subject)) or Balance(budget, subject)
            if self.unknown:
                reason = f"the budget of {budget.label(subject)} cannot be checked: {self.unknown}"
                yield _verdict(balance, reason, passes=True)
            elif balance.is_used_up:
                yield _verdict(balance, self.reason(balance), refuses=budget.action is BudgetAction.REFUSE)
            elif balance.may_be_used_up:
                reason = (
                    f"the budget of {budget.label(subject)} may be used up by submitted tasks; the executor checks "
                    "which of them run"
                )
                yield _verdict(balance, reason, passes=True)

    def reason(self, balance: Balance) -> str:
        """Return the words for a used up budget."""
        budget = balance.budget
        running = f", {money(balance.running)} of it by running or just ended tasks" if balance.running else ""
        begins = self._periods.get(budget.per.value, "")
        return (
            f"the budget of {budget.label(balance.subject)} is used up: {money(balance.used)} spent{running} "
            f"(an estimate). The next {budget.per} begins at {begins}"
        )

    @property
    def used_up(self) -> list[Balance]:
        """The balances of used up budgets."""
        return [each for each in self._balances.values() if each.is_used_up]

    @property
    def used_up_or_in_doubt(self) -> list[Balance]:
        """The balances of budgets used up for sure, or perhaps."""
        return [each for each in self._balances.values() if each.may_be_used_up]

    @property
    def in_doubt(self) -> bool:
        """Whether submitted calls without a known container matter: a budget may be used up by them, or it holds or
        refuses and is used up, and they are to be recalled."""
        return any(
            each.may_be_used_up and each.unsure and not (each.is_used_up and each.budget.action is BudgetAction.WARN)
            for each in self._balances.values()
        )

    @property
    def is_certain(self) -> bool:
        """Whether each budget either has money or is used up, whatever runs of the submitted calls."""
        return all(each.is_used_up or not each.may_be_used_up for each in self._balances.values())

    def shares_used(self) -> dict[str, float]:
        """Return the used share of each budget, by a name for metrics; of several subjects, the largest."""
        found: dict[str, float] = {}
        for balance in self._balances.values():
            limit = balance.budget.dollars
            share = float(balance.used / limit) if limit else 1.0
            name = metric_name(balance.budget)
            found[name] = max(found.get(name, 0.0), share)
        return found


def _verdict(balance: Balance, reason: str, *, refuses: bool = False, passes: bool = False) -> Verdict:
    short = f"held by the budget of {balance.budget.label(balance.subject)}"
    return Verdict(reason, short, "its budget has money again", refuses=refuses, passes=passes)


def metric_name(budget: Budget) -> str:
    """Return a budget's name in metrics, such as ``dag.etl.day``."""
    name = "each" if budget.name == EACH else "".join(c if c.isalnum() or c in "_-" else "_" for c in budget.name)
    parts = [budget.scope.value, name, budget.per.value] if budget.scope is not Scope.ALL else ["all", budget.per.value]
    return ".".join(parts)
