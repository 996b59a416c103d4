"""A short round of kills; ``make durability KILLS=300`` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.durability import kills
from tests.durability.workloads import WORKLOADS

SEED = 20_240


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Killed at random moments under load, a control plane has all that it acknowledged, and nothing twice."""
    report = kills.run(tmp_path / "state", WORKLOADS, 8, SEED)
    assert report.problems == [], f"{report}\n{report.said[-4_000:]}"
    assert all(report.acknowledged.values()), report
