"""The backends that settings name: imported in the zygote, or the reason why no task can run."""

from __future__ import annotations

import os
import sys

import pytest
from airflow.exceptions import AirflowConfigException

from modalflow.worker.zygote.backends import import_backends
from modalflow.worker.zygote.imports import explain
from tests.airflows import AIRFLOW

OPTIONS = ["AIRFLOW__WORKERS__SECRETS_BACKEND", "AIRFLOW__SECRETS__BACKEND", "AIRFLOW__EMAIL__EMAIL_BACKEND"]
if AIRFLOW >= (3, 3):
    OPTIONS.append("AIRFLOW__WORKERS__STATE_STORE_BACKEND")


@pytest.mark.parametrize("variable", OPTIONS)
def test_a_missing_class_is_named_with_its_setting(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Before the code of any task runs, and with the way to fix it."""
    monkeypatch.setenv(variable, "acme_absent.Backend")
    with pytest.raises(AirflowConfigException) as raised:
        import_backends()
    section, _, option = variable.removeprefix("AIRFLOW__").lower().partition("__")
    reason = explain(raised.value, os.environ)
    assert f'"{option}" key in "{section}" section. Current value: "acme_absent.Backend"' in reason
    assert "add it to the worker's image" in reason


def test_the_backend_of_workers_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container does not need the class of the host's backend if workers have another one."""
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", "acme_absent.Backend")
    monkeypatch.setenv("AIRFLOW__WORKERS__SECRETS_BACKEND", "airflow.secrets.local_filesystem.LocalFilesystemBackend")
    import_backends()


def test_the_packages_of_metrics_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no task imports them. A missing one does not matter here: Airflow logs it in each task."""
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_DATADOG_ENABLED", "True")
    import_backends()
    assert "statsd" in sys.modules
