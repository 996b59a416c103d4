"""Dollars by day and spender."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalflow.budgets.spending import Balance, Running, balances, shares_of_days
from modalflow.budgets.spent import Spent, spent_of
from modalflow.config.budgets import Per, Spender, read_budgets
from modalflow.cost.rates import DATED
from modalflow.cost.usage import LOST, Record, Reserved

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


def record(began: str, seconds: float, **fields: object) -> Record:
    values = {"dag_id": "etl", "profile": "default", "reserved": Reserved(cpu=1, memory_mib=1024)} | fields
    call = f"fc-{began}-{fields}"
    return Record(call, "ta", at(began), running=seconds, occupied=seconds, **values)  # type: ignore[arg-type]


@given(
    st.floats(1.7e9, 1.9e9),
    st.floats(0, 5 * 86_400),
    st.sampled_from(["UTC", "Europe/Berlin", "America/Los_Angeles", "Pacific/Kiritimati"]),
)
def test_the_shares_of_days_add_up(began: float, seconds: float, zone: str) -> None:
    """Whatever the time zone and its summer time, nothing is counted twice or left out."""
    shares = list(shares_of_days(began, began + seconds, ZoneInfo(zone)))
    assert sum(share for _, share in shares) == pytest.approx(1)
    assert all(share >= Decimal("-0.000001") for _, share in shares)
    days = [day for day, _ in shares]
    assert days == sorted(set(days))


def test_work_over_midnight_counts_for_both_days() -> None:
    """Each day of Airflow's time zone gets the dollars of its hours, and only the current one counts."""
    spent = Spent(BERLIN)
    hour = DATED.dollars(record("2026-11-30T00:00:00+01:00", 3600))
    spent.add([record("2026-11-29T22:00:00+01:00", 3 * 3600)], DATED)
    sums = spent.by_period(at("2026-11-30T12:00:00+01:00"), DATED)
    assert sums[Per.DAY][Spender("etl", "default")] == pytest.approx(hour)
    assert sums[Per.MONTH][Spender("etl", "default")] == pytest.approx(3 * hour)
    sums = spent.by_period(at("2026-12-01T00:00:01+01:00"), DATED)
    assert sums == {Per.DAY: {}, Per.MONTH: {}}


def test_bit_by_bit_is_the_same_as_at_once() -> None:
    """Killed containers' calls share their time, in whichever bit they come."""
    records = [
        record("2026-11-29T10:00:00+00:00", 60),
        record("2026-11-29T10:00:00+00:00", 60, outcome=LOST, task_id="a"),
        record("2026-11-29T10:00:00+00:00", 60, outcome=LOST, task_id="b"),
        record("2026-11-29T11:00:00+00:00", 60, reserved=None),
    ]
    now = at("2026-11-29T12:00:00+00:00")
    spent = Spent(BERLIN)
    for each in records:
        spent.add([each], DATED)
    assert spent.by_period(now, DATED) == spent_of(records, BERLIN, now, DATED)
    minute = DATED.dollars(records[0])
    assert spent.by_period(now, DATED)[Per.DAY] == {Spender("etl", "default"): pytest.approx(2 * minute)}


def test_balances() -> None:
    """Each budget has what its spenders spent and spend; a budget of each DAG has one balance a DAG."""
    budgets = read_budgets(
        "",
        '[{"dag": "*", "per": "day", "dollars": 5, "action": "hold"},'
        ' {"profile": "gpu", "per": "month", "dollars": 9, "action": "hold"}]',
    )
    a, b = Spender("a", "gpu"), Spender("b", "default")
    found = balances(
        budgets,
        {Per.DAY: {a: Decimal(3)}, Per.MONTH: {a: Decimal(8), b: Decimal(1)}},
        {a: Running(Decimal(1), Decimal(1), Decimal(1)), b: Running(Decimal(6), Decimal(7))},
    )
    each, gpu = budgets
    assert found == [
        Balance(each, "a", Decimal(3), Decimal(1), Decimal(1)),
        Balance(each, "b", Decimal(0), Decimal(6), Decimal(0)),
        Balance(gpu, "gpu", Decimal(8), Decimal(1), Decimal(1)),
    ]
    assert [balance.is_used_up for balance in found] == [False, True, True]
    assert [balance.left for balance in found] == [1, 0, 0]
    assert found[0].may_be_used_up
