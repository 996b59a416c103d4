"""The spending as series for a chart."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import date, timedelta
from enum import StrEnum

from modalflow.cost.sums import NO_RUN
from modalflow.ui.answers.freshness import Freshness
from modalflow.ui.answers.spend import Series, Spend
from modalflow.ui.sources.usage_sums import DayOfSpender, UsageSums
from modalflow.ui.views.visible import Visible

OTHERS = "(others)"

#: Series of one chart, with that of all others.
_MOST_SERIES = 20


class By(StrEnum):
    """What a series stands for."""

    DAG = "dag"
    PROFILE = "profile"
    DAY = "day"


def spend(
    sums: UsageSums | None, visible: Visible, by: By, since: date, today: date, freshness: Freshness, *, complete: bool
) -> Spend:
    """Return the dollars of each day from ``since`` to ``today``, of the DAGs that the user may read."""
    days = [since + timedelta(days=number) for number in range(max(0, (today - since).days) + 1)]
    if sums is None:
        return Spend(freshness=freshness, by=by.value, days=[str(day) for day in days], complete=False)
    found, unpriced = sums.days(since)
    shown = [each for each in found if visible.sees(each.spender.dag) and each.day <= today]
    series = _series(shown, by, days)
    missing: Counter[str] = Counter()
    for (spender, resource), number in unpriced.items():
        if visible.sees(spender.dag):
            missing[resource] += number
    return Spend(
        freshness=freshness,
        by=by.value,
        days=[str(day) for day in days],
        time_zone=str(sums.zone),
        series=_folded(series),
        total=sum(each.total for each in series),
        calls=sum(each.calls for each in series),
        rates=sums.rates.source,
        unpriced=dict(missing),
        complete=complete,
    )


def _series(found: list[DayOfSpender], by: By, days: list[date]) -> list[Series]:
    dollars: dict[str, Counter[date]] = defaultdict(Counter)
    calls: Counter[str] = Counter()
    for each in found:
        name = _name(each, by)
        dollars[name][each.day] += each.dollars  # type: ignore[assignment]  # A Counter of floats.
        calls[name] += each.calls
    series = [
        Series(
            name=name,
            dollars=[round(float(of_day[day]), 6) for day in days],
            total=round(float(sum(of_day.values())), 6),
            calls=calls[name],
        )
        for name, of_day in dollars.items()
    ]
    return sorted(series, key=lambda each: (-each.total, each.name))


def _name(each: DayOfSpender, by: By) -> str:
    if by is By.DAY:
        return "all"
    return (each.spender.dag if by is By.DAG else each.spender.profile) or NO_RUN


def _folded(series: list[Series]) -> list[Series]:
    """Return the largest series, and one for all the others."""
    if len(series) <= _MOST_SERIES:
        return series
    largest, others = series[: _MOST_SERIES - 1], series[_MOST_SERIES - 1 :]
    return [
        *largest,
        Series(
            name=OTHERS,
            dollars=[round(sum(of_day), 6) for of_day in zip(*(each.dollars for each in others), strict=True)],
            total=round(sum(each.total for each in others), 6),
            calls=sum(each.calls for each in others),
        ),
    ]
