"""A short round of kills; ``make durability KILLS=300`` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.durability import kills
from tests.durability.objects import VolumeWorkload
from tests.durability.workloads import WORKLOADS

#: An upload of blocks (Volumes v2) that is under way tries an address of before the restart for up to eight minutes.
QUICK = [kind for kind in WORKLOADS if kind is not VolumeWorkload]

SEED = 20_240


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Killed at random moments under load, a control plane has all that it acknowledged, and nothing twice."""
    report = kills.run(tmp_path / "state", QUICK, 8, SEED)
    assert report.problems == [], f"{report}\n{report.said[-4_000:]}"
    assert all(report.acknowledged.values()), report
