"""The values with which other tests change every option that a task can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance import test_host_settings
from tests.acceptance.dag_sources import Sources
from tests.acceptance.every_option import KEPT, every_option, unchanged_in
from tests.acceptance.metrics_listener import MetricsListener
from tests.acceptance.receivers import Received
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


def test_the_stack_of_the_acceptance_tests_changes_every_option_without_a_reason(tmp_path: Path) -> None:
    """Its own settings, which come above, are no defaults either."""
    own = {**MetricsListener(1).env, **Sources(tmp_path).env(tmp_path)}
    with every_option(tmp_path, own) as env:
        assert sorted(unchanged_in(env, tmp_path)) == sorted(key for key in KEPT if key in changed(tmp_path))
    assert all(reason.endswith(".") for reason in KEPT.values())


def test_the_stack_that_compares_executors_changes_every_option_without_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own settings come above, and some of them are in a file or from a command, with a reason too."""
    monkeypatch.setattr(test_host_settings, "WITH_EVERY_OPTION", True)
    env = test_host_settings.Acme(tmp_path, Received(statsd_port=1)).env
    kept = test_host_settings.KEPT
    assert {*unchanged_in(env, tmp_path)} - {*kept} == set()
    assert all(reason.endswith(".") for reason in kept.values())
