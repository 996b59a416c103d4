"""The values with which other tests change every option that a task can read."""

from __future__ import annotations

from pathlib import Path

from tests.every_option.values import LEFT_OUT, changed, unaccounted, unchanged


def test_every_option_has_another_value_or_a_reason() -> None:
    """A new option of Airflow or a provider, which travels, gets a value for the stack that has them all."""
    assert unaccounted() == []
    assert all(reason.endswith(".") for reason in LEFT_OUT.values())


def test_each_value_differs_from_the_default() -> None:
    """Otherwise a test with it would show nothing."""
    values = changed(Path("/acme"))
    assert len(values) > 150
    assert unchanged(values) == []
