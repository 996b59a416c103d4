"""What tests share ends when the last of them is over."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_a_fixture_of_a_package_has_a_package() -> None:
    """In a folder without ``__init__.py``, pytest keeps such a fixture until the end of the session: an Airflow that
    nobody needs then takes a quarter of a core from all later tests."""
    folders = {path.parent for path in TESTS.rglob("conftest.py") if 'scope="package"' in path.read_text()}
    assert folders
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
