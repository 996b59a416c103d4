"""Which remote logging reaches a worker: the deployment's own, or none."""

from __future__ import annotations

import pytest

from modalflow import airflow_logging
from modalflow.airflow_compat import task_logs
from modalflow.executor.worker_env import remote_logging_env

S3 = {
    "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
    "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "s3://bucket/logs",
    "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "my_s3",
    "AIRFLOW__LOGGING__ENCRYPT_S3_LOGS": "True",
}


def test_a_bucket_of_the_deployment_reaches_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option that says where and how to upload is passed on as it is."""
    for name, value in S3.items():
        monkeypatch.setenv(name, value)
    assert S3.items() <= remote_logging_env().items()


def test_a_handler_of_ones_own_reaches_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logging_config_class that has a REMOTE_TASK_LOG is passed on, although remote_logging is off as it must be."""
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS", "ours.LOGGING")
    monkeypatch.setattr(task_logs, "remote_task_log", lambda: object())
    env = remote_logging_env()
    assert env["AIRFLOW__LOGGING__REMOTE_LOGGING"] == "False"
    assert env["AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"] == "ours.LOGGING"


@pytest.mark.parametrize("switch", ["False", "True"])
def test_logs_on_the_volume_need_no_remote_logging(monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    """Where Airflow reads logs from the Volume, a worker writes them there and uploads nothing."""
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS", "modalflow.airflow_logging.LOGGING_CONFIG")
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_LOGGING", switch)
    monkeypatch.setattr(airflow_logging, "is_in_use", lambda: True)
    assert remote_logging_env() == {"AIRFLOW__LOGGING__REMOTE_LOGGING": "False"}


def test_a_logging_config_without_a_handler_stays_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only formats the logs of Airflow's own processes need not be in a worker's image."""
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS", "ours.LOGGING")
    monkeypatch.setattr(task_logs, "remote_task_log", lambda: None)
    assert remote_logging_env() == {"AIRFLOW__LOGGING__REMOTE_LOGGING": "False"}
