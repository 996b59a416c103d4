"""The loop of budgets: it renews the balances, and acts when a budget is used up or has money again.

Without budgets it does nothing. A round costs no RPC, unless a budget is nearly used up: then the ledger is read as a
whole, at most every few seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from datetime import datetime, timedelta, tzinfo

from modalflow.budgets.spending import Balance, balances, local_day, summed_running
from modalflow.config.budgets import BudgetAction, Per, start_of
from modalflow.executor.budgets.admission import Admission
from modalflow.executor.budgets.gate import BudgetGate, is_limited
from modalflow.executor.budgets.held_tasks import HeldTasks
from modalflow.executor.budgets.recall import Recall
from modalflow.executor.budgets.running_costs import RunningCosts
from modalflow.executor.budgets.spend_keeper import SpendKeeper
from modalflow.executor.connection import Connection
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.decision import Action, Decision
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.metrics import Metrics
from modalflow.protocol.messages import State
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds between two rounds, and between two readings of the ledger.
INTERVAL = 1.0
#: How many times as long as the processor time of a round the pause after it is at least.
REST = 20.0
LEDGER_INTERVAL = 5.0


class BudgetWatch:
    """Keeps the gate's balances up to date."""

    def __init__(
        self,
        zone: tzinfo,
        calls: Calls,
        connection: Connection,
        costs: RunningCosts,
        keeper: SpendKeeper,
        gate: BudgetGate,
        admission: Admission,
        recall: Recall,
        held_tasks: HeldTasks,
        tracker: Tracker,
        outcomes: Outcomes,
        metrics: Metrics,
    ) -> None:
        self._zone = zone
        self._calls = calls
        self._connection = connection
        self._costs = costs
        self._keeper = keeper
        self._gate = gate
        self._admission = admission
        self._recall = recall
        self._held_tasks = held_tasks
        self._tracker = tracker
        self._outcomes = outcomes
        self._metrics = metrics
        self._states: dict[Hashable, bool] = {}
        self._reported: set[Hashable] = set()
        self._to_audit: list[Balance] = []
        self._ledger_read_at = 0.0

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
        if self._gate.in_doubt and time.monotonic() - self._ledger_read_at >= LEDGER_INTERVAL:
            self._ledger_read_at = time.monotonic()
            await self._read_ledger()
            self._renew()
            self._recall_what_has_not_begun()
        self._report()
        released = self._admission.ended()
        if self._has_changed() or self._admission.waits_for_a_check:
            released += self._admission.freed()
        for held in released:
            with self._outcomes.guarding(held.call.work_id, "releasing it after a hold"):
                self._held_tasks.release(held)

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

    async def _read_ledger(self) -> None:
        """Find the submitted calls with a container, from one reading for all of them."""
        began_at = time.time()
        try:
            entries = {entry.work_id: entry for entry in await self._connection.get().ledger()}
        except FAILURES as error:
            log.warning("Which tasks run could not be read for the budgets (%s)", describe(error))
            return
        not_begun = []
        for call in self._calls.in_phase(Phase.WAITING):
            entry = entries.get(call.work_id)
            if entry is None:
                not_begun.append(call.work_id)
            elif entry.state is State.RUNNING:
                with self._outcomes.guarding(call.work_id, "noting its container"):
                    self._tracker.found(call, Decision(Action.WAIT), entry)
        self._costs.not_begun(not_begun, began_at)

    def _recall_what_has_not_begun(self) -> None:
        for call in self._calls.in_phase(Phase.WAITING):
            verdict = self._gate.verdict(call)
            if verdict is not None and not verdict.passes:
                self._recall.recall(call, verdict.reason)

    def _has_changed(self) -> bool:
        """Return whether the gate may answer otherwise than after the last round."""
        states: dict[Hashable, bool] = {
            (id(each.budget), each.subject): each.is_used_up for each in self._gate.used_up_or_in_doubt
        }
        changed, self._states = states != self._states, states
        return changed

    def _report(self) -> None:
        """Log each used up budget, and note it in Airflow's audit log, once in its period."""
        today = local_day(time.time(), self._zone)
        self._reported = {key for key in self._reported if key[2] >= today - timedelta(days=31)}  # type: ignore[index]
        for balance in self._gate.used_up:
            key = (balance.budget, balance.subject, balance.budget.per.first(today))
            if key not in self._reported:
                self._reported.add(key)
                self._metrics.counts[f"over_budget.{balance.budget.action}"] += 1
                log.warning("%s", self._sentence(balance))
                self._to_audit.append(balance)
        self._to_audit = [balance for balance in self._to_audit if not self._audit(balance)]

    def _sentence(self, balance: Balance) -> str:
        reason = self._gate.reason(balance)
        then = {
            BudgetAction.WARN: "Its tasks go on",
            BudgetAction.HOLD: "Its tasks wait until then",
            BudgetAction.REFUSE: "Its tasks fail before they start",
        }[balance.budget.action]
        return f"{reason[:1].upper()}{reason[1:]}. {then}, as set in `[modal_executor] budgets`."

    def _audit(self, balance: Balance) -> bool:
        """Note it at one task of the budget; return False if there is none at present."""
        found = next((call for call in self._calls if self._concerns(balance, call)), None)
        if found is not None:
            self._outcomes.over_budget(found, self._sentence(balance))
        return found is not None

    def _concerns(self, balance: Balance, call: Call) -> bool:
        return is_limited(call) and balance.budget.subject(self._costs.spender(call)) == balance.subject
