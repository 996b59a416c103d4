"""The spending of the last days from usage records, by day, DAG and profile. No I/O. Keeps sums, no records.

Of killed containers it keeps the records, because they share their time; the newest ones only.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta, tzinfo
from decimal import Decimal

from modalflow.budgets.spending import Spending, local_day, spender_of
from modalflow.config.budgets import Per, Spender
from modalflow.cost.rates import DATED, Rates, UnknownRateError
from modalflow.cost.usage import Record, settled

#: Days with figures: the longest month.
DAYS = 31

_MOST_KILLED = 20_000


@dataclass(frozen=True)
class DayOfSpender:
    """What the work of one DAG, profile and team has cost on one day."""

    day: date
    spender: Spender
    dollars: float
    calls: int
    """Calls that ended on this day."""


@dataclass
class _Counts:
    calls: dict[date, Counter[Spender]] = field(default_factory=dict)
    unpriced: dict[date, Counter[tuple[Spender, str]]] = field(default_factory=dict)


class UsageSums:
    """The sums of all records so far. Can be used on any thread."""

    def __init__(self, zone: tzinfo, rates: Rates = DATED) -> None:
        self.zone = zone
        self.rates = rates
        self._spending = Spending(zone)
        self._counts = _Counts()
        self._killed: deque[Record] = deque(maxlen=_MOST_KILLED)
        self._lock = threading.Lock()

    def add(self, records: Iterable[Record]) -> None:
        """Add records, each once."""
        for record in records:
            with self._lock:
                if record.is_of_killed:
                    self._killed.append(record)
                else:
                    self._spending.add_record(record, self.rates)
                    _count(self._counts, record, self.rates, self.zone)

    def forget_before(self, first: date) -> None:
        """Forget the days before this one."""
        with self._lock:
            self._spending.drop_before(first)
            for by_day in (self._counts.calls, self._counts.unpriced):
                for day in [day for day in by_day if day < first]:
                    del by_day[day]

    def days(self, first: date) -> tuple[list[DayOfSpender], Counter[tuple[Spender, str]]]:
        """Return the sums since a day, and (spender, resource) → calls without a rate."""
        spending, counts = self._whole()
        found = []
        for day in sorted(spending.by_day.keys() | counts.calls.keys()):
            dollars, calls = spending.by_day.get(day, {}), counts.calls.get(day, Counter())
            if day >= first:
                for spender in dollars.keys() | calls.keys():
                    found.append(DayOfSpender(day, spender, float(dollars.get(spender, 0)), calls[spender]))
        unpriced: Counter[tuple[Spender, str]] = Counter()
        for day, of_day_unpriced in counts.unpriced.items():
            if day >= first:
                unpriced.update(of_day_unpriced)
        return found, unpriced

    def by_period(self, now: float) -> Mapping[Per, Mapping[Spender, Decimal]]:
        """Return the dollars of the current day and month, for budgets."""
        today = local_day(now, self.zone)
        spending, _ = self._whole()
        return {per: spending.of_period(per, today) for per in Per}

    def _whole(self) -> tuple[Spending, _Counts]:
        spending, counts = Spending(self.zone), _Counts()
        with self._lock:
            spending.merge(self._spending)
            counts.calls = {day: Counter(found) for day, found in self._counts.calls.items()}
            counts.unpriced = {day: Counter(found) for day, found in self._counts.unpriced.items()}
            killed = settled(self._killed)
        for record in killed:
            spending.add_record(record, self.rates)
            _count(counts, record, self.rates, self.zone)
        return spending, counts


def _count(counts: _Counts, record: Record, rates: Rates, zone: tzinfo) -> None:
    day, spender = local_day(record.ended_at, zone), spender_of(record)
    counts.calls.setdefault(day, Counter())[spender] += 1
    try:
        rates.dollars(record)
    except UnknownRateError as error:
        counts.unpriced.setdefault(day, Counter())[spender, str(error)] += 1


def first_day(now: float, zone: tzinfo) -> date:
    """Return the first of the days with figures."""
    return local_day(now, zone) - timedelta(days=DAYS - 1)
