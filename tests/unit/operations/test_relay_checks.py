"""The doctor's check of the relays that report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from modalflow.operations.inventory import Inventory
from modalflow.operations.relay import checks
from modalflow.protocol.relay_report import SIGN_OF_LIFE, RelayReport
from modalflow.protocol.snapshot import Snapshot

SITE: Any = SimpleNamespace()


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[RelayReport]]]:
    """What each reading of the reports returns; the last one is returned again."""
    readings: list[list[RelayReport]] = []

    def read(_: object) -> list[RelayReport]:
        return readings.pop(0) if len(readings) > 1 else readings[0]

    executor = Snapshot("p", "host", 7, version="1", published_at=time.time())
    monkeypatch.setattr(checks, "relays_of", read)
    monkeypatch.setattr(checks, "take_inventory", lambda *_, **__: Inventory(time.time(), [executor], []))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    yield readings


def test_a_relay_that_has_just_started_is_waited_for(reports: list[list[RelayReport]]) -> None:
    """An executor reports before its relays do."""
    relay = RelayReport("host-1", "http://airflow/execution/", published_at=time.time())
    reports += [[], [], [relay]]
    (finding,) = checks.relays(SITE)
    assert finding.status.name == "OK" and "host-1 sends requests to http://airflow/execution/" in finding.detail


def test_without_an_executor_no_relay_is_waited_for(
    reports: list[list[RelayReport]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """You may run the doctor before you start a scheduler."""
    monkeypatch.setattr(checks, "take_inventory", lambda *_, **__: Inventory(time.time(), [], []))
    reports += [[], [RelayReport("host-1", published_at=time.time())]]
    (finding,) = checks.relays(SITE)
    assert finding.status.name == "FAIL"


def test_only_living_relays_count(reports: list[list[RelayReport]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A report of yesterday is a relay that is gone."""
    monkeypatch.setattr(checks, "STARTING", 0.0)
    reports.append([RelayReport("host-1", published_at=time.time() - 86_400)])
    (finding,) = checks.relays(SITE)
    assert finding.status.name == "FAIL" and "no relay reports" in finding.detail


def test_a_relay_counts_as_gone_after_three_missing_reports() -> None:
    """A relay of an older modalflow reports less often, and does not report how often."""
    new, old = RelayReport("new", published_at=1000.0, interval=SIGN_OF_LIFE), RelayReport("old", published_at=1000.0)
    assert not new.is_silent(1170.0) and new.is_silent(1190.0)
    assert not old.is_silent(1890.0) and old.is_silent(1910.0)
    assert RelayReport.from_json(new.to_json()) == new
