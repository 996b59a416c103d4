"""The balances of budgets: usage records, and the executors' reports of running work. Only reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import modal
from modal import exception

from modalflow.budgets.reported import running_of
from modalflow.budgets.spending import Balance, balances, local_day
from modalflow.budgets.spent import spent_of
from modalflow.config.budgets import Per, start_of
from modalflow.cost.rates import Rates
from modalflow.cost.usage import Record
from modalflow.errors import MalformedMessageError
from modalflow.operations.site import PATIENCE, Site, within
from modalflow.protocol.spending_report import SPENDING, SpendingReport


def period_began(site: Site, now: float) -> datetime:
    """Return when the longest current period of a budget began."""
    zone = ZoneInfo(site.settings.time_zone)
    per = Per.MONTH if any(budget.per is Per.MONTH for budget in site.settings.budgets) else Per.DAY
    return datetime.fromtimestamp(start_of(per.first(local_day(now, zone)), zone), UTC)


def balances_of(site: Site, records: Sequence[Record], rates: Rates, now: float) -> list[Balance]:
    """Return the balances of this machine's budgets. ``records`` has those since ``period_began``."""
    zone = ZoneInfo(site.settings.time_zone)
    running = running_of(spending_reports(site), zone, now)
    return balances(site.settings.budgets, spent_of(records, zone, now, rates), running)


def spending_reports(site: Site) -> list[SpendingReport]:
    """Return the executors' reports of running costs. Raises the SDK's errors."""
    executors: Any = modal.Dict.from_name(site.names.executors, **site.scope)
    try:
        items = within(PATIENCE, lambda: list(executors.items()), lenient=True)
    except exception.NotFoundError:
        # No executor has ever reported.
        return []
    found = []
    for key, text in items:
        if str(key).startswith(SPENDING):
            try:
                found.append(SpendingReport.from_json(text))
            except MalformedMessageError:
                continue
    return found
