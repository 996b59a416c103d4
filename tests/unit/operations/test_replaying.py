"""What a replay changes for its executor, its worker and its task, without starting any of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.configuration import conf

from modalflow.config.variables import set_variables
from modalflow.executor.worker_env import remote_logging_env
from modalflow.operations.single_task import replaying
from modalflow.worker import unsent_mail


def test_a_replay_uploads_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the path of the original try's log, which remote logging would replace or continue."""
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_LOGGING", "True")
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", "s3://logs/airflow")
    assert remote_logging_env()["AIRFLOW__LOGGING__REMOTE_LOGGING"] == "True"
    replay: Any = SimpleNamespace(record=SimpleNamespace(bundle="dags"), folder=tmp_path)
    with set_variables(replaying._host_variables(replay, "http://127.0.0.1:1/execution/", {})):
        assert remote_logging_env() == {"AIRFLOW__LOGGING__REMOTE_LOGGING": "False"}
    assert conf.getboolean("logging", "remote_logging")


def test_a_replay_sends_no_metrics_errors_lineage_or_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others would take them for those of a run."""
    for name in ("STATSD_ON", "STATSD_DATADOG_ENABLED"):
        monkeypatch.setenv(f"AIRFLOW__METRICS__{name}", "True")
    monkeypatch.setenv("AIRFLOW__SENTRY__SENTRY_ON", "True")
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", '{"type": "http"}')
    replay: Any = SimpleNamespace(record=SimpleNamespace(bundle="dags"), folder=tmp_path)
    with set_variables(replaying._host_variables(replay, "http://127.0.0.1:1/execution/", {})):
        assert not conf.getboolean("metrics", "statsd_on") and not conf.getboolean("metrics", "otel_on")
        assert not conf.getboolean("metrics", "statsd_datadog_enabled") and not conf.getboolean("sentry", "sentry_on")
        assert not conf.getboolean("traces", "otel_on") and conf.getboolean("openlineage", "disabled")
    assert conf.getboolean("metrics", "statsd_on")


def test_a_replay_sends_no_mail_of_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Airflow's backend is one that logs the mail: called as Airflow calls it, with a sender and a connection."""
    replay: Any = SimpleNamespace(record=SimpleNamespace(bundle="dags"), folder=tmp_path)
    with (
        set_variables(replaying._host_variables(replay, "http://127.0.0.1:1/execution/", {})),
        caplog.at_level("INFO"),
    ):
        backend = conf.getimport("email", "email_backend")
        assert backend is unsent_mail.send_email
        backend(["a@example.org"], "Airflow alert", "<br>", conn_id="smtp_default", from_email=None)
    assert "A replay sends no e-mail. To ['a@example.org']: Airflow alert" in caplog.text
