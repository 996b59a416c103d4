"""Dollars by day and spender, and the balances of budgets. No I/O and no clock: callers pass the time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal

from modalflow.config.budgets import EACH, Budget, Per, Spender, start_of
from modalflow.cost.rates import Rates, UnknownRateError
from modalflow.cost.usage import Record

_NOTHING = Decimal(0)


@dataclass
class Spending:
    """Dollars of ended work by day and spender. Days are those of one time zone."""

    zone: tzinfo
    by_day: dict[date, dict[Spender, Decimal]] = field(default_factory=dict)

    def add(self, spender: Spender, began_at: float, ended_at: float, dollars: Decimal) -> None:
        """Add dollars of work, divided among its days."""
        for day, share in shares_of_days(began_at, ended_at, self.zone):
            self._add(day, spender, dollars * share)

    def add_record(self, record: Record, rates: Rates) -> None:
        """Add the dollars of a record; nothing if it has a resource without a rate."""
        try:
            dollars = rates.dollars(record)
        except UnknownRateError:
            return
        self.add(spender_of(record), record.taken_at, record.ended_at, dollars)

    def merge(self, other: Spending) -> None:
        """Add all of another sum."""
        for day, found in other.by_day.items():
            for spender, dollars in found.items():
                self._add(day, spender, dollars)

    def _add(self, day: date, spender: Spender, dollars: Decimal) -> None:
        of_day = self.by_day.setdefault(day, {})
        of_day[spender] = of_day.get(spender, _NOTHING) + dollars

    def drop_before(self, day: date) -> None:
        """Forget earlier days."""
        for each in [each for each in self.by_day if each < day]:
            del self.by_day[each]

    def of_period(self, per: Per, today: date) -> dict[Spender, Decimal]:
        """Return the dollars of the period with this day, by spender."""
        found: dict[Spender, Decimal] = defaultdict(Decimal)
        first, end = per.first(today), per.end(today)
        for day, of_day in self.by_day.items():
            if first <= day < end:
                for spender, dollars in of_day.items():
                    found[spender] += dollars
        return dict(found)


def spender_of(record: Record) -> Spender:
    return Spender(record.dag_id, record.profile, record.team)


def shares_of_days(began_at: float, ended_at: float, zone: tzinfo) -> Iterator[tuple[date, Decimal]]:
    """Yield the days of work, each with its share of the time; the shares add up to 1."""
    day = local_day(began_at, zone)
    left = Decimal(1)
    while (midnight := start_of(day + timedelta(days=1), zone)) < ended_at:
        share = Decimal((midnight - max(began_at, start_of(day, zone))) / (ended_at - began_at))
        yield day, share
        left -= share
        day += timedelta(days=1)
    yield day, left


def local_day(moment: float, zone: tzinfo) -> date:
    """Return the day of a moment in seconds since the epoch."""
    return datetime.fromtimestamp(moment, zone).date()


@dataclass(frozen=True)
class Running:
    """Dollars of work without a record: running work, so far, and work whose record is not read yet."""

    day: Decimal = _NOTHING
    """Since the day began."""
    month: Decimal = _NOTHING
    """Since the month began."""
    unsure: Decimal = _NOTHING
    """The most by submitted work without a known container."""

    def __add__(self, other: Running) -> Running:
        return Running(self.day + other.day, self.month + other.month, self.unsure + other.unsure)

    def of(self, per: Per) -> Decimal:
        """Return the dollars since the period began."""
        return self.day if per is Per.DAY else self.month


@dataclass(frozen=True)
class Balance:
    """The spent dollars of one budget, by one subject (a DAG, profile or team; empty for all work)."""

    budget: Budget
    subject: str
    spent: Decimal = _NOTHING
    """By ended work of this period."""
    running: Decimal = _NOTHING
    """By running work, so far."""
    unsure: Decimal = _NOTHING
    """As in ``Running``."""

    @property
    def used(self) -> Decimal:
        return self.spent + self.running

    @property
    def left(self) -> Decimal:
        return max(_NOTHING, self.budget.dollars - self.used)

    @property
    def is_used_up(self) -> bool:
        return self.used >= self.budget.dollars

    @property
    def may_be_used_up(self) -> bool:
        """Whether it is used up if everything submitted runs."""
        return self.used + self.unsure >= self.budget.dollars


def balances(
    budgets: Sequence[Budget],
    spent: Mapping[Per, Mapping[Spender, Decimal]],
    running: Mapping[Spender, Running],
) -> list[Balance]:
    """Return the balances of all budgets and their subjects, in the order of the budgets. A budget of each DAG has one
    for every DAG with any cost."""
    found: list[Balance] = []
    for budget in budgets:
        of_subject: dict[str, Balance] = {}
        if budget.name != EACH:
            of_subject[budget.name] = Balance(budget, budget.name)
        for spender, dollars in spent[budget.per].items():
            _enter(of_subject, budget, spender, dollars, _NOTHING, _NOTHING)
        for spender, now in running.items():
            _enter(of_subject, budget, spender, _NOTHING, now.of(budget.per), now.unsure)
        found += sorted(of_subject.values(), key=lambda balance: balance.subject)
    return found


def _enter(
    found: dict[str, Balance], budget: Budget, spender: Spender, spent: Decimal, running: Decimal, unsure: Decimal
) -> None:
    subject = budget.subject(spender)
    if subject is not None:
        old = found.get(subject) or Balance(budget, subject)
        found[subject] = Balance(budget, subject, old.spent + spent, old.running + running, old.unsure + unsure)


def summed_running(parts: Iterable[Mapping[Spender, Running]]) -> dict[Spender, Running]:
    """Return the sums by spender."""
    found: dict[Spender, Running] = defaultdict(Running)
    for part in parts:
        for spender, running in part.items():
            found[spender] += running
    return found
