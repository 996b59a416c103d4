"""The environment variables that every workload gets: the part of Airflow's configuration that a worker needs.

Reads the configuration of the Airflow host; asks nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modalflow import airflow_compat, control_plane, variables
from modalflow.config import Settings, execution_api_url
from modalflow.errors import ConfigError
from modalflow.executor.remote_logging import remote_logging_env


def workload_env(settings: Settings, conf: Any) -> Mapping[str, str]:
    """The variables, above those that the user wants there; ConfigError where no container could report to Airflow."""
    url = settings.execution_api_url or execution_api_url(
        "[core] execution_api_server_url", airflow_compat.execution_api_server_url(conf)
    )
    if control_plane.is_loopback(url) and not control_plane.is_local():
        raise ConfigError(
            "[modal_executor] execution_api_url",
            url,
            "a URL that containers on Modal can reach; a loopback address means the container itself there",
        )
    env = {
        **settings.worker_env,
        **airflow_compat.names_of_executors(),
        **remote_logging_env(),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": url,
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": airflow_compat.dag_bundle_config(conf),
    }
    variables.check("the environment of every workload", env)
    return env
