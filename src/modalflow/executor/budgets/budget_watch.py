"""The loop of budgets: it renews the balances, and acts when a budget is used up or has money again.

Without budgets it does nothing. A round costs no RPC, unless a budget is nearly used up: then the ledger is read as a
whole, at most every few seconds.
"""

from __future__ import annotations

import asyncio
import time
from datetime import date, datetime, tzinfo
from typing import NamedTuple

from modalflow.budgets.spending import Balance, balances, local_day, summed_running
from modalflow.config.budgets import Budget, BudgetAction, Per, start_of
from modalflow.executor.budgets.gate import BudgetGate
from modalflow.executor.budgets.running_costs import RunningCosts
from modalflow.executor.budgets.spend_keeper import SpendKeeper
from modalflow.executor.holds.admission import Admission
from modalflow.executor.holds.held_tasks import HeldTasks
from modalflow.executor.holds.ledger_reading import LedgerReading
from modalflow.executor.holds.recall import Recall
from modalflow.executor.holds.verdict import is_limited
from modalflow.executor.lifecycle.call import Phase
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.metrics import Metrics
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds between two rounds, and between two readings of the ledger.
INTERVAL = 1.0
#: How many times as long as the processor time of a round the pause after it is at least.
REST = 20.0
LEDGER_INTERVAL = 5.0
#: The same while every budget in question is used up for sure, and the last reading changed nothing: what is left are
#: calls that cannot be recalled, such as adopted ones.
IDLE_LEDGER_INTERVAL = 60.0


class _Event(NamedTuple):
    """The moment at which a budget of a subject was used up: once in a period."""

    budget: Budget
    subject: str
    period: date
    """The first day of it."""


class BudgetWatch:
    """Keeps the gate's balances up to date."""

    def __init__(
        self,
        zone: tzinfo,
        calls: Calls,
        costs: RunningCosts,
        keeper: SpendKeeper,
        gate: BudgetGate,
        admission: Admission,
        recall: Recall,
        held_tasks: HeldTasks,
        ledger: LedgerReading,
        outcomes: Outcomes,
        metrics: Metrics,
    ) -> None:
        self._zone = zone
        self._calls = calls
        self._costs = costs
        self._keeper = keeper
        self._gate = gate
        self._admission = admission
        self._recall = recall
        self._held_tasks = held_tasks
        self._ledger = ledger
        self._outcomes = outcomes
        self._metrics = metrics
        self._states: dict[tuple[Budget, str], bool] = {}
        self._reported: set[_Event] = set()
        self._to_audit: dict[_Event, Balance] = {}
        """Those for which no call was there yet, at which Airflow's audit log could name them."""
        self._ledger_due_at = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        if not self._gate.budgets:
            return await asyncio.Event().wait() and None
        while True:
            began = time.thread_time()
            try:
                await self.round()
            except Exception:
                log.exception("Checking the budgets failed; the next check goes on")
            await asyncio.sleep(max(INTERVAL, REST * (time.thread_time() - began)))

    async def round(self) -> None:
        """Renew the balances, and act on them."""
        if not self._keeper.is_known:
            self._gate.unknown = self._keeper.problem or self._gate.unknown
            return
        self._renew()
        if self._gate.in_doubt and time.monotonic() >= self._ledger_due_at:
            was_certain = self._gate.is_certain
            began = await self._read_ledger()
            self._renew()
            recalled = self._recall_what_has_not_begun()
            is_idle = was_certain and not began and not recalled
            self._ledger_due_at = time.monotonic() + (IDLE_LEDGER_INTERVAL if is_idle else LEDGER_INTERVAL)
        self._report()
        self._held_tasks.release(changed=self._has_changed() or self._admission.waits_for_a_check)

    def _renew(self) -> None:
        now = time.time()
        own = self._costs.running(self._calls, now)
        self._keeper.runs_work_of({call.partition for call in self._calls if call.partition})
        running = summed_running([own, self._keeper.others(now)])
        self._gate.update(balances(self._gate.budgets, self._keeper.spent(now), running), self._next_periods(now))

    def _next_periods(self, now: float) -> dict[str, str]:
        today = local_day(now, self._zone)
        found = {}
        for per in Per:
            begins = datetime.fromtimestamp(start_of(per.end(today), self._zone), self._zone)
            found[per.value] = f"{begins:%Y-%m-%d %H:%M %Z}"
        return found

    async def _read_ledger(self) -> int:
        """Find the submitted calls with a container; return their number."""
        began_at = time.time()
        try:
            found = await self._ledger.read()
        except FAILURES as error:
            log.warning("Which tasks run could not be read for the budgets (%s)", describe(error))
            return 0
        self._costs.not_begun(found.not_begun, began_at)
        return found.begun

    def _recall_what_has_not_begun(self) -> int:
        """Return how many calls are recalled."""
        recalled = 0
        for call in self._calls.in_phase(Phase.WAITING):
            verdict = self._gate.verdict(call)
            if verdict is not None and not verdict.passes:
                recalled += self._recall.recall(call, verdict.reason)
        return recalled

    def _has_changed(self) -> bool:
        """Return whether the gate may answer otherwise than after the last round."""
        states = {(each.budget, each.subject): each.is_used_up for each in self._gate.used_up_or_in_doubt}
        changed, self._states = states != self._states, states
        return changed

    def _report(self) -> None:
        """Log each used up budget, and note it in Airflow's audit log, once in its period."""
        today = local_day(time.time(), self._zone)
        self._reported = {event for event in self._reported if _is_of(event, today)}
        for balance in self._gate.used_up:
            event = _Event(balance.budget, balance.subject, balance.budget.per.first(today))
            if event not in self._reported:
                self._reported.add(event)
                self._metrics.counts[f"over_budget.{balance.budget.action}"] += 1
                log.warning("%s", self._sentence(balance))
                self._to_audit[event] = balance
        self._audit(today)

    def _sentence(self, balance: Balance) -> str:
        reason = self._gate.reason(balance)
        then = {
            BudgetAction.WARN: "Its tasks go on",
            BudgetAction.HOLD: "Its tasks wait until then",
            BudgetAction.REFUSE: "Its tasks fail before they start",
        }[balance.budget.action]
        return f"{reason[:1].upper()}{reason[1:]}. {then}, as set in `[modal_executor] budgets`."

    def _audit(self, today: date) -> None:
        """Note used up budgets at one task each; the others wait for such a task until their period ends."""
        if not self._to_audit:
            return
        spenders = {self._costs.spender(call): call for call in self._calls if is_limited(call)}
        budgets = {event.budget for event in self._to_audit}
        tasks = {(budget, budget.subject(spender)): call for spender, call in spenders.items() for budget in budgets}
        left = {}
        for event, balance in self._to_audit.items():
            if (call := tasks.get((event.budget, event.subject))) is not None:
                self._outcomes.over_budget(call, self._sentence(balance))
            elif _is_of(event, today):
                left[event] = balance
        self._to_audit = left


def _is_of(event: _Event, today: date) -> bool:
    """Return whether the period of an event is still the current one."""
    return event.period == event.budget.per.first(today)
