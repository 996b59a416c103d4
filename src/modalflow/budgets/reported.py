"""The reported running costs of executors, extrapolated to now. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import tzinfo
from decimal import Decimal

from modalflow.budgets.spending import Running, local_day
from modalflow.config.budgets import Per, Spender, start_of
from modalflow.protocol.spending_report import SpendingReport


def running_of(reports: Iterable[SpendingReport], zone: tzinfo, now: float) -> dict[Spender, Running]:
    """Return the dollars of running work by spender. Old reports do not count."""
    found: dict[Spender, Running] = defaultdict(Running)
    today = local_day(now, zone)
    of_today = now - start_of(today, zone)
    for report in reports:
        if not report.counts(now):
            continue
        reported_on, since = local_day(report.published_at, zone), max(0.0, now - report.published_at)
        same_month = Per.MONTH.first(reported_on) == Per.MONTH.first(today)
        for row in report.rows:
            day = row.day + row.rate * since if reported_on == today else row.rate * min(since, of_today)
            month = row.month + row.rate * since if same_month else row.rate * min(since, of_today)
            spender = Spender(row.dag, row.profile, row.team)
            found[spender] += Running(_decimal(day), _decimal(month))
    return found


def _decimal(dollars: float) -> Decimal:
    return Decimal(str(round(dollars, 6)))
