"""The remote logging that a deployment has configured, as variables for its workers.

With them the Airflow in a container uploads a task's log itself, to where the API server looks for it. Reads the
configuration of the Airflow host; asks nobody, and uploads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modalflow import airflow_logging
from modalflow.airflow_compat import configuration, task_logs

_SWITCH = "AIRFLOW__LOGGING__REMOTE_LOGGING"
_CLASS = "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"

#: What Airflow's and the providers' handlers read of [logging] to find where to upload to, and how.
_OPTIONS = (
    "remote_base_log_folder",
    "remote_log_conn_id",
    "remote_task_handler_kwargs",
    "encrypt_s3_logs",
    "google_key_path",
    "delete_local_logs",
)

#: Sections of handlers that have one of their own.
_SECTIONS = (
    "azure_remote_logging",
    "aws",
    "elasticsearch",
    "elasticsearch_configs",
    "opensearch",
    "opensearch_configs",
)


def remote_logging_env() -> Mapping[str, str]:
    """The variables; where task logs are to be on the logs Volume alone, the one that says so."""
    # Of Airflow as a whole: no team has a logging of its own.
    conf: Any = configuration.own_conf()
    is_remote = conf.getboolean("logging", "remote_logging", fallback=False)
    own_class = conf.get("logging", "logging_config_class", fallback="") or ""
    # Only of a class can it be told, and only that has been loaded already when Airflow started.
    if own_class and airflow_logging.is_in_use():
        return {_SWITCH: "False"}
    if not is_remote and not (own_class and task_logs.remote_task_log() is not None):
        return {_SWITCH: "False"}
    env = {_SWITCH: str(is_remote), **dict(_set(conf))}
    if own_class:
        env[_CLASS] = own_class
    return env


def _set(conf: Any) -> Iterator[tuple[str, str]]:
    for option in _OPTIONS:
        if value := conf.get("logging", option, fallback=None):
            yield f"AIRFLOW__LOGGING__{option.upper()}", str(value)
    for section in _SECTIONS:
        for option, value in (conf.getsection(section) or {}).items():
            if value not in (None, ""):
                yield f"AIRFLOW__{section.upper()}__{option.upper()}", str(value)
