"""The page about faults says what the code does."""

from __future__ import annotations

from pathlib import Path

from modalflow.emulator.faults.spec.kinds import KINDS, OPTIONS
from modalflow.emulator.faults.tables import text, updated

PAGE = Path(__file__).parents[4] / "docs" / "faults.md"


def test_the_page_is_up_to_date() -> None:
    """Its tables are those that `python -m modalflow.emulator.faults.tables docs/faults.md` writes."""
    page = PAGE.read_text()
    assert updated(page) == page


def test_every_kind_and_option_is_listed() -> None:
    """A reader of the page, or of `modalflow local fault kinds`, finds everything there is."""
    page, listing = PAGE.read_text(), text()
    for kind in KINDS.values():
        assert f"| `{kind.name}" in page
        assert kind.example in listing
    for name in OPTIONS:
        assert f"| `{name}=" in page
        assert f"{name}=" in listing
