"""The cost of this executor's work without a record: by elapsed time, at the price of its request. No I/O.

Counts ended work until its record has been read, so a sum never falls between the two.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import tzinfo
from decimal import Decimal
from typing import Any, NamedTuple

from modalflow.budgets.spending import Running, Spending, local_day, summed_running
from modalflow.config.budgets import Per, Spender, start_of
from modalflow.cost.rates import DATED, Rates, UnknownRateError
from modalflow.cost.usage import LONGEST_LIFE, Record, Reserved
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.workloads import task_try_of
from modalflow.protocol.messages import Entry

_NOTHING = Decimal(0)


class Grant(NamedTuple):
    """The profile of a call, and its granted resources."""

    profile: str
    granted: Mapping[str, Any]


class RunningCosts:
    """The dollars of running and just ended work, by spender."""

    def __init__(self, team: str, zone: tzinfo, *, wanted: bool) -> None:
        """Without ``wanted``, nothing is counted: there is no budget."""
        self._wanted = wanted
        self._team = team
        self._zone = zone
        self._rates = DATED
        self._prices: dict[Reserved, Decimal] = {}
        self._not_begun: dict[str, float] = {}
        """Submitted work ids → when no container had begun them, as far as is known: seconds since the epoch."""
        self._adopted: dict[str, Grant] = {}
        """By work id of adopted calls: they have no submission here."""
        self._terms_of: dict[str, tuple[Spender, float]] = {}
        """Work id → spender, and the dollars a second."""
        self._rate_of: Mapping[Spender, float] = {}
        self._sharing: Mapping[str, int] = {}
        """Container → how many calls it runs."""
        self.of_calls: Mapping[Spender, Running] = {}
        """The dollars of running work alone, as of the last sum."""
        self._ended = Spending(zone)
        """Work ended since the last reading of records began."""
        self._being_read = Spending(zone)
        """Work that ended before: its records are in the reading under way."""

    @property
    def rates(self) -> Rates:
        """The rates for all dollars of budgets."""
        return self._rates

    def use(self, rates: Rates) -> None:
        """Use other rates from now on."""
        self._rates = rates
        self._prices.clear()
        self._terms_of.clear()

    def spender(self, call: Call) -> Spender:
        """Return the spender of a call."""
        task = task_try_of(call.key)
        grant = self._grant(call)
        return Spender(task.dag_id if task is not None else "", grant.profile if grant else "", self._team)

    def rate(self, spender: Spender) -> float:
        """Return the dollars a second of its running calls."""
        return self._rate_of.get(spender, 0.0)

    def adopted(self, work_id: str, grant: Grant) -> None:
        """Note the grant of a call of another scheduler."""
        if self._wanted:
            self._adopted[work_id] = grant

    def not_begun(self, work_ids: Iterable[str], now: float) -> None:
        """Note calls without a container before now: they are submitted now, or not in the ledger."""
        if not self._wanted:
            return
        for work_id in work_ids:
            self._not_begun[work_id] = now
            # It may have been placed anew.
            self._terms_of.pop(work_id, None)

    def ended(self, call: Call, entry: Entry | None, now: float) -> None:
        """Note the end of a call; ``entry`` is its outcome in the ledger, if there is one."""
        self._not_begun.pop(call.work_id, None)
        self._terms_of.pop(call.work_id, None)
        began_at = entry.started_at if entry is not None else call.started_at
        if self._wanted and began_at and self._grant(call) is not None:
            ended_at = (entry.finished_at if entry is not None else None) or now
            # Times of an entry are a container's own words.
            began_at = min(max(began_at, now - LONGEST_LIFE), now)
            ended_at = min(max(ended_at, began_at), now)
            container = entry.container_id if entry is not None else call.container_id
            dollars = _seconds(ended_at - began_at) * self._price(call) / self._sharing.get(container, 1)
            self._ended.add(self.spender(call), began_at, ended_at, dollars)
        self._adopted.pop(call.work_id, None)

    def reading_begins(self) -> None:
        """Begin to read records: those of all ended work are there."""
        self._being_read.merge(self._ended)
        self._ended = Spending(self._zone)

    def reading_done(self) -> None:
        """Drop the ended work whose records were read."""
        self._being_read = Spending(self._zone)

    def running(self, calls: Iterable[Call], now: float) -> dict[Spender, Running]:
        """Return the dollars by spender. ``now`` is in seconds since the epoch."""
        today = local_day(now, self._zone)
        day, month = (start_of(per.first(today), self._zone) for per in (Per.DAY, Per.MONTH))
        calls = list(calls)
        self._sharing = Counter(call.container_id for call in calls if call.container_id)
        # Ten thousand calls are summed every second: floats, and exact amounts of the sums alone.
        sums: dict[Spender, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
        for call in calls:
            spender, price = self._terms(call)
            if call.started_at:
                price /= self._sharing.get(call.container_id, 1)
                sums[spender][0] += max(0.0, now - max(call.started_at, day)) * price
                sums[spender][1] += max(0.0, now - max(call.started_at, month)) * price
                sums[spender][3] += price
            elif call.phase is Phase.WAITING:
                since = self._not_begun.get(call.work_id, call.accepted_at)
                sums[spender][2] += max(0.0, now - since) * price
        self.of_calls = {spender: Running(*map(_dollars, each[:3])) for spender, each in sums.items()}
        self._rate_of = {spender: each[3] for spender, each in sums.items()}
        return summed_running([self.of_calls, self._without_record(now)])

    def _terms(self, call: Call) -> tuple[Spender, float]:
        """Return the spender of a call, and the dollars a second; 0 if it is not placed."""
        terms = self._terms_of.get(call.work_id)
        if terms is None:
            terms = (self.spender(call), float(self._price(call)))
            if self._grant(call) is not None:
                self._terms_of[call.work_id] = terms
        return terms

    def _without_record(self, now: float) -> dict[Spender, Running]:
        today = local_day(now, self._zone)
        found: dict[Spender, Running] = defaultdict(Running)
        for spending in (self._ended, self._being_read):
            spending.drop_before(Per.MONTH.first(today))
            of_day = spending.of_period(Per.DAY, today)
            for spender, dollars in spending.of_period(Per.MONTH, today).items():
                found[spender] += Running(of_day.get(spender, _NOTHING), dollars)
        return found

    def _grant(self, call: Call) -> Grant | None:
        if call.submission is not None:
            return Grant(call.submission.profile, call.submission.resources)
        return self._adopted.get(call.work_id)

    def _price(self, call: Call) -> Decimal:
        """Return the dollars a second; 0 without a rate, as in `modalflow cost`, and before it is placed."""
        grant = self._grant(call)
        if grant is None:
            return _NOTHING
        reserved = Reserved.read(grant.granted)
        price = self._prices.get(reserved)
        if price is None:
            try:
                price = self._rates.dollars(Record("", "", 0.0, reserved=reserved, occupied=1.0))
            except UnknownRateError:
                price = _NOTHING
            self._prices[reserved] = price
        return price


def _seconds(seconds: float) -> Decimal:
    return Decimal(str(round(max(0.0, seconds), 3)))


def _dollars(dollars: float) -> Decimal:
    return Decimal(str(round(dollars, 9)))
