"""The part of `modalflow cost` about budgets: what is spent and left. Owns texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from modalflow.budgets.spending import Balance
from modalflow.cli.terminal.words import table
from modalflow.cost.rates import money

_NOTE = (
    "Running work counts by its time so far, as the executors report it. It and the records of the last seconds are",
    "approximate. Options of teams are in their executors' own configuration, and are not shown here.",
)


def budgets_page(balances: Sequence[Balance], time_zone: str) -> Iterable[str]:
    """Yield the lines about budgets; none without budgets."""
    if not balances:
        return
    yield ""
    yield click.style(f"Budgets (days and months of time zone {time_zone})", bold=True)
    rows = [_row(balance) for balance in balances]
    yield from table(["budget", "action", "spent", "by running work", "left", "used"], rows)
    yield from (f"  {line}" for line in _NOTE)


def _row(balance: Balance) -> list[str]:
    budget = balance.budget
    used = "used up" if balance.is_used_up else f"{balance.used / budget.dollars:.0%}"
    return [
        budget.label(balance.subject),
        budget.action.value,
        money(balance.used),
        money(balance.running),
        money(balance.left),
        used,
    ]


def budgets_wire(balances: Sequence[Balance], time_zone: str) -> dict[str, Any]:
    """Return the keys for JSON."""
    return {
        "budgets": [
            {
                "scope": balance.budget.scope.value,
                "name": balance.subject,
                "per": balance.budget.per.value,
                "dollars": str(balance.budget.dollars),
                "action": balance.budget.action.value,
                "spent": str(balance.used),
                "spent_by_running_work": str(balance.running),
                "left": str(balance.left),
                "used_up": balance.is_used_up,
            }
            for balance in balances
        ],
        "budgets_time_zone": time_zone,
    }
