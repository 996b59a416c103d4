"""Spending by day, DAG and profile, of the DAGs that a user may read."""

from __future__ import annotations

from datetime import UTC, date, datetime
from unittest.mock import create_autospec
from zoneinfo import ZoneInfo

import pytest

from modalflow.budgets.spending import Spending
from modalflow.config.budgets import Per
from modalflow.cost.usage import Record, Reserved
from modalflow.ui.answers.freshness import Freshness
from modalflow.ui.answers.spend import Spend
from modalflow.ui.sources.usage_sums import UsageSums
from modalflow.ui.views.spend import OTHERS, By, spend
from modalflow.ui.views.visible import Visible

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
EVERYTHING = Visible(frozenset(), everything=True)


def record(number: int, dag_id: str = "etl", *, at: float = NOON, seconds: float = 3600.0, **columns: object) -> Record:
    values = {"profile": "default", "outcome": "success", "reserved": Reserved(1.0, 1024)} | columns
    return Record(f"fc-{number}", "ta-1", at, dag_id, "t", "r", running=seconds, occupied=seconds, **values)  # type: ignore[arg-type]


def sums(*records: Record) -> UsageSums:
    found = UsageSums(ZoneInfo("UTC"))
    found.add(records)
    return found


def answer(found: UsageSums, visible: Visible = EVERYTHING, by: By = By.DAG) -> Spend:
    return spend(found, visible, by, date(2026, 11, 27), date(2026, 11, 29), Freshness(), complete=True)


def test_the_series_are_by_day_without_gaps() -> None:
    """Work over midnight counts on both days; the largest series comes first."""
    late = datetime(2026, 11, 28, 23, tzinfo=UTC).timestamp()
    found = answer(sums(record(1, "small"), record(2, "large", at=late, seconds=7200.0)))
    assert found.days == ["2026-11-27", "2026-11-28", "2026-11-29"]
    large, small = found.series
    assert (large.name, small.name) == ("large", "small")
    assert large.dollars[0] == 0
    assert large.dollars[1] == pytest.approx(large.dollars[2])
    assert large.total == pytest.approx(2 * small.total, rel=1e-4)
    assert found.total == pytest.approx(large.total + small.total)
    assert found.calls == 2


def test_a_user_sees_the_spending_of_own_dags() -> None:
    """In sums by profile and day as well; work of no DAG is for those who see everything."""
    found = sums(record(1, "mine"), record(2, "secret"), record(3, ""))
    for by, names in ((By.DAG, ["mine"]), (By.PROFILE, ["default"]), (By.DAY, ["all"])):
        mine = answer(found, Visible(frozenset({"mine"})), by)
        assert [each.name for each in mine.series] == names
        assert mine.total == pytest.approx(answer(found).total / 3)
    assert {each.name for each in answer(found).series} == {"mine", "secret", "(none)"}


def test_many_dags_are_one_series() -> None:
    """Those beyond the largest ones."""
    found = answer(sums(*(record(number, f"dag-{number:02}", seconds=100.0 + number) for number in range(40))))
    assert len(found.series) == 20
    assert found.series[-1].name == OTHERS
    assert found.series[-1].calls == 21
    assert found.series[0].name == "dag-39"
    assert found.total == pytest.approx(sum(each.total for each in found.series))


def test_what_has_no_rate_is_named() -> None:
    """It is not in the total."""
    found = answer(sums(record(1, reserved=Reserved(1.0, 1024, "Z900"))))
    assert (found.total, found.calls, found.unpriced) == (0, 1, {"GPU Z900": 1})


def test_a_killed_containers_time_counts_once() -> None:
    """Its calls share it."""
    lost = [record(number, outcome="lost") for number in (1, 2)]
    assert answer(sums(*lost)).total == pytest.approx(answer(sums(record(1))).total, rel=1e-4)


def test_earlier_days_are_forgotten() -> None:
    """The sums do not grow with the years."""
    found = sums(record(1))
    found.forget_before(date(2026, 11, 29))
    assert answer(found).series == []


def test_before_the_first_read_there_are_days() -> None:
    """The chart has its axis."""
    found = spend(None, EVERYTHING, By.DAG, date(2026, 11, 28), date(2026, 11, 29), Freshness(), complete=False)
    assert (found.days, found.complete) == (["2026-11-28", "2026-11-29"], False)


def test_requests_share_the_made_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many DAGs, adding up takes seconds: none of the answers does it, until there is more to add."""
    found = sums(record(1), record(2, "lost", outcome="lost"))
    found.make(NOON)
    expected = answer(found)
    with monkeypatch.context() as patched:
        for method in ("merge", "of_period"):
            patched.setattr(Spending, method, create_autospec(getattr(Spending, method), side_effect=AssertionError))
        assert answer(found) == expected
        assert {each.dag for each in found.spenders()} == {"etl", "lost"}
        assert found.by_period(NOON).keys() == set(Per)
        found.make(NOON)
        found.add([record(3)])
        assert answer(found) == expected
    found.make(NOON)
    assert answer(found).calls == expected.calls + 1


def test_a_new_day_has_its_own_budgets() -> None:
    """The made sums outlive midnight."""
    found = sums(record(1))
    found.make(NOON)
    assert sum(found.by_period(NOON)[Per.DAY].values()) > 0
    assert not found.by_period(NOON + 86_400)[Per.DAY]
    assert found.by_period(NOON + 86_400)[Per.MONTH] == found.by_period(NOON)[Per.MONTH]
