"""The spending of the last days from usage records, by day, DAG and profile. No I/O. Keeps sums, no records.

Of killed containers it keeps the records, because they share their time; the newest ones only.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import date, timedelta, tzinfo
from decimal import Decimal
from functools import cached_property

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

    def merge(self, other: _Counts) -> None:
        """Add all of other counts."""
        for day, calls in other.calls.items():
            self.calls.setdefault(day, Counter()).update(calls)
        for day, unpriced in other.unpriced.items():
            self.unpriced.setdefault(day, Counter()).update(unpriced)


@dataclass
class _Sums:
    """Dollars and calls, by day and spender."""

    spending: Spending
    counts: _Counts = field(default_factory=_Counts)

    def add(self, record: Record, rates: Rates) -> None:
        self.spending.add_record(record, rates)
        _count(self.counts, record, rates, self.spending.zone)

    def merge(self, other: _Sums) -> None:
        self.spending.merge(other.spending)
        self.counts.merge(other.counts)


class _Whole:
    """The sums of all records at one moment. Each part is made once, for all requests until the next record."""

    def __init__(self, sums: _Sums) -> None:
        self._sums = sums
        self._of_today: tuple[date, Mapping[Per, Mapping[Spender, Decimal]]] | None = None

    @cached_property
    def days(self) -> list[DayOfSpender]:
        """The sums of all days, the earliest first."""
        spending, counts = self._sums.spending, self._sums.counts
        found = []
        for day in sorted(spending.by_day.keys() | counts.calls.keys()):
            dollars, calls = spending.by_day.get(day, {}), counts.calls.get(day, Counter())
            for spender in dollars.keys() | calls.keys():
                found.append(DayOfSpender(day, spender, float(dollars.get(spender, 0)), calls[spender]))
        return found

    @cached_property
    def spenders(self) -> frozenset[Spender]:
        """The DAGs with their profiles and teams."""
        return frozenset(each.spender for each in self.days)

    def unpriced(self, first: date) -> Counter[tuple[Spender, str]]:
        """Return the calls without a rate since a day."""
        found: Counter[tuple[Spender, str]] = Counter()
        for day, unpriced in self._sums.counts.unpriced.items():
            if day >= first:
                found.update(unpriced)
        return found

    def by_period(self, today: date) -> Mapping[Per, Mapping[Spender, Decimal]]:
        """Return the dollars of the periods with this day."""
        known = self._of_today
        if known is None or known[0] != today:
            known = self._of_today = today, {per: self._sums.spending.of_period(per, today) for per in Per}
        return known[1]


class UsageSums:
    """The sums of all records so far. Can be used on any thread.

    Requests get the sums as they were made last, because making them takes up to seconds.
    """

    def __init__(self, zone: tzinfo, rates: Rates = DATED) -> None:
        self.zone = zone
        self.rates = rates
        self._sums = _Sums(Spending(zone))
        self._killed: deque[Record] = deque(maxlen=_MOST_KILLED)
        self._of_killed = _Sums(Spending(zone))
        self._has_new_killed = self._is_changed = False
        self._made: _Whole | None = None
        self._lock = threading.Lock()

    def add(self, records: Iterable[Record]) -> None:
        """Add records, each once."""
        for record in records:
            with self._lock:
                self._is_changed = True
                if record.is_of_killed:
                    self._killed.append(record)
                    self._has_new_killed = True
                else:
                    self._sums.add(record, self.rates)

    def forget_before(self, first: date) -> None:
        """Forget the days before this one."""
        with self._lock:
            counts = self._sums.counts
            for by_day in (self._sums.spending.by_day, counts.calls, counts.unpriced):
                for day in [day for day in by_day if day < first]:
                    del by_day[day]
                    self._is_changed = True

    def make(self, now: float) -> None:
        """Make the sums of all records so far, for the requests until the next call."""
        with self._lock:
            if self._made is not None and not self._is_changed:
                return
            self._is_changed = False
            made = self._whole()
        # All parts, so that no request has to.
        _ = made.spenders, made.by_period(local_day(now, self.zone))
        self._made = made

    def days(self, first: date) -> tuple[list[DayOfSpender], Counter[tuple[Spender, str]]]:
        """Return the sums since a day, and (spender, resource) → calls without a rate."""
        made = self._newest()
        return [each for each in made.days if each.day >= first], made.unpriced(first)

    def spenders(self) -> Set[Spender]:
        """Return all DAGs with their profiles and teams."""
        return self._newest().spenders

    def by_period(self, now: float) -> Mapping[Per, Mapping[Spender, Decimal]]:
        """Return the dollars of the current day and month, for budgets."""
        return self._newest().by_period(local_day(now, self.zone))

    def _newest(self) -> _Whole:
        if self._made is None:
            with self._lock:
                return self._whole()
        return self._made

    def _whole(self) -> _Whole:
        if self._has_new_killed:
            self._of_killed, self._has_new_killed = _Sums(Spending(self.zone)), False
            for record in settled(self._killed):
                self._of_killed.add(record, self.rates)
        sums = _Sums(Spending(self.zone))
        sums.merge(self._sums)
        sums.merge(self._of_killed)
        return _Whole(sums)


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
