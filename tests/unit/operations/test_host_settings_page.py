"""The page docs/host-settings.md: generated from the table, checked for drift."""

from __future__ import annotations

from pathlib import Path

from modalflow.airflow_home.rules.table import RULES
from modalflow.operations.host_settings_page import page

PAGE = Path(__file__).parents[3] / "docs" / "host-settings.md"


def test_the_page_is_current() -> None:
    """The page is the one that the table makes. `make docs` writes it."""
    assert PAGE.read_text() == page()


def test_the_page_has_every_row() -> None:
    """An operator finds each option with its reason."""
    text = page()
    assert [rule.name for rule in RULES if f"`{rule.option}`" not in text or rule.reason not in text] == []
