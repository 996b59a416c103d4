"""The dollars of ended work, from usage records, bit by bit. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import date, timedelta, tzinfo
from decimal import Decimal

from modalflow.budgets.spending import Spending, local_day
from modalflow.config.budgets import Per, Spender
from modalflow.cost.rates import Rates
from modalflow.cost.usage import Record, settled


class Spent:
    """The sums of all records so far. It keeps no record but those of killed containers: they share their time."""

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone
        self._reported = Spending(zone)
        self._killed: list[Record] = []
        self._lock = threading.Lock()

    def add(self, records: Iterable[Record], rates: Rates) -> None:
        """Add records, each once. May be called on any thread."""
        for record in records:
            with self._lock:
                if record.is_of_killed:
                    self._killed.append(record)
                else:
                    self._reported.add_record(record, rates)

    def by_period(self, now: float, rates: Rates) -> Mapping[Per, Mapping[Spender, Decimal]]:
        """Return the dollars of the current day and month, and forget earlier months."""
        today = local_day(now, self.zone)
        whole = Spending(self.zone)
        with self._lock:
            self._forget_before(Per.MONTH.first(today))
            whole.merge(self._reported)
            killed = settled(self._killed)
        for record in killed:
            whole.add_record(record, rates)
        return {per: whole.of_period(per, today) for per in Per}

    def _forget_before(self, first: date) -> None:
        self._reported.drop_before(first)
        kept = first - timedelta(days=2)
        self._killed = [record for record in self._killed if local_day(record.ended_at, self.zone) >= kept]


def spent_of(
    records: Iterable[Record], zone: tzinfo, now: float, rates: Rates
) -> Mapping[Per, Mapping[Spender, Decimal]]:
    """Return the dollars of the current day and month in these records."""
    spent = Spent(zone)
    spent.add(settled(records), rates)
    return spent.by_period(now, rates)
