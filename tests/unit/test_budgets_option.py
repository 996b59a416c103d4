"""[modal_executor] budgets: what is accepted, and what an error names."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from modalflow.config.budgets import Budget, BudgetAction, Per, Scope, Spender, known_zone, read_budgets
from modalflow.errors import ConfigError

PLACE = "[modal_executor] budgets"
GOOD: dict[str, Any] = {"dag": "etl", "per": "day", "dollars": 20, "action": "hold"}


def read(*budgets: object) -> tuple[Budget, ...]:
    return read_budgets(PLACE, json.dumps(budgets))


def test_budgets_of_every_scope_are_read() -> None:
    """A DAG, a profile, a team, each of them, or all work; one budget needs no list."""
    etl = Budget(Scope.DAG, "etl", Per.DAY, Decimal(20), BudgetAction.HOLD)
    assert read(GOOD) == read_budgets(PLACE, json.dumps(GOOD)) == (etl,)
    assert read_budgets(PLACE, " ") == ()
    others = read(
        {"profile": "*", "per": "month", "dollars": 0.5, "action": "warn"},
        {"team": "ml", "per": "day", "dollars": 0, "action": "refuse"},
        {"per": "month", "dollars": 2000, "action": "hold"},
    )
    assert [budget.label() for budget in others] == [
        "each profile, $0.50 a month",
        "team ml, $0.00 a day",
        "all work, $2,000.00 a month",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[{", ["a JSON list of budgets, e.g.", "line 1"]),
        ("5", ["a JSON list of at most"]),
        ("[5]", ["budget 1 of [modal_executor] budgets is 5; expected an object, e.g."]),
        ([GOOD, GOOD | {"dollar": 5}], ["a key of budget 2 of", "did you mean 'dollars'?"]),
        ([GOOD | {"dollars": -1}], ["'dollars' of budget 1 of", "is -1; expected a number of dollars from 0 up"]),
        ([GOOD | {"dollars": "20"}], ["'dollars' of budget 1 of", "is '20'"]),
        ([GOOD | {"dollars": True}], ["'dollars' of budget 1 of", "is True"]),
        ([GOOD | {"per": "week"}], ["'per' of budget 1 of", "expected one of day, month"]),
        ([GOOD | {"action": "stop"}], ["'action' of budget 1 of", "expected one of warn, hold, refuse"]),
        ([GOOD | {"team": "ml"}], ["expected one of 'dag', 'profile' and 'team', or none of them for all work"]),
        ([GOOD | {"dag": ""}], ["'dag' of budget 1 of", "the name of a dag, or '*' for a budget of each dag"]),
        ([{"dag": "etl", "dollars": 5}], ["expected 'per' and 'action' as well, e.g."]),
        ([GOOD, GOOD | {"dollars": 5}], ["budgets 1 and 2 are both for DAG etl per day, hold: remove one"]),
        ('[{"per": "day", "dollars": NaN, "action": "warn"}]', ["'dollars' of budget 1 of"]),
    ],
)
def test_a_mistake_is_named(text: object, words: list[str]) -> None:
    """The error says which budget and key, what it is, and what was expected."""
    with pytest.raises(ConfigError) as caught:
        read_budgets(PLACE, text if isinstance(text, str) else json.dumps(text))
    for each in [PLACE, *words]:
        assert each in str(caught.value)


def test_a_spender_counts_for_its_own_budgets() -> None:
    """The budget of each DAG has each DAG's name as its subject; work of no DAG counts for none of them."""
    [etl, each, everything] = read(
        GOOD,
        {"dag": "*", "per": "day", "dollars": 1, "action": "warn"},
        {"per": "day", "dollars": 1, "action": "warn"},
    )
    mine, other, no_dag = Spender("etl", "gpu"), Spender("train", "gpu"), Spender("", "gpu")
    assert [etl.subject(spender) for spender in (mine, other, no_dag)] == ["etl", None, None]
    assert [each.subject(spender) for spender in (mine, other, no_dag)] == ["etl", "train", None]
    assert [everything.subject(spender) for spender in (mine, other, no_dag)] == ["", "", ""]


@pytest.mark.parametrize(
    ("day", "first", "end"),
    [
        (date(2026, 12, 31), date(2026, 12, 1), date(2027, 1, 1)),
        (date(2026, 1, 31), date(2026, 1, 1), date(2026, 2, 1)),
        (date(2028, 2, 29), date(2028, 2, 1), date(2028, 3, 1)),
    ],
)
def test_months_are_those_of_the_calendar(day: date, first: date, end: date) -> None:
    """A month ends with its last day."""
    assert (Per.MONTH.first(day), Per.MONTH.end(day)) == (first, end)
    assert Per.DAY.first(day) == day


@pytest.mark.parametrize(
    ("name", "known"),
    [("Europe/Berlin", "Europe/Berlin"), ("utc", "UTC"), ("", "UTC"), ("../UTC", "UTC"), ("Mars/Olympus", "UTC")],
)
def test_a_time_zone_that_this_machine_does_not_know_is_utc(name: str, known: str) -> None:
    """Otherwise a scheduler would not start."""
    assert known_zone(name) == known
