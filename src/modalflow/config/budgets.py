"""Budgets in ``[modal_executor] budgets``, and the check of the option's text.

Knows no prices and no clock but the calendar: ``modalflow.budgets`` compares budgets with the cost of work.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from datetime import time as clock_time
from decimal import Decimal
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from modalflow.errors import ConfigError, a_known_name

#: The name for a budget of every single DAG, profile or team.
EACH = "*"

EXAMPLE = '[{"dag": "etl", "per": "day", "dollars": 20, "action": "hold"}]'
_MOST_DOLLARS = 1e9
_MOST_BUDGETS = 200
_LONGEST_NAME = 250


class Per(StrEnum):
    """The period of a budget, in the time zone of ``[core] default_timezone``."""

    DAY = "day"
    MONTH = "month"

    def first(self, day: date) -> date:
        """Return the first day of the period with this day."""
        return day if self is Per.DAY else day.replace(day=1)

    def end(self, day: date) -> date:
        """Return the first day after the period with this day."""
        if self is Per.DAY:
            return day + timedelta(days=1)
        return (day.replace(day=28) + timedelta(days=4)).replace(day=1)


class BudgetAction(StrEnum):
    """The consequence of a used up budget."""

    WARN = "warn"
    HOLD = "hold"
    REFUSE = "refuse"


class Scope(StrEnum):
    """The kind of a budget's subject. ``Spender`` has a field of each name but ALL."""

    DAG = "dag"
    PROFILE = "profile"
    TEAM = "team"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Spender:
    """A DAG, profile and team together: the costs of their work are one sum."""

    dag: str = ""
    profile: str = ""
    team: str = ""


@dataclass(frozen=True)
class Budget:
    """The most dollars for a DAG, a profile, a team or all work in a period."""

    scope: Scope
    name: str
    """The DAG, profile or team; EACH for each of them; empty for all work."""
    per: Per
    dollars: Decimal
    action: BudgetAction

    def subject(self, spender: Spender) -> str | None:
        """Return the name under which this spender counts: its DAG for a budget of each DAG. None if it does not."""
        if self.scope is Scope.ALL:
            return ""
        name: str = getattr(spender, self.scope.value)
        return name if name and self.name in (EACH, name) else None

    def label(self, subject: str = "") -> str:
        """Return its words for users, such as ``DAG etl, $20.00 a day``."""
        exact = self.dollars == round(self.dollars, 2)
        return f"{self.of(subject)}, ${self.dollars:{',.2f' if exact else ',f'}} a {self.per}"

    def of(self, subject: str = "") -> str:
        """Return the words for what it limits, such as ``DAG etl``."""
        if self.scope is Scope.ALL:
            return "all work"
        kind = "DAG" if self.scope is Scope.DAG else self.scope.value
        name = subject or self.name
        return f"each {kind}" if name == EACH else f"{kind} {name}"


def read_budgets(place: str, raw: str) -> tuple[Budget, ...]:
    """Return the budgets in the option's text; raise ConfigError with the budget, its key and the expectation."""
    try:
        found = json.loads(raw.strip() or "[]")
    except ValueError as error:
        raise ConfigError(place, raw, f"a JSON list of budgets, e.g. {EXAMPLE} ({error})") from error
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list) or len(found) > _MOST_BUDGETS:
        raise ConfigError(place, raw, f"a JSON list of at most {_MOST_BUDGETS} budgets, e.g. {EXAMPLE}")
    budgets = tuple(_budget(f"budget {number} of {place}", each) for number, each in enumerate(found, 1))
    _check_repeated(place, budgets)
    return budgets


def _budget(place: str, wire: Any) -> Budget:
    if not isinstance(wire, dict):
        raise ConfigError(place, wire, f"an object, e.g. {EXAMPLE[1:-1]}")
    known = {"per", "dollars", "action", *(scope.value for scope in Scope if scope is not Scope.ALL)}
    for name in wire:
        if name not in known:
            raise ConfigError(f"a key of {place}", name, a_known_name(name, known))
    if missing := [name for name in ("per", "dollars", "action") if name not in wire]:
        raise ConfigError(place, wire, f"{' and '.join(map(repr, missing))} as well, e.g. {EXAMPLE[1:-1]}")
    scope, name = _scope(place, wire)
    return Budget(
        scope,
        name,
        Per(_choice(f"'per' of {place}", wire["per"], [each.value for each in Per])),
        _dollars(f"'dollars' of {place}", wire["dollars"]),
        BudgetAction(_choice(f"'action' of {place}", wire["action"], [each.value for each in BudgetAction])),
    )


def _scope(place: str, wire: Mapping[str, Any]) -> tuple[Scope, str]:
    named = [scope for scope in Scope if scope.value in wire]
    if not named:
        return Scope.ALL, ""
    if len(named) > 1:
        expected = "one of 'dag', 'profile' and 'team', or none of them for all work"
        raise ConfigError(place, dict(wire), expected)
    name = wire[named[0].value]
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        expected = f"the name of a {named[0]}, or '{EACH}' for a budget of each {named[0]}"
        raise ConfigError(f"{named[0].value!r} of {place}", name, expected)
    return named[0], name.strip()


def _choice(place: str, value: Any, choices: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(place, value, "one of " + ", ".join(choices))
    return value


def _dollars(place: str, value: Any) -> Decimal:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not 0 <= value <= _MOST_DOLLARS:
        raise ConfigError(place, value, "a number of dollars from 0 up, e.g. 20 or 0.5")
    return Decimal(str(value))


def _check_repeated(place: str, budgets: Sequence[Budget]) -> None:
    seen: dict[tuple[object, ...], int] = {}
    for number, budget in enumerate(budgets, 1):
        key = (budget.scope, budget.name, budget.per, budget.action)
        if key in seen:
            what = f"{budget.of()} per {budget.per}, {budget.action}"
            expected = f"each budget once, but budgets {seen[key]} and {number} are both for {what}: remove one"
            raise ConfigError(place, shown_budgets(budgets), expected)
        seen[key] = number


def shown_budgets(budgets: Sequence[Budget]) -> str:
    """Return budgets in one line."""
    return "; ".join(f"{budget.label()}: {budget.action}" for budget in budgets)


def start_of(day: date, zone: tzinfo) -> float:
    """Return the first second of a day in a time zone, in seconds since the epoch."""
    return datetime.combine(day, clock_time(), zone).timestamp()


def known_zone(name: str) -> str:
    """Return the name of a time zone as this machine knows it; UTC if it does not."""
    try:
        return ZoneInfo("UTC" if name.lower() == "utc" else name).key
    except (KeyError, OSError, ValueError):
        # ZoneInfoNotFoundError is a KeyError.
        return "UTC"
