"""The reports of executors' running costs, which other executors and `modalflow cost` read."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from modalflow.budgets.reported import running_of
from modalflow.budgets.spending import Running
from modalflow.config.budgets import Spender
from modalflow.errors import MalformedMessageError
from modalflow.protocol.snapshot import Snapshot
from modalflow.protocol.spending_report import AHEAD, COUNTS_FOR, SpendingReport, SpendingRow

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
MIDNIGHT = datetime(2026, 11, 30, tzinfo=UTC).timestamp()


def report(at: float, *rows: SpendingRow) -> SpendingReport:
    return SpendingReport("executor-1", at, rows)


def test_a_report_is_read_as_it_was_written() -> None:
    """Readers of snapshots, of any version, do not take it for one."""
    sent = report(NOON, SpendingRow("etl", "gpu", "ml", 1.0, 2.0, 0.1))
    assert SpendingReport.from_json(sent.to_json()) == sent
    for each in (sent, report(NOON)):
        with pytest.raises(MalformedMessageError):
            Snapshot.from_json(each.to_json())


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "{}",
        '{"partition":"p","published_at":1,"spending":[[1]]}',
        '{"partition":"p","published_at":1,"spending":[["d","p","t",NaN,1,1]]}',
        '{"partition":"p","published_at":1,"spending":[["d","p","t",-1,1,1]]}',
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    """Anyone with access to the environment can write one."""
    with pytest.raises(MalformedMessageError):
        SpendingReport.from_json(text)


def test_reports_are_extrapolated_and_added() -> None:
    """Work goes on between two reports; what is too old does not count."""
    row = SpendingRow("etl", "gpu", "", 1.0, 2.0, 0.1)
    spender = Spender("etl", "gpu")
    both = running_of([report(NOON, row), report(NOON - 10, row)], UTC, NOON + 10)
    assert both == {spender: Running(Decimal("5"), Decimal("7"))}
    assert running_of([report(NOON - COUNTS_FOR, row)], UTC, NOON) == {}


def test_a_report_of_yesterday_counts_from_midnight_on() -> None:
    """Its dollars of the day are not those of today; those of the month are."""
    row = SpendingRow("etl", "gpu", "", 1.0, 2.0, 0.1)
    assert running_of([report(MIDNIGHT - 10, row)], UTC, MIDNIGHT + 10)[Spender("etl", "gpu")].month == Decimal("4")
    assert running_of([report(MIDNIGHT - 10, row)], UTC, MIDNIGHT + 10)[Spender("etl", "gpu")].day == Decimal("1")


@pytest.mark.parametrize("at", [1e300, float("inf"), float("nan"), NOON + 2 * AHEAD, -1e300])
def test_a_report_of_another_time_does_not_count(at: float) -> None:
    """Anyone can write one: it must not end the checks of the budgets, and is removed as an old one is."""
    strange = report(at, SpendingRow("etl", "gpu", "", 1.0, 2.0, 0.1))
    assert running_of([strange], UTC, NOON) == {}
    assert not strange.counts(NOON - COUNTS_FOR)
    assert report(NOON).counts(NOON - COUNTS_FOR)
